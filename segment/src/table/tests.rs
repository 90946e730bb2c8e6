use super::*;
use crate::place::Answer;
use bytes::BytesMut;
use proptest::prelude::*;
use thalweg_types::id::{EntryId, Epoch};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{Command, ReadTable, UpdateTableEntries};

const ENTRY: i64 = ROW_BYTES + 2 + 2;

/// A table with a log that is nothing but an array of payloads.
struct World {
    table: Table,
    log: Vec<Vec<u8>>,
}

impl World {
    fn new(key_length: i32) -> Self {
        Self { table: Table::new(key_length).unwrap(), log: Vec::new() }
    }

    fn write(&mut self, op: &TableOp, payload: Vec<u8>) {
        let mut header = BytesMut::new();
        op.encode(&mut header);
        let address = Address::new(Epoch(1), EntryId(self.log.len() as u64));
        let len = u32::try_from(payload.len()).unwrap();
        // Position 3: the payload of another operation lies in front of it.
        let place = Place { address, position: 3, len };
        self.log.push([vec![0xEE; 3], payload].concat());
        self.table.apply_rows(&header, place).unwrap();
        self.table.check();
    }

    fn put(&mut self, entries: &[(&str, i64, &str)]) -> Result<Vec<i64>, TableError> {
        let entries: Vec<_> = entries.iter().map(|(k, v, x)| entry(k, *v, x)).collect();
        let op = self.table.put(&entries, -1)?;
        self.write(&op, entries.iter().flat_map(|entry| entry.value.to_vec()).collect());
        Ok(op.versions())
    }

    fn remove(&mut self, keys: &[(&str, i64)]) -> Result<(), TableError> {
        let keys: Vec<_> = keys.iter().map(|(k, v)| key(k, *v)).collect();
        let op = self.table.remove(&keys, -1)?;
        self.write(&op, Vec::new());
        Ok(())
    }

    fn compact(&mut self, bytes_max: i64) -> bool {
        let Some(plan) = self.table.plan_compaction(bytes_max) else { return false };
        self.finish(&plan);
        true
    }

    fn finish(&mut self, plan: &Compaction) {
        let values = plan.values.iter().flat_map(|place| self.value(*place)).collect();
        let op = self.table.compact(plan);
        self.write(&op, values);
    }

    fn value(&self, place: Place) -> Vec<u8> {
        let at = place.position as usize;
        let entry = usize::try_from(place.address.entry.0).unwrap();
        self.log[entry][at..at + place.len as usize].to_vec()
    }

    fn get(&self, name: &str) -> Option<(i64, String)> {
        let row = self.table.get(&[key(name, NULL)]).unwrap().remove(0)?;
        Some((row.version, String::from_utf8(self.value(row.value)).unwrap()))
    }

    fn delta(&self, from: i64, count: i32) -> (Vec<(String, String)>, bool, bool, i64) {
        let delta = self.table.delta(from, count).unwrap();
        let text = |row: &Row| {
            let key = String::from_utf8(row.key.to_vec()).unwrap();
            (key, String::from_utf8(self.value(row.value)).unwrap())
        };
        let rows = delta.rows.iter().map(text).collect();
        (rows, delta.should_clear, delta.reached_end, delta.last_position)
    }

    fn keys(&self, scan: &Scan) -> Vec<Vec<u8>> {
        self.table.scan(scan).unwrap().rows.iter().map(|row| row.key.to_vec()).collect()
    }
}

fn key(name: &str, version: i64) -> TableKey {
    TableKey { key: Bytes::copy_from_slice(name.as_bytes()), version }
}

fn entry(name: &str, version: i64, value: &str) -> TableEntry {
    TableEntry { key: key(name, version), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.into(), value.into())
}

#[test]
fn versions_are_positions_and_rise_by_17_bytes_and_the_entry() {
    let mut world = World::new(0);
    assert_eq!(world.put(&[("k1", NOT_EXISTS, "v1"), ("k2", NULL, "v2!")]), Ok(vec![0, 21]));
    assert_eq!(world.table.info().length, 43);
    assert_eq!(world.get("k1"), Some((0, "v1".into())));
    assert_eq!(world.get("k2"), Some((21, "v2!".into())));
    assert_eq!(world.get("zz"), None);
}

#[test]
fn conditions_are_checked_against_the_state_before_the_batch() {
    let mut world = World::new(0);
    let versions = world.put(&[("k", NOT_EXISTS, "1."), ("k", NOT_EXISTS, "2.")]).unwrap();
    assert_eq!(versions, [0, ENTRY - 1]);
    assert_eq!(world.get("k"), Some((ENTRY - 1, "2.".into())));
    let old = versions[1];
    assert_eq!(world.put(&[("k", old, "3."), ("k", old, "4.")]).map(|v| v.len()), Ok(2));
    assert_eq!(world.get("k").unwrap().1, "4.");
}

#[test]
fn a_batch_that_fails_changes_nothing_and_tells_the_missing_key_first() {
    let mut world = World::new(0);
    world.put(&[("a", NULL, "old")]).unwrap();
    let before = world.table.clone();
    let bad = Err(TableError::BadVersion { wanted: -1, found: 0 });
    assert_eq!(world.put(&[("x", NULL, "1"), ("a", NOT_EXISTS, "2")]), bad);
    let missing = TableError::KeyDoesNotExist { wanted: 7 };
    assert_eq!(world.put(&[("a", NOT_EXISTS, "1"), ("b", 7, "2")]), Err(missing.clone()));
    assert_eq!(world.put(&[("b", 7, "2"), ("a", NOT_EXISTS, "1")]), Err(missing.clone()));
    assert_eq!(world.remove(&[("a", NULL), ("b", 7)]), Err(missing));
    assert_eq!(world.table, before);
}

#[test]
fn a_removed_key_is_a_wrong_version_until_compaction_forgets_it() {
    let mut world = World::new(0);
    let old = world.put(&[("k", NULL, "v")]).unwrap()[0];
    world.remove(&[("k", old)]).unwrap();
    assert_eq!(world.get("k"), None);
    let bad = TableError::BadVersion { wanted: old, found: NOT_EXISTS };
    assert_eq!(world.put(&[("k", old, "w")]), Err(bad.clone()));
    assert_eq!(world.remove(&[("k", old)]), Err(bad));
    assert_eq!(world.remove(&[("k", NOT_EXISTS), ("k", NULL)]), Ok(()));
    assert!(world.compact(i64::MAX));
    let missing = Err(TableError::KeyDoesNotExist { wanted: old });
    assert_eq!(world.put(&[("k", old, "w")]), missing);
    let again = world.put(&[("k", NOT_EXISTS, "w")]).unwrap()[0];
    assert!(again > old);
}

#[test]
fn a_fixed_table_says_wrong_version_for_an_absent_key() {
    let world = World::new(2);
    let refused = world.table.put(&[entry("k2", 5, "v")], -1);
    assert_eq!(refused, Err(TableError::BadVersion { wanted: 5, found: NOT_EXISTS }));
}

#[test]
fn limits_are_refused_by_name() {
    let table = Table::new(-5).unwrap();
    assert_eq!(table.info().key_length, 0);
    assert_eq!(Table::new(257), Err(TableError::KeyLengthTooLong { bytes: 257 }));
    let long = "k".repeat(TABLE_KEY_BYTES_MAX + 1);
    let refused = table.put(&[entry("fine", NULL, "v"), entry(&long, NULL, "v")], -1);
    assert_eq!(refused, Err(TableError::KeyTooLong { bytes: TABLE_KEY_BYTES_MAX + 1 }));
    assert!(table.put(&[entry(&long[1..], NULL, "v")], -1).is_ok());
    let big = "v".repeat(TABLE_VALUE_BYTES_MAX + 1);
    let refused = table.put(&[entry("k", NULL, &big)], -1);
    assert_eq!(refused, Err(TableError::ValueTooLong { bytes: TABLE_VALUE_BYTES_MAX + 1 }));
    let batch = vec![entry("k", NULL, &big[1..]); 16];
    assert!(matches!(table.put(&batch, -1), Err(TableError::BatchTooLong { .. })));
    assert_eq!(table.put(&[entry("", NULL, "v")], -1), Err(TableError::KeyEmpty));
    let fixed = Table::new(4).unwrap();
    let wrong = TableError::KeyLength { bytes: 3, fixed: 4 };
    assert_eq!(fixed.put(&[entry("abc", NULL, "v")], -1), Err(wrong.clone()));
    assert_eq!(fixed.get(&[key("abc", NULL)]), Err(wrong.clone()));
    assert_eq!(fixed.remove(&[key("abc", NULL)], -1), Err(wrong));
}

#[test]
fn an_expected_length_must_be_the_tables() {
    let mut world = World::new(0);
    world.put(&[("kk", NULL, "vv")]).unwrap();
    assert!(world.table.put(&[entry("k", NULL, "w")], ENTRY).is_ok());
    let refused = world.table.put(&[entry("k", NULL, "w")], 0);
    assert_eq!(refused, Err(TableError::Length { expected: 0, length: ENTRY }));
}

#[test]
fn a_delta_keeps_the_last_written_value_over_a_later_removal() {
    let mut world = World::new(0);
    world.put(&[("a", NULL, "1"), ("b", NULL, "2"), ("a", NULL, "tombstone")]).unwrap();
    world.remove(&[("a", NULL)]).unwrap();
    let end = world.table.info().length;
    let rows = vec![pair("b", "2"), pair("a", "tombstone")];
    assert_eq!(world.delta(0, 10), (rows, false, true, end));
    assert_eq!(world.delta(end, 10), (vec![], false, true, end));
    assert_eq!(world.table.info().entry_count, 1);
}

#[test]
fn delta_pages_rise_and_meet_every_key_once() {
    let mut world = World::new(0);
    for i in 0..10 {
        world.put(&[(&format!("{i:04}"), NULL, &format!("v{i}"))]).unwrap();
    }
    let (mut position, mut got, mut ended) = (0, Vec::new(), false);
    while !ended {
        let (rows, clear, end, last) = world.delta(position, 3);
        assert!(!clear && !rows.is_empty() && rows.len() <= 3 && last > position);
        got.extend(rows);
        (position, ended) = (last, end);
    }
    assert_eq!(
        got,
        (0..10).map(|i| pair(&format!("{i:04}"), &format!("v{i}"))).collect::<Vec<_>>()
    );
    assert_eq!(position, world.table.info().length);
}

#[test]
fn a_delta_from_outside_or_of_a_fixed_table_is_refused() {
    let mut world = World::new(0);
    world.put(&[("a", NULL, "1")]).unwrap();
    for position in [-1, 100_000] {
        let refused = world.table.delta(position, 10);
        assert_eq!(refused, Err(TableError::Position { position, length: ENTRY - 2 }));
    }
    let fixed = Table::new(1).unwrap().delta(0, 10);
    assert_eq!(fixed, Err(TableError::Unsupported { operation: "readTableEntriesDelta" }));
}

#[test]
fn pages_of_a_hash_table_follow_tokens_and_refuse_foreign_ones() {
    let mut world = World::new(0);
    let names: Vec<String> = (0..50).map(|i| format!("{i:04}")).collect();
    for name in &names {
        world.put(&[(name, NULL, "v")]).unwrap();
    }
    world.remove(&[("0007", NULL)]).unwrap();
    let (mut scan, mut got) = (Scan { suggested_count: 7, ..Scan::default() }, Vec::new());
    loop {
        let page = world.table.scan(&scan).unwrap();
        assert_eq!(page.rows.is_empty(), page.continuation_token.is_empty());
        if page.rows.is_empty() {
            break;
        }
        assert!(page.rows.len() <= 7);
        got.extend(page.rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()));
        scan.continuation_token = page.continuation_token;
    }
    assert_eq!(got, names.iter().filter(|n| *n != "0007").cloned().collect::<Vec<_>>());
    for foreign in ["nonsense", "abc"] {
        let scan = Scan { continuation_token: foreign.into(), ..scan.clone() };
        assert_eq!(world.table.scan(&scan), Err(TableError::Token));
    }
    let ranged = Scan { from_key: "0001".into(), suggested_count: 7, ..Scan::default() };
    assert_eq!(world.table.scan(&ranged), Err(TableError::Range));
}

#[test]
fn a_page_ends_at_two_mebibytes_but_holds_a_row() {
    let mut world = World::new(0);
    let value = "v".repeat(600_000);
    for i in 0..8 {
        world.put(&[(&format!("{i}"), NULL, &value)]).unwrap();
    }
    let all = Scan { suggested_count: 100, ..Scan::default() };
    assert_eq!(world.keys(&all).len(), 3);
    let (rows, _, end, last) = world.delta(0, 100);
    assert_eq!((rows.len(), end), (3, false));
    assert_eq!(last, 3 * (600_000 + ROW_BYTES + 1));
}

#[test]
fn a_fixed_table_is_read_by_inclusive_ranges_in_order_of_bytes() {
    let mut world = World::new(4);
    for i in 0..20 {
        world.put(&[(&format!("{i:04}"), NULL, "v")]).unwrap();
    }
    let range = |from: &str, to: &str| Scan {
        from_key: Bytes::copy_from_slice(from.as_bytes()),
        to_key: Bytes::copy_from_slice(to.as_bytes()),
        suggested_count: 100,
        ..Scan::default()
    };
    assert_eq!(world.keys(&range("0005", "0007")), [b"0005", b"0006", b"0007"]);
    assert_eq!(world.keys(&range("0018", "")), [b"0018", b"0019"]);
    assert_eq!(world.keys(&range("", "0000")), [b"0000"]);
    assert!(world.keys(&range("0020", "9999")).is_empty());
    assert_eq!(world.table.scan(&range("0019", "0001")), Err(TableError::Range));
    let wrong = Err(TableError::KeyLength { bytes: 1, fixed: 4 });
    assert_eq!(world.table.scan(&range("0", "")), wrong);
    let token = Scan { continuation_token: "0001".into(), ..Scan::default() };
    assert_eq!(world.table.scan(&token), Err(TableError::Token));
}

#[test]
fn compaction_keeps_versions_and_never_undoes_what_came_in_between() {
    let mut world = World::new(0);
    let old = world.put(&[("a", NULL, "1."), ("b", NULL, "2."), ("c", NULL, "3.")]).unwrap();
    let plan = world.table.plan_compaction(i64::MAX).unwrap();
    let newer = world.put(&[("a", NULL, "9.")]).unwrap()[0];
    world.remove(&[("b", NULL)]).unwrap();
    world.finish(&plan);
    assert_eq!(world.get("a"), Some((newer, "9.".into())));
    assert_eq!(world.get("b"), None);
    assert_eq!(world.get("c"), Some((old[2], "3.".into())));
    let info = world.table.info();
    assert_eq!((info.start, info.entry_count), (3 * (ENTRY - 1), 2));
    let (rows, clear, end, _) = world.delta(0, 10);
    assert_eq!((rows, clear, end), (vec![pair("a", "9."), pair("c", "3.")], true, true));
    assert!(world.put(&[("c", old[2], "4.")]).is_ok(), "a condition on the old version holds");
}

#[test]
fn compaction_in_steps_frees_the_log_behind_it() {
    let mut world = World::new(0);
    for round in 0..10 {
        world.put(&[(&format!("k{}", round % 3), NULL, "value")]).unwrap();
    }
    let dead = world.table.dead_bytes();
    assert_eq!(dead, 7 * (ROW_BYTES + 7));
    assert_eq!(world.table.oldest().unwrap().entry, EntryId(7));
    for _ in 0..3 {
        assert!(world.compact(1));
    }
    assert_eq!(world.table.dead_bytes(), 0);
    assert_eq!(world.table.oldest().unwrap().entry, EntryId(10));
}

#[test]
fn an_operation_made_for_another_state_is_refused() {
    let mut world = World::new(0);
    let op = world.table.put(&[entry("k", NULL, "v")], -1).unwrap();
    world.put(&[("other", NULL, "x")]).unwrap();
    let before = world.table.clone();
    let place = Place { address: Address::default(), position: 0, len: 1 };
    let length = world.table.info().length;
    assert_eq!(world.table.apply(&op, place), Err(ApplyError::Length { at: 0, length }));
    let op = world.table.put(&[entry("k", NULL, "v")], -1).unwrap();
    let wrong = Place { len: 2, ..place };
    let refused = Err(ApplyError::Payload { needed: 1, found: 2 });
    assert_eq!(world.table.apply(&op, wrong), refused);
    assert!(world.table.apply_rows(&[9], place).is_err());
    assert_eq!(world.table, before);
}

#[test]
fn requests_are_answered_with_places_where_values_lie() {
    let mut world = World::new(0);
    let segment = SegmentName::from("s/t_kvtable/0.#epoch.0");
    let request: Command = UpdateTableEntries {
        request_id: 9,
        segment: segment.clone(),
        token: String::new(),
        entries: vec![entry("k1", NOT_EXISTS, "v1"), entry("k2", NULL, "")],
        table_segment_offset: -1,
    }
    .into();
    let rows = world.table.change(&request).unwrap();
    assert_eq!(rows.payload.concat(), b"v1");
    let Command::TableEntriesUpdated(reply) = &rows.reply else { panic!("{:?}", rows.reply) };
    assert_eq!((reply.request_id, &reply.versions[..]), (9, &[0, 21][..]));
    let place = Place { address: Address::new(Epoch(2), EntryId(5)), position: 40, len: 2 };
    world.table.apply_rows(&rows.header, place).unwrap();
    let refused = world.table.change(&request).unwrap_err();
    assert!(matches!(*refused, Command::TableKeyBadVersion(reply) if reply.request_id == 9));
    let keys = vec![key("k1", 77), key("zz", NULL), key("k2", NULL)];
    let token = String::new();
    let asked = ReadTable { request_id: 3, segment, token, keys }.into();
    let Answer::Values(unfilled) = world.table.answer(&asked) else { panic!("values are needed") };
    assert_eq!(unfilled.places, [(0, place)]);
    let Command::TableRead(read) = unfilled.reply else { panic!() };
    let versions: Vec<_> = read.entries.iter().map(|entry| entry.key.version).collect();
    assert_eq!(versions, [0, NOT_EXISTS, 21]);
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u8, Condition)>),
    Remove(Vec<(u8, Condition)>),
    Compact(i64),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    None,
    Absent,
    Current,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let condition = prop_oneof![
        4 => Just(Condition::None),
        1 => Just(Condition::Absent),
        3 => Just(Condition::Current),
        1 => Just(Condition::Stale),
    ];
    let keys = proptest::collection::vec((0..6_u8, condition), 0..4);
    let step = prop_oneof![
        4 => keys.clone().prop_map(Step::Put),
        2 => keys.prop_map(Step::Remove),
        1 => (1..200_i64).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..40)
}

/// The model: what a table means, without rows, positions or places.
#[derive(Default)]
struct Model {
    live: BTreeMap<Vec<u8>, (i64, Vec<u8>)>,
    /// What a reader of deltas has put together.
    reader: BTreeMap<Vec<u8>, Vec<u8>>,
    position: i64,
}

impl Model {
    fn version(&self, key: &[u8], condition: Condition) -> i64 {
        let current = self.live.get(key).map(|(version, _)| *version);
        match condition {
            Condition::None => NULL,
            Condition::Absent => NOT_EXISTS,
            Condition::Current => current.unwrap_or(NOT_EXISTS),
            Condition::Stale => current.map_or(3, |version| version - 1),
        }
    }

    fn allows(&self, keys: &[TableKey]) -> bool {
        keys.iter().all(|key| {
            let found = self.live.get(&key.key[..]).map_or(NOT_EXISTS, |(version, _)| *version);
            key.version == NULL || key.version == found
        })
    }

    fn follow(&mut self, world: &World) {
        loop {
            let delta = world.table.delta(self.position, 2).unwrap();
            if delta.should_clear {
                self.reader.clear();
            }
            for row in delta.rows {
                self.reader.insert(row.key.to_vec(), world.value(row.value));
            }
            self.position = delta.last_position;
            if delta.reached_end {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_table_is_a_map_whatever_happens_to_it(steps in steps()) {
        let (mut world, mut model, mut serial) = (World::new(0), Model::default(), 0_u32);
        for step in steps {
            match step {
                Step::Put(keys) => {
                    let entries: Vec<_> = keys.iter().map(|(k, condition)| {
                        serial += 1;
                        let version = model.version(&[*k], *condition);
                        let key = TableKey { key: vec![*k].into(), version };
                        TableEntry { key, value: format!("value {serial}").into() }
                    }).collect();
                    let keys: Vec<_> = entries.iter().map(|e| e.key.clone()).collect();
                    let op = world.table.put(&entries, -1);
                    prop_assert_eq!(op.is_ok(), model.allows(&keys));
                    let Ok(op) = op else { continue };
                    world.write(&op, entries.iter().flat_map(|e| e.value.to_vec()).collect());
                    for (entry, version) in entries.iter().zip(op.versions()) {
                        let value = (version, entry.value.to_vec());
                        model.live.insert(entry.key.key.to_vec(), value);
                    }
                }
                Step::Remove(keys) => {
                    let keys: Vec<_> = keys.iter().map(|(k, condition)| {
                        let version = model.version(&[*k], *condition);
                        TableKey { key: vec![*k].into(), version }
                    }).collect();
                    let op = world.table.remove(&keys, -1);
                    prop_assert_eq!(op.is_ok(), model.allows(&keys));
                    let Ok(op) = op else { continue };
                    world.write(&op, Vec::new());
                    for key in &keys {
                        model.live.remove(&key.key[..]);
                    }
                }
                Step::Compact(bytes_max) => drop(world.compact(bytes_max)),
                Step::Restart => {
                    let mut bytes = BytesMut::new();
                    world.table.encode(&mut bytes);
                    let mut input = &bytes[..];
                    let restored = Table::decode(&mut input).unwrap();
                    prop_assert!(input.is_empty());
                    prop_assert_eq!(&restored, &world.table);
                    world.table = restored;
                    model.follow(&world);
                }
            }
        }
        let all = Scan { suggested_count: 100, ..Scan::default() };
        let found: BTreeMap<_, _> = world.table.scan(&all).unwrap().rows.into_iter()
            .map(|row| (row.key.to_vec(), (row.version, world.value(row.value)))).collect();
        prop_assert_eq!(&found, &model.live);
        model.follow(&world);
        for (key, (_, value)) in &model.live {
            prop_assert_eq!(model.reader.get(key), Some(value), "a delta reader missed a write");
        }
    }

    #[test]
    fn a_cut_or_flipped_snapshot_is_an_error_or_a_valid_table(
        cut in 0_usize..400, flip in any::<(usize, u8)>(),
    ) {
        let mut world = World::new(0);
        world.put(&[("a", NULL, "1"), ("bb", NULL, "22")]).unwrap();
        world.remove(&[("a", NULL)]).unwrap();
        let mut bytes = BytesMut::new();
        world.table.encode(&mut bytes);
        let cut = cut % bytes.len();
        prop_assert!(Table::decode(&mut &bytes[..cut]).is_err());
        let at = flip.0 % bytes.len();
        bytes[at] ^= flip.1;
        let _ = Table::decode(&mut &bytes[..]);
    }

    #[test]
    fn any_bytes_are_an_operation_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(op) = TableOp::decode(&mut &bytes[..]) {
            let mut again = BytesMut::new();
            op.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..again.len()]);
        }
    }
}
