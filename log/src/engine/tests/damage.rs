//! Damaged, missing and foreign files: UNKNOWN or a refused start, never a wrong or silently shorter log.

use super::*;

const ONE: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
const TWO: LedgerId = LedgerId { container: ContainerId(2), epoch: Epoch(1) };
const LEN: usize = 700;
const COUNT: u64 = 12;

fn small() -> Config {
    Config { file_first: 32 * 1024, file_max: 32 * 1024, reserve: 16 * 1024, ..tiny() }
}

/// A store of two mounts with a few batches in several files, stopped as a kill after an idle moment leaves it.
fn store(clean: bool) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for mount in 0..2 {
        let executor = Executor::new(mount + 1);
        executor.run(async {
            let engine = Engine::open(executor.env(&disk), small()).await.unwrap();
            if mount == 0 {
                engine.stage(opening(ONE)).unwrap();
                engine.stage(opening(TWO)).unwrap();
            }
            for at in mount * COUNT / 2..(mount + 1) * COUNT / 2 {
                engine.stage(entry(ONE, at, LEN)).unwrap();
                let last = engine.stage(entry(TWO, at, LEN)).unwrap();
                durable(&engine, last).await.unwrap();
            }
            if clean {
                engine.shutdown().await;
            }
            let clock = executor.env(&disk).clock;
            clock.sleep_until(clock.now().after(Duration::from_millis(50))).await;
        });
    }
    disk
}

/// Starts from `disk`. Every entry must be right or UNKNOWN; a tail that is vouched for must be the whole one.
/// Returns how many entries were readable, `None` if the start was refused.
fn probe(disk: &MemoryDisk, context: &str) -> Option<u64> {
    let executor = Executor::new(9);
    executor.run(async {
        let engine = match Engine::open(executor.env(disk), small()).await {
            Ok(engine) => engine,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("memory/") || text.contains("superblock"), "{text}");
                return None;
            }
        };
        let recovered = engine.recovered();
        let mut readable = 0;
        for ledger in [ONE, TWO] {
            let state = recovered.ledgers.get(&ledger);
            if let Some(state) = state.filter(|state| state.certain) {
                assert_eq!(state.tail, Some(EntryId(COUNT - 1)), "{context}: {ledger}");
            } else {
                assert!(recovered.limbo, "{context}: {ledger} in doubt without a reason");
                assert!(!recovered.damages.is_empty(), "{context}");
            }
            for at in 0..COUNT {
                match engine.payload(ledger, EntryId(at)).await {
                    Ok(payload) => {
                        assert_eq!(payload, payload_of(ledger, at, LEN), "{context}");
                        readable += 1;
                    }
                    Err(ReadError::Unknown { .. }) => {}
                    Err(error) => panic!("{context}: {error}"),
                }
            }
        }
        engine.check();
        Some(readable)
    })
}

fn log_files(disk: &MemoryDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
}

/// Flips every byte of every file, one at a time.
pub(super) fn flip_all(clean: bool, step: usize) {
    let disk = store(clean);
    assert_eq!(probe(&disk.process_end(), "undamaged"), Some(2 * COUNT));
    let (mut whole, mut partly, mut refused) = (0_u64, 0_u64, 0_u64);
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for at in (0..used).step_by(step) {
            let damaged = disk.process_end();
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged.set_bytes(&name, bytes);
            match probe(&damaged, &format!("{name} at {at}")) {
                None => refused += 1,
                Some(readable) if readable == 2 * COUNT => whole += 1,
                Some(_) => partly += 1,
            }
        }
    }
    assert!(whole > 0 && partly > refused, "{whole} whole, {partly} partly, {refused} refused");
}

#[test]
fn a_flipped_byte_never_shows_wrong_data_nor_a_shorter_log_after_a_kill() {
    flip_all(false, 5);
}

#[test]
fn a_flipped_byte_never_shows_wrong_data_nor_a_shorter_log_after_a_clean_stop() {
    flip_all(true, 7);
}

#[test]
fn a_missing_or_cut_file_is_named() {
    let disk = store(true);
    for name in log_files(&disk) {
        let damaged = disk.process_end();
        damaged.delete(&name);
        let start = |disk: &MemoryDisk| {
            let executor = Executor::new(3);
            executor.run(Engine::open(executor.env(disk), small())).err().unwrap().to_string()
        };
        let error = start(&damaged);
        assert!(error.contains(&name) && error.contains("missing"), "{error}");
        let mut bytes = disk.bytes(&name);
        bytes.truncate(5000);
        damaged.set_bytes(&name, bytes);
        let error = start(&damaged);
        assert!(error.contains(&name) && error.contains("offset 5000"), "{error}");
        assert_eq!(damaged.bytes(&name).len(), 5000);
        damaged.set_bytes(&name, disk.bytes(&name));
        assert_eq!(probe(&damaged, "mended"), Some(2 * COUNT));
    }
}

#[test]
fn damaged_and_missing_superblocks_are_named_and_two_good_ones_are_enough() {
    let disk = store(true);
    let two = disk.process_end();
    two.delete("superblock.0");
    two.set_bytes("superblock.3", vec![7; 4096]);
    assert_eq!(probe(&two, "two copies"), Some(2 * COUNT));
    assert_eq!(probe(&two, "all copies again"), Some(2 * COUNT));
    assert!(two.names().contains(&"superblock.0".to_owned()));
    let one = disk.process_end();
    for name in ["superblock.0", "superblock.1", "superblock.2"] {
        one.delete(name);
    }
    let before = one.names();
    let executor = Executor::new(3);
    let error = executor.run(Engine::open(executor.env(&one), small())).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("superblock.1: missing") && text.contains("superblock.3: sound"),
        "{text}"
    );
    assert_eq!(one.names(), before);
}

#[test]
fn a_folder_with_other_files_is_no_place_for_a_log() {
    let disk = MemoryDisk::new();
    disk.set_bytes("thesis.tex", vec![1]);
    let executor = Executor::new(3);
    let error = executor.run(Engine::open(executor.env(&disk), small())).err().unwrap();
    assert!(error.to_string().contains("thesis.tex"));
    assert_eq!(disk.names(), ["thesis.tex"]);
}

#[test]
fn a_file_of_another_storage_or_version_is_named() {
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
