//! What each request of a client means.
//!
//! Real clients carry no request ids of their own, so every request is idempotent by meaning: sent again it finds its
//! work done, or under way and waits for it. Arguments that can never be right are refused before anything is looked
//! up, with `INVALID_ARGUMENT`, which no client repeats. A request that meets another's workflow waits and goes on.

mod convert;
mod group;
mod scope;
mod segment;
mod stream;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod txn;
mod writer;

use crate::controller::{Controller, Ended};
use crate::record::{Command, GroupCommand, Name, TableCommand, TxnCommand};
use crate::state::{Outcome, Refusal, State, is_group_free};
use thalweg_actor::probe;
use thalweg_wire::controller::{Code, Request, Response, RpcError, StreamName};

impl Controller {
    /// Answers one request. Within [`crate::Config::rpc_deadline`] there is an answer; what was begun goes on even
    /// when the deadline has passed or the future is dropped.
    pub async fn call(&self, request: Request) -> Result<Response, RpcError> {
        let clock = &self.inner.env.clock;
        let deadline = clock.now().after(self.inner.config.rpc_deadline);
        tokio::select! {
            biased;
            answer = self.answer(request) => answer,
            () = clock.sleep_until(deadline) => {
                probe!("controller: an rpc met its deadline");
                let message = "not done yet; it goes on, ask again";
                Err(RpcError::new(Code::DeadlineExceeded, message))
            }
        }
    }

    async fn answer(&self, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::CreateScope { scope } => self.create_scope(scope).await,
            Request::DeleteScope { scope } => self.delete_scope(scope).await,
            Request::DeleteScopeRecursive { scope } => self.delete_scope_recursive(scope).await,
            Request::CheckScopeExists { scope } => self.check_scope_exists(&scope),
            Request::ListScopes { token } => self.list_scopes(&token),
            Request::CreateStream(config) => self.create_stream(config).await,
            Request::UpdateStream(config) => self.update_stream(config).await,
            Request::TruncateStream(cut) => self.truncate_stream(cut).await,
            Request::SealStream(name) => self.seal_stream(name).await,
            Request::DeleteStream(name) => self.delete_stream(name).await,
            Request::CheckStreamExists(name) => self.check_stream_exists(name),
            Request::GetStreamConfiguration(name) => self.stream_configuration(name),
            Request::ListStreams { scope, token } => self.list_streams(&scope, None, &token),
            Request::ListStreamsForTag { scope, tag, token } => {
                self.list_streams(&scope, Some(&tag), &token)
            }
            Request::Scale { stream, sealed, ranges } => self.scale(stream, sealed, ranges).await,
            Request::CheckScale { stream, epoch } => self.check_scale(stream, epoch),
            other => self.answer_about_others(other).await,
        }
    }

    fn answer_about_segments(&self, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::GetCurrentSegments(name) => self.current_segments(name),
            Request::GetEpochSegments { stream, epoch } => self.epoch_segments(stream, epoch),
            Request::GetHead { stream, .. } => self.head(stream),
            Request::GetSuccessors { stream, segment } => self.successors(stream, segment),
            Request::GetSegmentsBetween { stream, from, to } => {
                self.segments_between(stream, &from, &to)
            }
            Request::GetUri { stream, .. } => self.uri(&stream),
            Request::IsSegmentValid { stream, segment } => self.is_segment_valid(stream, segment),
            Request::IsStreamCutValid(cut) => self.is_stream_cut_valid(cut),
            // Without authorisation the token is exactly empty, whatever is asked.
            Request::GetDelegationToken { .. } => Ok(Response::DelegationToken(String::new())),
            Request::GetControllers => {
                Ok(Response::Controllers(self.inner.config.controllers.clone()))
            }
            Request::AreAppendsHeld => {
                let held = self.inner.segments.held();
                Ok(Response::AppendsHeld(held.map(|reason| reason.to_string())))
            }
            other => Err(RpcError::new(Code::Internal, format!("{other:?} has no answer"))),
        }
    }

    async fn answer_about_txns(&self, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::CreateTransaction { stream, lease_ms } => {
                self.create_txn(stream, lease_ms).await
            }
            Request::PingTransaction { stream, txn, lease_ms } => {
                self.ping_txn(stream, txn, lease_ms).await
            }
            // The writer's name and time would be a mark, which nobody reads yet.
            Request::CommitTransaction { stream, txn, .. } => self.commit_txn(stream, txn).await,
            Request::AbortTransaction { stream, txn } => self.abort_txn(stream, txn).await,
            Request::CheckTransactionState { stream, txn } => self.txn_state(stream, txn),
            Request::ListCompletedTransactions(stream) => self.completed_txns(stream),
            other => self.answer_about_segments(other),
        }
    }

    async fn answer_about_others(&self, request: Request) -> Result<Response, RpcError> {
        match request {
            Request::NoteTimestamp { writer, position, timestamp } => {
                self.note_timestamp(writer, position, timestamp).await
            }
            Request::RemoveWriter { writer, stream } => self.remove_writer(writer, stream).await,
            Request::CreateReaderGroup(config) => self.create_group(config).await,
            Request::UpdateReaderGroup(config) => self.update_group(config).await,
            Request::GetReaderGroupConfig { scope, group } => self.group_config(&scope, &group),
            Request::DeleteReaderGroup { scope, group, id } => {
                self.delete_group(&scope, &group, &id).await
            }
            Request::ListSubscribers(stream) => self.subscribers(stream),
            Request::UpdateSubscriberCut { subscriber, generation, group_id, cut } => {
                self.update_subscriber_cut(&subscriber, (&group_id, generation), cut).await
            }
            Request::CreateKeyValueTable(config) => self.create_table(config).await,
            Request::GetKeyValueTableSegments(name) => self.table_segments(name),
            Request::GetKeyValueTableConfig(name) => self.table_config(name),
            Request::ListKeyValueTables { scope, token } => self.list_tables(&scope, &token),
            Request::DeleteKeyValueTable(name) => self.delete_table(name).await,
            other => self.answer_about_txns(other).await,
        }
    }

    /// Proposes `command` as often as another workflow stands in its way.
    async fn propose_when_idle(&self, command: Command) -> Result<Result<Outcome, Refusal>, Ended> {
        loop {
            let outcome = self.inner.propose(command.clone()).await?;
            if outcome != Err(Refusal::Busy) {
                return Ok(outcome);
            }
            self.inner.wait_for(|state| is_free(state, &command).then_some(())).await?;
        }
    }
}

/// True if nothing under way stands in the way of `command`.
fn is_free(state: &State, command: &Command) -> bool {
    let idle = |name: &Name| state.any_stream(name).is_none_or(|s| s.workflow.is_none());
    match command {
        Command::CreateScope { scope } => {
            state.record().scopes.get(scope).is_none_or(|scope| !scope.deleting)
        }
        Command::CreateStream { name, .. } => {
            idle(name) && crate::state::companion(name).is_none_or(|name| idle(&name))
        }
        Command::UpdateStream { name, .. }
        | Command::Scale { name, .. }
        | Command::Truncate { name, .. }
        | Command::Seal { name } => idle(name),
        Command::Delete { name, .. } => idle(name) && !state.is_committing(name),
        Command::Txn(TxnCommand::Begin { name, .. }) => state.takes_txns(name),
        Command::Group(GroupCommand::Create { name, .. } | GroupCommand::Delete { name, .. }) => {
            is_group_free(state, name)
        }
        Command::Table(TableCommand::Create { name, .. } | TableCommand::Delete { name }) => {
            state.record().tables.get(name).is_none_or(|table| table.workflow.is_none())
        }
        _ => true,
    }
}

impl From<Ended> for RpcError {
    fn from(ended: Ended) -> Self {
        Self::new(Code::Unavailable, ended.to_string())
    }
}

fn invalid(message: impl Into<String>) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}

/// A refusal because of a limit.
fn exhausted(refusal: &Refusal) -> RpcError {
    RpcError::new(Code::ResourceExhausted, refusal.to_string())
}

fn not_found(name: &Name) -> RpcError {
    RpcError::new(Code::NotFound, format!("there is no stream {}/{}", name.scope, name.stream))
}

fn scope_name(scope: &str) -> Result<(), RpcError> {
    if scope.is_empty() { Err(invalid("the scope's name is empty")) } else { Ok(()) }
}

/// The name, if neither part is empty. Whether such a stream can exist is no matter here.
fn stream_name(name: StreamName) -> Result<Name, RpcError> {
    scope_name(&name.scope)?;
    if name.stream.is_empty() {
        return Err(invalid("the stream's name is empty"));
    }
    Ok(Name { scope: name.scope, stream: name.stream })
}

/// An outcome that no state can lead to: a defect, reported instead of a panic.
fn unexpected(outcome: &Result<Outcome, Refusal>) -> RpcError {
    RpcError::new(Code::Internal, format!("unexpected outcome {outcome:?}"))
}
