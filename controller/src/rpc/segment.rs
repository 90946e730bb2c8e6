//! Questions about segments, epochs and cuts.

use super::convert::{range_message, range_messages};
use super::{invalid, not_found, stream_name};
use crate::controller::Controller;
use crate::record::{Cut, Name, StreamRecord};
use crate::state::Span;
use thalweg_types::id::SegmentId;
use thalweg_wire::controller::{Code, CutOfStream, Response, RpcError, StreamName, Successor};

impl Controller {
    /// Asks `question` of a stream that clients may know of.
    fn ask<T>(
        &self,
        name: &Name,
        question: impl FnOnce(&StreamRecord) -> T,
    ) -> Result<T, RpcError> {
        self.read(|state| state.stream(name).map(question)).ok_or_else(|| not_found(name))
    }

    pub(super) fn current_segments(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let segments = self.ask(&name, |stream| range_messages(&name, stream.open()))?;
        Ok(Response::Segments { segments, token: String::new() })
    }

    pub(super) fn epoch_segments(
        &self,
        name: StreamName,
        epoch: i32,
    ) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        if epoch < 0 {
            return Err(invalid(format!("epoch {epoch} is negative")));
        }
        let found = self.ask(&name, |stream| {
            stream.epoch(epoch).map(|epoch| range_messages(&name, &epoch.segments))
        })?;
        let message = || format!("stream {}/{} has no epoch {epoch}", name.scope, name.stream);
        let segments = found.ok_or_else(|| RpcError::new(Code::NotFound, message()))?;
        Ok(Response::Segments { segments, token: String::new() })
    }

    pub(super) fn head(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let head = self.ask(&name, StreamRecord::head)?;
        Ok(Response::Head(head.into_iter().collect()))
    }

    pub(super) fn successors(
        &self,
        name: StreamName,
        segment: SegmentId,
    ) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let found = self.ask(&name, |stream| stream.successors(segment))?;
        let message = |(segment, predecessors)| Successor {
            range: range_message(&name, &segment),
            predecessors,
        };
        Ok(Response::Successors(found.into_iter().map(message).collect()))
    }

    /// An empty cut stands for the first segments, or the last ones; not for both.
    pub(super) fn segments_between(
        &self,
        name: StreamName,
        from: &Cut,
        to: &Cut,
    ) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        if from.is_empty() && to.is_empty() {
            return Err(invalid("both cuts are empty"));
        }
        let given = |cut| Some(cut).filter(|cut: &&Cut| !cut.is_empty());
        let found = self.ask(&name, |stream| stream.between(given(from), given(to)))?;
        match found {
            Ok(segments) => Ok(Response::SegmentsBetween(segments)),
            Err(Span::Backwards) => Err(invalid("the first cut lies behind the second")),
            Err(Span::UnknownSegment(id)) => {
                let message = format!(
                    "stream {}/{} never had segment {}.#epoch.{}",
                    name.scope,
                    name.stream,
                    id.number(),
                    id.epoch()
                );
                Err(RpcError::new(Code::NotFound, message))
            }
        }
    }

    /// Answers for any stream and segment, also for those that the controller has never heard of: clients keep tables
    /// of their own at the segment store.
    pub(super) fn uri(&self, name: &StreamName) -> Result<Response, RpcError> {
        stream_name(name.clone())?;
        Ok(Response::Uri(self.inner.config.segment_store.clone()))
    }

    pub(super) fn is_segment_valid(
        &self,
        name: StreamName,
        segment: SegmentId,
    ) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let valid = self.ask(&name, |stream| stream.open().iter().any(|s| s.id == segment))?;
        Ok(Response::Valid(valid))
    }

    pub(super) fn is_stream_cut_valid(&self, cut: CutOfStream) -> Result<Response, RpcError> {
        let name = stream_name(cut.stream)?;
        let cut = cut.cut;
        if cut.is_empty() {
            return Err(invalid("the cut is empty"));
        }
        if cut.values().any(|offset| *offset == -1) {
            return Err(invalid("the cut names the end of a segment"));
        }
        let (known, valid) =
            self.ask(&name, |stream| (stream.segments_of(&cut).is_some(), stream.is_cut(&cut)))?;
        if known {
            Ok(Response::Valid(valid))
        } else {
            Err(invalid("the cut names a segment that never was"))
        }
    }
}
