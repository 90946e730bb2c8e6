//! Requests to segment stores: a connection per node, shared by everybody who asks something there.

use crate::config::Config;
use crate::controller::{CallError, Controller};
use crate::dial::Dialer;
use crate::link::{Answer, Link, LinkError, Numbered, Protocol, within};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_types::id::SegmentId;
use thalweg_types::name::{ScopedStream, SegmentName};
use thalweg_wire::controller::StreamName;
use thalweg_wire::segment::frame::{self, FRAME_BYTES_MAX};
use thalweg_wire::segment::{Command, Encoder, Hello, VERSION_HIGH, VERSION_LOW};
use thiserror::Error;

/// Segments whose node is remembered.
const LOCATED_MAX: usize = 16 * 1024;

/// Makes a command around its request id.
pub(crate) type Ask = Box<dyn FnOnce(i64) -> Command + Send>;

pub(crate) struct Commands;

impl Protocol for Commands {
    type Request = Ask;
    type Reply = Command;

    fn greeting() -> Option<Bytes> {
        Some(hello())
    }

    fn encode(number: u64, request: Ask) -> Result<Vec<Bytes>, String> {
        let number = i64::try_from(number).map_err(|error| error.to_string())?;
        let command = request(number);
        let bytes = command.frame_bytes();
        if bytes > FRAME_BYTES_MAX {
            let name = command.name();
            return Err(format!("{name} of {bytes} bytes exceeds the limit of {FRAME_BYTES_MAX}"));
        }
        let mut encoder = Encoder::new();
        encoder.push(&command);
        Ok(encoder.take())
    }

    fn decode(stream: &mut BytesMut) -> Result<Option<Numbered<Command>>, String> {
        let Some(command) = next_command(stream)? else { return Ok(None) };
        let number = request_id(&command).and_then(|id| u64::try_from(id).ok());
        Ok(Some((number, command)))
    }
}

/// What a client says first.
pub(crate) fn hello() -> Bytes {
    Bytes::from(&Command::from(Hello { high: VERSION_HIGH, low: VERSION_LOW }))
}

/// Takes the next command out of `stream`. Incompatible versions are an error.
pub(crate) fn next_command(stream: &mut BytesMut) -> Result<Option<Command>, String> {
    let Some(frame) = frame::next(stream).map_err(|error| error.to_string())? else {
        stream.reserve(frame::missing(stream).min(FRAME_BYTES_MAX));
        return Ok(None);
    };
    let command = Command::decode(frame).map_err(|error| error.to_string())?;
    if let Command::Hello(hello) = &command
        && (hello.low > VERSION_HIGH || hello.high < VERSION_LOW)
    {
        let (low, high) = (hello.low, hello.high);
        return Err(format!("the server speaks versions {low} to {high} only"));
    }
    Ok(Some(command))
}

/// The request that a reply answers.
fn request_id(reply: &Command) -> Option<i64> {
    Some(match reply {
        Command::AppendSetup(c) => c.request_id,
        Command::DataAppended(c) => c.request_id,
        Command::ConditionalCheckFailed(c) => c.request_id,
        Command::InvalidEventNumber(c) => c.request_id,
        Command::SegmentRead(c) => c.request_id,
        Command::StreamSegmentInfo(c) => c.request_id,
        Command::SegmentAttribute(c) => c.request_id,
        Command::SegmentAttributeUpdated(c) => c.request_id,
        Command::SegmentCreated(c) => c.request_id,
        Command::SegmentSealed(c) => c.request_id,
        Command::SegmentDeleted(c) => c.request_id,
        Command::SegmentPolicyUpdated(c) => c.request_id,
        Command::SegmentTruncated(c) => c.request_id,
        Command::SegmentsMerged(c) => c.request_id,
        Command::TableSegmentInfo(c) => c.request_id,
        Command::TableEntriesUpdated(c) => c.request_id,
        Command::TableKeysRemoved(c) => c.request_id,
        Command::TableRead(c) => c.request_id,
        Command::TableKeysRead(c) => c.request_id,
        Command::TableEntriesRead(c) => c.request_id,
        Command::TableEntriesDeltaRead(c) => c.request_id,
        Command::WrongHost(c) => c.request_id,
        Command::SegmentIsSealed(c) => c.request_id,
        Command::SegmentAlreadyExists(c) => c.request_id,
        Command::NoSuchSegment(c) => c.request_id,
        Command::SegmentIsTruncated(c) => c.request_id,
        Command::OperationUnsupported(c) => c.request_id,
        Command::AuthTokenCheckFailed(c) => c.request_id,
        Command::ErrorMessage(c) => c.request_id,
        Command::TableSegmentNotEmpty(c) => c.request_id,
        Command::TableKeyDoesNotExist(c) => c.request_id,
        Command::TableKeyBadVersion(c) => c.request_id,
        _ => return None,
    })
}

/// Why a segment store gave no answer that means anything.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// The controller could not say where the segment is served: it did not happen.
    #[error(transparent)]
    Locate(#[from] CallError),
    /// The request was never sent: it did not happen.
    #[error("segment store {endpoint} not reached: {reason}")]
    Unreachable {
        /// Who was asked.
        endpoint: Endpoint,
        /// What went wrong.
        reason: String,
    },
    /// The connection ended, or time was over, before the answer: it may have happened.
    #[error("no answer from segment store {endpoint}")]
    Unknown {
        /// Who was asked.
        endpoint: Endpoint,
    },
}

impl StoreError {
    /// True if it certainly did not happen.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Locate(_) | Self::Unreachable { .. })
    }
}

/// A segment, by what its stream and its node call it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The stream.
    pub stream: ScopedStream,
    /// The segment in it.
    pub id: SegmentId,
}

impl Place {
    /// The segment's name at the store.
    pub fn name(&self) -> SegmentName {
        self.stream.segment(self.id)
    }

    pub(crate) fn stream_name(&self) -> StreamName {
        stream_name(&self.stream)
    }
}

/// A stream as the controller's messages name it.
pub(crate) fn stream_name(stream: &ScopedStream) -> StreamName {
    StreamName::new(stream.scope.as_ref(), stream.stream.as_ref())
}

/// The segment stores as one. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    config: Config,
    controller: Controller,
    links: Mutex<BTreeMap<Endpoint, Arc<Dialer<Commands>>>>,
    /// Where segments were found to be served; forgotten when that stops being true.
    located: Mutex<BTreeMap<Place, Endpoint>>,
}

impl Stores {
    /// Nothing is connected yet.
    pub fn new(env: Env, config: Config, controller: Controller) -> Self {
        let (links, located) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
        Self { shared: Arc::new(Shared { env, config, controller, links, located }) }
    }

    pub(crate) fn env(&self) -> &Env {
        &self.shared.env
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.shared.controller
    }

    /// Asks the node that serves `place`, once. A reply that never comes is waited for only if it is `held`.
    pub(crate) async fn ask(
        &self,
        place: &Place,
        held: bool,
        request: impl FnOnce(i64) -> Command + Send + 'static,
    ) -> Result<Command, StoreError> {
        let endpoint = self.locate(place).await?;
        let reply = self.ask_at(endpoint, held, request).await;
        if matches!(reply, Err(_) | Ok(Command::WrongHost(_))) {
            self.located().remove(place);
        }
        reply
    }

    fn located(&self) -> MutexGuard<'_, BTreeMap<Place, Endpoint>> {
        self.shared.located.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn locate(&self, place: &Place) -> Result<Endpoint, StoreError> {
        if let Some(endpoint) = self.located().get(place) {
            return Ok(endpoint.clone());
        }
        let endpoint = self.shared.controller.locate(place.stream_name(), place.id).await?;
        let mut located = self.located();
        if located.len() >= LOCATED_MAX {
            located.clear();
        }
        located.insert(place.clone(), endpoint.clone());
        Ok(endpoint)
    }

    async fn ask_at(
        &self,
        endpoint: Endpoint,
        held: bool,
        request: impl FnOnce(i64) -> Command + Send + 'static,
    ) -> Result<Command, StoreError> {
        let link = self.link(&endpoint).await?;
        let answer = link.send(Box::new(request)).map_err(|error| StoreError::Unreachable {
            endpoint: endpoint.clone(),
            reason: error.to_string(),
        })?;
        let answer = if held {
            self.wait_held(&link, answer).await
        } else {
            let limit = self.shared.config.request_timeout;
            within(self.env(), limit, answer.wait()).await.unwrap_or_else(|| {
                link.end();
                Err(LinkError::Lost)
            })
        };
        answer.map_err(|_| StoreError::Unknown { endpoint })
    }

    /// Waits for a reply that may take for ever, and asks now and then whether the connection lives.
    async fn wait_held(
        &self,
        link: &Link<Commands>,
        answer: Answer<Command>,
    ) -> Result<Command, LinkError> {
        let mut answer = std::pin::pin!(answer.wait());
        loop {
            let pause = self.shared.config.request_timeout;
            if let Some(reply) = within(self.env(), pause, answer.as_mut()).await {
                return reply;
            }
            let probe = link.send(Box::new(|request_id| {
                thalweg_wire::segment::GetStreamSegmentInfo {
                    request_id,
                    segment: SegmentName::from("_system/_alive/0.#epoch.0"),
                    token: String::new(),
                }
                .into()
            }))?;
            if within(self.env(), pause, probe.wait()).await.is_none() {
                link.end();
                return Err(LinkError::Lost);
            }
        }
    }

    /// Asks on a connection of one's own, which ends if there is no answer in time.
    pub(crate) async fn ask_on(
        &self,
        link: &Link<Commands>,
        place: &Place,
        request: impl FnOnce(i64) -> Command + Send + 'static,
    ) -> Result<Command, StoreError> {
        let unknown = || StoreError::Unknown { endpoint: place.name().as_str().into() };
        let answer = link.send(Box::new(request)).map_err(|_| unknown())?;
        let reply = within(self.env(), self.config().request_timeout, answer.wait()).await;
        reply.and_then(Result::ok).ok_or_else(|| {
            link.end();
            unknown()
        })
    }

    /// A connection to the node that serves `place` that nobody else uses.
    pub(crate) async fn own_link(&self, place: &Place) -> Result<Link<Commands>, StoreError> {
        let endpoint = self.locate(place).await?;
        let link = Link::connect(self.env(), self.config(), &endpoint).await;
        if link.is_err() {
            self.located().remove(place);
        }
        link.map_err(|error| StoreError::Unreachable { endpoint, reason: error.to_string() })
    }

    async fn link(&self, endpoint: &Endpoint) -> Result<Link<Commands>, StoreError> {
        let dialer = {
            let links = self.shared.links.lock();
            let mut links = links.unwrap_or_else(PoisonError::into_inner);
            Arc::clone(links.entry(endpoint.clone()).or_default())
        };
        let link = dialer.link(&self.shared.env, &self.shared.config, || endpoint.clone()).await;
        link.map_err(|reason| StoreError::Unreachable {
            endpoint: endpoint.clone(),
            reason: reason.to_string(),
        })
    }
}
