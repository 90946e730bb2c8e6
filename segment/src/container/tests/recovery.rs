use super::bench::{
    Bench, S, Stored, append, append_at, attribute, create, delete, fold, info, merge, seal,
    transient, truncate,
};
use crate::container::{Input, Parts, Recovery, RecoveryError, Tuning, snapshot};
use crate::request::What;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use thalweg_log::ledger::ReplayedEntry;
use thalweg_types::id::{Address, EntryId, Epoch};
use thalweg_wire::segment::{
    Command, CreateTableSegment, NULL, RemoveTableKeys, TableEntry, TableKey, UpdateTableEntries,
};

const TABLE: &str = "s/g_kvtable/0.#epoch.0";

/// Snapshots after every few operations.
fn eager() -> Tuning {
    Tuning { snapshot_log_bytes: 300, ..Tuning::default() }
}

fn txn(number: u8) -> String {
    format!("{S}#transaction.{number:032x}")
}

#[test]
fn the_log_is_trimmed_to_what_two_snapshots_and_the_bytes_need() {
    let mut bench = Bench::with(Tuning { snapshot_log_bytes: 2000, ..Tuning::default() }, true);
    bench.create(S);
    for _ in 0..100 {
        bench.fill(S, &[1; 100]);
        let length = bench.info(S).1;
        bench.call(1, truncate(S, length - 100));
    }
    let older = bench.snapshots.older.expect("two snapshots").covers.unwrap();
    assert!(
        bench.keep_from > Address::default()
            && bench.keep_from <= Address::new(older.epoch, older.entry.next())
    );
    let kept = bench.log.range(bench.keep_from..).count();
    assert!(kept < 150, "{kept} of {} entries are kept", bench.log.len());
}

#[test]
fn bytes_that_live_keep_the_log() {
    let mut bench = Bench::with(eager(), true);
    bench.create(S);
    bench.fill(S, b"old and never truncated");
    let first = *bench.log.last_key_value().unwrap().0;
    bench.create("s/u/0.#epoch.0");
    for _ in 0..50 {
        bench.fill("s/u/0.#epoch.0", &[1; 100]);
    }
    assert!(bench.snapshots.older.is_some());
    assert!(bench.keep_from <= first, "{} must stay", bench.keep_from);
    let mut bench = bench.crash();
    assert_eq!(bench.content(S, 0), b"old and never truncated");
    bench.call(1, delete(S));
    for _ in 0..200 {
        bench.fill("s/u/0.#epoch.0", &[1; 100]);
    }
    assert!(bench.keep_from > first, "nobody needs it any more");
}

#[test]
fn a_snapshot_counts_when_it_is_committed_and_not_before() {
    let mut bench = Bench::with(eager(), true);
    bench.create(S);
    bench.holds = true;
    bench.setup_without_answer();
    for number in 1..=20 {
        bench.send(1, What::Append(append(7, S, number, &[1; 100])));
    }
    assert_eq!(bench.snapshots.newest, None);
    let mut bench = bench.crash();
    assert_eq!(bench.setup(1, 7, S), NULL);
    bench.fill(S, &[1; 1000]);
    assert!(bench.snapshots.newest.is_some());
}

#[test]
fn an_idle_container_takes_one_snapshot_and_then_none() {
    let mut bench = Bench::new();
    bench.create(S);
    for _ in 0..100 {
        bench.fill(S, b"x");
    }
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.snapshots.newest, None);
    bench.pass(Duration::from_secs(2));
    let newest = bench.snapshots.newest;
    assert!(newest.is_some());
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.snapshots.newest, newest);
    let entries = bench.log.len();
    let bench = bench.crash();
    assert_eq!(bench.log.len(), entries + 1, "the owner's start alone");
}

#[test]
fn a_large_state_is_cut_into_parts() {
    let mut bench = Bench::new();
    let mut state = crate::container::state::State::default();
    std::mem::swap(&mut state, &mut bench.container.state);
    let names = (0..300).map(|number| format!("s/{}/{number}.#epoch.0", "x".repeat(30_000)));
    for (number, name) in (0..).zip(names) {
        let operation = crate::container::format::Operation::Create {
            segment: crate::container::format::SegmentKey(number),
            name: name.into(),
            kind: crate::container::format::Kind::Table { key_length: 0 },
        };
        let address = Address::new(Epoch(1), EntryId(0));
        let at = crate::container::state::At { address, position: 0, wall: 0 };
        state.apply(&operation, at).unwrap();
    }
    let covers = Some(Address::new(Epoch(1), EntryId(7)));
    let encoded = snapshot::encode(&state, covers);
    assert_eq!(encoded.len(), 2);
    let at = Address::new(Epoch(1), EntryId(8));
    let pointer = thalweg_log::ledger::SnapshotPointer { at, covers };
    let read = |order: &[usize]| {
        let mut parts = Parts::new(pointer);
        for index in order {
            parts.push(&encoded[*index])?;
        }
        assert_eq!(parts.next(), None);
        Recovery::from_parts(&parts, Address::default())
    };
    assert_eq!(read(&[0, 1]).unwrap().state_hash(), snapshot::state_hash(&state));
    assert!(read(&[1, 0]).is_err(), "parts have an order");
    let mut parts = Parts::new(pointer);
    parts.push(&encoded[0]).unwrap();
    assert_eq!(parts.next(), Some(Address::new(Epoch(1), EntryId(9))));
}

fn replay(log: &BTreeMap<Address, Stored>) -> Result<(), RecoveryError> {
    let mut recovery = Recovery::blank();
    for (address, stored) in log {
        recovery.replay(ReplayedEntry {
            address: *address,
            headers: stored.headers.clone(),
            payload_len: stored.payload.len(),
        })?;
    }
    recovery.verify().map(drop)
}

#[test]
fn a_log_that_is_not_the_one_that_was_written_is_refused() {
    let mut bench = Bench::new();
    bench.create(S);
    for _ in 0..3 {
        bench.fill(S, b"abc");
    }
    assert_eq!(replay(&bench.log), Ok(()));
    for missing in bench.log.keys() {
        let mut log = bench.log.clone();
        log.remove(missing);
        let is_last = missing == bench.log.last_key_value().unwrap().0;
        assert_eq!(replay(&log).is_ok(), is_last || missing.entry.0 == 0, "{missing}");
    }
    let mut log = bench.log.clone();
    log.last_entry().unwrap().get_mut().payload = Bytes::from_static(b"ab");
    assert!(matches!(replay(&log), Err(RecoveryError::Payload { .. })));
    let mut log = bench.log.clone();
    log.last_entry().unwrap().get_mut().headers = Bytes::from_static(b"\xFFgarbage");
    assert!(matches!(replay(&log), Err(RecoveryError::Format { .. })));
}

#[test]
fn a_snapshot_that_does_not_reach_the_log_is_refused() {
    let mut bench = Bench::with(eager(), true);
    bench.create(S);
    for _ in 0..20 {
        bench.fill(S, &[1; 100]);
    }
    let newest = bench.snapshots.newest.unwrap();
    let mut parts = Parts::new(newest);
    parts.push(&bench.log[&newest.at].payload).unwrap();
    let beyond = newest.at;
    assert!(matches!(
        Recovery::from_parts(&parts, Address::new(beyond.epoch, beyond.entry.next())),
        Err(RecoveryError::Uncovered { .. })
    ));
    let (mut older, wrong) = (newest, Some(Address::default()));
    older.covers = wrong;
    let mut parts = Parts::new(older);
    assert!(parts.push(&bench.log[&newest.at].payload).is_err(), "the pointer lies");
}

impl Bench {
    fn setup_without_answer(&mut self) {
        self.send(1, What::Command(super::bench::setup(7, S).into()));
    }
}

/// Something that a client does.
#[derive(Clone, Debug)]
enum Action {
    Append { segment: u8, writer: u8, len: usize, conditional: bool },
    Attribute { segment: u8, id: u8, value: i64 },
    Create { segment: u8 },
    Seal { segment: u8 },
    Truncate { segment: u8, back: i64 },
    Delete { segment: u8 },
    Merge { source: u8 },
    Transient { leave: bool },
    Put { key: u8, value: Vec<u8> },
    Remove { key: u8 },
    Hold,
    CommitOne,
    Crash,
}

fn an_action() -> impl Strategy<Value = Action> {
    let segment = || 0_u8..4;
    prop_oneof![
        8 => (segment(), 0_u8..3, 0_usize..200, any::<bool>()).prop_map(
            |(segment, writer, len, conditional)| Action::Append { segment, writer, len, conditional }
        ),
        2 => (segment(), 0_u8..3, -2_i64..3)
            .prop_map(|(segment, id, value)| Action::Attribute { segment, id, value }),
        4 => segment().prop_map(|segment| Action::Create { segment }),
        1 => segment().prop_map(|segment| Action::Seal { segment }),
        2 => (segment(), 0_i64..300).prop_map(|(segment, back)| Action::Truncate { segment, back }),
        1 => segment().prop_map(|segment| Action::Delete { segment }),
        2 => (1_u8..4).prop_map(|source| Action::Merge { source }),
        1 => any::<bool>().prop_map(|leave| Action::Transient { leave }),
        3 => (0_u8..5, proptest::collection::vec(any::<u8>(), 0..60))
            .prop_map(|(key, value)| Action::Put { key, value }),
        1 => (0_u8..5).prop_map(|key| Action::Remove { key }),
        1 => Just(Action::Hold),
        3 => Just(Action::CommitOne),
        2 => Just(Action::Crash),
    ]
}

/// Segment 0 is the stream's, the others are transactions on it.
fn name_of(segment: u8) -> String {
    if segment == 0 { S.to_owned() } else { txn(segment) }
}

fn act(bench: &mut Bench, connection: u64, action: Action) {
    let command: Command = match action {
        Action::Append { segment, writer, len, conditional } => {
            let name = name_of(segment);
            let number = i64::try_from(bench.log.len()).unwrap() * 1000 + bench.next_number();
            bench.send(connection, What::Command(super::bench::setup(writer.into(), &name).into()));
            let asked = append(writer.into(), &name, number, &vec![segment; len]);
            let asked = if conditional { append_at(0, asked) } else { asked };
            return bench.send(connection, What::Append(asked));
        }
        Action::Attribute { segment, id, value } => {
            attribute(&name_of(segment), id.into(), value, NULL).into()
        }
        Action::Create { segment } => create(&name_of(segment)).into(),
        Action::Seal { segment } => seal(&name_of(segment)).into(),
        Action::Truncate { segment, back } => truncate(&name_of(segment), back).into(),
        Action::Delete { segment } => delete(&name_of(segment)).into(),
        Action::Merge { source } => merge(S, &txn(source), Vec::new()).into(),
        Action::Transient { leave } => {
            bench.send(connection, What::Command(transient(1, S).into()));
            if leave {
                bench.send(connection, What::ConnectionClosed);
            }
            return;
        }
        Action::Put { key, value } => UpdateTableEntries {
            request_id: 1,
            segment: TABLE.into(),
            token: String::new(),
            entries: vec![TableEntry {
                key: TableKey { key: Bytes::from(vec![key]), version: NULL },
                value: value.into(),
            }],
            table_segment_offset: -1,
        }
        .into(),
        Action::Remove { key } => RemoveTableKeys {
            request_id: 1,
            segment: TABLE.into(),
            token: String::new(),
            keys: vec![TableKey { key: Bytes::from(vec![key]), version: NULL }],
            table_segment_offset: -1,
        }
        .into(),
        Action::Hold | Action::CommitOne | Action::Crash => return,
    };
    bench.send(connection, What::Command(command));
}

impl Bench {
    fn next_number(&self) -> i64 {
        i64::try_from(self.uncommitted()).unwrap()
    }
}

/// C5: what a recovery makes of snapshot and log is what the whole log makes from its beginning.
fn check_recovery(bench: &Bench) {
    let recovered = Bench::recover(&bench.log, bench.keep_from, &bench.snapshots);
    assert_eq!(recovered.state_hash(), fold(&bench.log).state_hash());
    assert_eq!(recovered.state_hash(), bench.container.state_hash());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn snapshot_and_log_tell_what_the_whole_log_tells(
        actions in proptest::collection::vec(an_action(), 1..80),
    ) {
        let mut bench = Bench::with(eager(), true);
        bench.create(S);
        bench.call(0, CreateTableSegment {
            request_id: 1,
            segment: TABLE.into(),
            token: String::new(),
            sorted_deprecated: false,
            key_length: 0,
            rollover_size_bytes: 0,
        });
        for (number, action) in (10_u64..).zip(actions) {
            match action {
                Action::Hold => bench.holds = true,
                Action::CommitOne => bench.commit_one(),
                Action::Crash => bench = bench.crash(),
                action => act(&mut bench, number, action),
            }
            prop_assert_eq!(&bench.stopped, &None);
        }
        bench.holds = false;
        bench.commit_all();
        check_recovery(&bench);
        let mut bench = bench.crash();
        bench.commit_all();
        check_recovery(&bench);
    }
}

#[test]
fn on_a_full_disk_a_truncation_lets_go_of_the_log_at_once() {
    for ends in [truncate(S, 3000).into(), Command::from(delete(S))] {
        let mut bench = Bench::new();
        bench.create(S);
        bench.fill(S, &[1; 3000]);
        let before = bench.keep_from;
        bench.call(1, ends);
        assert_eq!(bench.keep_from, before, "with room there is no hurry");
        bench.step(Input::Space { is_short: true });
        assert!(bench.keep_from > before, "the bytes of the segment are not kept");
        let mut bench = bench.crash();
        assert!(matches!(
            bench.call(1, info(S)),
            Command::StreamSegmentInfo(_) | Command::NoSuchSegment(_)
        ));
    }
}
