//! Who is lost: whoever the registers' keeper calls so, and whoever has been silent for long.

use crate::placement::Candidate;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use thalweg_actor::probe;
use thalweg_types::id::ReplicaId;
use thalweg_types::time::Instant;

/// How long each storage has been out of reach.
#[derive(Debug, Default)]
pub(super) struct Watch {
    silent_since: BTreeMap<ReplicaId, Instant>,
}

impl Watch {
    /// Those of `named` that are lost by now. One that nobody lists is silent, no more.
    pub(super) fn lost(
        &mut self,
        now: Instant,
        named: &BTreeSet<ReplicaId>,
        candidates: &[Candidate],
        declared: &[ReplicaId],
        silence: Duration,
    ) -> BTreeSet<ReplicaId> {
        let is_up = |replica: &ReplicaId| {
            candidates.iter().any(|known| known.replica == *replica && known.up)
        };
        self.silent_since.retain(|replica, _| named.contains(replica) && !is_up(replica));
        for replica in named.iter().filter(|replica| !is_up(replica)) {
            self.silent_since.entry(*replica).or_insert(now);
        }
        let long = |replica: &&ReplicaId| {
            let since = self.silent_since.get(replica);
            since.is_some_and(|since| now.since(*since) >= silence)
        };
        let lost: BTreeSet<ReplicaId> = named
            .iter()
            .filter(|replica| declared.contains(replica) || long(replica))
            .copied()
            .collect();
        if !lost.is_empty() {
            probe!("repair: a storage is lost");
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use thalweg_types::id::{NodeId, StorageUuid};

    fn replica(node: u64) -> ReplicaId {
        ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
    }

    fn candidate(node: u64, up: bool) -> Candidate {
        let (zone, rack) = (Arc::default(), Arc::default());
        Candidate { replica: replica(node), zone, rack, free_bytes: 0, load: 0, up }
    }

    #[test]
    fn silence_must_last_and_a_word_is_enough() {
        let (mut watch, silence) = (Watch::default(), Duration::from_secs(60));
        let named = BTreeSet::from([replica(1), replica(2), replica(3)]);
        let mut at = |seconds: u64, up: bool, declared: &[ReplicaId]| {
            let now = Instant(0).after(Duration::from_secs(seconds));
            // Storage 2 comes and goes; nobody lists storage 3.
            let candidates = [candidate(1, true), candidate(2, up)];
            let lost = watch.lost(now, &named, &candidates, declared, silence);
            lost.into_iter().map(|lost| lost.node.0).collect::<Vec<_>>()
        };
        assert_eq!(at(0, false, &[]), []);
        assert_eq!(at(40, true, &[]), []);
        assert_eq!(at(50, false, &[]), []);
        assert_eq!(at(70, false, &[]), [3]);
        assert_eq!(at(109, false, &[replica(1)]), [1, 3]);
        assert_eq!(at(110, false, &[]), [2, 3]);
        assert_eq!(at(111, true, &[]), [3]);
    }
}
