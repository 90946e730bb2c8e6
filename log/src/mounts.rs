//! Which storages there are: every mount is noted where the registers are kept, so that a disk that is blank, has been
//! replaced or was rolled back never answers under an old identity (L18).
//!
//! Invariants of [`MountTable`]
//! 1. The number of mounts of a storage never goes back; one that claims fewer is refused, and one that was counted
//!    twice was rolled back and is lost.
//! 2. A lost storage stays lost.
//! 3. A node has one storage that is not lost: a new one supersedes those before, and none that came after it asked.
//!
//! Deliberately not here: what becomes of the ledgers of a lost storage (`repair`).

use crate::register::{ContainerLog, MemoryRegister, RegisterUnavailable};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use thalweg_actor::{BoxFuture, planted, probe};
use thalweg_types::id::{ContainerId, Epoch, NodeId, ReplicaId, StorageUuid};

/// A storage is being mounted; its superblock says so durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// Who mounts it.
    pub node: NodeId,
    /// Which one.
    pub storage: StorageUuid,
    /// How often it had been mounted before, as its superblock had it. 0: it was created just now.
    pub before: u64,
    /// How often now, this time included.
    pub now: u64,
    /// Random for each attempt: the same one again is the same mount, whose answer was lost.
    pub attempt: u64,
    /// How often any storage of the node had been mounted when its start asked ([`Standing::of_node`]).
    pub of_node: u64,
}

/// What is noted of a storage and of its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// How often the storage had been mounted when it was last noted; 0 if nobody knows it. Its superblock is ahead of
    /// this at any time: one that is behind was rolled back.
    pub mounts: u64,
    /// How often any storage has been mounted at the node.
    pub of_node: u64,
}

/// What a mount led to. Final.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MountReply {
    /// It is the storage that it claims to be.
    Accepted,
    /// It is not, or not any more: its content MUST NOT be served under that identity.
    Lost {
        /// Why.
        reason: String,
    },
    /// Some storage has been mounted at the node since the start asked how things stand: nothing was noted. A request
    /// of a process that is gone ends here; one that lives asks again.
    Overtaken,
}

/// Where mounts are noted: beside the registers.
pub trait Mounts: Send + Sync {
    /// What is noted of `storage` and of `node`, which mounts it.
    fn standing(
        &self,
        node: NodeId,
        storage: StorageUuid,
    ) -> BoxFuture<'_, Result<Standing, RegisterUnavailable>>;

    /// Notes `mount` and answers when that is durable. An error, or dropping the future, leaves the outcome unknown:
    /// send the same again.
    fn mount(&self, mount: Mount) -> BoxFuture<'_, Result<MountReply, RegisterUnavailable>>;

    /// The epoch of each container's register, not older than the call: a fence or an open that a damaged storage has
    /// lost cannot be of a later one. A container that is missing has never had an owner.
    fn epochs(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerId, Epoch>, RegisterUnavailable>>;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Noted {
    node: NodeId,
    mount_seq: u64,
    attempt: u64,
    /// Why it is lost, if it is.
    lost: Option<String>,
}

/// All storages that were ever mounted: a part of the controller's state. See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MountTable {
    storages: BTreeMap<StorageUuid, Noted>,
    /// How often any storage of each node has been mounted.
    nodes: BTreeMap<NodeId, u64>,
}

impl Noted {
    fn new(node: NodeId, mount_seq: u64, attempt: u64) -> Self {
        Self { node, mount_seq, attempt, lost: None }
    }
}

impl MountTable {
    /// See [`Mounts::standing`].
    pub fn standing(&self, node: NodeId, storage: StorageUuid) -> Standing {
        let noted = self.storages.get(&storage).filter(|_| !planted!("PB-D13"));
        let of_node = self.nodes.get(&node).copied().unwrap_or(0);
        Standing { mounts: noted.map_or(0, |noted| noted.mount_seq), of_node }
    }

    /// Applies one mount. Deterministic and total.
    pub fn apply(&mut self, mount: &Mount) -> MountReply {
        let before =
            self.storages.get(&mount.storage).map(|noted| (noted.mount_seq, noted.attempt));
        let reply = self.note(mount);
        let noted = self.storages.get(&mount.storage).map(|noted| (noted.mount_seq, noted.attempt));
        *self.nodes.entry(mount.node).or_default() += u64::from(noted != before);
        reply
    }

    fn note(&mut self, mount: &Mount) -> MountReply {
        let Mount { node, storage, before, now, attempt, of_node } = *mount;
        let Some(noted) = self.storages.get_mut(&storage) else {
            if before > 0 {
                probe!("mounts: storage that nobody knows");
                let reason = format!("nobody knows a storage {:032x}", storage.0);
                return MountReply::Lost { reason };
            }
            if of_node != self.standing(node, storage).of_node && !planted!("PB-D14") {
                probe!("mounts: new storage overtaken");
                return MountReply::Overtaken;
            }
            for (other, noted) in self.storages.iter_mut().filter(|(_, noted)| noted.node == node) {
                probe!("mounts: storage superseded");
                let reason = format!("node {node} has {:032x} in place of {other}", storage.0);
                noted.lost.get_or_insert(reason);
            }
            self.storages.insert(storage, Noted::new(node, now, attempt));
            return MountReply::Accepted;
        };
        if noted.lost.is_none() && (noted.mount_seq, noted.attempt) == (now, attempt) {
            return MountReply::Accepted; // Its reply was lost.
        }
        if noted.node != node {
            let reason = format!("it belongs to node {}", noted.node);
            return MountReply::Lost { reason };
        }
        if noted.mount_seq > before && !planted!("PB-D13") {
            let known = noted.mount_seq;
            let reason = format!("it had been mounted {known} times and says {before}");
            // A request of an earlier process that comes late says nothing about the storage, whether it was accepted
            // in its time or not: nobody builds on it, and an older image cannot catch up by itself, because it asks
            // how far the storage was before it counts a mount. One that reaches the number that is known was
            // mounted beside the one that had it.
            if now >= known {
                probe!("mounts: storage rolled back");
                noted.lost.get_or_insert(reason);
            } else if noted.lost.is_none() {
                probe!("mounts: late, or rolled back");
                return MountReply::Lost { reason };
            }
        }
        if let Some(reason) = &noted.lost {
            return MountReply::Lost { reason: reason.clone() };
        }
        (noted.mount_seq, noted.attempt) = (now, attempt);
        MountReply::Accepted
    }

    /// An operator's word: `storage` will not come back.
    pub fn declare_lost(&mut self, storage: StorageUuid) {
        if let Some(noted) = self.storages.get_mut(&storage) {
            noted.lost.get_or_insert_with(|| "an operator has said so".to_owned());
        }
    }

    /// The storages that are lost.
    pub fn lost(&self) -> impl Iterator<Item = ReplicaId> {
        let lost = self.storages.iter().filter(|(_, noted)| noted.lost.is_some());
        lost.map(|(storage, noted)| ReplicaId { node: noted.node, storage: *storage })
    }

    /// Asserts the invariants in the module's header.
    pub fn check(&self) {
        let mut nodes: BTreeMap<NodeId, u32> = BTreeMap::new();
        for noted in self.storages.values().filter(|noted| noted.lost.is_none()) {
            *nodes.entry(noted.node).or_default() += 1;
        }
        assert!(nodes.values().all(|storages| *storages == 1), "one storage per node");
    }
}

/// Mounts in memory, beside registers in memory. Forgets everything when dropped.
#[derive(Debug, Default)]
pub struct MemoryMounts {
    table: Mutex<MountTable>,
    register: Arc<MemoryRegister>,
}

impl MemoryMounts {
    /// A table beside `register`.
    pub fn new(register: Arc<MemoryRegister>) -> Self {
        Self { table: Mutex::default(), register }
    }

    /// The registers beside it.
    pub fn registers(&self) -> Vec<ContainerLog> {
        self.register.all()
    }

    /// The storages that are lost.
    pub fn lost(&self) -> Vec<ReplicaId> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).lost().collect()
    }

    /// See [`MountTable::declare_lost`].
    pub fn declare_lost(&self, storage: StorageUuid) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).declare_lost(storage);
    }
}

impl Mounts for MemoryMounts {
    fn standing(
        &self,
        node: NodeId,
        storage: StorageUuid,
    ) -> BoxFuture<'_, Result<Standing, RegisterUnavailable>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(std::future::ready(Ok(table.standing(node, storage))))
    }

    fn mount(&self, mount: Mount) -> BoxFuture<'_, Result<MountReply, RegisterUnavailable>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = table.apply(&mount);
        table.check();
        Box::pin(std::future::ready(Ok(reply)))
    }

    fn epochs(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerId, Epoch>, RegisterUnavailable>> {
        let epochs = self.register.all().iter().map(|log| (log.container, log.epoch)).collect();
        Box::pin(std::future::ready(Ok(epochs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn mount(storage: u128, before: u64, attempt: u64) -> Mount {
        let now = before + 1;
        Mount { node: NODE, storage: StorageUuid(storage), before, now, attempt, of_node: before }
    }

    fn lost(reply: &MountReply) -> bool {
        matches!(reply, MountReply::Lost { .. })
    }

    #[test]
    fn a_storage_that_was_rolled_back_is_lost_for_good() {
        let mut table = MountTable::default();
        for before in 0..3 {
            assert_eq!(table.apply(&mount(7, before, before)), MountReply::Accepted);
        }
        assert_eq!(table.apply(&mount(7, 2, 2)), MountReply::Accepted, "the same mount again");
        assert!(lost(&table.apply(&mount(7, 2, 9))), "an older image");
        assert!(lost(&table.apply(&mount(7, 3, 10))), "the newer one, which somebody has run");
        table.check();
        assert_eq!(table.lost().map(|replica| replica.storage.0).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_mount_that_is_noted_late_costs_nothing() {
        let mut table = MountTable::default();
        for before in 0..4 {
            assert_eq!(table.apply(&mount(7, before, before)), MountReply::Accepted);
        }
        assert!(lost(&table.apply(&mount(7, 1, 9))), "its process is long gone");
        assert!(
            lost(&table.apply(&mount(7, 2, 2))),
            "and so is the one after it, which was accepted"
        );
        assert_eq!(table.lost().count(), 0);
        assert_eq!(table.apply(&mount(7, 4, 5)), MountReply::Accepted);
    }

    #[test]
    fn an_older_image_that_is_mounted_again_and_again_never_passes() {
        let mut table = MountTable::default();
        for before in 0..5 {
            assert_eq!(table.apply(&mount(7, before, before)), MountReply::Accepted);
        }
        assert!(lost(&table.apply(&mount(7, 1, 10))));
        for before in 2..9 {
            assert!(lost(&table.apply(&mount(7, before, 10 + before))), "{before}");
        }
        assert_eq!(table.lost().count(), 1);
    }

    #[test]
    fn a_mount_whose_note_was_never_made_is_no_rollback() {
        let mut table = MountTable::default();
        assert_eq!(table.apply(&mount(7, 0, 1)), MountReply::Accepted);
        assert_eq!(table.apply(&mount(7, 4, 2)), MountReply::Accepted);
    }

    #[test]
    fn a_new_storage_supersedes_the_one_before() {
        let mut table = MountTable::default();
        assert_eq!(table.apply(&mount(7, 0, 1)), MountReply::Accepted);
        let new = Mount { of_node: 1, ..mount(8, 0, 2) };
        assert_eq!(table.apply(&new), MountReply::Accepted);
        assert_eq!(table.apply(&new), MountReply::Accepted, "its reply was lost");
        assert_eq!(table.standing(NODE, new.storage), Standing { mounts: 1, of_node: 2 });
        assert!(lost(&table.apply(&mount(7, 1, 3))));
        assert!(lost(&table.apply(&mount(9, 5, 4))), "nobody knows it");
        table.check();
    }

    #[test]
    fn a_new_storage_whose_mount_is_noted_late_supersedes_nobody() {
        let mut table = MountTable::default();
        let late = mount(7, 0, 1);
        // The disk was wiped before that was noted, and another storage made on it.
        assert_eq!(table.apply(&mount(8, 0, 2)), MountReply::Accepted);
        assert_eq!(table.apply(&late), MountReply::Overtaken);
        assert_eq!(table.lost().count(), 0);
        assert_eq!(table.apply(&mount(8, 1, 3)), MountReply::Accepted);
        table.check();
    }
}
