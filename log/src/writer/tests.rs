use super::*;
use bytes::Bytes;
use thalweg_types::id::{ContainerId, NodeId, StorageUuid};

const LEDGER: LedgerId = LedgerId { container: ContainerId(3), epoch: Epoch(1) };

fn replica(number: u64) -> ReplicaId {
    ReplicaId { node: NodeId(number), storage: StorageUuid(u128::from(number)) }
}

/// A writer on three replicas that has begun.
fn begun() -> Writer {
    let quorum = Quorum { write: 3, ack: 2 };
    let ensemble = [replica(1), replica(2), replica(3)];
    let mut writer = Writer::new(LEDGER, Incarnation(7), quorum, &ensemble, Address::default());
    step(&mut writer, Input::Begin);
    writer
}

fn step(writer: &mut Writer, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    writer.step(Instant(0), input, &mut effects);
    writer.check();
    effects
}

fn submit(writer: &mut Writer, exempt: bool) -> Vec<Effect> {
    let headers = Bytes::from_static(b"h");
    step(writer, Input::Submit(Entry { headers, payload: Vec::new(), exempt }))
}

fn hear(writer: &mut Writer, from: u64, reply: Reply) -> Vec<Effect> {
    step(writer, Input::Reply { from: replica(from), reply })
}

fn ack(end: u64) -> Reply {
    Reply::Ack { ledger: LEDGER, base: EntryId(0), end: EntryId(end) }
}

fn full() -> Reply {
    Reply::Refused { ledger: LEDGER, why: Refusal::Full }
}

/// The entries sent to a replica, each with whether it may use the reserve.
fn sent(effects: &[Effect], to: u64) -> Vec<(u64, bool)> {
    let entry = |effect: &Effect| match effect {
        Effect::Send { to: whom, request: Request::Append(frame) } if *whom == replica(to) => {
            Some((frame.entry.0, frame.exempt))
        }
        _ => None,
    };
    effects.iter().filter_map(entry).collect()
}

#[test]
fn a_full_replica_gets_nothing_more_until_a_retry_is_acked() {
    let mut writer = begun();
    submit(&mut writer, false);
    assert_eq!(hear(&mut writer, 3, full()), [Effect::Full { replica: replica(3) }]);
    assert_eq!(hear(&mut writer, 3, full()), [], "said once");
    let effects = submit(&mut writer, false);
    assert_eq!((sent(&effects, 1), sent(&effects, 3)), (vec![(1, false)], vec![]));
    // The others commit without it.
    hear(&mut writer, 1, ack(2));
    assert_eq!(hear(&mut writer, 2, ack(2)), [Effect::Committed { end: EntryId(2) }]);
    let effects = step(&mut writer, Input::Retry { replica: replica(3) });
    assert_eq!(sent(&effects, 3), [(0, false)], "one entry is enough to ask");
    assert_eq!(writer.full().collect::<Vec<_>>(), [replica(3)]);
    let effects = hear(&mut writer, 3, ack(1));
    assert_eq!(sent(&effects, 3), [(1, false)]);
    assert_eq!((writer.full().count(), writer.distrusted().count()), (0, 0));
    assert_eq!(sent(&submit(&mut writer, false), 3), [(2, false)]);
}

#[test]
fn an_entry_that_may_use_the_reserve_draws_those_in_front_of_it_along() {
    let mut writer = begun();
    for _ in 0..2 {
        submit(&mut writer, false);
    }
    for from in 1..=3 {
        hear(&mut writer, from, full());
    }
    assert_eq!(sent(&submit(&mut writer, false), 1), []);
    let effects = submit(&mut writer, true);
    for to in 1..=3 {
        assert_eq!(sent(&effects, to), [(0, true), (1, true), (2, true), (3, true)]);
    }
    // Also where the refusal comes behind it.
    let mut writer = begun();
    submit(&mut writer, false);
    submit(&mut writer, true);
    let effects = hear(&mut writer, 2, full());
    assert_eq!(sent(&effects, 2), [(0, true), (1, true)]);
}

#[test]
fn an_open_that_a_full_disk_refused_is_asked_again() {
    let mut writer = begun();
    submit(&mut writer, false);
    hear(&mut writer, 1, full());
    let why = Refusal::UnknownLedger;
    assert_eq!(hear(&mut writer, 1, Reply::Refused { ledger: LEDGER, why }), []);
    let nothing = Reply::Greeting { ledger: LEDGER, run: None, fenced_by: None };
    assert_eq!(hear(&mut writer, 1, nothing), []);
    let effects = step(&mut writer, Input::Retry { replica: replica(1) });
    assert!(matches!(&effects[0], Effect::Send { request: Request::Open { .. }, .. }));
}

#[test]
fn one_rewind_serves_all_that_was_sent_behind_a_gap() {
    let mut writer = begun();
    for _ in 0..4 {
        submit(&mut writer, false);
    }
    let gap = || Reply::OutOfOrder { ledger: LEDGER, base: EntryId(0), end: EntryId(1) };
    let effects = hear(&mut writer, 2, gap());
    assert_eq!(sent(&effects, 2), [(1, false), (2, false), (3, false)]);
    assert_eq!(hear(&mut writer, 2, gap()), [], "sent already");
    // On another connection nothing is.
    step(&mut writer, Input::Reconnected { replica: replica(2) });
    assert_eq!(sent(&hear(&mut writer, 2, gap()), 2).len(), 3);
}

#[test]
fn a_member_that_is_distrusted_from_outside_counts_no_more() {
    let mut writer = begun();
    submit(&mut writer, false);
    hear(&mut writer, 1, ack(1));
    let (replica, why) = (replica(2), Distrust::RolledBack);
    let effects = step(&mut writer, Input::Distrust { replica, why });
    assert_eq!(effects, [Effect::Distrusted { replica, why }]);
    assert_eq!(hear(&mut writer, 2, ack(1)), []);
    assert_eq!(hear(&mut writer, 3, ack(1)), [Effect::Committed { end: EntryId(1) }]);
}

#[test]
fn a_member_that_has_less_than_it_acked_or_doubts_itself_counts_no_more() {
    let greeting = |end, certain| {
        let (base, committed_end) = (EntryId(0), EntryId(0));
        let run = Some(RunFacts { base, end: EntryId(end), committed_end, certain });
        Reply::Greeting { ledger: LEDGER, run, fenced_by: None }
    };
    for (reply, why) in [
        (greeting(1, true), Distrust::LostData),
        (greeting(2, false), Distrust::Doubtful),
        (Reply::Greeting { ledger: LEDGER, run: None, fenced_by: None }, Distrust::Doubtful),
    ] {
        let mut writer = begun();
        for _ in 0..2 {
            submit(&mut writer, false);
        }
        hear(&mut writer, 1, ack(2));
        let effects = hear(&mut writer, 1, reply);
        assert_eq!(effects, [Effect::Distrusted { replica: replica(1), why }]);
    }
}

#[test]
fn a_member_that_the_window_cannot_wait_for_is_left_behind() {
    let mut writer = begun().with_window(10);
    for _ in 0..30 {
        submit(&mut writer, false);
    }
    assert_eq!(writer.window_bytes(), 30, "nothing is dropped that is not committed");
    hear(&mut writer, 1, ack(30));
    let effects = hear(&mut writer, 2, ack(25));
    let left = Effect::Distrusted { replica: replica(3), why: Distrust::LeftBehind };
    assert_eq!(effects, [Effect::Committed { end: EntryId(25) }, left]);
    assert_eq!(writer.window_bytes(), 10);
    // It gets nothing more, and what it acks counts no more.
    assert_eq!(sent(&submit(&mut writer, false), 3), []);
    assert_eq!(hear(&mut writer, 3, ack(30)), []);
    assert_eq!(writer.window_bytes(), 6, "the others lack these");
}
