//! Where bytes lie in a container's log, and what a container and a table tell each other.

use bytes::Bytes;
use thalweg_types::id::Address;
use thalweg_wire::segment::Command;

/// A run of payload bytes of one log entry. The log is a place to read from: nothing is copied out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The entry.
    pub address: Address,
    /// Position of the first byte in the entry's payload.
    pub position: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Place {
    /// The part `[from, from + len)` of it; the caller keeps within the bounds.
    #[must_use]
    pub fn part(self, from: u32, len: u32) -> Self {
        debug_assert!(from + len <= self.len, "a part lies within its whole");
        Self { address: self.address, position: self.position + from, len }
    }
}

/// A change of a table that was checked and may now be logged: becomes one operation, and is then applied.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The rows without their values, in the table's own format: it travels in the operation's header, and is all
    /// that a replay gets.
    pub header: Bytes,
    /// The rows' values, one behind the other.
    pub payload: Vec<Bytes>,
    /// The answer once the operation is committed.
    pub reply: Command,
}

/// A table's answer to a read.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Complete.
    Now(Command),
    /// Complete when values have been read from the log.
    Values(Unfilled),
}

/// An answer whose values must still be read from the log.
#[derive(Clone, Debug)]
pub struct Unfilled {
    /// `TableRead`, `TableEntriesRead` or `TableEntriesDeltaRead`; the values at `places` are empty.
    pub reply: Command,
    /// Which entry of `reply` has its value where.
    pub places: Vec<(usize, Place)>,
}
