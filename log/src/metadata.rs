//! The controller's log: a totally ordered, durable sequence of commands with snapshots.
//!
//! Consensus fills this interface in a cluster; with one voter the log lies on the local storage.

use crate::ledger::Stopped;
use bytes::Bytes;
use thalweg_actor::BoxFuture;
use thalweg_types::id::ContainerId;

/// The container whose ledgers hold the controller's commands on a node with one voter. No segment container has
/// this id; replicas and logs of segment containers MUST leave its ledgers alone.
pub const METADATA_CONTAINER: ContainerId = ContainerId(u32::MAX);

/// What the log holds at start.
#[derive(Clone, Debug, Default)]
pub struct RecoveredCommands {
    /// The newest snapshot and the index of the last command in it.
    pub snapshot: Option<(u64, Bytes)>,
    /// The commands behind the snapshot, in order, with their indexes.
    pub commands: Vec<(u64, Bytes)>,
}

/// A log of commands. Indexes start at 1 and have no gap.
pub trait MetadataLog: Send + Sync {
    /// What was there at start. Answers once: a second call gets nothing.
    fn recovered(&self) -> RecoveredCommands;

    /// Appends `command` and returns its index when it is committed. Commands are committed in the order of the
    /// calls. On `Stopped` the outcome is unknown and the controller must end.
    fn append(&self, command: Bytes) -> BoxFuture<'_, Result<u64, Stopped>>;

    /// Stores a snapshot of the state after command `upto`, then drops the commands it covers. A crash leaves the
    /// older snapshot with all its commands, or the new one.
    fn snapshot(&self, upto: u64, state: Bytes) -> BoxFuture<'_, Result<(), Stopped>>;
}
