//! The segment store of this process as the controller uses it: the clients' own commands, without a socket.
//!
//! Each command is a caller of its own (an append, with the set-up before it, is one too): it has a connection number
//! and an answer queue that nobody else uses, so no answer can be taken for another's.
//!
//! Not here: fences. Where one process is the whole store, its one controller has one driver for each workflow, and a
//! command of a process before has died with it.

use bytes::Bytes;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_controller::segments::{Fence, SegmentError, SegmentInfo, SegmentKind, Segments};
use thalweg_log::storage::Storage;
use thalweg_segment::connection::{Connections, Containers};
use thalweg_segment::request::{
    Append, ConnectionId, Outbox, Outgoing, Replies, Request, What, replies,
};
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{
    Command, CreateSegment, CreateTableSegment, DeleteSegment, DeleteTableSegment,
    GetStreamSegmentInfo, MergeSegments, ReadSegment, SealSegment, SetupAppend, TruncateSegment,
};
use tokio::sync::watch;

/// What serves the commands, once it runs.
#[derive(Clone)]
pub(crate) struct Serving {
    pub(crate) connections: Arc<Connections>,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) storage: Arc<dyn Storage>,
}

/// The store of this process. Commands wait until it serves.
pub(crate) struct LocalSegments {
    serving: watch::Receiver<Option<Serving>>,
}

/// Each command has a queue of its own, so every request may have the same number.
const REQUEST_ID: i64 = 0;
/// The writer of everything that the controller appends.
const WRITER: WriterId = WriterId(0x7468_616c_7765_6700_0000_0000_0000_0001);

fn no_token() -> String {
    String::new()
}

fn unavailable(name: &SegmentName, reason: impl Into<Arc<str>>) -> SegmentError {
    SegmentError::Unavailable { name: name.clone(), reason: reason.into() }
}

fn not_found(name: &SegmentName) -> SegmentError {
    SegmentError::NotFound { name: name.clone() }
}

/// An answer that the command cannot have: the outcome is not known to be the wanted one.
fn unexpected(name: &SegmentName, answer: &Command) -> SegmentError {
    let text: String = format!("{answer:?}").chars().take(200).collect();
    unavailable(name, format!("it answered {text}"))
}

fn sealed(name: &SegmentName) -> SegmentError {
    SegmentError::Sealed { name: name.clone() }
}

/// Somebody in this process, as containers know connections.
struct Caller {
    connection: ConnectionId,
    containers: Arc<dyn Containers>,
    replies: Replies,
    answers: Outbox,
}

impl Caller {
    /// Hands `what` to the container of `name` and waits for the answer.
    async fn ask(&mut self, name: &SegmentName, what: What) -> Result<Command, SegmentError> {
        let (connection, replies) = (self.connection, self.replies.clone());
        let container = name.container(self.containers.count());
        let request = Request { connection, replies, what };
        let submitted = self.containers.submit(container, request).await;
        submitted.map_err(|error| unavailable(name, error.to_string()))?;
        match self.answers.next().await {
            Some(Outgoing::Reply(answer)) => Ok(answer),
            Some(Outgoing::Close(reason)) => Err(unavailable(name, reason)),
            None => Err(unavailable(name, "its container has stopped")),
        }
    }

    /// Ends, so that the container forgets the writer.
    async fn leave(self, name: &SegmentName) {
        let container = name.container(self.containers.count());
        let (connection, replies) = (self.connection, self.replies);
        let request = Request { connection, replies, what: What::ConnectionClosed };
        if let Err(error) = self.containers.submit(container, request).await {
            tracing::debug!(%error, "a container that has stopped forgets by itself");
        }
    }
}

impl LocalSegments {
    pub(crate) fn new(serving: watch::Receiver<Option<Serving>>) -> Self {
        Self { serving }
    }

    /// Sends `command` to the container of `name` and waits for the answer.
    async fn ask(
        &self,
        name: &SegmentName,
        command: impl Into<Command>,
    ) -> Result<Command, SegmentError> {
        self.caller(name).await?.ask(name, What::Command(command.into())).await
    }

    /// A caller of its own, once the store serves.
    async fn caller(&self, name: &SegmentName) -> Result<Caller, SegmentError> {
        let mut serving = self.serving.clone();
        let Ok(Some(Serving { connections, containers, .. })) =
            serving.wait_for(Option::is_some).await.map(|found| found.clone())
        else {
            return Err(unavailable(name, "the segment store does not run"));
        };
        let (replies, answers) = replies();
        Ok(Caller { connection: connections.next_id(), containers, replies, answers })
    }

    async fn look(&self, name: &SegmentName) -> Result<SegmentInfo, SegmentError> {
        let (segment, token) = (name.clone(), no_token());
        let asked = GetStreamSegmentInfo { request_id: REQUEST_ID, segment, token };
        match self.ask(name, asked).await? {
            Command::StreamSegmentInfo(found) => Ok(SegmentInfo {
                start: found.start_offset,
                length: found.write_offset,
                sealed: found.is_sealed,
            }),
            Command::NoSuchSegment(_) => Err(not_found(name)),
            other => Err(unexpected(name, &other)),
        }
    }

    async fn delete_table(&self, name: &SegmentName) -> Result<(), SegmentError> {
        let (segment, token) = (name.clone(), no_token());
        let request_id = REQUEST_ID;
        let asked = DeleteTableSegment { request_id, segment, must_be_empty: false, token };
        match self.ask(name, asked).await? {
            Command::SegmentDeleted(_) | Command::NoSuchSegment(_) => Ok(()),
            other => Err(unexpected(name, &other)),
        }
    }
}

fn create_command(name: &SegmentName, kind: SegmentKind) -> Command {
    let (request_id, segment, token) = (REQUEST_ID, name.clone(), no_token());
    match kind {
        SegmentKind::Stream { rollover_size_bytes } => CreateSegment {
            request_id,
            segment,
            target_rate: 0,
            scale_type: 0,
            token,
            rollover_size_bytes,
        }
        .into(),
        SegmentKind::Table { key_bytes } => CreateTableSegment {
            request_id,
            segment,
            token,
            sorted_deprecated: false,
            key_length: i32::try_from(key_bytes).unwrap_or(i32::MAX),
            rollover_size_bytes: 0,
        }
        .into(),
    }
}

impl Segments for LocalSegments {
    fn create<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
        kind: SegmentKind,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        Box::pin(async move {
            match self.ask(name, create_command(name, kind)).await? {
                Command::SegmentCreated(_) | Command::SegmentAlreadyExists(_) => Ok(()),
                other => Err(unexpected(name, &other)),
            }
        })
    }

    fn seal<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<i64, SegmentError>> {
        Box::pin(async move {
            let (segment, token) = (name.clone(), no_token());
            let asked = SealSegment { request_id: REQUEST_ID, segment, token };
            match self.ask(name, asked).await? {
                Command::SegmentSealed(_) | Command::SegmentIsSealed(_) => {}
                Command::NoSuchSegment(_) => return Err(not_found(name)),
                other => return Err(unexpected(name, &other)),
            }
            // A sealed segment does not grow: this is its final length.
            Ok(self.look(name).await?.length)
        })
    }

    fn truncate<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
        offset: i64,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        Box::pin(async move {
            let (segment, token) = (name.clone(), no_token());
            let truncation_offset = offset;
            let request_id = REQUEST_ID;
            let asked = TruncateSegment { request_id, segment, truncation_offset, token };
            match self.ask(name, asked).await? {
                Command::SegmentTruncated(_) => Ok(()),
                Command::NoSuchSegment(_) => Err(not_found(name)),
                // Told for both: the start lies there or behind already, or the segment ends before.
                Command::SegmentIsTruncated(found) if offset <= found.start_offset => Ok(()),
                Command::SegmentIsTruncated(_) => {
                    let length = self.look(name).await?.length;
                    Err(SegmentError::BeyondEnd { name: name.clone(), length })
                }
                other => Err(unexpected(name, &other)),
            }
        })
    }

    fn delete<'a>(
        &'a self,
        _fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        Box::pin(async move {
            let (segment, token) = (name.clone(), no_token());
            let asked = DeleteSegment { request_id: REQUEST_ID, segment, token };
            match self.ask(name, asked).await? {
                Command::SegmentDeleted(_) | Command::NoSuchSegment(_) => Ok(()),
                // It is a table.
                Command::OperationUnsupported(_) => self.delete_table(name).await,
                other => Err(unexpected(name, &other)),
            }
        })
    }

    fn merge<'a>(
        &'a self,
        _fence: Fence,
        target: &'a SegmentName,
        source: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>> {
        Box::pin(async move {
            let asked = MergeSegments {
                request_id: REQUEST_ID,
                target: target.clone(),
                source: source.clone(),
                token: no_token(),
                updates: Vec::new(),
            };
            match self.ask(target, asked).await? {
                Command::SegmentsMerged(_) => Ok(()),
                Command::SegmentIsSealed(_) => Err(SegmentError::Sealed { name: target.clone() }),
                // The answer names the source whichever of the two is missing.
                Command::NoSuchSegment(_) => {
                    self.look(target).await?;
                    Err(not_found(source))
                }
                other => Err(unexpected(target, &other)),
            }
        })
    }

    fn read<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        len: usize,
    ) -> BoxFuture<'a, Result<Bytes, SegmentError>> {
        Box::pin(async move {
            // A read at the end would wait for what comes.
            if self.look(name).await?.length <= offset {
                return Ok(Bytes::new());
            }
            let (segment, token) = (name.clone(), no_token());
            let suggested_length = i32::try_from(len).unwrap_or(i32::MAX);
            let request_id = REQUEST_ID;
            let asked = ReadSegment { request_id, segment, offset, suggested_length, token };
            match self.ask(name, asked).await? {
                Command::SegmentRead(found) => Ok(found.data.into_bytes()),
                Command::NoSuchSegment(_) => Err(not_found(name)),
                other => Err(unexpected(name, &other)),
            }
        })
    }

    fn append_at<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<bool, SegmentError>> {
        Box::pin(async move {
            let mut caller = self.caller(name).await?;
            let (segment, token) = (name.clone(), no_token());
            let (writer, request_id) = (WRITER, REQUEST_ID);
            let asked = SetupAppend { request_id, writer_id: writer, segment, token };
            let last = match caller.ask(name, What::Command(asked.into())).await? {
                Command::AppendSetup(found) => found.last_event_number,
                Command::NoSuchSegment(_) => return Err(not_found(name)),
                Command::SegmentIsSealed(_) => return Err(sealed(name)),
                other => return Err(unexpected(name, &other)),
            };
            caller.replies.charge(data.len()).await;
            let append = Append {
                segment: name.clone(),
                writer,
                event_number: last.max(0).saturating_add(1),
                event_count: 1,
                expected_offset: Some(offset),
                request_id,
                data: data.into(),
            };
            let answer = caller.ask(name, What::Append(append)).await;
            caller.leave(name).await;
            match answer? {
                Command::DataAppended(_) => Ok(true),
                Command::ConditionalCheckFailed(_) => Ok(false),
                Command::NoSuchSegment(_) => Err(not_found(name)),
                Command::SegmentIsSealed(_) => Err(sealed(name)),
                other => Err(unexpected(name, &other)),
            }
        })
    }

    fn info<'a>(
        &'a self,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<SegmentInfo, SegmentError>> {
        Box::pin(self.look(name))
    }

    fn held(&self) -> Option<Arc<str>> {
        let serving = self.serving.borrow();
        serving.as_ref().and_then(|serving| serving.storage.progress().borrow().held.clone())
    }
}
