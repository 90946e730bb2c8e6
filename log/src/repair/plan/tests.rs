use super::*;
use crate::quorum::Quorum;
use crate::register::Fragment;
use std::sync::Arc;
use thalweg_types::id::{NodeId, StorageUuid};

const CONTAINER: ContainerId = ContainerId(3);
const ME: u64 = 1;

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

fn ledger(epoch: u64, end: Option<u64>, fragments: &[(u64, [u64; 3])]) -> LedgerRecord {
    let fragment = |(first, ensemble): &(u64, [u64; 3])| Fragment {
        first: EntryId(*first),
        ensemble: ensemble.map(replica).to_vec(),
    };
    LedgerRecord {
        epoch: Epoch(epoch),
        quorum: Quorum { write: 3, ack: 2 },
        stage: end.map_or(LedgerStage::Open, |end| LedgerStage::Closed { end: EntryId(end) }),
        fragments: fragments.iter().map(fragment).collect(),
    }
}

/// Epochs 2 and 4 are closed, 3 and 1 are not listed, 5 is open; kept from entry 4 of epoch 2 on.
fn log() -> ContainerLog {
    ContainerLog {
        epoch: Epoch(5),
        keep_from: Address::new(Epoch(2), EntryId(4)),
        ledgers: vec![
            ledger(2, Some(10), &[(0, [1, 2, 3]), (6, [2, 3, 4])]),
            ledger(4, Some(7), &[(0, [2, 3, 4]), (3, [1, 3, 4])]),
            ledger(5, None, &[(0, [1, 2, 3])]),
        ],
        ..ContainerLog::new(CONTAINER)
    }
}

fn id(epoch: u64) -> LedgerId {
    LedgerId { container: CONTAINER, epoch: Epoch(epoch) }
}

fn held_ranges(log: &ContainerLog, epoch: u64, me: u64) -> Option<Vec<(u64, u64)>> {
    match verdict(log, Epoch(epoch), replica(me)) {
        Verdict::Wait => None,
        Verdict::Hold { tasks, .. } => {
            let ends = |task: Task| (task.entries.start, task.entries.end);
            Some(tasks.into_iter().map(ends).collect())
        }
    }
}

#[test]
fn doubt_ends_by_what_a_fragment_wants_here_and_by_nothing_else() {
    let mut log = log();
    assert_eq!(held_ranges(&log, 2, ME), Some(vec![(4, 6)]), "from keep_from on");
    assert_eq!(held_ranges(&log, 4, ME), Some(vec![(3, 7)]));
    assert_eq!(held_ranges(&log, 2, 9), Some(vec![]), "nobody wants it");
    assert_eq!(held_ranges(&log, 1, ME), Some(vec![]), "trimmed");
    assert_eq!(held_ranges(&log, 3, ME), Some(vec![]), "never opened, or empty");
    assert_eq!(held_ranges(&log, 5, ME), None, "open");
    assert_eq!(held_ranges(&log, 6, ME), None, "to come");
    log.epoch = Epoch(6);
    log.ledgers[2].stage = LedgerStage::Recovering;
    assert_eq!(held_ranges(&log, 5, ME), None, "being recovered");
    let Verdict::Hold { end, tasks } = verdict(&log, Epoch(4), replica(ME)) else { panic!() };
    assert_eq!((end, tasks[0].by), (EntryId(7), Epoch(6)));
    assert_eq!(tasks[0].sources, [replica(3), replica(4)]);
}

#[test]
fn limbo_ends_when_nothing_that_may_be_lost_can_be_named_any_more() {
    let whole = BTreeSet::from([id(2), id(4)]);
    let listing = Listing { complete: true, logs: vec![log()], ..Listing::default() };
    let may = |listing: &Listing, epoch: u64, whole: &BTreeSet<LedgerId>| {
        let upto = BTreeMap::from([(CONTAINER, Epoch(epoch))]);
        limbo_may_end(listing, replica(ME), &upto, whole)
    };
    assert!(may(&listing, 4, &whole));
    assert!(!may(&listing, 5, &whole), "the open ledger may be changed to name it");
    assert!(!may(&listing, 4, &BTreeSet::from([id(2)])), "something is not whole");
    assert!(may(&listing, 3, &BTreeSet::from([id(2)])), "later than the damage");
    assert!(!may(&Listing { complete: false, ..listing.clone() }, 4, &whole));
    assert!(!may(&Listing { logs: vec![], ..listing.clone() }, 4, &whole), "not mentioned");
    let deleted = Listing { logs: vec![], deleted: vec![CONTAINER], ..listing.clone() };
    assert!(may(&deleted, 4, &whole));
    let mut begun = listing;
    let open = begun.logs[0].ledgers.pop().unwrap();
    assert!(!may(&begun, 5, &whole), "it is about to be opened, and may have been here");
    begun.logs[0].ledgers.push(open);
    begun.logs[0].epoch = Epoch(6);
    begun.logs[0].ledgers[2].stage = LedgerStage::Recovering;
    assert!(!may(&begun, 5, &whole), "its recoverer may still name it");
}

#[test]
fn what_is_missing_or_damaged_here_is_copied_from_the_others() {
    let listing = Listing { logs: vec![log()], ..Listing::default() };
    let found = |held: &[Held], hits: &[(u64, u64)]| {
        let hits = hits.iter().map(|(epoch, entry)| (id(*epoch), EntryId(*entry))).collect();
        heal(&listing, replica(ME), held, &hits)
            .into_iter()
            .map(|task| (task.ledger.epoch.0, task.entries, task.by.0))
            .collect::<Vec<_>>()
    };
    let all = [(id(2), 0..6), (id(4), 3..7), (id(5), 0..9)];
    assert_eq!(found(&all, &[]), []);
    assert_eq!(found(&all[..2], &[]), [], "what an open ledger has is not known");
    assert_eq!(
        found(&[(id(2), 0..5), (id(4), 4..5)], &[]),
        [(2, 5..6, 5), (4, 3..4, 5), (4, 5..7, 5)]
    );
    let hits = [(2, 3), (2, 4), (2, 5), (2, 8), (4, 0), (5, 2)];
    assert_eq!(found(&all, &hits), [(2, 4..6, 5), (5, 2..3, 5)], "only what is wanted here");
}

fn candidates(up: &[u64]) -> Vec<Candidate> {
    let candidate = |node| Candidate {
        replica: replica(node),
        zone: Arc::default(),
        rack: Arc::default(),
        free_bytes: 1 << 30,
        load: 0,
        up: up.contains(&node),
    };
    (1..=6).map(candidate).collect()
}

#[test]
fn the_fewest_copies_come_first_and_one_of_those_left_sees_to_it() {
    let listing = Listing { logs: vec![log()], ..Listing::default() };
    let lost = BTreeSet::from([replica(3), replica(4)]);
    let by = |me: u64, up: &[u64]| {
        replacements(&listing, replica(me), &lost, &candidates(up))
            .into_iter()
            .map(|r| (r.left, r.task.ledger.epoch.0, r.task.entries, r.old.node.0))
            .collect::<Vec<_>>()
    };
    let mine = [(1, 4, 3..7, 3), (1, 4, 3..7, 4), (2, 2, 4..6, 3)];
    assert_eq!(by(1, &[1, 2, 5, 6]), mine);
    let second = [(1, 2, 6..10, 3), (1, 2, 6..10, 4), (1, 4, 0..3, 3), (1, 4, 0..3, 4)];
    assert_eq!(by(2, &[1, 2, 5, 6]), second);
    assert_eq!(by(2, &[2, 5, 6]).len(), 5, "the first one is down");
    assert_eq!(by(5, &[1, 2, 5, 6]), []);
    for found in replacements(&listing, replica(1), &lost, &candidates(&[1, 2, 5, 6])) {
        assert!([5, 6, 2].contains(&found.task.target.node.0), "{found:?}");
        assert!(!found.task.sources.iter().any(|source| lost.contains(source)));
    }
}

#[test]
fn only_a_register_or_a_deletion_lets_something_go() {
    let known = BTreeSet::from([CONTAINER, ContainerId(4), ContainerId(5)]);
    let deleted = vec![ContainerId(4), ContainerId(9)];
    let listing = Listing { logs: vec![log()], deleted, ..Listing::default() };
    let found = removals(&listing, &known);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], (CONTAINER, Address::new(Epoch(2), EntryId(4))));
    assert_eq!(found[1].0, ContainerId(4));
}
