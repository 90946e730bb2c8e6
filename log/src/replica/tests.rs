use super::*;
use thalweg_types::id::{ContainerId, Incarnation};

const CONTAINER: ContainerId = ContainerId(1);
const LEDGER: LedgerId = LedgerId { container: CONTAINER, epoch: Epoch(1) };
const WRITER: Peer = Peer(0);
const RECOVERER: Peer = Peer(7);

fn blank() -> Replica {
    Replica::new(CONTAINER, &Recovered::default())
}

fn step(replica: &mut Replica, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    replica.step(Instant::default(), input, &mut effects);
    replica.check();
    effects
}

fn request(replica: &mut Replica, peer: Peer, request: Request) -> Vec<Effect> {
    step(replica, Input::Request { peer, request })
}

/// Everything staged becomes durable; what follows from it.
fn sync(replica: &mut Replica) -> Vec<Reply> {
    let frames = replica.staged();
    replies(step(replica, Input::Durable { frames }))
}

fn replies(effects: Vec<Effect>) -> Vec<Reply> {
    let reply = |effect| match effect {
        Effect::Reply { reply, .. } => Some(reply),
        _ => None,
    };
    effects.into_iter().filter_map(reply).collect()
}

fn entry(ledger: LedgerId, entry: u64) -> EntryFrame {
    EntryFrame {
        ledger,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: Address::default(),
        headers: bytes::Bytes::from_static(b"h"),
        payload: Vec::new(),
        exempt: false,
    }
}

fn open() -> Request {
    let incarnation = Incarnation(5);
    Request::Open { ledger: LEDGER, base: EntryId(0), incarnation, committed_end: EntryId(0) }
}

fn copy(by: u64, number: u64) -> Request {
    Request::Repair { by: Epoch(by), entry: entry(LEDGER, number) }
}

#[test]
fn a_copy_in_the_middle_of_an_unknown_ledger_claims_neither_a_run_nor_a_commit_point() {
    let mut replica = blank();
    request(&mut replica, RECOVERER, copy(2, 3));
    sync(&mut replica);
    let run = replica.facts(Epoch(1)).unwrap();
    assert_eq!((run.base, run.end, run.committed_end), (EntryId(0), EntryId(0), EntryId(0)));
    assert!(run.certain, "nothing was ever acked here");
}

#[test]
fn a_copy_is_not_denied_after_a_restart() {
    let read = |entry| Request::Read { ledger: LEDGER, entry: EntryId(entry) };
    let load = |entry| Effect::Load { peer: RECOVERER, ledger: LEDGER, entry: EntryId(entry) };
    let mut replica = blank();
    request(&mut replica, RECOVERER, copy(2, 3));
    assert_eq!(request(&mut replica, RECOVERER, read(3)), [load(3)]);
    let never = request(&mut replica, RECOVERER, read(4)).pop().unwrap();
    assert!(matches!(never, Effect::Reply { reply: Reply::NeverHad { .. }, .. }));
    // What a start finds are runs, and the copy lies in none.
    let state = replica.parts[&Epoch(1)].state(LEDGER, Address::default());
    let (ledgers, floors) = ([(LEDGER, state)].into(), [(CONTAINER, Epoch(2))].into());
    let found = Recovered { ledgers, floors, ..Recovered::default() };
    let mut replica = Replica::new(CONTAINER, &found);
    assert_eq!(request(&mut replica, RECOVERER, read(3)), [load(3)]);
}

#[test]
fn a_copy_is_counted_only_where_the_run_has_reached_it() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    sync(&mut replica);
    // Entry 1 lands beyond the run; then entry 0 comes, and entry 1 again, which now continues the run.
    request(&mut replica, RECOVERER, copy(2, 1));
    request(&mut replica, RECOVERER, copy(2, 0));
    let verify = request(&mut replica, RECOVERER, copy(2, 1)).pop().unwrap();
    let Effect::Verify { peer, by, entry } = verify else { panic!("{verify:?}") };
    step(&mut replica, Input::Verified { peer, by, entry, intact: true });
    // The fence, the floor and the first copy of entry 1.
    step(&mut replica, Input::Durable { frames: 3 });
    assert_eq!(replica.facts(Epoch(1)).unwrap().end, EntryId(0));
    sync(&mut replica);
    assert_eq!(replica.facts(Epoch(1)).unwrap().end, EntryId(2));
}

#[test]
fn a_repair_of_an_open_ledger_does_not_stop_its_writer() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    request(&mut replica, WRITER, Request::Append(entry(LEDGER, 0)));
    sync(&mut replica);
    // In place of a damaged entry, on the authority of the ledger's own epoch.
    let verify = request(&mut replica, RECOVERER, copy(1, 0)).pop().unwrap();
    let Effect::Verify { peer, by, entry: offered } = verify else { panic!("{verify:?}") };
    step(&mut replica, Input::Verified { peer, by, entry: offered, intact: false });
    assert_eq!(sync(&mut replica), [Reply::Repaired { ledger: LEDGER, entry: EntryId(0) }]);
    // It moves no tail that is vouched for, and begins no ledger.
    let beyond = Reply::OutOfOrder { ledger: LEDGER, base: EntryId(0), end: EntryId(1) };
    assert_eq!(replies(request(&mut replica, RECOVERER, copy(1, 1))), [beyond]);
    let other = LedgerId { epoch: Epoch(4), ..LEDGER };
    let begin = Request::Repair { by: Epoch(4), entry: entry(other, 0) };
    let refused = Reply::Refused { ledger: other, why: Refusal::UnknownLedger };
    assert_eq!(replies(request(&mut replica, RECOVERER, begin)), [refused]);
    request(&mut replica, WRITER, Request::Append(entry(LEDGER, 1)));
    let acked = Reply::Ack { ledger: LEDGER, base: EntryId(0), end: EntryId(2) };
    assert_eq!(sync(&mut replica), [acked]);
}

#[test]
fn a_ledger_that_is_trimmed_whole_does_not_come_back_as_one_that_never_was() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    request(&mut replica, WRITER, Request::Append(entry(LEDGER, 0)));
    let keep_from = Address::new(Epoch(3), EntryId(0));
    request(&mut replica, WRITER, Request::Trim { keep_from });
    sync(&mut replica);
    let fence = Request::Fence { ledger: LEDGER, by: Epoch(2) };
    for late in [fence, copy(2, 0)] {
        let refused = Reply::Fenced { ledger: LEDGER, by: Epoch(3) };
        assert_eq!(replies(request(&mut replica, RECOVERER, late)), [refused]);
        assert_eq!(replica.facts(Epoch(1)), None);
    }
}

#[test]
fn a_fence_is_reported_when_all_before_it_is_durable() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    request(&mut replica, WRITER, Request::Append(entry(LEDGER, 0)));
    let fence = Request::Fence { ledger: LEDGER, by: Epoch(2) };
    assert_eq!(replies(request(&mut replica, RECOVERER, fence)), []);
    let refused = Reply::Fenced { ledger: LEDGER, by: Epoch(2) };
    let late = request(&mut replica, WRITER, Request::Append(entry(LEDGER, 1)));
    assert_eq!(replies(late), [refused]);
    let run =
        RunFacts { base: EntryId(0), end: EntryId(1), committed_end: EntryId(0), certain: true };
    let last = sync(&mut replica).pop().unwrap();
    assert_eq!(last, Reply::FenceDone { ledger: LEDGER, by: Epoch(2), run });
}

#[test]
fn a_floor_refuses_an_older_recoverer_of_a_ledger_that_the_storage_has_dropped() {
    let floors = [(CONTAINER, Epoch(3))].into();
    let mut replica = Replica::new(CONTAINER, &Recovered { floors, ..Recovered::default() });
    let fence = Request::Fence { ledger: LEDGER, by: Epoch(2) };
    for late in [fence, copy(2, 0)] {
        let refused = Reply::Fenced { ledger: LEDGER, by: Epoch(3) };
        assert_eq!(replies(request(&mut replica, RECOVERER, late)), [refused]);
    }
    let fence = Request::Fence { ledger: LEDGER, by: Epoch(3) };
    assert_eq!(replies(request(&mut replica, RECOVERER, fence)), []);
    assert!(matches!(sync(&mut replica)[..], [Reply::FenceDone { .. }]));
}

#[test]
fn headers_below_the_trim_point_are_unknown_and_others_are_looked_up() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    for number in 0..3 {
        request(&mut replica, WRITER, Request::Append(entry(LEDGER, number)));
    }
    sync(&mut replica);
    let keep_from = Address::new(LEDGER.epoch, EntryId(1));
    request(&mut replica, WRITER, Request::Trim { keep_from });
    let (ledger, entries_max, bytes_max) = (LEDGER, 9, 1000);
    let headers = |from| Request::Headers { ledger, from: EntryId(from), entries_max, bytes_max };
    let reply = Reply::Unknown { ledger, entry: EntryId(0) };
    let trimmed = [Effect::Reply { peer: RECOVERER, reply }];
    assert_eq!(request(&mut replica, RECOVERER, headers(0)), trimmed);
    let (peer, from) = (RECOVERER, EntryId(1));
    let load = [Effect::LoadHeaders { peer, ledger, from, entries_max, bytes_max }];
    assert_eq!(request(&mut replica, RECOVERER, headers(1)), load);
}

#[test]
fn a_writer_whose_open_was_lost_to_damage_is_in_doubt_and_no_second_one() {
    let state = LedgerState {
        ledger: LEDGER,
        incarnation: None,
        base: EntryId(0),
        tail: Some(EntryId(3)),
        lac: None,
        keep_from: Address::default(),
        fenced_by: None,
        certain: false,
    };
    let recovered = Recovered { ledgers: [(LEDGER, state)].into(), ..Recovered::default() };
    let mut replica = Replica::new(CONTAINER, &recovered);
    let answers = replies(request(&mut replica, WRITER, open()));
    assert_eq!(answers, [Reply::Refused { ledger: LEDGER, why: Refusal::Limbo }]);
}

#[test]
fn a_second_writer_of_one_epoch_is_refused_and_the_first_goes_on() {
    let mut replica = blank();
    request(&mut replica, WRITER, open());
    sync(&mut replica);
    let (base, incarnation) = (EntryId(0), Incarnation(6));
    let second = Request::Open { ledger: LEDGER, base, incarnation, committed_end: EntryId(0) };
    let refused = Reply::Fenced { ledger: LEDGER, by: LEDGER.epoch };
    assert_eq!(replies(request(&mut replica, RECOVERER, second)), [refused]);
    request(&mut replica, WRITER, Request::Append(entry(LEDGER, 0)));
    let acked = Reply::Ack { ledger: LEDGER, base, end: EntryId(1) };
    assert_eq!(sync(&mut replica), [acked]);
}
