//! Transactions: begun, kept alive, decided. How they get into the stream is `commit`'s.

use super::{Outcome, Refusal, State};
use crate::limits::{ENDED_TXN_MS_MAX, ENDED_TXNS_MAX, TXN_LIFE_MS_MAX, TXNS_LIVE_MAX};
use crate::record::{
    EndedTxn, Name, StreamStatus, TxnCommand, TxnKey, TxnPhase, TxnRecord, TxnsRecord, Workflow,
};
use thalweg_actor::probe;
use thalweg_wire::controller::TxnState;

/// What a transaction is given beyond two leases: some clients sleep a whole lease between two pings.
const LEASE_GRACE_MS: u64 = 10_000;

impl State {
    pub(super) fn txn(&mut self, command: &TxnCommand) -> Result<Outcome, Refusal> {
        match command {
            TxnCommand::Begin { name, lease_ms } => self.begin_txn(name, *lease_ms),
            TxnCommand::Opened { name, low } => self.txn_opened(name, *low),
            TxnCommand::Ping { name, key, lease_ms } => self.ping_txn(name, *key, *lease_ms),
            TxnCommand::Commit { name, key } => self.commit_txn(name, *key),
            TxnCommand::Abort { name, key } => self.abort_txn(name, *key),
            TxnCommand::Expire { name, low } => self.expire_txn(name, *low),
            TxnCommand::Aborted { name, low } => self.txn_aborted(name, *low),
            TxnCommand::BeginCommit { name } => self.begin_commit(name),
            TxnCommand::Reroute { name, workflow } => self.reroute(name, *workflow),
        }
    }

    /// The transactions of a stream, if there ever was one; the stream need not exist any more.
    pub fn txns(&self, name: &Name) -> Option<&TxnsRecord> {
        self.record.txns.get(name)
    }

    /// Where a transaction stands.
    pub fn txn_state(&self, name: &Name, key: TxnKey) -> TxnState {
        let Some(txns) = self.txns(name) else { return TxnState::Unknown };
        if let Some(txn) = txns.live.get(&key.low).filter(|txn| txn.high == key.high) {
            return match txn.phase {
                TxnPhase::Creating => TxnState::Unknown,
                TxnPhase::Open { .. } => TxnState::Open,
                TxnPhase::Committing { .. } => TxnState::Committing,
                TxnPhase::Aborting => TxnState::Aborting,
            };
        }
        match txns.ended.iter().rev().find(|ended| ended.key == key) {
            Some(ended) if ended.committed => TxnState::Committed,
            Some(_) => TxnState::Aborted,
            None => TxnState::Unknown,
        }
    }

    /// True if a transaction of the stream is decided and not merged yet.
    pub fn is_committing(&self, name: &Name) -> bool {
        self.txns(name).is_some_and(TxnsRecord::is_committing)
    }

    /// True if a transaction of one of the scope's streams is under way.
    pub(crate) fn has_live_txns(&self, scope: &str) -> bool {
        let behind = self.record.txns.range(Name::new(scope, "")..);
        let mut here = behind.take_while(|(name, _)| name.scope == scope);
        here.any(|(_, txns)| !txns.live.is_empty())
    }

    /// True if a transaction can begin at once.
    pub(crate) fn takes_txns(&self, name: &Name) -> bool {
        self.stream(name).is_none_or(|stream| match stream.kind() {
            None | Some(Workflow::Truncate { .. } | Workflow::TxnSeal { .. }) => true,
            Some(Workflow::TxnMerge { rolled, .. }) => !rolled,
            Some(_) => false,
        })
    }

    /// The transactions whose deadline has passed at `clock_ms`.
    pub(crate) fn txns_due(&self, clock_ms: u64) -> Vec<(Name, i64)> {
        let is_due = |txn: &TxnRecord| match txn.phase {
            TxnPhase::Open { deadline_ms } => deadline_ms <= clock_ms,
            _ => false,
        };
        let all = self.record.txns.iter();
        all.flat_map(|(name, txns)| {
            let due = txns.live.iter().filter(|(_, txn)| is_due(txn));
            due.map(|(low, _)| (name.clone(), *low))
        })
        .collect()
    }

    fn begin_txn(&mut self, name: &Name, lease_ms: u64) -> Result<Outcome, Refusal> {
        let stream = self.stream(name).ok_or(Refusal::StreamNotFound)?;
        let txns = self.record.txns.get(name);
        if stream.status == StreamStatus::Sealed || txns.is_some_and(|txns| txns.seals) {
            return Err(Refusal::StreamSealed);
        }
        if !self.takes_txns(name) {
            return Err(Refusal::Busy);
        }
        if txns.is_some_and(|txns| txns.live.len() >= TXNS_LIVE_MAX) {
            let limit = TXNS_LIVE_MAX as u64;
            return Err(Refusal::TooMany { what: "transactions under way", limit });
        }
        let epoch = stream.active_reference();
        let (stream, parents) = (stream.id, stream.current().to_vec());
        let high = i64::from(epoch) << 32;
        let low = i64::try_from(self.take_id()).expect("ids are counted up from 1");
        let (phase, begun_ms) = (TxnPhase::Creating, self.record.clock_ms);
        let txn = TxnRecord { stream, high, parents, phase, lease_ms, begun_ms };
        self.record.txns.entry(name.clone()).or_default().live.insert(low, txn);
        Ok(Outcome::Begun(TxnKey { high, low }))
    }

    fn live_txn(&mut self, name: &Name, low: i64) -> Option<&mut TxnRecord> {
        self.record.txns.get_mut(name)?.live.get_mut(&low)
    }

    /// A lease that ran from now on would end then.
    fn deadline(&self, lease_ms: u64) -> u64 {
        let given = lease_ms.saturating_mul(2).saturating_add(LEASE_GRACE_MS);
        self.record.clock_ms.saturating_add(given)
    }

    fn txn_opened(&mut self, name: &Name, low: i64) -> Result<Outcome, Refusal> {
        let txn = self.live_txn(name, low).filter(|txn| txn.phase == TxnPhase::Creating);
        let lease_ms = txn.ok_or(Refusal::Stale)?.lease_ms;
        let deadline_ms = self.deadline(lease_ms);
        self.live_txn(name, low).expect("found above").phase = TxnPhase::Open { deadline_ms };
        Ok(Outcome::Done)
    }

    fn ping_txn(&mut self, name: &Name, key: TxnKey, lease_ms: u64) -> Result<Outcome, Refusal> {
        self.open_txn(name, key)?;
        let deadline_ms = self.deadline(lease_ms);
        let now = self.record.clock_ms;
        let txn = self.live_txn(name, key.low).expect("it is open");
        if now.saturating_sub(txn.begun_ms) > TXN_LIFE_MS_MAX {
            probe!("controller: a transaction has become too old");
            return Err(Refusal::TxnTooOld);
        }
        txn.phase = TxnPhase::Open { deadline_ms };
        Ok(Outcome::Done)
    }

    /// Refuses unless the transaction is open; if not, says how it is decided.
    fn open_txn(&self, name: &Name, key: TxnKey) -> Result<(), Refusal> {
        match self.txn_state(name, key) {
            TxnState::Open => Ok(()),
            TxnState::Unknown => Err(Refusal::TxnNotFound),
            TxnState::Committing | TxnState::Committed => {
                Err(Refusal::TxnDecided { committed: true })
            }
            TxnState::Aborting | TxnState::Aborted => Err(Refusal::TxnDecided { committed: false }),
        }
    }

    fn commit_txn(&mut self, name: &Name, key: TxnKey) -> Result<Outcome, Refusal> {
        match self.open_txn(name, key) {
            Err(Refusal::TxnDecided { committed: true }) => return Ok(Outcome::Done),
            other => other?,
        }
        // What goes with its scope takes nothing any more.
        self.visible_scope(&name.scope).ok_or(Refusal::TxnNotFound)?;
        let order = self.take_id();
        self.live_txn(name, key.low).expect("it is open").phase = TxnPhase::Committing { order };
        Ok(Outcome::Done)
    }

    fn abort_txn(&mut self, name: &Name, key: TxnKey) -> Result<Outcome, Refusal> {
        match self.open_txn(name, key) {
            Err(Refusal::TxnDecided { committed: false }) => return Ok(Outcome::Done),
            other => other?,
        }
        self.live_txn(name, key.low).expect("it is open").phase = TxnPhase::Aborting;
        Ok(Outcome::Done)
    }

    fn expire_txn(&mut self, name: &Name, low: i64) -> Result<Outcome, Refusal> {
        let now = self.record.clock_ms;
        let txn = self.live_txn(name, low).ok_or(Refusal::Stale)?;
        match txn.phase {
            TxnPhase::Open { deadline_ms } if deadline_ms <= now => {
                probe!("controller: a transaction's lease ended");
                txn.phase = TxnPhase::Aborting;
                Ok(Outcome::Done)
            }
            _ => Err(Refusal::Stale),
        }
    }

    fn txn_aborted(&mut self, name: &Name, low: i64) -> Result<Outcome, Refusal> {
        let txn = self.live_txn(name, low).filter(|txn| txn.phase == TxnPhase::Aborting);
        txn.ok_or(Refusal::Stale)?;
        self.end_txn(name, low, false);
        Ok(Outcome::Done)
    }

    /// Moves a transaction to those that ended, and forgets the oldest of them.
    pub(super) fn end_txn(&mut self, name: &Name, low: i64, committed: bool) {
        let ended_ms = self.record.clock_ms;
        let Some(txns) = self.record.txns.get_mut(name) else { return };
        let Some(txn) = txns.live.remove(&low) else { return };
        let key = TxnKey { high: txn.high, low };
        txns.ended.push_back(EndedTxn { key, committed, ended_ms });
        let is_old = |ended: &EndedTxn| ended_ms.saturating_sub(ended.ended_ms) > ENDED_TXN_MS_MAX;
        while txns.ended.len() > ENDED_TXNS_MAX || txns.ended.front().is_some_and(is_old) {
            txns.ended.pop_front();
        }
    }

    /// Gives up everything of a stream that is not decided: the stream ends.
    pub(super) fn abort_all(&mut self, name: &Name) {
        let Some(txns) = self.record.txns.get_mut(name) else { return };
        for txn in txns.live.values_mut() {
            if matches!(txn.phase, TxnPhase::Creating | TxnPhase::Open { .. }) {
                probe!("controller: a transaction is aborted with its stream");
                txn.phase = TxnPhase::Aborting;
            }
        }
    }

    /// Forgets what became of the transactions of streams that are long gone.
    pub(super) fn forget_old_txns(&mut self) {
        let now = self.record.clock_ms;
        let streams = &self.record.streams;
        self.record.txns.retain(|name, txns| {
            let newest = txns.ended.back().map(|ended| now.saturating_sub(ended.ended_ms));
            let remembered = newest.is_some_and(|age| age <= ENDED_TXN_MS_MAX);
            streams.contains_key(name) || !txns.live.is_empty() || remembered
        });
    }
}

impl TxnsRecord {
    /// True if one is decided and not merged yet.
    pub fn is_committing(&self) -> bool {
        self.live.values().any(|txn| txn.order().is_some())
    }
}

impl TxnRecord {
    /// The epoch whose segments it repeats.
    pub fn epoch(&self) -> i32 {
        i32::try_from(self.high >> 32).expect("the upper half of 64 bits")
    }

    /// Its place among those that are committing.
    pub fn order(&self) -> Option<u64> {
        match self.phase {
            TxnPhase::Committing { order } => Some(order),
            _ => None,
        }
    }
}
