//! Calls to the controller.

use crate::config::Config;
use crate::dial::Dialer;
use crate::link::{Link, LinkError, Numbered, Protocol, within};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_types::id::SegmentId;
use thalweg_types::limits::RECORD_BYTES_MAX;
use thalweg_types::record::{RECORD_HEADER_BYTES, RECORD_MAGIC, Record, RecordError};
use thalweg_wire::controller::{
    Code, Request, Response, RpcError, SegmentRange, StreamName, decode_response, encode_request,
};
use thiserror::Error;

struct Messages;

impl Protocol for Messages {
    type Request = Request;
    type Reply = Result<Response, RpcError>;

    fn greeting() -> Option<Bytes> {
        None
    }

    fn encode(number: u64, request: Request) -> Result<Vec<Bytes>, String> {
        encode_request(number, &request).map(|bytes| vec![bytes]).map_err(|e| e.to_string())
    }

    fn decode(stream: &mut BytesMut) -> Result<Option<Numbered<Self::Reply>>, String> {
        let whole = match record_bytes(stream) {
            Some(whole) if stream.len() >= whole => stream.split_to(whole).freeze(),
            Some(_) | None => return Ok(None),
        };
        let record = match Record::decode(&whole) {
            Ok((record, _)) => record,
            Err(RecordError::Incomplete { .. }) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let reply = decode_response(&record).map_err(|error| error.to_string())?;
        Ok(Some((Some(record.address), reply)))
    }
}

/// Length of the record that `stream` starts with. A header that is no record's stands alone, so that the decoder
/// refuses it at once instead of waiting for a body.
fn record_bytes(stream: &[u8]) -> Option<usize> {
    let header = stream.first_chunk::<RECORD_HEADER_BYTES>()?;
    let magic = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let body = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
    let readable = magic == RECORD_MAGIC && body <= RECORD_BYTES_MAX;
    Some(RECORD_HEADER_BYTES + if readable { body } else { 0 })
}

/// Why a call has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The controller refused: it did not happen.
    #[error("refused by the controller: {0}")]
    Refused(RpcError),
    /// No controller could be reached: it did not happen.
    #[error("no controller reached at {endpoints}: {reason}")]
    Unreachable {
        /// Who was asked.
        endpoints: String,
        /// What went wrong last.
        reason: String,
    },
    /// The connection ended, or time was over, before the answer: it may have happened.
    #[error("no answer from the controller: {0}")]
    Unknown(String),
    /// The controller answered something else than what was asked: it may have happened.
    #[error("unexpected answer of the controller: {0}")]
    Unexpected(String),
}

impl CallError {
    /// True if it certainly did not happen.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreachable { .. })
    }
}

/// The controllers as one callee. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    config: Config,
    link: Dialer<Messages>,
    /// Which of the configured controllers comes next.
    next: AtomicUsize,
}

impl Controller {
    /// The controllers of `config`. Nothing is connected yet.
    pub fn new(env: Env, config: Config) -> Self {
        let (link, next) = (Dialer::default(), AtomicUsize::new(0));
        Self { shared: Arc::new(Shared { env, config, link, next }) }
    }

    /// Asks the controller. What was certainly not done is tried again, and so is what changes nothing, up to the
    /// configured number of times.
    pub async fn call(&self, request: Request) -> Result<Response, CallError> {
        let (env, config) = (&self.shared.env, &self.shared.config);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match self.call_once(request.clone()).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let again = match &error {
                CallError::Unreachable { .. } => true,
                CallError::Unknown(_) => changes_nothing(&request),
                CallError::Refused(error) => error.code == Code::Unavailable,
                CallError::Unexpected(_) => false,
            };
            if !again || attempt >= config.controller_attempts {
                return Err(error);
            }
            env.clock.sleep_until(env.clock.now().after(config.retry_delay(attempt))).await;
        }
    }

    async fn call_once(&self, request: Request) -> Result<Response, CallError> {
        let (env, config) = (&self.shared.env, &self.shared.config);
        let link = self.link().await?;
        let answer = link.send(request).map_err(|error| self.unreachable(&error))?;
        match within(env, config.request_timeout, answer.wait()).await {
            Some(Ok(Ok(response))) => Ok(response),
            Some(Ok(Err(error))) if error.code == Code::DeadlineExceeded => {
                Err(CallError::Unknown(error.to_string()))
            }
            Some(Ok(Err(error))) => Err(CallError::Refused(error)),
            Some(Err(error @ LinkError::Lost)) => Err(CallError::Unknown(error.to_string())),
            Some(Err(error @ LinkError::NotSent(_))) => Err(self.unreachable(&error)),
            None => {
                link.end();
                Err(CallError::Unknown(format!("{:?} are over", config.request_timeout)))
            }
        }
    }

    /// The connection, made if there is none.
    async fn link(&self) -> Result<Link<Messages>, CallError> {
        let Shared { env, config, link, next } = self.shared.as_ref();
        let Some(last) = config.controllers.len().checked_sub(1) else {
            return Err(self.unreachable(&"none is configured"));
        };
        let endpoint = || {
            let at = next.fetch_add(1, Ordering::Relaxed) % (last + 1);
            config.controllers[at].clone()
        };
        link.link(env, config, endpoint).await.map_err(|reason| self.unreachable(&reason))
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> CallError {
        let names: Vec<_> = self.shared.config.controllers.iter().map(|e| e.0.as_ref()).collect();
        CallError::Unreachable { endpoints: names.join(", "), reason: reason.to_string() }
    }

    /// Where a segment is served.
    pub async fn locate(
        &self,
        stream: StreamName,
        segment: SegmentId,
    ) -> Result<Endpoint, CallError> {
        match self.call(Request::GetUri { stream, segment }).await? {
            Response::Uri(uri) => Ok(Endpoint::from(format!("{}:{}", uri.host, uri.port))),
            other => Err(unexpected(&other)),
        }
    }

    /// Why the store lets appends wait for now (a full disk), if it does. What is sent meanwhile is stored once there
    /// is room, or never: whoever would rather not wait asks this.
    pub async fn appends_held(&self) -> Result<Option<String>, CallError> {
        match self.call(Request::AreAppendsHeld).await? {
            Response::AppendsHeld(reason) => Ok(reason),
            other => Err(unexpected(&other)),
        }
    }

    /// The segments that take events now; none for a sealed stream.
    pub async fn current_segments(
        &self,
        stream: StreamName,
    ) -> Result<Vec<SegmentRange>, CallError> {
        match self.call(Request::GetCurrentSegments(stream)).await? {
            Response::Segments { segments, .. } => Ok(segments),
            other => Err(unexpected(&other)),
        }
    }
}

/// An answer to another question than the one that was asked.
pub(crate) fn unexpected(response: &Response) -> CallError {
    CallError::Unexpected(format!("{response:?}").chars().take(100).collect())
}

/// True for a request that may be sent twice.
fn changes_nothing(request: &Request) -> bool {
    matches!(
        request,
        Request::CheckScopeExists { .. }
            | Request::ListScopes { .. }
            | Request::CheckStreamExists(_)
            | Request::GetStreamConfiguration(_)
            | Request::ListStreams { .. }
            | Request::ListStreamsForTag { .. }
            | Request::GetCurrentSegments(_)
            | Request::GetEpochSegments { .. }
            | Request::GetHead { .. }
            | Request::GetSuccessors { .. }
            | Request::GetSegmentsBetween { .. }
            | Request::CheckScale { .. }
            | Request::GetUri { .. }
            | Request::IsSegmentValid { .. }
            | Request::IsStreamCutValid(_)
            | Request::CheckTransactionState { .. }
            | Request::GetDelegationToken { .. }
            | Request::GetControllers
            | Request::AreAppendsHeld
    )
}
