//! Quorum arithmetic: how many copies an entry gets, how many make it committed, how many answers a recovery needs.
//!
//! Every entry of a ledger goes to all members of its ensemble (no striping), and acks are cumulative. So a commit
//! point is one order statistic of the acked ends, and so is the part that a recovery must keep.
//!
//! *Ends are exclusive*: the end of a run is the first entry that is not in it, so an empty run needs no sentinel.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thalweg_types::id::{EntryId, ReplicaId};
use thiserror::Error;

/// Most replicas that an ensemble may have.
pub const ENSEMBLE_MAX: usize = 16;

/// Write quorum and ack quorum of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quorum {
    /// Replicas that every entry is sent to.
    pub write: u8,
    /// Replicas that must have an entry before it is committed; a majority of `write`.
    pub ack: u8,
}

/// Why a quorum or an ensemble is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuorumError {
    /// The ack quorum is no majority of the write quorum, or is larger than it.
    #[error("ack quorum {} is not a majority of write quorum {}", .0.ack, .0.write)]
    NotAMajority(Quorum),
    /// The ensemble has another size than the write quorum, or more than [`ENSEMBLE_MAX`].
    #[error("an ensemble of {members} replicas does not fit write quorum {write}")]
    WrongSize {
        /// Members given.
        members: usize,
        /// Members wanted.
        write: u8,
    },
    /// Two members live on one node.
    #[error("two members of an ensemble on the node of {0}")]
    SharedNode(ReplicaId),
}

impl Quorum {
    /// The embedded single node.
    pub const ONE: Self = Self { write: 1, ack: 1 };

    /// How many fenced, certain members prove that whatever they lack was never committed.
    pub fn recovery(self) -> usize {
        usize::from(self.write) - usize::from(self.ack) + 1
    }

    /// Checks the quorum itself.
    pub fn validate(self) -> Result<(), QuorumError> {
        let majority = self.ack > self.write / 2 && self.ack <= self.write;
        if majority { Ok(()) } else { Err(QuorumError::NotAMajority(self)) }
    }

    /// Checks that `ensemble` may carry a ledger with this quorum: one storage per node, `write` of them.
    pub fn validate_ensemble(self, ensemble: &[ReplicaId]) -> Result<(), QuorumError> {
        self.validate()?;
        if ensemble.len() != usize::from(self.write) || ensemble.len() > ENSEMBLE_MAX {
            return Err(QuorumError::WrongSize { members: ensemble.len(), write: self.write });
        }
        let mut nodes = BTreeSet::new();
        match ensemble.iter().find(|member| !nodes.insert(member.node)) {
            Some(twin) => Err(QuorumError::SharedNode(*twin)),
            None => Ok(()),
        }
    }

    /// The end that `ack` of the given ends reach: the `ack`-th largest. `None` if there are fewer.
    pub fn committed_end(self, acked: impl Iterator<Item = EntryId>) -> Option<EntryId> {
        order_statistic(acked, usize::from(self.ack), |a, b| b > a)
    }
}

/// The `nth` smallest (1 is the smallest). `None` if there are fewer.
pub fn nth_smallest(ends: impl Iterator<Item = EntryId>, nth: usize) -> Option<EntryId> {
    order_statistic(ends, nth, |a, b| b < a)
}

/// The `nth` value when all are sorted so that `after(a, b)` means that `b` comes before `a`.
fn order_statistic(
    values: impl Iterator<Item = EntryId>,
    nth: usize,
    after: impl Fn(EntryId, EntryId) -> bool,
) -> Option<EntryId> {
    let mut sorted = [EntryId(0); ENSEMBLE_MAX];
    let mut count = 0;
    for value in values.take(ENSEMBLE_MAX) {
        let mut at = count;
        while at > 0 && after(sorted[at - 1], value) {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = value;
        count += 1;
    }
    (1..=count).contains(&nth).then(|| sorted[nth - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::{NodeId, StorageUuid};

    fn ends(values: &[u64]) -> impl Iterator<Item = EntryId> {
        values.iter().map(|value| EntryId(*value))
    }

    fn replica(node: u64) -> ReplicaId {
        ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
    }

    #[test]
    fn the_commit_point_is_what_the_ack_quorum_has_reached() {
        let quorum = Quorum { write: 3, ack: 2 };
        assert_eq!(quorum.committed_end(ends(&[5, 9, 7])), Some(EntryId(7)));
        assert_eq!(quorum.committed_end(ends(&[5, 9])), Some(EntryId(5)));
        assert_eq!(quorum.committed_end(ends(&[9])), None);
        assert_eq!(Quorum::ONE.committed_end(ends(&[4])), Some(EntryId(4)));
    }

    #[test]
    fn a_recovery_meets_every_ack_quorum() {
        for write in 1..=7_u8 {
            for ack in (write / 2 + 1)..=write {
                let quorum = Quorum { write, ack };
                assert_eq!(quorum.validate(), Ok(()));
                assert!(quorum.recovery() + usize::from(ack) > usize::from(write));
            }
        }
    }

    #[test]
    fn the_nth_smallest_counts_from_one() {
        assert_eq!(nth_smallest(ends(&[5, 9, 7]), 2), Some(EntryId(7)));
        assert_eq!(nth_smallest(ends(&[5, 9, 7]), 1), Some(EntryId(5)));
        assert_eq!(nth_smallest(ends(&[5]), 2), None);
        assert_eq!(nth_smallest(ends(&[5]), 0), None);
    }

    #[test]
    fn an_ensemble_has_one_storage_per_node() {
        let quorum = Quorum { write: 3, ack: 2 };
        let good = [replica(1), replica(2), replica(3)];
        assert_eq!(quorum.validate_ensemble(&good), Ok(()));
        let twin = ReplicaId { storage: StorageUuid(77), ..replica(1) };
        let shared = quorum.validate_ensemble(&[replica(1), replica(2), twin]);
        assert_eq!(shared, Err(QuorumError::SharedNode(twin)));
        assert!(quorum.validate_ensemble(&good[..2]).is_err());
    }

    #[test]
    fn a_minority_is_no_ack_quorum() {
        assert!(Quorum { write: 4, ack: 2 }.validate().is_err());
        assert!(Quorum { write: 1, ack: 0 }.validate().is_err());
        assert!(Quorum { write: 2, ack: 3 }.validate().is_err());
    }
}
