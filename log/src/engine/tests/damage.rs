//! Damaged, missing, stale and foreign files: UNKNOWN or a refused start, with file and offset; nothing is changed, and
//! never is the data wrong or the log silently shorter.

use super::*;
use std::collections::BTreeMap;

pub(super) const ONE: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
pub(super) const TWO: LedgerId = LedgerId { container: ContainerId(2), epoch: Epoch(1) };
/// Two of them nearly fill a block, so that nothing is worth moving.
pub(super) const LEN: usize = 1700;
pub(super) const COUNT: u64 = 8;
const SECTOR: usize = 512;
pub(super) const BLOCK: usize = 4096;

pub(super) fn small() -> Config {
    Config { file_first: 32 * 1024, file_max: 32 * 1024, reserve: 16 * 1024, ..tiny() }
}

/// Files in which enough is live that it stays where it is.
pub(super) fn large() -> Config {
    Config { file_first: 64 * 1024, file_max: 64 * 1024, ..small() }
}

/// Stages entries `entries` of both ledgers, two a batch.
pub(super) async fn append(engine: &Engine, entries: Range<u64>) {
    for at in entries {
        engine.stage(entry(ONE, at, LEN)).unwrap();
        let last = engine.stage(entry(TWO, at, LEN)).unwrap();
        durable(engine, last).await.unwrap();
    }
}

/// Long enough for the mark that proves the last batch durable.
pub(super) async fn idle(env: &Env) {
    env.clock.sleep_until(env.clock.now().after(Duration::from_millis(50))).await;
}

/// A store of two mounts with a few batches in several files, stopped as a kill after an idle moment leaves it.
pub(super) fn store(clean: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for mount in 0..2 {
        let executor = Executor::new(mount + 1);
        executor.run(async {
            let engine = Engine::open(executor.env(&disk), small()).await.unwrap();
            if mount == 0 {
                engine.stage(opening(ONE)).unwrap();
                engine.stage(opening(TWO)).unwrap();
            }
            append(&engine, mount * COUNT / 2..(mount + 1) * COUNT / 2).await;
            if clean {
                engine.shutdown().await;
            }
            idle(&executor.env(&disk)).await;
        });
    }
    disk
}

pub(super) fn contents(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect()
}

pub(super) fn log_files(disk: &MemoryDisk) -> Vec<String> {
    let mut names: Vec<String> =
        disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

pub(super) fn with(disk: &MemoryDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemoryDisk {
    let damaged = disk.process_end();
    let mut bytes = damaged.bytes(name);
    change(&mut bytes);
    damaged.set_bytes(name, bytes);
    damaged
}

/// What a start on a damaged disk came to.
struct Outcome {
    /// Why it was refused.
    refused: Option<StartError>,
    /// How many entries could be read.
    readable: u64,
    /// What was said about the others, and about damage in general.
    said: Vec<String>,
    recovered: Arc<Recovered>,
}

impl Outcome {
    /// Asserts that damage in `file` was put down to it, if it was noticed at all.
    fn blames(&self, file: &str, context: &str) {
        let said = self.said.iter().chain(&self.recovered.damages);
        for what in said {
            assert!(what.contains(&format!("memory/{file} ")), "{context}: {what}");
            assert!(what.contains("offset "), "{context}: {what}");
        }
    }
}

/// Starts from `disk`. Every one of `count` entries must be right or UNKNOWN, a tail that is vouched for must be the
/// whole one, and no byte of the log may be another than before.
fn start(disk: &MemoryDisk, first: u64, count: u64, context: &str) -> Outcome {
    let before = contents(disk);
    let executor = Executor::new(9);
    let outcome = executor.run(async {
        let engine = match Engine::open(executor.env(disk), small()).await {
            Ok(engine) => engine,
            Err(error) => {
                let (readable, said) = (0, vec![]);
                return Outcome { refused: Some(error), readable, said, recovered: Arc::default() };
            }
        };
        let recovered = engine.recovered();
        let (mut readable, mut said) = (0, Vec::new());
        for ledger in [ONE, TWO] {
            let state = recovered.ledgers.get(&ledger);
            if let Some(state) = state.filter(|state| state.certain) {
                assert_eq!(state.tail, Some(EntryId(count - 1)), "{context}: {ledger}");
            } else {
                assert!(recovered.limbo, "{context}: {ledger} in doubt without a reason");
                assert!(!recovered.damages.is_empty(), "{context}");
            }
            for at in first..count {
                match engine.payload(ledger, EntryId(at)).await {
                    Ok(payload) => {
                        assert_eq!(payload, payload_of(ledger, at, LEN), "{context}");
                        readable += 1;
                    }
                    Err(ReadError::Unknown { reason, .. }) if recovered.damages.is_empty() => {
                        said.push(reason.to_string());
                    }
                    Err(ReadError::Unknown { .. }) => {}
                    Err(error) => panic!("{context}: {error}"),
                }
            }
        }
        engine.check();
        Outcome { refused: None, readable, said, recovered }
    });
    let after = contents(disk);
    for (name, bytes) in &before {
        let is_refused = outcome.refused.is_some();
        let is_log = name.starts_with("seg-");
        if is_refused || is_log {
            let same = after.get(name) == Some(bytes);
            assert!(same, "{context}: {name} was changed ({:?})", outcome.refused);
        }
    }
    outcome
}

/// What all kinds of damage to all places came to.
#[derive(Debug, Default)]
struct Tally {
    whole: u64,
    partly: u64,
    refused: u64,
}

impl Tally {
    /// Starts from `disk`, in which only `file` is damaged, twice.
    fn judge(&mut self, disk: &MemoryDisk, file: &str, (first, count): (u64, u64), context: &str) {
        let outcome = start(disk, first, count, context);
        outcome.blames(file, context);
        match &outcome.refused {
            Some(StartError::Damaged { file: named, .. }) => {
                assert_eq!(named, file, "{context}");
                self.refused += 1;
            }
            Some(error) => panic!("{context}: {error}"),
            None if outcome.readable == 2 * (count - first) => self.whole += 1,
            None => {
                let silent = outcome.said.is_empty() && outcome.recovered.damages.is_empty();
                assert!(!silent, "{context}: entries are missing, and nobody says so");
                self.partly += 1;
            }
        }
    }
}

/// Flips one bit in every `step`th byte of every file, one at a time.
fn flip_all(clean: bool, step: usize) {
    let disk = store(clean);
    assert_eq!(start(&disk.process_end(), 0, COUNT, "undamaged").readable, 2 * COUNT);
    let mut tally = Tally::default();
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Of long runs of zeros only some are tried.
        let is_zero = |at: usize| bytes[at.saturating_sub(8)..used.min(at + 8)] == [0; 16];
        for at in (0..used).step_by(step).filter(|at| at % 16 == 0 || !is_zero(*at)) {
            let damaged = with(&disk, &name, |bytes| bytes[at] ^= 1 << (at % 8));
            tally.judge(&damaged, &name, (0, COUNT), &format!("{name} at {at}"));
            if at % 7 == 0 {
                tally.judge(&damaged, &name, (0, COUNT), &format!("{name} at {at}, again"));
            }
        }
    }
    assert!(tally.whole > 0 && tally.partly > tally.refused && tally.refused > 0, "{tally:?}");
}

#[test]
pub(super) fn a_flipped_byte_never_shows_wrong_data_nor_a_shorter_log_after_a_kill() {
    flip_all(false, 1);
}

#[test]
pub(super) fn a_flipped_byte_never_shows_wrong_data_nor_a_shorter_log_after_a_clean_stop() {
    flip_all(true, 3);
}

#[test]
pub(super) fn a_sector_of_zeros_or_a_block_of_them_never_shows_wrong_data_nor_a_shorter_log() {
    for clean in [false, true] {
        let (disk, mut tally) = (store(clean), Tally::default());
        for (name, bytes) in contents(&disk) {
            // After a kill only the mark proves the last batch: without both, it looks as if torn.
            let sizes = [SECTOR, BLOCK, 2 * BLOCK];
            for size in &sizes[..if clean { 3 } else { 2 }] {
                for at in (0..bytes.len()).step_by(*size) {
                    let end = bytes.len().min(at + size);
                    if bytes[at..end].iter().all(|byte| *byte == 0) {
                        continue;
                    }
                    let damaged = with(&disk, &name, |bytes| bytes[at..end].fill(0));
                    let context = format!("{name} at {at}, {size} bytes");
                    tally.judge(&damaged, &name, (0, COUNT), &context);
                    tally.judge(&damaged, &name, (0, COUNT), &format!("{context}, again"));
                }
            }
        }
        assert!(tally.whole > 0 && tally.partly > 0 && tally.refused > 0, "{tally:?}");
    }
}

/// A store whose newest file has been in use before: as it was at one moment, as it was 8 entries later, and the
/// range of entries that are still there.
fn recycled() -> (MemoryDisk, MemoryDisk, (u64, u64)) {
    let (disk, executor) = (MemoryDisk::new(), Executor::new(1));
    let (before, last) = executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), large()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        append(&engine, 0..50).await;
        for container in [ONE.container, TWO.container] {
            let keep_from = Address::new(Epoch(1), EntryId(44));
            durable(&engine, engine.stage(Frame::Trim { container, keep_from }).unwrap())
                .await
                .unwrap();
        }
        idle(&env).await;
        append(&engine, 50..55).await;
        idle(&env).await;
        let before = disk.process_end();
        append(&engine, 55..58).await;
        idle(&env).await;
        (before, 58)
    });
    (before, disk, (44, last))
}

/// The log files that are still in use for the same.
fn still_there(old: &MemoryDisk, new: &MemoryDisk) -> Vec<String> {
    let names = new.names();
    let same = |name: &String| old.bytes(name)[..BLOCK] == new.bytes(name)[..BLOCK];
    let mut there = log_files(old);
    there.retain(|name| names.contains(name) && same(name));
    there
}

#[test]
pub(super) fn a_stale_sector_of_a_recycled_file_never_shows_wrong_data_nor_a_shorter_log() {
    let (old, new, range) = recycled();
    eprintln!("{:?} {:?} {:?}", log_files(&old), log_files(&new), still_there(&old, &new));
    assert_eq!(start(&new.process_end(), range.0, range.1, "undamaged").readable, 28);
    let (mut tally, mut stale) = (Tally::default(), 0);
    for name in still_there(&old, &new) {
        let (before, after) = (old.bytes(&name), new.bytes(&name));
        for at in (0..before.len()).step_by(SECTOR) {
            for size in [SECTOR, BLOCK] {
                let end = after.len().min(at + size);
                if before[at..end] == after[at..end] {
                    continue;
                }
                stale += u64::from(before[at..end].iter().any(|byte| *byte != 0));
                let damaged = with(&new, &name, |bytes| {
                    bytes[at..end].copy_from_slice(&before[at..end]);
                });
                let context = format!("stale {name} at {at}, {size} bytes");
                tally.judge(&damaged, &name, range, &context);
                tally.judge(&damaged, &name, range, &format!("{context}, again"));
            }
        }
    }
    assert!(stale > 10 && tally.partly > 0, "{stale} stale, {tally:?}");
}

#[test]
pub(super) fn a_misdirected_batch_never_shows_wrong_data_nor_a_shorter_log() {
    let (old, new, range) = recycled();
    let mut tally = Tally::default();
    for name in still_there(&old, &new) {
        let (before, after) = (old.bytes(&name), new.bytes(&name));
        let blocks = || (0..after.len()).step_by(BLOCK);
        for from in blocks().filter(|at| before[*at..*at + BLOCK] != after[*at..*at + BLOCK]) {
            for to in blocks().filter(|to| *to != from) {
                let damaged = with(&new, &name, |bytes| {
                    bytes[to..to + BLOCK].copy_from_slice(&after[from..from + BLOCK]);
                    bytes[from..from + BLOCK].copy_from_slice(&before[from..from + BLOCK]);
                });
                let context = format!("{name}: {from} was written to {to}");
                tally.judge(&damaged, &name, range, &context);
            }
        }
    }
    assert!(tally.partly > 10, "{tally:?}");
}

#[test]
pub(super) fn a_misdirected_batch_under_a_running_engine_never_shows_wrong_data() {
    let (disk, executor) = (MemoryDisk::new(), Executor::new(1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), large()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        append(&engine, 0..10).await;
        let mut bytes = disk.bytes("seg-1.log");
        bytes.copy_within(6 * BLOCK..7 * BLOCK, 4 * BLOCK);
        disk.set_bytes("seg-1.log", bytes);
        let mut unknown = 0;
        for (ledger, at) in (0..10).flat_map(|at| [(ONE, at), (TWO, at)]) {
            match engine.payload(ledger, EntryId(at)).await {
                Ok(payload) => assert_eq!(payload, payload_of(ledger, at, LEN)),
                Err(ReadError::Unknown { reason, .. }) => {
                    assert!(
                        reason.contains("memory/seg-1.log in the batch at offset 16384"),
                        "{reason}"
                    );
                    unknown += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(unknown, 2);
    });
}

#[test]
pub(super) fn a_damaged_payload_costs_its_own_entry_only() {
    let (disk, mut found) = (store(true), 0);
    let mark = payload_of(ONE, 3, 14);
    for name in log_files(&disk) {
        let bytes = disk.bytes(&name);
        let is_marked = |at: &usize| bytes[*at..].starts_with(&mark);
        let places: Vec<usize> = (0..bytes.len()).filter(is_marked).collect();
        // The first two lie in the operation headers, all others in the payload.
        let Some(at) = places.get(places.len() / 2) else { continue };
        let damaged = with(&disk, &name, |bytes| bytes[*at] ^= 1);
        let outcome = start(&damaged, 0, COUNT, "payload");
        if outcome.readable == 2 * COUNT {
            // It has been moved on, and this is what it left behind.
            continue;
        }
        found += 1;
        assert!(outcome.refused.is_none() && outcome.recovered.damages.is_empty());
        assert!(!outcome.recovered.limbo);
        assert!(outcome.recovered.ledgers.values().all(|state| state.certain));
        assert_eq!((outcome.readable, outcome.said.len()), (2 * COUNT - 1, 1));
        outcome.blames(&name, "payload");
    }
    assert_eq!(found, 1, "entry 3 lies in one place");
}

#[test]
pub(super) fn a_damaged_batch_is_named_with_its_place_and_what_lies_around_it_is_readable() {
    for clean in [false, true] {
        let (disk, mut batches) = (store(clean), 0);
        for name in log_files(&disk) {
            let bytes = disk.bytes(&name);
            let is_batch = |at: &usize| bytes[*at..].starts_with(b"THALWEGB");
            for at in (BLOCK..bytes.len()).step_by(BLOCK).filter(is_batch) {
                let damaged = with(&disk, &name, |bytes| bytes[at + 20] ^= 1);
                let context = format!("clean {clean}, {name} at {at}");
                let outcome = start(&damaged, 0, COUNT, &context);
                outcome.blames(&name, &context);
                if outcome.refused.is_none() && outcome.readable < 2 * COUNT {
                    let frames = u64::from(bytes[at + 12]);
                    assert!(outcome.readable >= 2 * COUNT - frames, "{context}");
                    let said = &outcome.recovered.damages[0];
                    assert!(said.contains(&format!("offset {at}:")), "{said}");
                    batches += 1;
                }
            }
        }
        assert!(batches >= 4, "{batches} batches");
    }
}

#[test]
pub(super) fn a_damaged_file_stays_while_a_ledger_is_in_doubt() {
    let (disk, executor) = (MemoryDisk::new(), Executor::new(1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), large()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        append(&engine, 0..10).await;
        idle(&executor.env(&disk)).await;
    });
    let disk = with(&disk, "seg-1.log", |bytes| bytes[4 * BLOCK + 20] ^= 1);
    let busy = ledger(3, 1);
    let trim = |container, epoch, entry| Frame::Trim {
        container: ContainerId(container),
        keep_from: Address::new(Epoch(epoch), EntryId(entry)),
    };
    let executor = Executor::new(2);
    executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), large()).await.unwrap();
        assert!(engine.recovered().damages[0].contains("seg-1.log at offset 16384"));
        // Nothing that is known to be in the file is needed any more, by far.
        engine.stage(trim(1, 1, 9)).unwrap();
        engine.stage(trim(2, 1, 9)).unwrap();
        engine.stage(opening(busy)).unwrap();
        for at in 0..200 {
            durable(&engine, engine.stage(entry(busy, at, LEN)).unwrap()).await.unwrap();
        }
        idle(&env).await;
        assert!(disk.names().contains(&"seg-1.log".to_owned()));
        engine.stage(trim(1, 2, 0)).unwrap();
        durable(&engine, engine.stage(trim(2, 2, 0)).unwrap()).await.unwrap();
        durable(&engine, engine.stage(trim(3, 1, 199)).unwrap()).await.unwrap();
        idle(&env).await;
        assert!(!disk.names().contains(&"seg-1.log".to_owned()));
    });
}

#[test]
pub(super) fn a_damaged_start_of_the_first_mount_is_doubt_and_of_the_last_a_refusal() {
    let (disk, mut count) = (MemoryDisk::new(), 0);
    for mount in 0..2 {
        let executor = Executor::new(mount + 1);
        executor.run(async {
            let engine = Engine::open(executor.env(&disk), large()).await.unwrap();
            if mount == 0 {
                engine.stage(opening(ONE)).unwrap();
                engine.stage(opening(TWO)).unwrap();
            }
            append(&engine, count..count + 10).await;
            count += 10;
            idle(&executor.env(&disk)).await;
        });
        let file = format!("seg-{}.log", mount + 1);
        for at in [0, 20, 60, 90] {
            let damaged = with(&disk, &file, |bytes| bytes[BLOCK + at] ^= 1);
            let outcome = start(&damaged, 0, count, "start");
            outcome.blames(&file, "start");
            match outcome.refused {
                Some(StartError::Damaged { offset: 4096, file: named, .. }) if mount == 1 => {
                    assert_eq!(named, file);
                }
                None if mount == 0 => assert_eq!(outcome.readable, 2 * count),
                refused => panic!("{file}, {at}: {refused:?}"),
            }
        }
    }
}

#[test]
pub(super) fn a_damaged_header_of_a_file_is_named_and_nothing_is_changed() {
    let disk = store(true);
    for name in log_files(&disk) {
        for at in [0, 8, 20, 40, BLOCK - 1] {
            let damaged = with(&disk, &name, |bytes| bytes[at] ^= 1);
            let refused = start(&damaged, 0, COUNT, &name).refused.unwrap();
            let is_named =
                matches!(&refused, StartError::Damaged { file, offset: 0, .. } if *file == name);
            assert!(is_named, "{refused}");
        }
    }
}

#[test]
pub(super) fn a_missing_cut_or_swapped_file_is_named_and_mending_it_mends_all() {
    let disk = store(true);
    let names = log_files(&disk);
    assert!(names.len() >= 2, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        let damaged = disk.process_end();
        damaged.delete(name);
        let refused = start(&damaged, 0, COUNT, name).refused.unwrap();
        assert!(matches!(&refused, StartError::Missing { file, .. } if file == name), "{refused}");
        assert!(refused.to_string().contains("nothing has been changed"));
        for len in (0..disk.bytes(name).len()).step_by(BLOCK).chain([100, 5000]) {
            let cut = with(&disk, name, |bytes| bytes.truncate(len));
            let refused = start(&cut, 0, COUNT, name).refused.unwrap();
            let expected = if len < BLOCK { 0 } else { len as u64 };
            let is_named = matches!(
                &refused,
                StartError::Damaged { file, offset, .. } if file == name && *offset == expected
            );
            assert!(is_named, "{len}: {refused}");
        }
        let other = &names[(number + 1) % names.len()];
        let swapped = with(&disk, name, |bytes| *bytes = disk.bytes(other));
        let refused = start(&swapped, 0, COUNT, name).refused.unwrap();
        assert!(refused.to_string().contains(other), "{refused}");
        damaged.set_bytes(name, disk.bytes(name));
        assert_eq!(start(&damaged, 0, COUNT, "mended").readable, 2 * COUNT);
    }
}

#[test]
pub(super) fn a_missing_prepared_file_is_noticed() {
    let (disk, executor) = (MemoryDisk::new(), Executor::new(1));
    let prepared = || disk.names().into_iter().find(|name| name.starts_with("next-"));
    let name = executor.run(async {
        let engine = Engine::open(executor.env(&disk), small()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        for at in 0.. {
            append(&engine, at..at + 1).await;
            idle(&executor.env(&disk)).await;
            if let Some(name) = prepared() {
                return name;
            }
        }
        unreachable!()
    });
    let damaged = disk.process_end();
    damaged.delete(&name);
    let refused = start(&damaged, 0, COUNT, &name).refused.unwrap();
    // It may have been in use: which of the two names it had last is not known.
    let in_use = name.replace("next-", "seg-");
    assert!(matches!(&refused, StartError::Missing { file, .. } if *file == in_use), "{refused}");
}

#[test]
pub(super) fn two_sound_copies_of_the_superblock_are_enough_and_fewer_are_refused() {
    let disk = store(true);
    let older = store(true).bytes("superblock.0");
    let kinds: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[100] ^= 4,
        |bytes| bytes.truncate(17),
        |bytes| bytes.fill(0),
        |bytes| bytes.fill(7),
    ];
    assert_eq!(older.len(), BLOCK);
    for (kind, change) in kinds.into_iter().enumerate() {
        for bad in 0..16_u32 {
            let mut damaged = disk.process_end();
            for copy in (0..4).filter(|copy| bad & 1 << copy != 0) {
                let name = format!("superblock.{copy}");
                damaged = with(&damaged, &name, change);
            }
            let context = format!("kind {kind}, copies {bad:04b}");
            let outcome = start(&damaged, 0, COUNT, &context);
            if bad.count_ones() <= 2 {
                assert_eq!(outcome.readable, 2 * COUNT, "{context}");
                // All copies are sound again.
                let mended = with(&damaged, "superblock.0", change);
                let mended = with(&mended, "superblock.1", change);
                assert_eq!(start(&mended, 0, COUNT, &context).readable, 2 * COUNT, "{context}");
                continue;
            }
            let text = outcome.refused.unwrap().to_string();
            for copy in 0..4 {
                let is_bad = bad & 1 << copy != 0;
                let sound = text.contains(&format!("superblock.{copy}: sound"));
                assert!(
                    text.contains(&format!("superblock.{copy}: ")) && sound != is_bad,
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn missing_superblocks_are_named_and_none_is_made_up() {
    let disk = store(true);
    let two = disk.process_end();
    two.delete("superblock.0");
    two.delete("superblock.3");
    assert_eq!(start(&two, 0, COUNT, "two copies").readable, 2 * COUNT);
    assert!(two.names().contains(&"superblock.0".to_owned()));
    for left in 0..2 {
        let few = disk.process_end();
        for copy in left..4 {
            few.delete(&format!("superblock.{copy}"));
        }
        let before = few.names();
        let text = start(&few, 0, COUNT, "few copies").refused.unwrap().to_string();
        assert!(text.contains("superblock.1: missing"), "{text}");
        assert_eq!(few.names(), before);
    }
}

#[test]
pub(super) fn a_folder_with_other_files_is_no_place_for_a_log() {
    let disk = MemoryDisk::new();
    disk.set_bytes("thesis.tex", vec![1]);
    let executor = Executor::new(3);
    let error = executor.run(Engine::open(executor.env(&disk), small())).err().unwrap();
    assert!(error.to_string().contains("thesis.tex"));
    assert_eq!(disk.names(), ["thesis.tex"]);
}

#[test]
pub(super) fn a_file_of_another_storage_or_version_is_named() {
    let (disk, other) = (store(true), MemoryDisk::new());
    let executor = Executor::new(77);
    executor.run(async {
        Engine::open(executor.env(&other), small()).await.unwrap().shutdown().await;
    });
    let name = log_files(&disk).swap_remove(0);
    disk.set_bytes(&name, other.bytes("seg-1.log"));
    let open = || {
        let executor = Executor::new(3);
        executor.run(Engine::open(executor.env(&disk), small())).err().unwrap()
    };
    assert!(matches!(open(), StartError::OtherStorage { file, .. } if file == name));
    let mut block = other.bytes("seg-1.log");
    block[8] = 2;
    let crc = crc32c::crc32c(&block[..4092]);
    block[4092..4096].copy_from_slice(&crc.to_le_bytes());
    disk.set_bytes(&name, block);
    assert!(matches!(open(), StartError::Version { found: 2, .. }));
}
