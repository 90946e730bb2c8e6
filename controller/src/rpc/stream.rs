//! Requests that make, change and end streams.

use super::convert::{config_message, config_record, range_messages};
use super::{invalid, not_found, scope_name, stream_name, unexpected};
use crate::controller::Controller;
use crate::record::{Command, Name, StreamRecord, StreamStatus, Workflow};
use crate::state::{Outcome, Refusal, Started, State, companion};
use std::collections::BTreeSet;
use thalweg_types::id::SegmentId;
use thalweg_types::name::is_entity_name;
use thalweg_wire::controller::{
    CreateStreamStatus, CutOfStream, DeleteStreamStatus, Response, RpcError, ScaleAnswer,
    ScaleState, ScaleStatus, StreamConfig, StreamName, UpdateStreamStatus,
};

impl Controller {
    /// Judged in this order: numbers and tags, the name, the scope, whether it exists, whether it has segments.
    pub(super) async fn create_stream(&self, config: StreamConfig) -> Result<Response, RpcError> {
        scope_name(&config.stream.scope)?;
        let name = Name::new(config.stream.scope.clone(), config.stream.stream.clone());
        let config = config_record(config)?;
        let answer = |status| Ok(Response::CreateStream(status));
        if !is_entity_name(&name.stream) {
            return answer(CreateStreamStatus::InvalidStreamName);
        }
        if self.read(|state| state.visible_scope(&name.scope).is_none()) {
            return answer(CreateStreamStatus::ScopeNotFound);
        }
        if self.read(|state| state.stream(&name).is_some()) {
            return answer(CreateStreamStatus::StreamExists);
        }
        let Some(config) = config else { return answer(CreateStreamStatus::Failure) };
        let command = Command::CreateStream { name: name.clone(), config };
        match self.propose_when_idle(command).await? {
            Ok(Outcome::Started(started)) => {
                self.finished(&name, &started).await?;
                if let Some(companion) = companion(&name) {
                    let made = |state: &State| {
                        state.any_stream(&companion).is_none_or(|s| s.workflow.is_none())
                    };
                    self.inner.wait_for(|state| made(state).then_some(())).await?;
                }
                answer(CreateStreamStatus::Success)
            }
            Err(Refusal::StreamExists) => answer(CreateStreamStatus::StreamExists),
            Err(Refusal::ScopeNotFound) => answer(CreateStreamStatus::ScopeNotFound),
            Err(refusal @ Refusal::TooMany { .. }) => Err(invalid(refusal.to_string())),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn update_stream(&self, config: StreamConfig) -> Result<Response, RpcError> {
        let name = stream_name(config.stream.clone())?;
        let Some(config) = config_record(config)? else {
            return Err(invalid("a stream needs at least one segment"));
        };
        self.change(&name, Command::UpdateStream { name: name.clone(), config }).await
    }

    pub(super) async fn truncate_stream(&self, cut: CutOfStream) -> Result<Response, RpcError> {
        let name = stream_name(cut.stream)?;
        self.change(&name, Command::Truncate { name: name.clone(), cut: cut.cut }).await
    }

    pub(super) async fn seal_stream(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let id = self.read(|state| state.any_stream(&name).map(|stream| stream.id));
        let sealed = self.change(&name, Command::Seal { name: name.clone() }).await?;
        if sealed == Response::UpdateStream(UpdateStreamStatus::Success) {
            self.inner.wait_for(|state| has_ended(state, &name, id).then_some(())).await?;
        }
        Ok(sealed)
    }

    /// Proposes a change, and answers when its workflow is over.
    async fn change(&self, name: &Name, command: Command) -> Result<Response, RpcError> {
        let status = match self.propose_when_idle(command).await? {
            Ok(Outcome::Started(started)) => {
                self.finished(name, &started).await?;
                UpdateStreamStatus::Success
            }
            Ok(Outcome::Done) => UpdateStreamStatus::Success,
            Err(Refusal::StreamSealed) => UpdateStreamStatus::StreamSealed,
            Err(Refusal::StreamNotFound | Refusal::UnknownEpoch { .. }) => {
                UpdateStreamStatus::StreamNotFound
            }
            Err(Refusal::CutNotValid | Refusal::CutBackwards) => UpdateStreamStatus::Failure,
            Err(refusal @ Refusal::TooMany { .. }) => return Err(invalid(refusal.to_string())),
            other => return Err(unexpected(&other)),
        };
        Ok(Response::UpdateStream(status))
    }

    pub(super) async fn delete_stream(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let command = Command::Delete { name: name.clone(), force: false };
        let status = match self.propose_when_idle(command).await? {
            Ok(Outcome::Started(started)) => {
                self.finished(&name, &started).await?;
                DeleteStreamStatus::Success
            }
            Err(Refusal::Deleting) => {
                let deleted =
                    |state: &State| state.any_stream(&name).is_none_or(StreamRecord::is_visible);
                self.inner.wait_for(|state| deleted(state).then_some(())).await?;
                DeleteStreamStatus::Success
            }
            Err(Refusal::StreamNotFound) => DeleteStreamStatus::StreamNotFound,
            Err(Refusal::StreamNotSealed) => DeleteStreamStatus::StreamNotSealed,
            other => return Err(unexpected(&other)),
        };
        Ok(Response::DeleteStream(status))
    }

    /// Waits until the workflow is over, whatever came after it.
    async fn finished(&self, name: &Name, started: &Started) -> Result<(), RpcError> {
        let under_way = |state: &State| {
            let workflow = state.any_stream(name).and_then(|stream| stream.workflow.as_ref());
            workflow.is_some_and(|workflow| workflow.id == started.workflow)
        };
        Ok(self.inner.wait_for(|state| (!under_way(state)).then_some(())).await?)
    }

    pub(super) fn check_stream_exists(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        Ok(Response::Exists(self.read(|state| state.stream(&name).is_some())))
    }

    pub(super) fn stream_configuration(&self, name: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let config = self
            .read(|state| state.stream(&name).map(|stream| config_message(&name, &stream.config)));
        config.map(Response::StreamConfiguration).ok_or_else(|| not_found(&name))
    }

    /// Answers when the new segments exist and their epoch is recorded; the old ones are sealed after that.
    pub(super) async fn scale(
        &self,
        name: StreamName,
        sealed: Vec<SegmentId>,
        ranges: Vec<(f64, f64)>,
    ) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        let starts: BTreeSet<u64> = ranges.iter().map(|(low, _)| (low + 0.0).to_bits()).collect();
        if starts.len() != ranges.len() {
            return Err(invalid("two new key ranges have the same start"));
        }
        let refused =
            |status| Ok(Response::Scale(ScaleAnswer { status, epoch: 0, segments: Vec::new() }));
        let command = Command::Scale { name: name.clone(), sealed, ranges };
        let started = match self.propose_scale(&name, command).await? {
            Ok(Outcome::Started(started)) => started,
            Err(Refusal::NotCurrent { .. } | Refusal::TooFew { .. }) => {
                return refused(ScaleStatus::PreconditionFailed);
            }
            Err(refusal @ Refusal::TooMany { .. }) => return Err(invalid(refusal.to_string())),
            Err(_) => return refused(ScaleStatus::Failure),
            other @ Ok(_) => return Err(unexpected(&other)),
        };
        let created = started.created.first().map(|segment| segment.id);
        let recorded = |state: &State| {
            let stream = state.any_stream(&name).filter(|stream| stream.id == started.stream);
            stream.is_none_or(|s| created.is_none_or(|id| s.segment(id).is_some())).then_some(())
        };
        self.inner.wait_for(recorded).await?;
        let segments = range_messages(&name, &started.created);
        let status = ScaleStatus::Started;
        Ok(Response::Scale(ScaleAnswer { status, epoch: started.epoch, segments }))
    }

    /// Another scale is in the way, anything else is waited for.
    async fn propose_scale(
        &self,
        name: &Name,
        command: Command,
    ) -> Result<Result<Outcome, Refusal>, RpcError> {
        let scales = |stream: &StreamRecord| {
            let kind = stream.kind();
            matches!(kind, Some(Workflow::ScaleCreate { .. } | Workflow::ScaleSeal { .. }))
        };
        let waits = |state: &State| {
            let found = state.stream(name).filter(|stream| !scales(stream));
            found.is_some_and(|stream| stream.workflow.is_some())
        };
        loop {
            self.inner.wait_for(|state| (!waits(state)).then_some(())).await?;
            let outcome = self.inner.propose(command.clone()).await?;
            if outcome != Err(Refusal::Busy) || !self.read(waits) {
                return Ok(outcome);
            }
        }
    }

    pub(super) fn check_scale(&self, name: StreamName, epoch: i32) -> Result<Response, RpcError> {
        let name = stream_name(name)?;
        if epoch < 0 {
            return Err(invalid(format!("epoch {epoch} is negative")));
        }
        let active = |stream: &StreamRecord| (stream.active_epoch(), stream.active_reference());
        let state = match self.read(|state| state.stream(&name).map(active)) {
            Some((active, reference)) if epoch == active || epoch == reference => {
                ScaleState::InProgress
            }
            Some((active, _)) if epoch < active => ScaleState::Success,
            _ => ScaleState::InvalidInput,
        };
        Ok(Response::CheckScale(state))
    }
}

/// True if the stream of that id takes nothing any more and all its transactions have ended, or if it is gone.
fn has_ended(state: &State, name: &Name, id: Option<u64>) -> bool {
    let found = state.any_stream(name).filter(|stream| Some(stream.id) == id);
    let Some(stream) = found else { return true };
    let under_way = state.txns(name).is_some_and(|txns| !txns.live.is_empty());
    stream.status == StreamStatus::Sealed && !under_way
}
