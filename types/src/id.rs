//! Newtypes for every id that could be confused with another.
//!
//! Ids are transparent numbers, so they may derive `Serialize`: their format is the number itself.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A segment container, `0..CONTAINERS`. Segments are spread over containers by name.
    ContainerId(u32)
);
id!(
    /// The fencing number of a container's owner: strictly increasing, one ledger per (container, epoch).
    Epoch(u64)
);
id!(
    /// Position of an entry in its ledger, from 0, never reused.
    EntryId(u64)
);
id!(
    /// A process of the cluster, stable across restarts.
    NodeId(u64)
);
id!(
    /// The identity of one disk's content. A blank or rolled-back disk is another storage.
    StorageUuid(u128)
);
id!(
    /// Random per process start: two starts of one owner are two owners.
    Incarnation(u64)
);
id!(
    /// An event writer: 128 random bits chosen by the client.
    WriterId(u128)
);
id!(
    /// Pravega's segment id: `epoch << 32 | number`.
    SegmentId(i64)
);

impl EntryId {
    /// The entry after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a ledger ends long before 2^64 entries"))
    }
}

impl SegmentId {
    /// The id of segment `number`, created in stream epoch `epoch`.
    pub fn new(epoch: i32, number: i32) -> Self {
        Self((i64::from(epoch) << 32) | (i64::from(number) & 0xFFFF_FFFF))
    }

    /// The segment's number: unique within its stream but for rolled transactions.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the number")]
    pub fn number(self) -> i32 {
        self.0 as i32
    }

    /// The stream epoch that created the segment.
    pub fn epoch(self) -> i32 {
        (self.0 >> 32) as i32
    }
}

/// One ledger: the log of one container during one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerId {
    /// Whose log.
    pub container: ContainerId,
    /// During which epoch.
    pub epoch: Epoch,
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}e{}", self.container, self.epoch)
    }
}

/// The place of an entry in a container's log: totally ordered across ledgers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Address {
    /// The ledger's epoch.
    pub epoch: Epoch,
    /// The entry in that ledger.
    pub entry: EntryId,
}

impl Address {
    /// The address `entry` of epoch `epoch`.
    pub fn new(epoch: Epoch, entry: EntryId) -> Self {
        Self { epoch, entry }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}:{}", self.epoch, self.entry)
    }
}

/// A storage's part in the cluster: the node that serves it and the disk itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The node that mounts the storage.
    pub node: NodeId,
    /// The storage.
    pub storage: StorageUuid,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}/{:032x}", self.node, self.storage.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_id_keeps_epoch_and_number_apart() {
        let id = SegmentId::new(3, 7);
        assert_eq!((id.0, id.epoch(), id.number()), (0x3_0000_0007, 3, 7));
        let negative = SegmentId(-1);
        assert_eq!((negative.epoch(), negative.number()), (-1, -1));
    }

    #[test]
    fn addresses_order_by_epoch_then_entry() {
        assert!(Address::new(Epoch(1), EntryId(9)) < Address::new(Epoch(2), EntryId(0)));
    }
}
