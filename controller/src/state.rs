//! The metadata state machine: a pure function from commands to state.
//!
//! Every precondition is checked when a command is applied, never before, so two nodes that apply the same log hold the
//! same state. Nothing here waits or looks at a clock: a command brings its [`Stamp`].
//!
//! Invariants, asserted by [`State::check`]:
//! 1. The segments of every epoch of every stream cover the key space once, with bounds that are equal bit by bit (K1).
//! 2. A segment's number is below its stream's `next_number`, and a deleted stream's numbers never come back (K4).
//! 3. An epoch behind the active one exists only while the old segments are being sealed, two only while a
//!    transaction rolls (K6).
//! 4. A truncation cut covers the key space once.
//! 5. Every stream, table and reader group has a scope, and a stream or table and its remains never exist at once.
//! 6. Ids are below `next_id`.
//! 7. A reader group holds positions only in streams that it subscribes to.
//! 8. A transaction that is decided has its stream, and a transaction is under way or has ended, never both.
//!
//! Deliberately not here: what a client's request means (`rpc`), and the work on segments (`driver`).

mod change;
mod commit;
mod group;
mod query;
mod scale;
mod table;
#[cfg(test)]
mod tests;
mod txn;
mod writer;

pub(crate) use group::is_group_free;
pub use group::{GROUP_STREAM_PREFIX, group_stream};
pub use query::Span;
pub use table::table_segments_name;

use crate::record::{
    Command, Cut, Name, ScopeRecord, SegmentRecord, Stamp, StateRecord, StreamRecord, TxnKey,
    TxnRecord, Workflow,
};
use std::collections::BTreeMap;
use thalweg_log::register::RegisterReply;
use thiserror::Error;

/// The scope that exists from the start.
pub const SYSTEM_SCOPE: &str = "_system";
/// What a companion stream's name begins with.
pub const COMPANION_PREFIX: &str = "_MARK";

/// What a command led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A workflow was begun.
    Started(Started),
    /// A transaction was begun.
    Begun(TxnKey),
    /// The register's answer.
    Register(RegisterReply),
}

/// A workflow that a command began.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// The stream's id.
    pub stream: u64,
    /// The workflow's id.
    pub workflow: u64,
    /// The epoch that was active.
    pub epoch: i32,
    /// The segments that it makes.
    pub created: Vec<SegmentRecord>,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The scope exists.
    #[error("the scope exists")]
    ScopeExists,
    /// The scope does not exist.
    #[error("the scope does not exist")]
    ScopeNotFound,
    /// Something is in the scope.
    #[error("the scope is not empty")]
    ScopeNotEmpty,
    /// The stream exists.
    #[error("the stream exists")]
    StreamExists,
    /// The stream does not exist.
    #[error("the stream does not exist")]
    StreamNotFound,
    /// The stream has ended.
    #[error("the stream is sealed")]
    StreamSealed,
    /// The stream must be sealed first.
    #[error("the stream is not sealed")]
    StreamNotSealed,
    /// Something is under way: propose again when it is done.
    #[error("a workflow is under way")]
    Busy,
    /// It is being removed already.
    #[error("it is being deleted")]
    Deleting,
    /// A segment is not current.
    #[error("segment {segment} is not current")]
    NotCurrent {
        /// Which segment: its id as a number.
        segment: i64,
    },
    /// The new ranges do not cover exactly the old ones.
    #[error("the new key ranges do not cover exactly those of the sealed segments")]
    Tiling,
    /// Fewer segments than the policy allows would be left.
    #[error("{count} segments are fewer than the policy's {min}")]
    TooFew {
        /// How many there would be.
        count: usize,
        /// How many there must be.
        min: u32,
    },
    /// A limit would be exceeded.
    #[error("more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The cut names a segment of an epoch that is not there.
    #[error("epoch {epoch} does not exist")]
    UnknownEpoch {
        /// Which epoch.
        epoch: i32,
    },
    /// The cut does not cover the key space once, or has an offset that no segment can have.
    #[error("the cut does not cover the key space once")]
    CutNotValid,
    /// The cut lies before the head.
    #[error("the cut lies before the head")]
    CutBackwards,
    /// The workflow is past that step.
    #[error("the workflow is past that step")]
    Stale,
    /// The writer's time is before its last one.
    #[error("the writer's time goes back")]
    TimeBackwards,
    /// Nothing was ever heard of the writer.
    #[error("the writer is not known")]
    WriterUnknown,
    /// The reader group does not exist.
    #[error("the reader group does not exist")]
    GroupNotFound,
    /// The reader group has another id, or nothing to do with the stream.
    #[error("it is another reader group, or no subscriber of the stream")]
    OtherGroup,
    /// The reader group has another generation.
    #[error("the reader group has generation {stored}")]
    OtherGeneration {
        /// Which.
        stored: i64,
    },
    /// The key-value table exists.
    #[error("the key-value table exists")]
    TableExists,
    /// The key-value table does not exist.
    #[error("the key-value table does not exist")]
    TableNotFound,
    /// There is no such transaction.
    #[error("the transaction does not exist")]
    TxnNotFound,
    /// The transaction is decided.
    #[error("the transaction is decided, committed: {committed}")]
    TxnDecided {
        /// How: otherwise it is aborted.
        committed: bool,
    },
    /// The transaction has lived as long as one may.
    #[error("the transaction is too old")]
    TxnTooOld,
}

/// The state machine.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    record: StateRecord,
}

impl Default for State {
    fn default() -> Self {
        Self::genesis()
    }
}

impl State {
    /// The state before the first command.
    pub fn genesis() -> Self {
        let mut record = StateRecord { next_id: 1, ..StateRecord::default() };
        record.scopes.insert(SYSTEM_SCOPE.to_owned(), ScopeRecord { id: 0, deleting: false });
        Self { record }
    }

    /// The state of a snapshot.
    pub fn restore(record: StateRecord) -> Self {
        Self { record }
    }

    /// The state as it is stored.
    pub fn record(&self) -> &StateRecord {
        &self.record
    }

    /// Applies one command. Deterministic and total; a refused command leaves everything but the clock as it was.
    pub fn apply(&mut self, command: &Command, stamp: Stamp) -> Result<Outcome, Refusal> {
        self.record.clock_ms = self.record.clock_ms.max(stamp.clock_ms);
        match command {
            Command::CreateScope { scope } => self.create_scope(scope),
            Command::DeleteScope { scope } => self.delete_scope(scope),
            Command::BeginDeleteScope { scope } => self.begin_delete_scope(scope),
            Command::FinishDeleteScope { scope, id } => self.finish_delete_scope(scope, *id),
            Command::CreateStream { name, config } => self.create_stream(name, config, stamp),
            Command::UpdateStream { name, config } => self.update_stream(name, config),
            Command::Scale { name, sealed, ranges } => self.scale(name, sealed, ranges),
            Command::Truncate { name, cut } => self.truncate(name, cut),
            Command::Seal { name } => self.seal(name),
            Command::Delete { name, force } => self.delete(name, *force),
            Command::Advance { name, workflow, step, lengths } => {
                self.advance(name, (*workflow, *step), lengths, stamp)
            }
            Command::Register(command) => {
                Ok(Outcome::Register(self.record.registers.apply(command)))
            }
            Command::Writer(command) => self.writer(command),
            Command::Group(command) => self.group(command, stamp),
            Command::Table(command) => self.table(command),
            Command::Txn(command) => self.txn(command),
        }
    }

    /// Asserts the invariants of the module's header.
    pub fn check(&self) {
        for name in self.record.streams.keys() {
            self.check_stream(name);
        }
        for name in self.record.tables.keys() {
            self.check_table(name);
        }
        for name in self.record.txns.keys() {
            self.check_txns(name);
        }
        for (name, group) in &self.record.groups {
            assert!(self.record.scopes.contains_key(&name.scope), "{name:?} has no scope");
            let held = group.consumed.keys().all(|stream| group.subscribes(stream));
            assert!(held, "{name:?} holds what it has no part in");
        }
    }

    fn check_txns(&self, name: &Name) {
        let Some(txns) = self.record.txns.get(name) else { return };
        let stream = self.record.streams.get(name).map(|stream| stream.id);
        for (low, txn) in &txns.live {
            assert!((1..i64::MAX).contains(low) && low.unsigned_abs() < self.record.next_id);
            let decided = txn.order().is_some();
            assert!(!decided || stream == Some(txn.stream), "{name:?} {low} has no stream");
            assert!(txns.ended.iter().all(|ended| ended.key.low != *low), "{name:?} {low}");
        }
    }

    fn check_table(&self, name: &Name) {
        let Some(table) = self.record.tables.get(name) else { return };
        assert!(self.record.scopes.contains_key(&name.scope), "{name:?} has no scope");
        assert!(!self.record.retired_tables.contains_key(name), "{name:?} exists and is retired");
        assert!(covers_key_space(&table.segments), "{name:?}");
        assert!(table.segments.iter().all(|s| s.id.number() < table.next_number), "{name:?}");
    }

    /// Asserts the invariants of what `command` touched.
    pub fn check_after(&self, command: &Command) {
        if let Command::CreateStream { name, .. } | Command::Advance { name, .. } = command {
            self.check_stream(name);
            self.check_txns(name);
        }
    }

    fn check_stream(&self, name: &Name) {
        let record = &self.record;
        let Some(stream) = record.streams.get(name) else { return };
        assert!(record.scopes.contains_key(&name.scope), "{name:?} has no scope");
        assert!(!record.retired.contains_key(name), "{name:?} exists and is retired");
        assert!(stream.id < record.next_id);
        stream.check(name);
    }
}

impl StreamRecord {
    fn check(&self, name: &Name) {
        let epochs = self.epochs.len();
        let behind = match self.kind() {
            Some(Workflow::ScaleSeal { .. }) => 1,
            Some(Workflow::TxnMerge { rolled: true, .. } | Workflow::RollSeal { .. }) => 2,
            _ => 0,
        };
        assert_eq!(self.active as usize + 1 + behind, epochs, "{name:?}");
        for epoch in &self.epochs {
            assert!(covers_key_space(&epoch.segments), "{name:?}: {epoch:?}");
            assert!(epoch.segments.iter().all(|s| s.id.number() < self.next_number));
        }
        if let Some(cut) = &self.truncation {
            assert!(self.segments_of(cut).is_some_and(|s| covers_key_space(&s)), "{name:?}");
        }
    }

    /// What is under way.
    pub fn kind(&self) -> Option<&Workflow> {
        self.workflow.as_ref().map(|workflow| &workflow.kind)
    }

    /// True if clients may know of the stream.
    pub fn is_visible(&self) -> bool {
        !matches!(self.kind(), Some(Workflow::Create | Workflow::Delete))
    }

    /// The records of a cut's segments by lower bound, if all of them exist or existed.
    pub fn segments_of(&self, cut: &Cut) -> Option<Vec<SegmentRecord>> {
        let found: Option<Vec<_>> = cut.keys().map(|id| self.segment(*id)).collect();
        found.map(sorted)
    }
}

/// True if `segments`, sorted by lower bound, cover the key space exactly once.
fn covers_key_space(segments: &[SegmentRecord]) -> bool {
    let first = segments.first().is_some_and(|s| s.low == 0.0);
    let last = segments.last().is_some_and(|s| s.high.to_bits() == 1.0_f64.to_bits());
    first && last && segments.windows(2).all(|w| w[0].high.to_bits() == w[1].low.to_bits())
}

fn sorted(mut segments: Vec<SegmentRecord>) -> Vec<SegmentRecord> {
    segments.sort_by(|a, b| a.low.total_cmp(&b.low));
    segments
}

/// The name of a stream's companion; companions have none.
pub fn companion(name: &Name) -> Option<Name> {
    let companion = || Name::new(&name.scope, format!("{COMPANION_PREFIX}{}", name.stream));
    (!name.stream.starts_with(COMPANION_PREFIX)).then(companion)
}

/// The streams of `scope`, in order of name.
fn streams_of<'a>(
    streams: &'a BTreeMap<Name, StreamRecord>,
    scope: &str,
) -> impl Iterator<Item = (&'a Name, &'a StreamRecord)> {
    let scope = scope.to_owned();
    let start = Name::new(scope.clone(), "");
    streams.range(start..).take_while(move |(name, _)| name.scope == scope)
}
