//! A container's register: who owns the container, which ledgers its log consists of, and from where on it is kept.
//!
//! The register lives in the controller's state machine and changes only by typed commands that are checked when they
//! are applied, so trim, repair and ensemble change never disturb one another. Refusals are positive and final; a
//! lost reply means that the outcome is unknown and the same command is sent again.
//!
//! These structs are also the persisted form: the controller stores commands and registers inside its own.
//!
//! Invariants, asserted by [`ContainerLog::check`]:
//! 1. Ledgers stand in ascending epochs, none above the register's epoch; only the last may be not closed (L12).
//! 2. An open ledger has the register's epoch (L1).
//! 3. Fragments stand in ascending firsts, each on `write` distinct nodes (L18); the last starts at or below the end
//!    of a closed ledger.
//! 4. The register's epoch never exceeds the assigned one.
//! 5. A closed ledger has an entry that must be kept.
//!
//! Deliberately not here: who is assigned and when (the leader decides), and which replicas (placement decides).

use crate::ledger::{SnapshotPointer, SnapshotPointers};
use crate::quorum::{Quorum, QuorumError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use thalweg_actor::explore::Digest;
use thalweg_actor::{BoxFuture, planted, probe};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, Incarnation, NodeId, ReplicaId};
use thiserror::Error;

/// Ledgers that one register may list. Empty ones are not listed once they are closed, so only a container that
/// commits under each of its owners and never trims reaches it.
pub const LEDGERS_MAX: usize = 4096;
/// Fragments that one ledger may have.
pub const FRAGMENTS_MAX: usize = 4096;

/// The newest assignment of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// The epoch that the owner may use.
    pub epoch: Epoch,
    /// The owner's node.
    pub host: NodeId,
    /// The owner's session with the controller.
    pub session: u64,
    /// The owner's process.
    pub incarnation: Incarnation,
}

/// How far a ledger's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LedgerStage {
    /// Its owner appends.
    Open,
    /// A later epoch has begun to recover it.
    Recovering,
    /// Nothing will ever be added or taken away.
    Closed {
        /// The first entry that is not in it.
        end: EntryId,
    },
}

/// Where the entries from `first` on are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fragment {
    /// Its first entry; it ends where the next one begins.
    pub first: EntryId,
    /// The replicas that hold it.
    pub ensemble: Vec<ReplicaId>,
}

/// One ledger of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its quorum.
    pub quorum: Quorum,
    /// How far its life has come.
    pub stage: LedgerStage,
    /// Its fragments, ascending; those wholly below `keep_from` are gone.
    pub fragments: Vec<Fragment>,
}

impl LedgerRecord {
    /// The fragment that takes new entries.
    pub fn last_fragment(&self) -> &Fragment {
        self.fragments.last().expect("a ledger is born with a fragment and keeps its last one")
    }

    /// The fragment that holds `entry`, if it is still listed.
    pub fn fragment_of(&self, entry: EntryId) -> Option<&Fragment> {
        self.fragments.iter().rev().find(|fragment| fragment.first <= entry)
    }

    /// The first entry that is not in it, if it is closed.
    pub fn end(&self) -> Option<EntryId> {
        match self.stage {
            LedgerStage::Closed { end } => Some(end),
            LedgerStage::Open | LedgerStage::Recovering => None,
        }
    }

    fn is_closed(&self) -> bool {
        self.end().is_some()
    }
}

/// Persisted twin of [`SnapshotPointer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The first entry that holds it.
    pub at: Address,
    /// The last entry whose effects it contains.
    pub covers: Option<Address>,
}

/// Persisted twin of [`SnapshotPointers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotRecords {
    /// The newest snapshot.
    pub newest: Option<SnapshotRecord>,
    /// The one before.
    pub older: Option<SnapshotRecord>,
}

impl From<SnapshotPointers> for SnapshotRecords {
    fn from(pointers: SnapshotPointers) -> Self {
        let twin =
            |pointer: SnapshotPointer| SnapshotRecord { at: pointer.at, covers: pointer.covers };
        Self { newest: pointers.newest.map(twin), older: pointers.older.map(twin) }
    }
}

impl From<SnapshotRecords> for SnapshotPointers {
    fn from(records: SnapshotRecords) -> Self {
        let twin =
            |record: SnapshotRecord| SnapshotPointer { at: record.at, covers: record.covers };
        Self { newest: records.newest.map(twin), older: records.older.map(twin) }
    }
}

/// The register of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerLog {
    /// Whose log.
    pub container: ContainerId,
    /// The newest assignment.
    pub assigned: Option<Assignment>,
    /// The newest epoch that began a recovery; strictly increasing; 0 before the first.
    pub epoch: Epoch,
    /// Who owns that epoch.
    pub owner: Option<Assignment>,
    /// The log's ledgers, ascending.
    pub ledgers: Vec<LedgerRecord>,
    /// Number of the last ensemble change of the open ledger; 0 when it was opened.
    pub last_change_id: u64,
    /// The first address that must be kept.
    pub keep_from: Address,
    /// The retained snapshots.
    pub snapshots: SnapshotRecords,
}

/// What shall happen to a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegisterCommand {
    /// Whose register.
    pub container: ContainerId,
    /// What.
    pub change: Change,
}

/// One typed change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// A new owner with the next epoch. Not idempotent: sent again it takes another epoch.
    Assign {
        /// The owner's node.
        host: NodeId,
        /// The owner's session.
        session: u64,
        /// The owner's process.
        incarnation: Incarnation,
    },
    /// The assigned owner takes over: from here on every older epoch's commands are stale.
    BeginRecovery {
        /// The assigned epoch.
        epoch: Epoch,
        /// The assigned process.
        incarnation: Incarnation,
    },
    /// The last ledger ends, and the ledger of `epoch` opens, in one step.
    Close {
        /// The recoverer's epoch, and that of the new ledger.
        epoch: Epoch,
        /// How the ledger that is being recovered ends; means nothing when none is.
        ending: Ending,
        /// Quorum of the new ledger.
        quorum: Quorum,
        /// Ensemble of the new ledger.
        ensemble: Vec<ReplicaId>,
    },
    /// The open ledger goes on with another ensemble from `first` on.
    ChangeEnsemble {
        /// The open ledger's epoch.
        epoch: Epoch,
        /// The number after `last_change_id`.
        id: u64,
        /// The first entry of the new fragment.
        first: EntryId,
        /// The new ensemble.
        ensemble: Vec<ReplicaId>,
    },
    /// Everything below is disposable; the snapshots are here.
    SetKeepFrom {
        /// The owner's epoch.
        epoch: Epoch,
        /// The first address that must be kept.
        keep_from: Address,
        /// The retained snapshots.
        snapshots: SnapshotRecords,
    },
    /// A closed ledger's fragment has another member in place of a lost one.
    Repair {
        /// The closed ledger.
        ledger: Epoch,
        /// The fragment's first entry.
        first: EntryId,
        /// The member that is lost.
        old: ReplicaId,
        /// The member that has its entries by now.
        new: ReplicaId,
    },
}

/// How a recovered ledger ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ending {
    /// Everything below was committed, or is disposable; from here on the recoverer has copied.
    pub start: EntryId,
    /// The first entry that is not in the ledger.
    pub end: EntryId,
    /// The replicas that hold `start..end` by now.
    pub ensemble: Vec<ReplicaId>,
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterReply {
    /// Applied, now or when the same command came before; the whole register as it stands.
    Done(Box<ContainerLog>),
    /// A newer epoch acts, or the ledger is past that stage. Final.
    Stale {
        /// The register's epoch.
        epoch: Epoch,
        /// Where its last ledger stands.
        stage: Option<LedgerStage>,
    },
    /// The command makes no sense whatever the state: a bug of the sender. Final.
    Invalid {
        /// Why.
        reason: String,
    },
}

impl ContainerLog {
    /// The register of a container that nobody has owned yet.
    pub fn new(container: ContainerId) -> Self {
        Self {
            container,
            assigned: None,
            epoch: Epoch(0),
            owner: None,
            ledgers: Vec::new(),
            last_change_id: 0,
            keep_from: Address::default(),
            snapshots: SnapshotRecords::default(),
        }
    }

    /// The first entry of ledger `epoch` that must be kept. A ledger below `keep_from` has left the register.
    pub fn keep_from_in(&self, epoch: Epoch) -> EntryId {
        keep_from_in(self.keep_from, epoch)
    }

    /// The lowest address that may be needed: nothing that is listed lies below it, whatever `keep_from` says. A
    /// ledger that is not listed is empty, disposable, or one that nobody was ever told of.
    pub fn lowest(&self) -> Address {
        let first = self.ledgers.first().map(|ledger| Address::new(ledger.epoch, EntryId(0)));
        first.map_or(self.keep_from, |first| first.max(self.keep_from))
    }

    /// The ledger of `epoch`.
    pub fn ledger(&self, epoch: Epoch) -> Option<&LedgerRecord> {
        self.ledgers.iter().find(|ledger| ledger.epoch == epoch)
    }

    /// Applies one change. Deterministic and total; a refused change leaves the register as it was.
    pub fn apply(&mut self, change: &Change) -> RegisterReply {
        let outcome = match change {
            Change::Assign { host, session, incarnation } => {
                self.assign(*host, *session, *incarnation);
                Ok(())
            }
            Change::BeginRecovery { epoch, incarnation } => self.begin(*epoch, *incarnation),
            Change::Close { epoch, ending, quorum, ensemble } => {
                self.close(*epoch, ending, *quorum, ensemble)
            }
            Change::ChangeEnsemble { epoch, id, first, ensemble } => {
                self.change_ensemble(*epoch, *id, *first, ensemble)
            }
            Change::SetKeepFrom { epoch, keep_from, snapshots } => {
                self.set_keep_from(*epoch, *keep_from, *snapshots)
            }
            Change::Repair { ledger, first, old, new } => self.repair(*ledger, *first, *old, *new),
        };
        if cfg!(debug_assertions) {
            self.check();
        }
        match outcome {
            Ok(()) => RegisterReply::Done(Box::new(self.clone())),
            Err(Refusal::Stale) => {
                probe!("register: stale command");
                let stage = self.ledgers.last().map(|ledger| ledger.stage);
                RegisterReply::Stale { epoch: self.epoch, stage }
            }
            Err(Refusal::Invalid(reason)) => RegisterReply::Invalid { reason },
        }
    }

    /// All of it, for the explorer. `place` numbers the replicas; their order in an ensemble decides nothing.
    pub fn digest<const N: usize>(
        &self,
        place: impl Fn(ReplicaId) -> usize,
        digest: &mut Digest<N>,
    ) {
        let Self { container, assigned, epoch, owner, ledgers, .. } = self;
        let Self { last_change_id, keep_from, snapshots, .. } = self;
        digest.all(&(container, assigned, epoch, owner, last_change_id, keep_from, snapshots));
        for LedgerRecord { epoch, quorum, stage, fragments } in ledgers {
            digest.all(&(epoch, quorum, stage));
            for Fragment { first, ensemble } in fragments {
                digest.all(first);
                for replica in ensemble {
                    digest.of(place(*replica), &("register", epoch, first));
                }
            }
        }
    }

    /// Asserts the invariants of the module's header.
    pub fn check(&self) {
        assert!(self.ledgers.is_sorted_by(|a, b| a.epoch < b.epoch));
        assert!(self.ledgers.iter().rev().skip(1).all(LedgerRecord::is_closed));
        assert!(self.ledgers.last().is_none_or(|last| last.epoch <= self.epoch));
        for ledger in &self.ledgers {
            assert!(ledger.stage != LedgerStage::Open || ledger.epoch == self.epoch);
            assert!(ledger.fragments.is_sorted_by(|a, b| a.first < b.first));
            let valid = |f: &Fragment| ledger.quorum.validate_ensemble(&f.ensemble).is_ok();
            assert!(!ledger.fragments.is_empty() && ledger.fragments.iter().all(valid));
            assert!(ledger.end().is_none_or(|end| ledger.last_fragment().first <= end));
        }
        let needed = |ledger: &LedgerRecord| {
            ledger.end().is_none_or(|end| end > self.keep_from_in(ledger.epoch))
        };
        assert!(self.ledgers.iter().all(needed));
        assert!(self.epoch <= self.assigned.map_or(Epoch(0), |assigned| assigned.epoch));
    }

    fn assign(&mut self, host: NodeId, session: u64, incarnation: Incarnation) {
        let highest = self.assigned.map_or(self.epoch, |a| a.epoch.max(self.epoch));
        let epoch = Epoch(highest.0 + 1);
        self.assigned = Some(Assignment { epoch, host, session, incarnation });
    }

    fn begin(&mut self, epoch: Epoch, incarnation: Incarnation) -> Result<(), Refusal> {
        let mine = self.assigned.filter(|a| a.epoch == epoch && a.incarnation == incarnation);
        let assigned = mine.ok_or(Refusal::Stale)?;
        if self.epoch == epoch {
            return Ok(()); // Its reply was lost.
        }
        self.epoch = epoch;
        self.owner = Some(assigned);
        if let Some(last) = self.ledgers.last_mut().filter(|l| l.stage == LedgerStage::Open) {
            last.stage = LedgerStage::Recovering;
        } else if let Some(last) = self.ledgers.last_mut()
            && last.stage == LedgerStage::Recovering
            && planted!("PB-B23")
        {
            last.stage = LedgerStage::Closed { end: last.last_fragment().first };
        }
        Ok(())
    }

    fn close(
        &mut self,
        epoch: Epoch,
        ending: &Ending,
        quorum: Quorum,
        ensemble: &[ReplicaId],
    ) -> Result<(), Refusal> {
        if self.epoch != epoch && !planted!("PB-L11") {
            return Err(Refusal::Stale);
        }
        quorum.validate_ensemble(ensemble)?;
        let (count, keep_from) = (self.ledgers.len(), self.keep_from);
        let last = self.ledgers.last_mut();
        if last.as_ref().is_some_and(|last| last.epoch == epoch) && !planted!("PB-B22") {
            return Ok(()); // Its reply was lost.
        }
        let goes = last.as_ref().is_some_and(|last| {
            !last.is_closed() && ending.end <= keep_from_in(keep_from, last.epoch)
        });
        if count - usize::from(goes) >= LEDGERS_MAX {
            return Err(Refusal::Invalid(format!(
                "more than {LEDGERS_MAX} ledgers: trim the log first"
            )));
        }
        if let Some(last) = last.filter(|last| !last.is_closed()) {
            last.quorum.validate_ensemble(&ending.ensemble)?;
            let fragment = last.last_fragment();
            if ending.start < fragment.first || ending.end < ending.start {
                let first = fragment.first;
                let Ending { start, end, .. } = ending;
                return Err(Refusal::Invalid(format!(
                    "closing {start}..{end} of a fragment from {first} on"
                )));
            }
            if ending.ensemble != fragment.ensemble && ending.end > ending.start {
                probe!("register: recovery replaced a member");
                last.put_fragment(ending.start, &ending.ensemble)?;
            }
            last.stage = LedgerStage::Closed { end: ending.end };
        }
        self.ledgers.push(LedgerRecord {
            epoch,
            quorum,
            stage: LedgerStage::Open,
            fragments: vec![Fragment { first: EntryId(0), ensemble: ensemble.to_vec() }],
        });
        self.last_change_id = 0;
        self.drop_disposable();
        Ok(())
    }

    fn change_ensemble(
        &mut self,
        epoch: Epoch,
        id: u64,
        first: EntryId,
        ensemble: &[ReplicaId],
    ) -> Result<(), Refusal> {
        let expected = self.last_change_id + 1;
        let current = self.epoch == epoch;
        let stale = planted!("PB-B13");
        let last = if stale {
            self.ledgers.iter_mut().find(|ledger| ledger.epoch == epoch)
        } else {
            self.ledgers.last_mut()
        };
        // A recoverer's change, in the planted variant that shows its ensemble before it has closed.
        let early = planted!("PB-L25") && id == u64::MAX;
        let owned = |l: &LedgerRecord| l.epoch == epoch && l.stage == LedgerStage::Open;
        let open = last.filter(|l| stale || current && (owned(l) || early && !l.is_closed()));
        let ledger = open.ok_or(Refusal::Stale)?;
        ledger.quorum.validate_ensemble(ensemble)?;
        if early {
            return ledger.put_fragment(first, ensemble);
        }
        let fragment = ledger.last_fragment();
        if id == self.last_change_id && fragment.first == first && fragment.ensemble == ensemble {
            return Ok(()); // Its reply was lost.
        }
        if id != expected && !planted!("PB-B11") {
            return Err(Refusal::Stale);
        }
        if first < fragment.first {
            return Err(Refusal::Invalid(format!(
                "a fragment from {first} on behind one from a later entry"
            )));
        }
        ledger.put_fragment(first, ensemble)?;
        self.last_change_id = id;
        self.drop_disposable();
        Ok(())
    }

    fn set_keep_from(
        &mut self,
        epoch: Epoch,
        keep_from: Address,
        snapshots: SnapshotRecords,
    ) -> Result<(), Refusal> {
        let open = self.ledgers.last().is_some_and(|ledger| ledger.epoch == epoch);
        if self.epoch != epoch || !open || keep_from < self.keep_from {
            return Err(Refusal::Stale);
        }
        if keep_from.epoch > epoch {
            return Err(Refusal::Invalid(format!(
                "keep from {keep_from} in a log that ends in epoch {epoch}"
            )));
        }
        self.keep_from = keep_from;
        self.snapshots = snapshots;
        self.drop_disposable();
        Ok(())
    }

    fn repair(
        &mut self,
        ledger: Epoch,
        first: EntryId,
        old: ReplicaId,
        new: ReplicaId,
    ) -> Result<(), Refusal> {
        let found = self.ledgers.iter_mut().find(|l| l.epoch == ledger && l.is_closed());
        let record = found.ok_or(Refusal::Stale)?;
        let quorum = record.quorum;
        let fragment = record.fragments.iter_mut().find(|fragment| fragment.first == first);
        let fragment = fragment.ok_or(Refusal::Stale)?;
        let Some(at) = fragment.ensemble.iter().position(|member| *member == old) else {
            let done = fragment.ensemble.contains(&new);
            return if done { Ok(()) } else { Err(Refusal::Stale) };
        };
        let mut ensemble = fragment.ensemble.clone();
        ensemble[at] = new;
        quorum.validate_ensemble(&ensemble)?;
        fragment.ensemble = ensemble;
        Ok(())
    }

    /// Drops closed ledgers without an entry that must be kept, and fragments that lie wholly below `keep_from`.
    fn drop_disposable(&mut self) {
        let keep_from = self.keep_from;
        let last = self.ledgers.last().map(|ledger| ledger.epoch);
        self.ledgers.retain(|ledger| {
            let kept = ledger.epoch >= keep_from.epoch
                && ledger.end().is_none_or(|end| end > keep_from_in(keep_from, ledger.epoch));
            kept || Some(ledger.epoch) == last
        });
        for ledger in self.ledgers.iter_mut().filter(|l| l.epoch == keep_from.epoch) {
            let below = ledger.fragments.iter().skip(1).take_while(|f| f.first <= keep_from.entry);
            let gone = below.count();
            ledger.fragments.drain(..gone);
        }
    }
}

impl LedgerRecord {
    /// Appends a fragment, or replaces the last one if it has the same first entry.
    fn put_fragment(&mut self, first: EntryId, ensemble: &[ReplicaId]) -> Result<(), Refusal> {
        let fragment = Fragment { first, ensemble: ensemble.to_vec() };
        let full = self.fragments.len() >= FRAGMENTS_MAX;
        match self.fragments.last_mut() {
            Some(last) if last.first == first => *last = fragment,
            _ if full => {
                return Err(Refusal::Invalid(format!(
                    "more than {FRAGMENTS_MAX} fragments in one ledger"
                )));
            }
            _ => self.fragments.push(fragment),
        }
        Ok(())
    }
}

fn keep_from_in(keep_from: Address, epoch: Epoch) -> EntryId {
    if keep_from.epoch == epoch { keep_from.entry } else { EntryId(0) }
}

enum Refusal {
    Stale,
    Invalid(String),
}

impl From<QuorumError> for Refusal {
    fn from(error: QuorumError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// The registers of all containers: a part of the controller's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registers {
    logs: BTreeMap<ContainerId, ContainerLog>,
}

impl Registers {
    /// Applies one command; a container's register is born with its first assignment. Deterministic and total.
    pub fn apply(&mut self, command: &RegisterCommand) -> RegisterReply {
        let container = command.container;
        match self.logs.get_mut(&container) {
            Some(log) => log.apply(&command.change),
            None if matches!(command.change, Change::Assign { .. }) => {
                let log =
                    self.logs.entry(container).or_insert_with(|| ContainerLog::new(container));
                log.apply(&command.change)
            }
            None => RegisterReply::Stale { epoch: Epoch(0), stage: None },
        }
    }

    /// The register of `container`, if anybody was ever assigned to it.
    pub fn get(&self, container: ContainerId) -> Option<&ContainerLog> {
        self.logs.get(&container)
    }

    /// All registers, by container.
    pub fn iter(&self) -> impl Iterator<Item = &ContainerLog> {
        self.logs.values()
    }
}

/// The register could not be reached, or its answer was lost: the outcome is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the register cannot be reached: {reason}")]
pub struct RegisterUnavailable {
    /// Why.
    pub reason: Arc<str>,
}

/// Where registers are kept: the controller, or a test's memory.
pub trait Register: Send + Sync {
    /// Applies `command` and answers when the outcome is durable. An error, or dropping the future, leaves the
    /// outcome unknown: send the same command again.
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>>;
}

/// Registers in memory, for tests and for benchmarks of the log alone. Forgets everything when dropped.
#[derive(Debug, Default)]
pub struct MemoryRegister {
    registers: Mutex<Registers>,
}

impl MemoryRegister {
    /// The register of `container` as it stands.
    pub fn get(&self, container: ContainerId) -> Option<ContainerLog> {
        let registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        registers.get(container).cloned()
    }

    /// All registers as they stand.
    pub fn all(&self) -> Vec<ContainerLog> {
        let registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        registers.iter().cloned().collect()
    }
}

impl Register for MemoryRegister {
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>> {
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = registers.apply(&command);
        Box::pin(std::future::ready(Ok(reply)))
    }
}

#[cfg(test)]
mod tests;
