//! What a connection does with each command.

use super::blocks::{BlockError, Blocks};
use super::receive::{Receive, ReceiveError};
use super::{Session, SubmitError};
use crate::request::{Append, What};
use std::collections::BTreeMap;
use thalweg_actor::network::ByteReader;
use thalweg_actor::probe;
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    AppendBlockEnd, Command, ConditionalAppend, ConditionalBlockEnd, DecodeError, Direction, Hello,
    KeepAlive, Payload, SetupAppend, VERSION_HIGH, VERSION_LOW, WrongHost,
};
use thiserror::Error;

/// Writers of one connection. Java clients open another one at 2,000.
const WRITERS_MAX: usize = 65_536;
/// `expectedOffset` of a conditional append that has no condition.
const ANY_OFFSET: i64 = -1;

/// How the incoming direction ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The peer left, or said good-bye.
    Left,
    /// It broke the protocol, or cannot be served here any more.
    Bad(InputError),
}

/// Why a connection is closed from this side.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Frame(#[from] thalweg_wire::segment::frame::FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("it speaks versions {low} to {high} only")]
    Version { high: i32, low: i32 },
    #[error("{0} is no request")]
    NoRequest(&'static str),
    #[error("{0} for a segment without a name")]
    NoName(&'static str),
    #[error("writer {0:?} appends without SetupAppend")]
    NotSetUp(WriterId),
    #[error("more than {WRITERS_MAX} writers")]
    TooManyWriters,
    #[error("an append of {0} events")]
    EventCount(i32),
    #[error("an append with number {0}")]
    EventNumber(i64),
    #[error("its container has stopped")]
    Stopped,
}

/// The incoming direction of one connection.
pub(super) struct Input {
    receive: Receive,
    /// Where each writer's appends go: its last `SetupAppend`.
    writers: BTreeMap<WriterId, SegmentName>,
    blocks: Blocks,
}

impl Input {
    pub(super) fn new(reader: Box<dyn ByteReader>) -> Self {
        Self { receive: Receive::new(reader), writers: BTreeMap::new(), blocks: Blocks::default() }
    }

    /// Serves what comes in until it ends.
    pub(super) async fn read(mut self, session: &mut Session) -> Ending {
        loop {
            let frame = match self.receive.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(ReceiveError::Io(_)) => return Ending::Left,
                Err(ReceiveError::Frame(error)) => return Ending::Bad(error.into()),
            };
            let served = match Command::decode(frame) {
                Ok(command) => self.serve(command, session).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = served {
                return Ending::Bad(error);
            }
        }
    }

    async fn serve(&mut self, command: Command, session: &mut Session) -> Result<(), InputError> {
        match command {
            Command::Hello(hello) => greet(&hello, session),
            Command::KeepAlive(_) => {
                session.replies.send(KeepAlive {});
                Ok(())
            }
            Command::Padding(_) => Ok(self.blocks.interrupt("Padding")?),
            Command::SetupAppend(setup) => self.set_up(setup, session).await,
            Command::AppendBlock(block) => Ok(self.blocks.begin(block)?),
            Command::AppendBlockEnd(end) => self.append_block(end, session).await,
            Command::ConditionalAppend(append) => self.append_event(append, session).await,
            Command::ConditionalBlockEnd(append) => self.append_raw(append, session).await,
            other => forward(other, session).await,
        }
    }

    async fn set_up(
        &mut self,
        setup: SetupAppend,
        session: &mut Session,
    ) -> Result<(), InputError> {
        self.blocks.interrupt("SetupAppend")?;
        if self.writers.len() >= WRITERS_MAX && !self.writers.contains_key(&setup.writer_id) {
            return Err(InputError::TooManyWriters);
        }
        self.writers.insert(setup.writer_id, setup.segment.clone());
        forward(setup.into(), session).await
    }

    async fn append_block(
        &mut self,
        end: AppendBlockEnd,
        session: &mut Session,
    ) -> Result<(), InputError> {
        let data = self.blocks.end(&end)?;
        let event_count = u32::try_from(end.num_events).ok().filter(|count| *count > 0);
        let event_count = event_count.ok_or(InputError::EventCount(end.num_events))?;
        self.append(session, end.writer_id, |segment| Append {
            segment,
            writer: end.writer_id,
            event_number: end.last_event_number,
            event_count,
            expected_offset: None,
            request_id: end.request_id,
            data,
        })
        .await
    }

    async fn append_event(
        &mut self,
        append: ConditionalAppend,
        session: &mut Session,
    ) -> Result<(), InputError> {
        self.blocks.interrupt("ConditionalAppend")?;
        self.append(session, append.writer_id, |segment| Append {
            segment,
            writer: append.writer_id,
            event_number: append.event_number,
            event_count: 1,
            expected_offset: expected(append.expected_offset),
            request_id: append.request_id,
            data: Payload::from(append.event),
        })
        .await
    }

    async fn append_raw(
        &mut self,
        append: ConditionalBlockEnd,
        session: &mut Session,
    ) -> Result<(), InputError> {
        self.blocks.interrupt("ConditionalBlockEnd")?;
        self.append(session, append.writer_id, |segment| Append {
            segment,
            writer: append.writer_id,
            event_number: append.event_number,
            event_count: 1,
            expected_offset: expected(append.expected_offset),
            request_id: append.request_id,
            data: Payload::from(append.data),
        })
        .await
    }

    async fn append(
        &mut self,
        session: &mut Session,
        writer: WriterId,
        append: impl FnOnce(SegmentName) -> Append,
    ) -> Result<(), InputError> {
        let segment = self.writers.get(&writer).cloned().ok_or(InputError::NotSetUp(writer))?;
        let append = append(segment);
        if append.event_number < 0 {
            return Err(InputError::EventNumber(append.event_number));
        }
        let to = append.segment.container(session.containers.count());
        // A writer whose container has gone is told by the end of the connection, and sets up anew.
        session.submit(to, What::Append(append)).await.map_err(|_| InputError::Stopped)
    }
}

fn expected(offset: i64) -> Option<i64> {
    (offset != ANY_OFFSET).then_some(offset)
}

/// Answers before it judges, as a peer of other versions wants to know why.
fn greet(hello: &Hello, session: &Session) -> Result<(), InputError> {
    session.replies.send(Hello { high: VERSION_HIGH, low: VERSION_LOW });
    if hello.low > VERSION_HIGH || hello.high < VERSION_LOW {
        return Err(InputError::Version { high: hello.high, low: hello.low });
    }
    Ok(())
}

/// Hands a request to the container of its segment.
async fn forward(command: Command, session: &mut Session) -> Result<(), InputError> {
    let name = command.name();
    if command.direction() != Direction::Request {
        return Err(InputError::NoRequest(name));
    }
    let (request_id, segment) = target(&command).ok_or(InputError::NoRequest(name))?;
    if segment.as_str().is_empty() {
        return Err(InputError::NoName(name));
    }
    let segment = segment.clone();
    let to = segment.container(session.containers.count());
    match session.submit(to, What::Command(command)).await {
        Ok(()) => Ok(()),
        Err(SubmitError::Stopped) => Err(InputError::Stopped),
        Err(SubmitError::NotHere) => {
            probe!("connection: wrong host");
            let (correct_host, trace) = (String::new(), String::new());
            session.replies.send(WrongHost { request_id, segment, correct_host, trace });
            Ok(())
        }
    }
}

/// The request's id, and the segment whose container serves it.
pub(crate) fn target(command: &Command) -> Option<(i64, &SegmentName)> {
    macro_rules! either {
        ($($name:ident => $segment:ident,)*) => {
            match command {
                $(Command::$name(request) => Some((request.request_id, &request.$segment)),)*
                _ => None,
            }
        };
    }
    either! {
        SetupAppend => segment,
        ReadSegment => segment,
        GetStreamSegmentInfo => segment,
        GetSegmentAttribute => segment,
        UpdateSegmentAttribute => segment,
        LocateOffset => segment,
        CreateSegment => segment,
        CreateTransientSegment => parent_segment,
        SealSegment => segment,
        DeleteSegment => segment,
        UpdateSegmentPolicy => segment,
        TruncateSegment => segment,
        MergeSegments => target,
        MergeSegmentsBatch => target,
        CreateTableSegment => segment,
        DeleteTableSegment => segment,
        GetTableSegmentInfo => segment,
        UpdateTableEntries => segment,
        RemoveTableKeys => segment,
        ReadTable => segment,
        ReadTableKeys => segment,
        ReadTableEntries => segment,
        ReadTableEntriesDelta => segment,
    }
}
