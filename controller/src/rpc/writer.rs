//! Requests about writers' time.

use super::{exhausted, invalid, not_found, stream_name, unexpected};
use crate::controller::Controller;
use crate::record::{Command, WriterCommand};
use crate::state::{Outcome, Refusal};
use thalweg_wire::controller::{
    CutOfStream, NoteTimestampStatus, RemoveWriterStatus, Response, RpcError, StreamName,
};

impl Controller {
    pub(super) async fn note_timestamp(
        &self,
        writer: String,
        position: CutOfStream,
        time: i64,
    ) -> Result<Response, RpcError> {
        let name = stream_name(position.stream)?;
        if writer.is_empty() {
            return Err(invalid("the writer's name is empty"));
        }
        let position = position.cut;
        let mark = WriterCommand::Mark { name: name.clone(), writer, time, position };
        let status = match self.inner.propose(Command::Writer(mark)).await? {
            Ok(Outcome::Done) => NoteTimestampStatus::Success,
            Err(Refusal::TimeBackwards) => NoteTimestampStatus::InvalidTime,
            Err(Refusal::CutBackwards) => NoteTimestampStatus::InvalidPosition,
            Err(Refusal::StreamNotFound) => return Err(not_found(&name)),
            Err(refusal @ Refusal::TooMany { .. }) => return Err(exhausted(&refusal)),
            other => return Err(unexpected(&other)),
        };
        Ok(Response::NoteTimestamp(status))
    }

    pub(super) async fn remove_writer(
        &self,
        writer: String,
        stream: StreamName,
    ) -> Result<Response, RpcError> {
        let name = stream_name(stream)?;
        if writer.is_empty() {
            return Ok(Response::RemoveWriter(RemoveWriterStatus::InternalError));
        }
        let leave = WriterCommand::Leave { name, writer };
        let status = match self.inner.propose(Command::Writer(leave)).await? {
            Ok(Outcome::Done) => RemoveWriterStatus::Success,
            Err(Refusal::WriterUnknown) => RemoveWriterStatus::UnknownWriter,
            other => return Err(unexpected(&other)),
        };
        Ok(Response::RemoveWriter(status))
    }
}
