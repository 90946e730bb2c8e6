//! From a log to a container: the newest valid snapshot, then the operations behind it, then a verdict.
//!
//! Nothing here guesses. What cannot be read, decoded or applied ends the recovery with the place and the reason.

use crate::container::codec::FormatError;
use crate::container::format::{Operation, decode_headers};
use crate::container::frame::OpenFrame;
use crate::container::reads::{Tail, Visible};
use crate::container::snapshots::{Retention, behind};
use crate::container::state::{At, Mismatch, State};
use crate::container::writers::Writers;
use crate::container::{Acknowledged, Container, Effects, Tuning, snapshot};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, VecDeque};
use thalweg_actor::{planted, probe};
use thalweg_log::ledger::{ReplayedEntry, SnapshotPointer, SnapshotPointers};
use thalweg_types::id::{Address, EntryId, Epoch};
use thalweg_types::time::{Instant, WallTime};
use thiserror::Error;

/// Why a container's state cannot be recovered from its log.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecoveryError {
    /// The headers of an entry cannot be read.
    #[error("entry {address}: {fault}")]
    Format {
        /// Which entry.
        address: Address,
        /// What is wrong with it.
        fault: FormatError,
    },
    /// An operation does not fit the state before it.
    #[error("entry {address}: {fault}")]
    Mismatch {
        /// Which entry.
        address: Address,
        /// What does not fit.
        fault: Mismatch,
    },
    /// An entry's operations and its payload have different lengths.
    #[error("entry {address}: operations name {named} bytes of payload, {found} are there")]
    Payload {
        /// Which entry.
        address: Address,
        /// What the operations say, in bytes.
        named: u64,
        /// What is there, in bytes.
        found: u64,
    },
    /// The state is broken although every operation fitted.
    #[error("after the replay: {fault}")]
    Broken {
        /// What is broken.
        fault: Mismatch,
    },
    /// A snapshot is not what its pointer says.
    #[error("snapshot at {address}: {reason}")]
    Snapshot {
        /// Its first entry.
        address: Address,
        /// What is wrong with it.
        reason: String,
    },
    /// The log begins behind the end of what the snapshots cover.
    #[error(
        "the log begins at {keep_from}, and no snapshot that can be read covers what came before"
    )]
    Uncovered {
        /// Where the log begins.
        keep_from: Address,
    },
}

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries behind the snapshot.
    pub entries: u64,
    /// Their bytes, headers and payload; payload is not read.
    pub bytes: u64,
    /// Segments that there are now.
    pub segments: u64,
    /// It began with a snapshot.
    pub from_snapshot: bool,
}

/// A recovery under way.
pub(crate) struct Recovery {
    state: State,
    covered: Option<Address>,
    replayed: Replayed,
    wall: i64,
}

/// Puts a snapshot's parts together as they are read.
#[derive(Debug)]
pub(crate) struct Parts {
    pointer: SnapshotPointer,
    body: BytesMut,
    read: u32,
    count: u32,
}

impl Parts {
    pub(crate) fn new(pointer: SnapshotPointer) -> Self {
        Self { pointer, body: BytesMut::new(), read: 0, count: 1 }
    }

    /// The entry that holds the next part; `None` when all are there.
    pub(crate) fn next(&self) -> Option<Address> {
        let at = self.pointer.at;
        let entry = EntryId(at.entry.0 + u64::from(self.read));
        (self.read < self.count).then_some(Address::new(at.epoch, entry))
    }

    fn fault(&self, reason: &impl ToString) -> RecoveryError {
        RecoveryError::Snapshot { address: self.pointer.at, reason: reason.to_string() }
    }

    /// Adds the payload of that entry.
    pub(crate) fn push(&mut self, payload: &Bytes) -> Result<(), RecoveryError> {
        let part = snapshot::decode_part(payload).map_err(|fault| self.fault(&fault))?;
        if part.index != self.read
            || (self.read > 0 && part.count != self.count)
            || part.covers != self.pointer.covers
        {
            return Err(self.fault(&"its parts do not belong together"));
        }
        self.count = part.count;
        self.read += 1;
        self.body.extend_from_slice(&part.body);
        Ok(())
    }
}

impl Recovery {
    /// From the beginning of the log.
    pub(crate) fn blank() -> Self {
        Self { state: State::default(), covered: None, replayed: Replayed::default(), wall: 0 }
    }

    /// From a snapshot, all of whose parts were read. `keep_from` is where the log begins.
    pub(crate) fn from_parts(parts: &Parts, keep_from: Address) -> Result<Self, RecoveryError> {
        let covered = parts.pointer.covers;
        if keep_from > covered.map_or(Address::default(), behind) {
            return Err(RecoveryError::Uncovered { keep_from });
        }
        let body = parts.body.clone().freeze();
        let state = snapshot::decode_state(body).map_err(|fault| parts.fault(&fault))?;
        let wall = state.segments.values().map(|segment| segment.modified).max().unwrap_or(0);
        let replayed = Replayed { from_snapshot: true, ..Replayed::default() };
        Ok(Self { state, covered, replayed, wall })
    }

    /// Where the replay begins; `None`: with the first entry that there is.
    pub(crate) fn from(&self) -> Option<Address> {
        self.covered.map(behind)
    }

    /// Applies the next entry.
    pub(crate) fn replay(&mut self, entry: ReplayedEntry) -> Result<(), RecoveryError> {
        let address = entry.address;
        let bytes = entry.headers.len() + entry.payload_len;
        let (wall, operations) = decode_headers(entry.headers)
            .map_err(|fault| RecoveryError::Format { address, fault })?;
        let named: u64 =
            operations.iter().map(|operation| u64::from(operation.payload_len())).sum();
        let found = entry.payload_len as u64;
        if named != found {
            return Err(RecoveryError::Payload { address, named, found });
        }
        let mut position = 0;
        for operation in &operations {
            self.state
                .apply(operation, At { address, position, wall })
                .map_err(|fault| RecoveryError::Mismatch { address, fault })?;
            position += operation.payload_len();
        }
        self.covered = Some(address);
        self.wall = self.wall.max(wall);
        self.replayed.entries += 1;
        self.replayed.bytes += bytes as u64;
        Ok(())
    }

    /// The verdict on the whole state, and what was done.
    pub(crate) fn verify(&mut self) -> Result<Replayed, RecoveryError> {
        self.state.verify().map_err(|fault| RecoveryError::Broken { fault })?;
        if planted!("PB-S3") {
            self.state.segments.values_mut().for_each(|segment| segment.attributes.clear());
        }
        self.replayed.segments = self.state.segments.len() as u64;
        Ok(self.replayed)
    }

    /// A number that two equal states share.
    #[cfg(test)]
    pub(crate) fn state_hash(&self) -> u64 {
        snapshot::state_hash(&self.state)
    }
}

/// What a container begins with besides its state.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) tuning: Tuning,
    pub(crate) epoch: Epoch,
    pub(crate) is_local: bool,
    pub(crate) keep_from: Address,
    pub(crate) snapshots: SnapshotPointers,
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
}

impl Container {
    /// The container of a verified recovery. Its first entry, the owner's start, is among `effects`: nothing may be
    /// asked of it before that is committed. Segments of large events that were under way are deleted: their
    /// connections are gone.
    pub(crate) fn start(recovery: Recovery, start: Start, effects: &mut Effects) -> Self {
        let Recovery { state, covered, replayed, wall } = recovery;
        let tails = state
            .segments
            .iter()
            .map(|(key, segment)| (*key, Tail::new(Visible::of(segment))))
            .collect();
        let retention =
            Retention::new(start.snapshots, start.keep_from, replayed.entries, replayed.bytes);
        let mut container = Self {
            tuning: start.tuning,
            epoch: start.epoch,
            is_local: start.is_local,
            state,
            writers: Writers::default(),
            tails,
            deadlines: VecDeque::new(),
            open: OpenFrame::default(),
            in_flight: VecDeque::new(),
            next_entry: EntryId(0),
            last_address: covered,
            now: start.now,
            wall: wall.max(start.wall.0),
            retention,
            reads_held: 0,
            transients_made: 0,
            compacting: BTreeSet::new(),
            acknowledged: Acknowledged::default(),
            has_stopped: false,
        };
        container.log(&Operation::OwnerStart { epoch: start.epoch }, [], effects);
        let left: Vec<_> = container
            .state
            .segments
            .iter()
            .filter(|(_, segment)| segment.name.is_transient())
            .map(|(key, _)| *key)
            .collect();
        for key in left {
            probe!("container: large event left by an earlier owner");
            container.delete(key, effects);
        }
        container.flush(effects);
        container
    }

    /// A number that two equal states share.
    #[cfg(test)]
    pub(crate) fn state_hash(&self) -> u64 {
        snapshot::state_hash(&self.state)
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> usize {
        self.state.segments.len()
    }

    /// What has been acknowledged since the start.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged
    }
}
