//! What the controller persists: commands in its log, and the state in its snapshots.
//!
//! The state machine keeps these very records, so a snapshot is the state itself. Persisted: variants and fields are
//! never reordered or removed; new ones go to the end, with a new [`VERSION`] and an upgrade of the older ones.

mod group;
mod table;
mod txn;
mod upgrade;
mod writer;

pub use group::{GroupCommand, GroupConfigRecord, GroupRecord};
pub use table::{TableCommand, TableConfigRecord, TableRecord, TableWorkflow};
pub use txn::{EndedTxn, TxnCommand, TxnKey, TxnPhase, TxnRecord, TxnsRecord};
pub use writer::{MarkRecord, WriterCommand};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_log::register::{RegisterCommand, Registers};
use thalweg_types::codec::{self, DecodeError};
use thalweg_types::id::SegmentId;
use thalweg_types::stream::KeyRange;
use thiserror::Error;

/// Version of commands and snapshots. 1 had streams alone: its commands are read as they stand, its snapshots by
/// `upgrade`.
pub const VERSION: u16 = 2;

/// When a command was proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds of log time: only ever grows, stands still while no controller runs. Leases are decided by it.
    pub clock_ms: u64,
    /// Milliseconds since 1970, as the proposer's node believed. Never used for safety.
    pub wall_ms: i64,
}

/// A stream's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// Its scope.
    pub scope: String,
    /// Its name in the scope.
    pub stream: String,
}

impl Name {
    /// The stream `stream` of `scope`.
    pub fn new(scope: impl Into<String>, stream: impl Into<String>) -> Self {
        Self { scope: scope.into(), stream: stream.into() }
    }
}

/// Offsets in the segments that cover the key space once.
pub type Cut = BTreeMap<SegmentId, i64>;

/// What a stream is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    /// How many segments, and why.
    pub scaling: ScalingRecord,
    /// When the oldest data goes; `None`: never.
    pub retention: Option<RetentionRecord>,
    /// Each once.
    pub tags: BTreeSet<String>,
    /// How long a silent writer holds the watermark, in milliseconds.
    pub timestamp_aggregation_timeout_ms: i64,
    /// Size of a segment's chunks in bytes; 0 leaves it to the store.
    pub rollover_size_bytes: i64,
}

impl ConfigRecord {
    /// `segments` segments and nothing special.
    pub fn fixed(segments: u32) -> Self {
        Self {
            scaling: ScalingRecord {
                kind: ScalingKind::Fixed,
                target_rate: 0,
                scale_factor: 0,
                min_segments: segments,
            },
            retention: None,
            tags: BTreeSet::new(),
            timestamp_aggregation_timeout_ms: 0,
            rollover_size_bytes: 0,
        }
    }
}

/// By what a stream scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalingKind {
    /// Not by itself.
    Fixed,
    /// Kilobytes per second and segment.
    KilobytesPerSecond,
    /// Events per second and segment.
    EventsPerSecond,
}

/// How many segments a stream has, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingRecord {
    /// By what.
    pub kind: ScalingKind,
    /// The rate that one segment should take.
    pub target_rate: i32,
    /// Parts of a split.
    pub scale_factor: i32,
    /// The least number of segments, from 1 to [`crate::limits::SEGMENTS_MAX`].
    pub min_segments: u32,
}

/// When a stream's oldest data goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRecord {
    /// By size in bytes; otherwise by age in milliseconds.
    pub by_size: bool,
    /// Keep at least that much.
    pub param: i64,
    /// Keep at most that much.
    pub max: i64,
}

/// A segment and its part of the key space. The bounds are computed once and only copied from then on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// The segment.
    pub id: SegmentId,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl SegmentRecord {
    /// The segment's key range.
    pub fn range(&self) -> KeyRange {
        KeyRange { low: self.low, high: self.high }
    }

    /// True if the two share keys.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.range().overlaps(&other.range())
    }
}

/// One generation of a stream's segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch whose ranges it repeats: its own number but after a rolling transaction.
    pub reference: i32,
    /// Its segments by lower bound: they cover the key space once.
    pub segments: Vec<SegmentRecord>,
    /// Wall time of its making, in milliseconds.
    pub created_at_ms: i64,
}

/// Whether a stream takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamStatus {
    /// It does.
    Active,
    /// It has ended.
    Sealed,
}

/// What is under way on a stream: at most one thing at a time. A driver carries it out from this record alone, and
/// may be cut off at any point and begin again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowRecord {
    /// Never reused.
    pub id: u64,
    /// What is done.
    pub kind: Workflow,
}

/// The kinds of workflow, with the step where they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Workflow {
    /// The first segments are being made; nobody sees the stream.
    Create,
    /// Successors are being made; nobody sees them.
    ScaleCreate {
        /// The segments to end.
        sealed: Vec<SegmentId>,
        /// Their successors.
        created: Vec<SegmentRecord>,
    },
    /// The next epoch is recorded and its segments exist: the old ones are being sealed.
    ScaleSeal {
        /// The segments to end.
        sealed: Vec<SegmentId>,
    },
    /// What lies before the truncation cut is being removed.
    Truncate {
        /// The segments that lie wholly before it, and did not before.
        gone: Vec<SegmentId>,
    },
    /// All active segments are being sealed.
    Seal,
    /// Everything is being removed; nobody sees the stream any more.
    Delete,
    /// The segments of decided transactions are being sealed: late writes are refused from then on. From version 2
    /// on, like all that follows.
    TxnSeal {
        /// The transactions, by the lower half of their ids, in the order of their commits.
        batch: Vec<i64>,
    },
    /// The segments of two epochs are being made; nobody sees them.
    RollCreate {
        /// As before.
        batch: Vec<i64>,
        /// The epoch whose segments the first one repeats.
        reference: i32,
        /// The segments to merge into.
        merged: Vec<SegmentRecord>,
        /// Those that follow them, with the ranges of the active ones.
        next: Vec<SegmentRecord>,
    },
    /// The segments of the transactions are being merged.
    TxnMerge {
        /// As before.
        batch: Vec<i64>,
        /// Into the epoch behind the active one; otherwise into the active one.
        rolled: bool,
    },
    /// The epoch that was merged into is being sealed, and then the active one.
    RollSeal {
        /// As before; empty if not all of them could be merged.
        batch: Vec<i64>,
    },
}

/// Everything about one stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Tells incarnations of one name apart; never reused.
    pub id: u64,
    /// What it was made with, or last updated to.
    pub config: ConfigRecord,
    /// All epochs from 0. One behind `active` is recorded before the old segments are sealed.
    pub epochs: Vec<EpochRecord>,
    /// Index of the epoch whose segments take events.
    pub active: u32,
    /// Whether it takes events.
    pub status: StreamStatus,
    /// The number of the next segment.
    pub next_number: i32,
    /// Final lengths of sealed segments in bytes, where the store could tell.
    pub sealed_lengths: BTreeMap<SegmentId, i64>,
    /// The head, once it has moved.
    pub truncation: Option<Cut>,
    /// What is under way.
    pub workflow: Option<WorkflowRecord>,
    /// Wall time of its making, in milliseconds.
    pub created_at_ms: i64,
}

/// A scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeRecord {
    /// Tells incarnations of one name apart; never reused.
    pub id: u64,
    /// It goes with all that is in it; nobody sees it any more.
    pub deleting: bool,
}

/// What is left of a deleted stream, for ever: no segment name may come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRecord {
    /// The number of the next segment.
    pub next_number: i32,
}

/// The whole state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// Log time of the last command, in milliseconds.
    pub clock_ms: u64,
    /// The next stream, scope or workflow id.
    pub next_id: u64,
    /// Scopes.
    pub scopes: BTreeMap<String, ScopeRecord>,
    /// Streams.
    pub streams: BTreeMap<Name, StreamRecord>,
    /// Deleted streams.
    pub retired: BTreeMap<Name, RetiredRecord>,
    /// Which ledgers the containers' logs consist of.
    pub registers: Registers,
    /// The marks of each stream's writers. From version 2 on, like all that follows.
    pub marks: BTreeMap<Name, BTreeMap<String, MarkRecord>>,
    /// Reader groups by scope and name.
    pub groups: BTreeMap<Name, GroupRecord>,
    /// Key-value tables by scope and name: names of their own, beside those of streams.
    pub tables: BTreeMap<Name, TableRecord>,
    /// Deleted key-value tables.
    pub retired_tables: BTreeMap<Name, RetiredRecord>,
    /// Transactions by stream, also of streams that are gone.
    pub txns: BTreeMap<Name, TxnsRecord>,
}

/// What changes the state. Checked when it is applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a scope.
    CreateScope {
        /// Its name.
        scope: String,
    },
    /// Removes an empty scope.
    DeleteScope {
        /// Its name.
        scope: String,
    },
    /// Decides that a scope goes with all that is in it.
    BeginDeleteScope {
        /// Its name.
        scope: String,
    },
    /// Removes a scope of which [`Command::BeginDeleteScope`] was said, once it is empty.
    FinishDeleteScope {
        /// Its name.
        scope: String,
        /// Which incarnation.
        id: u64,
    },
    /// Records a stream and its companion; their segments are made next.
    CreateStream {
        /// Its name.
        name: Name,
        /// What it is made with.
        config: ConfigRecord,
    },
    /// Replaces the configuration, and begins a scale where the new one asks for another number of segments.
    UpdateStream {
        /// Its name.
        name: Name,
        /// The new configuration.
        config: ConfigRecord,
    },
    /// Begins a scale.
    Scale {
        /// Its name.
        name: Name,
        /// The segments to end.
        sealed: Vec<SegmentId>,
        /// The key ranges of the new ones.
        ranges: Vec<(f64, f64)>,
    },
    /// Moves the head.
    Truncate {
        /// Its name.
        name: Name,
        /// Where to.
        cut: Cut,
    },
    /// Begins to end a stream.
    Seal {
        /// Its name.
        name: Name,
    },
    /// Begins to remove a stream.
    Delete {
        /// Its name.
        name: Name,
        /// Even if it is not sealed.
        force: bool,
    },
    /// A workflow's step is done: all its effects have been verified.
    Advance {
        /// The stream's name.
        name: Name,
        /// The workflow.
        workflow: u64,
        /// The step: which [`Workflow`] the driver found.
        step: Step,
        /// Final lengths of the segments that the step sealed.
        lengths: BTreeMap<SegmentId, i64>,
    },
    /// Changes a container's register.
    Register(RegisterCommand),
    /// Changes a stream's marks. From version 2 on, like all that follows.
    Writer(WriterCommand),
    /// Changes a reader group.
    Group(GroupCommand),
    /// Changes a key-value table.
    Table(TableCommand),
    /// Changes a transaction.
    Txn(TxnCommand),
}

/// A workflow's step without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// [`Workflow::Create`].
    Create,
    /// [`Workflow::ScaleCreate`].
    ScaleCreate,
    /// [`Workflow::ScaleSeal`].
    ScaleSeal,
    /// [`Workflow::Truncate`].
    Truncate,
    /// [`Workflow::Seal`].
    Seal,
    /// [`Workflow::Delete`].
    Delete,
    /// [`Workflow::TxnSeal`].
    TxnSeal,
    /// [`Workflow::RollCreate`].
    RollCreate,
    /// [`Workflow::TxnMerge`].
    TxnMerge,
    /// [`Workflow::RollSeal`].
    RollSeal,
    /// No step of a workflow: the segments of one transaction are being made.
    TxnCreate,
    /// No step of a workflow: the segments of one transaction are being removed.
    TxnDelete,
}

impl Workflow {
    /// Where it stands.
    pub fn step(&self) -> Step {
        match self {
            Self::Create => Step::Create,
            Self::ScaleCreate { .. } => Step::ScaleCreate,
            Self::ScaleSeal { .. } => Step::ScaleSeal,
            Self::Truncate { .. } => Step::Truncate,
            Self::Seal => Step::Seal,
            Self::Delete => Step::Delete,
            Self::TxnSeal { .. } => Step::TxnSeal,
            Self::RollCreate { .. } => Step::RollCreate,
            Self::TxnMerge { .. } => Step::TxnMerge,
            Self::RollSeal { .. } => Step::RollSeal,
        }
    }
}

/// Why stored bytes are not a command or a state. The controller MUST NOT start: it would lose what it cannot read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// Another version.
    #[error(
        "version {found} of the controller's records is unknown, this program writes {VERSION}"
    )]
    Version {
        /// What stands there.
        found: u16,
    },
    /// Not a record.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// `command` as it stands in the log.
pub fn encode_command(stamp: Stamp, command: &Command) -> Vec<u8> {
    codec::encode(&(VERSION, stamp, command))
}

/// The command that `bytes` hold, and when it was proposed.
pub fn decode_command(bytes: &[u8]) -> Result<(Stamp, Command), RecordError> {
    // New commands stand behind the old ones, which have not changed.
    let (_, body) = versioned(bytes)?;
    Ok(codec::decode(body, bytes.len())?)
}

/// `state` as it stands in a snapshot.
pub fn encode_state(state: &StateRecord) -> Vec<u8> {
    codec::encode(&(VERSION, state))
}

/// The state that `bytes` hold.
pub fn decode_state(bytes: &[u8]) -> Result<StateRecord, RecordError> {
    let (version, body) = versioned(bytes)?;
    if version == 1 {
        return upgrade::state(body);
    }
    Ok(codec::decode(body, bytes.len())?)
}

/// The version, from 1 to this program's, and what stands behind it.
fn versioned(bytes: &[u8]) -> Result<(u16, &[u8]), RecordError> {
    let (head, body) = bytes.split_at(bytes.len().min(2));
    let found: u16 = codec::decode(head, 2)?;
    if !(1..=VERSION).contains(&found) {
        return Err(RecordError::Version { found });
    }
    Ok((found, body))
}

#[cfg(test)]
mod tests;
