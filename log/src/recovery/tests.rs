use super::*;
use thalweg_types::id::{ContainerId, NodeId, StorageUuid};

const LEDGER: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
const BY: Epoch = Epoch(2);

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

/// Three members, of which two make an entry committed; the fences are on their way.
fn begun() -> Recovery {
    let ensemble: Vec<ReplicaId> = (1..=3).map(replica).collect();
    let quorum = Quorum { write: 3, ack: 2 };
    let mut recovery = Recovery::new(Plan {
        ledger: LEDGER,
        quorum,
        first: EntryId(0),
        ensemble: ensemble.clone(),
        keep_from: EntryId(0),
        by: BY,
        next_quorum: quorum,
        next_ensemble: ensemble,
        copies: 4,
    });
    assert_eq!(step(&mut recovery, Input::Begin).len(), 3);
    recovery
}

fn step(recovery: &mut Recovery, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    recovery.step(Instant::default(), input, &mut effects);
    recovery.check();
    effects
}

fn fenced(recovery: &mut Recovery, node: u64, end: u64) -> Vec<Effect> {
    let (base, committed_end) = (EntryId(0), EntryId(0));
    let run = RunFacts { base, end: EntryId(end), committed_end, certain: true };
    let reply = Reply::FenceDone { ledger: LEDGER, by: BY, run };
    step(recovery, Input::Reply { from: replica(node), reply })
}

fn fence(node: u64) -> Effect {
    Effect::Send { to: replica(node), request: Request::Fence { ledger: LEDGER, by: BY } }
}

fn entry(entry: u64) -> EntryFrame {
    EntryFrame {
        ledger: LEDGER,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: thalweg_types::id::Address::default(),
        headers: bytes::Bytes::from_static(b"h"),
        payload: Vec::new(),
        exempt: false,
    }
}

fn read(node: u64, entry: u64) -> Effect {
    let request = Request::Read { ledger: LEDGER, entry: EntryId(entry) };
    Effect::Send { to: replica(node), request }
}

fn unknown(recovery: &mut Recovery, node: u64, entry: u64) -> Vec<Effect> {
    let reply = Reply::Unknown { ledger: LEDGER, entry: EntryId(entry) };
    step(recovery, Input::Reply { from: replica(node), reply })
}

fn closes_at(effects: &[Effect]) -> Option<EntryId> {
    effects.iter().find_map(|effect| match effect {
        Effect::Register(Change::Close { ending, .. }) => Some(ending.end),
        _ => None,
    })
}

#[test]
fn an_answer_that_comes_late_frees_a_recovery_that_is_stuck() {
    let mut recovery = begun();
    fenced(&mut recovery, 1, 1);
    assert_eq!(fenced(&mut recovery, 2, 0), [read(1, 0)]);
    // The only one that claims the entry cannot give it, and the other has never had it.
    assert_eq!(unknown(&mut recovery, 1, 0), [read(2, 0)]);
    assert_eq!(unknown(&mut recovery, 2, 0), [Effect::Stuck { entry: EntryId(0) }]);
    // The third lacks it too: two that vouch make it uncommitted. It is asked all the same, since it costs nothing.
    assert_eq!(fenced(&mut recovery, 3, 0), [read(3, 0)]);
    assert_eq!(closes_at(&unknown(&mut recovery, 3, 0)), Some(EntryId(0)));
}

#[test]
fn a_read_that_fails_never_lowers_where_the_ledger_ends() {
    let mut recovery = begun();
    fenced(&mut recovery, 1, 1);
    assert_eq!(fenced(&mut recovery, 2, 1), [read(1, 0)]);
    assert_eq!(unknown(&mut recovery, 1, 0), [read(2, 0)]);
    assert_eq!(unknown(&mut recovery, 2, 0), [Effect::Stuck { entry: EntryId(0) }]);
    // One that vouches for less is not enough.
    assert_eq!(fenced(&mut recovery, 3, 0), [read(3, 0)]);
    assert_eq!(unknown(&mut recovery, 3, 0), [Effect::Stuck { entry: EntryId(0) }]);
    assert_eq!(recovery.doubtful().collect::<Vec<_>>(), [replica(1), replica(2)]);
    let again = step(&mut recovery, Input::Retry);
    assert!(again.contains(&read(1, 0)) && closes_at(&again).is_none());
}

#[test]
fn one_that_hangs_is_not_read_from_again_before_the_others() {
    let mut recovery = begun();
    fenced(&mut recovery, 1, 1);
    assert_eq!(fenced(&mut recovery, 2, 1), [read(1, 0)]);
    // It has answered the fence and says nothing more, nor does the next one.
    assert_eq!(step(&mut recovery, Input::Retry), [fence(3), read(2, 0)]);
    assert_eq!(step(&mut recovery, Input::Retry), [fence(3), read(1, 0)]);
    // What comes late is as good.
    let late = Reply::Have(entry(0));
    let copies = step(&mut recovery, Input::Reply { from: replica(2), reply: late.clone() });
    let repair = |node| {
        let request = Request::Repair { by: BY, entry: entry(0) };
        Effect::Send { to: replica(node), request }
    };
    assert_eq!(copies, [repair(1), repair(2), repair(3)]);
    // But only once, and only from one that was asked.
    assert_eq!(step(&mut recovery, Input::Reply { from: replica(1), reply: late }), []);
}

#[test]
fn the_only_one_that_has_an_entry_is_asked_again_and_again() {
    let mut recovery = begun();
    fenced(&mut recovery, 1, 1);
    assert_eq!(fenced(&mut recovery, 2, 0), [read(1, 0)]);
    assert_eq!(step(&mut recovery, Input::Retry), [fence(3), read(1, 0)]);
    assert_eq!(step(&mut recovery, Input::Retry), [fence(3), read(1, 0)]);
}

#[test]
fn a_new_connection_carries_again_what_was_not_answered_and_nothing_else() {
    let mut recovery = begun();
    let connected = |node| Input::Connected { replica: replica(node) };
    assert_eq!(step(&mut recovery, connected(2)), [fence(2)]);
    fenced(&mut recovery, 1, 1);
    assert_eq!(fenced(&mut recovery, 2, 1), [read(1, 0)]);
    assert_eq!(step(&mut recovery, connected(1)), [read(1, 0)]);
    assert_eq!(step(&mut recovery, connected(2)), []);
    let reply = Reply::Have(entry(0));
    assert_eq!(step(&mut recovery, Input::Reply { from: replica(1), reply }).len(), 3);
    let repaired = Reply::Repaired { ledger: LEDGER, entry: EntryId(0) };
    step(&mut recovery, Input::Reply { from: replica(1), reply: repaired });
    let copy = Request::Repair { by: BY, entry: entry(0) };
    let again = |node| Effect::Send { to: replica(node), request: copy.clone() };
    assert_eq!(step(&mut recovery, connected(1)), []);
    assert_eq!(step(&mut recovery, connected(2)), [again(2)]);
    assert_eq!(step(&mut recovery, connected(3)), [fence(3), again(3)]);
}
