//! Requests about transactions.

use super::convert::range_messages;
use super::{exhausted, invalid, not_found, stream_name, unexpected};
use crate::controller::Controller;
use crate::limits::{ENDED_TXNS_LISTED_MAX, TXN_LEASE_MS_MAX, TXN_LEASE_MS_MIN};
use crate::record::{Command, Name, SegmentRecord, TxnCommand, TxnKey, TxnPhase};
use crate::state::{Outcome, Refusal, State};
use thalweg_wire::controller::{
    PingStatus, Response, RpcError, StreamName, TxnId, TxnState, TxnStatus,
};

impl Controller {
    /// Answers when all segments of the transaction exist.
    pub(super) async fn create_txn(
        &self,
        stream: StreamName,
        lease_ms: i64,
    ) -> Result<Response, RpcError> {
        let name = stream_name(stream)?;
        if self.read(|state| state.stream(&name).is_none()) {
            return Err(not_found(&name));
        }
        let lease_ms = u64::try_from(lease_ms).unwrap_or_default();
        if lease_ms < TXN_LEASE_MS_MIN {
            return Err(invalid(format!("the least lease is {TXN_LEASE_MS_MIN} ms")));
        }
        if lease_ms > TXN_LEASE_MS_MAX {
            return Err(invalid(format!("the longest lease is {TXN_LEASE_MS_MAX} ms")));
        }
        let begin = Command::Txn(TxnCommand::Begin { name: name.clone(), lease_ms });
        let sealed = || invalid(format!("stream {}/{} is sealed", name.scope, name.stream));
        let key = match self.propose_when_idle(begin).await? {
            Ok(Outcome::Begun(key)) => key,
            Err(Refusal::StreamNotFound) => return Err(not_found(&name)),
            Err(Refusal::StreamSealed) => return Err(sealed()),
            Err(refusal @ Refusal::TooMany { .. }) => return Err(exhausted(&refusal)),
            other => return Err(unexpected(&other)),
        };
        let parents = self.inner.wait_for(|state| opened(state, &name, key)).await?;
        let parents = parents.map_err(|_given_up| sealed())?;
        let segments = range_messages(&name, &parents);
        Ok(Response::CreateTransaction { txn: txn_message(key), segments })
    }

    pub(super) async fn ping_txn(
        &self,
        stream: StreamName,
        txn: TxnId,
        lease_ms: i64,
    ) -> Result<Response, RpcError> {
        let (name, key) = (stream_name(stream)?, txn_key(txn));
        let status = match self.read(|state| state.txn_state(&name, key)) {
            TxnState::Open => self.ping_open_txn(name, key, lease_ms).await?,
            TxnState::Unknown => PingStatus::Unknown,
            TxnState::Committing | TxnState::Committed => PingStatus::Committed,
            TxnState::Aborting | TxnState::Aborted => PingStatus::Aborted,
        };
        Ok(Response::PingTransaction(status))
    }

    /// A lease below the least one is taken as it is: the transaction ends so early.
    async fn ping_open_txn(
        &self,
        name: Name,
        key: TxnKey,
        lease_ms: i64,
    ) -> Result<PingStatus, RpcError> {
        let lease_ms = u64::try_from(lease_ms).unwrap_or_default();
        if lease_ms > TXN_LEASE_MS_MAX {
            return Ok(PingStatus::LeaseTooLarge);
        }
        let ping = TxnCommand::Ping { name, key, lease_ms };
        Ok(match self.inner.propose(Command::Txn(ping)).await? {
            Ok(Outcome::Done) => PingStatus::Ok,
            Err(Refusal::TxnTooOld) => PingStatus::MaxExecutionTimeExceeded,
            Err(Refusal::TxnDecided { committed: true }) => PingStatus::Committed,
            Err(Refusal::TxnDecided { committed: false }) => PingStatus::Aborted,
            Err(Refusal::TxnNotFound) => PingStatus::Unknown,
            other => return Err(unexpected(&other)),
        })
    }

    /// Answers when it is decided; the events come after that.
    pub(super) async fn commit_txn(
        &self,
        stream: StreamName,
        txn: TxnId,
    ) -> Result<Response, RpcError> {
        let (name, key) = (stream_name(stream)?, txn_key(txn));
        self.decide(TxnCommand::Commit { name, key }).await
    }

    pub(super) async fn abort_txn(
        &self,
        stream: StreamName,
        txn: TxnId,
    ) -> Result<Response, RpcError> {
        let (name, key) = (stream_name(stream)?, txn_key(txn));
        self.decide(TxnCommand::Abort { name, key }).await
    }

    /// What cannot be is told as a transaction that is not there: clients repeat a plain failure for long.
    async fn decide(&self, command: TxnCommand) -> Result<Response, RpcError> {
        let status = match self.inner.propose(Command::Txn(command)).await? {
            Ok(Outcome::Done) => TxnStatus::Success,
            Err(Refusal::TxnNotFound | Refusal::TxnDecided { .. }) => {
                TxnStatus::TransactionNotFound
            }
            other => return Err(unexpected(&other)),
        };
        Ok(Response::EndTransaction(status))
    }

    pub(super) fn txn_state(&self, stream: StreamName, txn: TxnId) -> Result<Response, RpcError> {
        let (name, key) = (stream_name(stream)?, txn_key(txn));
        Ok(Response::TransactionState(self.read(|state| state.txn_state(&name, key))))
    }

    pub(super) fn completed_txns(&self, stream: StreamName) -> Result<Response, RpcError> {
        let name = stream_name(stream)?;
        let found = self.read(|state| {
            let newest = state.txns(&name).into_iter().flat_map(|txns| txns.ended.iter().rev());
            let one = |ended: &crate::record::EndedTxn| (txn_message(ended.key), ended.committed);
            newest.take(ENDED_TXNS_LISTED_MAX).map(one).collect()
        });
        Ok(Response::CompletedTransactions(found))
    }
}

/// The segments of a transaction that has just begun, once all are made. A refusal: it was given up before.
fn opened(state: &State, name: &Name, key: TxnKey) -> Option<Result<Vec<SegmentRecord>, Refusal>> {
    let txn = state.txns(name).and_then(|txns| txns.live.get(&key.low));
    match txn.map(|txn| (txn.phase, &txn.parents)) {
        Some((TxnPhase::Creating, _)) => None,
        Some((TxnPhase::Open { .. }, parents)) => Some(Ok(parents.clone())),
        _ => Some(Err(Refusal::TxnDecided { committed: false })),
    }
}

fn txn_key(id: TxnId) -> TxnKey {
    TxnKey { high: id.high, low: id.low }
}

fn txn_message(key: TxnKey) -> TxnId {
    TxnId { high: key.high, low: key.low }
}
