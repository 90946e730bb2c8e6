//! A storage whose ledgers have replicas elsewhere: damage is doubt and no refusal, the doubt outlives every start
//! until it is ended, and nothing answers under an identity that is not its own.

use super::damage::{BLOCK, COUNT, LEN, ONE, TWO};
use super::damage::{append, contents, idle, large, log_files, small, store, with};
use super::*;
use crate::mounts::{MemoryMounts, Mount, MountReply, Mounts, Standing};
use crate::register::{
    Change, MemoryRegister, Register as _, RegisterCommand, RegisterUnavailable,
};
use std::collections::BTreeMap;
use thalweg_actor::BoxFuture;
use thalweg_types::id::NodeId;

/// The epoch of both containers' registers.
const EPOCH: Epoch = Epoch(5);
/// Entries of a mount that fill its file.
const TEN: u64 = 10;

/// The registers, and the note that `storage` was mounted `mounts` times.
fn noted(executor: &Executor, storage: StorageUuid, mounts: u64) -> MemoryMounts {
    let register = Arc::new(MemoryRegister::default());
    executor.run(async {
        for ledger in [ONE, TWO] {
            for _ in 0..EPOCH.0 {
                let (host, session, incarnation) = (NodeId(1), 1, Incarnation(1));
                let change = Change::Assign { host, session, incarnation };
                let command = RegisterCommand { container: ledger.container, change };
                register.submit(command).await.unwrap();
            }
            let change = Change::BeginRecovery { epoch: EPOCH, incarnation: Incarnation(1) };
            let command = RegisterCommand { container: ledger.container, change };
            register.submit(command).await.unwrap();
        }
        let table = MemoryMounts::new(register);
        let node = NodeId(0);
        let mount = Mount { node, storage, before: 0, now: mounts, attempt: 1, of_node: 0 };
        assert_eq!(table.mount(mount).await, Ok(MountReply::Accepted));
        table
    })
}

/// Which storage, and how many entries each of its ledgers has.
type Subject = (StorageUuid, u64);

fn uuid_of(disk: &MemoryDisk) -> StorageUuid {
    let executor = Executor::new(77);
    let disk = disk.process_end();
    executor.run(async { Engine::open(executor.env(&disk), small()).await.unwrap().uuid() })
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    same: bool,
    limbo: bool,
    certain: usize,
    readable: u64,
}

/// Mounts `disk`, which had been mounted `mounts` times. Entries are right or UNKNOWN; a ledger that is vouched for, or
/// not known without limbo, has its whole tail; in limbo nothing older than the registers gets in.
fn mount(disk: &MemoryDisk, (storage, count): Subject, mounts: u64, context: &str) -> Seen {
    let executor = Executor::new(100 + mounts);
    let table = noted(&executor, storage, mounts);
    let before = contents(disk);
    let seen = executor.run(async {
        let opened = Engine::open_with_peers(executor.env(disk), small(), &table).await;
        let engine = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
        let (recovered, same) = (engine.recovered(), engine.uuid() == storage);
        let mut seen = Seen { same, limbo: recovered.limbo, certain: 0, readable: 0 };
        assert_eq!(engine.in_limbo(), recovered.limbo);
        if !same {
            assert!(recovered.ledgers.is_empty() && !recovered.limbo, "{context}");
            assert!(table.lost().iter().any(|lost| lost.storage == storage), "{context}");
            return seen;
        }
        for ledger in [ONE, TWO] {
            let state = recovered.ledgers.get(&ledger);
            assert!(state.is_some() || recovered.limbo, "{context}: {ledger} is gone");
            if let Some(state) = state.filter(|state| state.certain) {
                assert_eq!(state.tail, Some(EntryId(count - 1)), "{context}: {ledger}");
                seen.certain += 1;
            } else {
                assert!(recovered.limbo, "{context}: doubt without a reason");
            }
            if recovered.limbo {
                assert_eq!(recovered.floors.get(&ledger.container), Some(&EPOCH), "{context}");
                let upto = recovered.limbo_upto.as_ref().unwrap();
                assert_eq!(upto.get(&ledger.container), Some(&EPOCH), "{context}");
            }
            for at in 0..count {
                match engine.payload(ledger, EntryId(at)).await {
                    Ok(payload) => {
                        assert_eq!(payload, payload_of(ledger, at, LEN), "{context}");
                        seen.readable += 1;
                    }
                    Err(ReadError::Unknown { .. }) => {}
                    Err(error) => panic!("{context}: {error}"),
                }
            }
        }
        engine.check();
        seen
    });
    for (name, bytes) in before.iter().filter(|(name, _)| name.starts_with("seg-")) {
        let kept =
            contents(disk).into_iter().any(|(other, now)| other.ends_with(name) && now == *bytes);
        assert!(kept, "{context}: {name} was changed");
    }
    seen
}

/// Mounts twice: what was in doubt stays so.
fn judge(disk: &MemoryDisk, storage: Subject, context: &str) -> Seen {
    let first = mount(disk, storage, 2, context);
    if first.same {
        let again = mount(disk, storage, 3, &format!("{context}, again"));
        assert!(!first.limbo || again.limbo, "{context}: the doubt is forgotten");
        assert!(first.certain >= again.certain, "{context}: {first:?}, then {again:?}");
        assert!(!again.limbo || again.readable >= first.readable, "{context}: {first:?} {again:?}");
    }
    first
}

fn flip_all(clean: bool, step: usize) {
    let disk = store(clean);
    let storage = (uuid_of(&disk), COUNT);
    let whole = judge(&disk.process_end(), storage, "undamaged");
    assert_eq!(whole, Seen { same: true, limbo: false, certain: 2, readable: 2 * COUNT });
    let (mut limbo, mut payload) = (0, 0);
    for name in disk.names() {
        let bytes = disk.bytes(&name);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_zero = |at: usize| bytes[at.saturating_sub(8)..used.min(at + 8)] == [0; 16];
        for at in (0..used).step_by(step).filter(|at| at % 16 == 0 || !is_zero(*at)) {
            let damaged = with(&disk, &name, |bytes| bytes[at] ^= 1 << (at % 8));
            let seen = judge(&damaged, storage, &format!("{name} at {at}"));
            assert!(seen.same, "{name} at {at}: one flipped byte costs the identity");
            assert!(seen.readable + 8 >= 2 * COUNT, "{name} at {at}: {seen:?}");
            limbo += u64::from(seen.limbo);
            payload += u64::from(!seen.limbo && seen.readable < 2 * COUNT);
        }
    }
    assert!(limbo > 0 && payload > 0);
}

#[test]
pub(super) fn a_flipped_byte_is_doubt_or_one_entry_after_a_kill() {
    flip_all(false, 7);
}

#[test]
fn a_flipped_byte_is_doubt_or_one_entry_after_a_clean_stop() {
    flip_all(true, 11);
}

#[test]
fn missing_cut_swapped_and_headless_files_are_doubt_about_everything() {
    let disk = store(true);
    let (storage, names) = ((uuid_of(&disk), COUNT), log_files(&disk));
    for (number, name) in names.iter().enumerate() {
        let doubtful = |damaged: &MemoryDisk, least: u64, context: &str| {
            let seen = judge(damaged, storage, context);
            assert!(seen.same && seen.limbo && seen.certain == 0, "{context}: {seen:?}");
            assert!(seen.readable >= least, "{context}: {seen:?}");
        };
        let damaged = disk.process_end();
        damaged.delete(name);
        doubtful(&damaged, 1, &format!("{name} is missing"));
        for len in (0..disk.bytes(name).len()).step_by(BLOCK).chain([100, 5000]) {
            let cut = with(&disk, name, |bytes| bytes.truncate(len));
            doubtful(&cut, 1, &format!("{name} ends at {len}"));
        }
        let other = disk.bytes(&names[(number + 1) % names.len()]);
        let swapped = with(&disk, name, |bytes| *bytes = other);
        doubtful(&swapped, 1, &format!("{name} is another one"));
        let headless = with(&disk, name, |bytes| bytes[..BLOCK].fill(0));
        doubtful(&headless, 2 * COUNT, &format!("{name} has no header"));
        // Coming back ends no doubt by itself.
        damaged.set_bytes(name, disk.bytes(name));
        let back = mount(&damaged, storage, 4, "the file is back");
        assert_eq!(back, Seen { same: true, limbo: true, certain: 0, readable: 2 * COUNT });
    }
}

/// Notes nothing any more, and says what was noted.
struct Mute(MemoryMounts);

impl Mounts for Mute {
    fn standing(
        &self,
        node: NodeId,
        storage: StorageUuid,
    ) -> BoxFuture<'_, Result<Standing, RegisterUnavailable>> {
        self.0.standing(node, storage)
    }

    fn mount(&self, _mount: Mount) -> BoxFuture<'_, Result<MountReply, RegisterUnavailable>> {
        Box::pin(std::future::pending())
    }

    fn epochs(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerId, Epoch>, RegisterUnavailable>> {
        self.0.epochs()
    }
}

#[test]
fn an_older_image_is_known_even_if_its_first_start_died_before_the_mount_was_noted() {
    let image = store(true);
    let storage = (uuid_of(&image), COUNT);
    let executor = Executor::new(5);
    let mute = Mute(noted(&executor, storage.0, 3));
    // It has been mounted twice: nothing of the third mount is in it.
    let died = executor.try_run(Engine::open_with_peers(executor.env(&image), small(), &mute));
    assert!(died.is_none(), "nobody has noted the mount");
    assert!(!mount(&image.process_end(), storage, 3, "the second start of an older image").same);
}

#[test]
fn what_is_not_the_storage_that_it_claims_to_be_is_set_aside_for_a_new_one() {
    let disk = store(true);
    let storage = (uuid_of(&disk), COUNT);
    let rolled_back = disk.process_end();
    assert!(!mount(&rolled_back, storage, 3, "an older image").same);
    let kept: Vec<String> =
        rolled_back.names().into_iter().filter(|n| n.contains("lost")).collect();
    assert!(kept.iter().any(|name| name.ends_with("superblock.0")), "{kept:?}");
    let blank = MemoryDisk::new();
    assert!(!mount(&blank, storage, 2, "a blank disk").same);
    for copies in [2, 4] {
        let damaged = disk.process_end();
        for copy in 4 - copies..4 {
            damaged.delete(&format!("superblock.{copy}"));
        }
        let seen = mount(&damaged, storage, 2, "superblocks are missing");
        assert_eq!(seen.same, copies == 2, "{copies} copies are missing");
    }
    let executor = Executor::new(5);
    let stranger = MemoryMounts::new(Arc::default());
    let unknown = disk.process_end();
    executor.run(async {
        let engine = Engine::open_with_peers(executor.env(&unknown), small(), &stranger).await;
        assert_ne!(engine.unwrap().uuid(), storage.0, "nobody knows it");
    });
}

/// Stops at every step of a start in limbo, with and without the loss of what is not durable.
#[test]
pub(super) fn a_stop_at_any_step_of_a_start_in_limbo_leaves_doubt() {
    let disk = two_files();
    let storage = (uuid_of(&disk), 2 * TEN);
    // The record that begins the last mount, and a batch in the middle of the first.
    let start = with(&disk, "seg-2.log", |bytes| bytes[BLOCK + 20] ^= 1);
    let batch = with(&disk, "seg-1.log", |bytes| bytes[2 * BLOCK + 20] ^= 1);
    for damaged in [start, batch] {
        let expected = mount(&damaged.process_end(), storage, 2, "no stop");
        assert!(expected.limbo, "{expected:?}");
        for step in 1.. {
            let stopped = damaged.process_end();
            stopped.halt_at(step);
            let executor = Executor::new(step);
            let table = noted(&executor, storage.0, 2);
            let run = executor.try_run(async {
                Engine::open_with_peers(executor.env(&stopped), small(), &table).await.is_ok()
            });
            for seed in 0..3 {
                let after =
                    if seed == 0 { stopped.process_end() } else { stopped.power_loss(seed) };
                let seen = mount(&after, storage, 2, &format!("stopped at step {step}"));
                assert!(seen.same && seen.limbo, "stopped at step {step}: {seen:?}");
                assert!(seen.certain <= expected.certain, "step {step}: {seen:?}");
            }
            if run == Some(true) {
                assert!(step > 10);
                break;
            }
        }
    }
}

/// Doubt ends ledger by ledger, and then for what is not known; after that the same damage raises none.
#[test]
fn the_end_of_limbo_outlives_the_damage() {
    let disk = two_files();
    let storage = (uuid_of(&disk), 2 * TEN);
    let damaged = with(&disk, "seg-2.log", |bytes| bytes[BLOCK + 20] ^= 1);
    let executor = Executor::new(3);
    let table = noted(&executor, storage.0, 2);
    executor.run(async {
        let env = executor.env(&damaged);
        let engine = Engine::open_with_peers(env, small(), &table).await.unwrap();
        assert_eq!(engine.end_limbo().await, Ok(false), "both ledgers are uncertain");
        for ledger in [ONE, TWO] {
            let state = engine.recovered().ledgers[&ledger].clone();
            let settled = LedgerState { certain: true, ..state };
            let ticket = engine.stage(Frame::State(settled)).unwrap();
            durable(&engine, ticket).await.unwrap();
            assert_eq!(engine.end_limbo().await, Ok(ledger == TWO));
        }
        assert!(!engine.in_limbo());
    });
    let over = mount(&damaged.power_loss(3), storage, 3, "over");
    assert_eq!((over.limbo, over.certain), (false, 2), "{over:?}");
    // New damage is new doubt.
    let newest = log_files(&damaged).pop().unwrap();
    let again = with(&damaged, &newest, |bytes| bytes[BLOCK + 20] ^= 1);
    let seen = mount(&again, storage, 3, "new damage");
    assert!(seen.limbo && seen.certain == 0, "{seen:?}");
}

/// A store of two mounts with one file each, stopped as a kill after an idle moment leaves it.
fn two_files() -> MemoryDisk {
    let disk = MemoryDisk::new();
    for mount in 0..2 {
        let executor = Executor::new(mount + 1);
        executor.run(async {
            let engine = Engine::open(executor.env(&disk), large()).await.unwrap();
            if mount == 0 {
                engine.stage(opening(ONE)).unwrap();
                engine.stage(opening(TWO)).unwrap();
            }
            append(&engine, mount * TEN..(mount + 1) * TEN).await;
            idle(&executor.env(&disk)).await;
        });
    }
    assert_eq!(log_files(&disk), ["seg-1.log", "seg-2.log"]);
    disk
}

/// What a storage in limbo takes in behind its START is vouched for, also by the next start.
#[test]
fn a_ledger_that_begins_in_limbo_is_certain() {
    let disk = two_files();
    let storage = (uuid_of(&disk), 2 * TEN);
    let damaged = with(&disk, "seg-1.log", |bytes| bytes[..BLOCK].fill(0));
    let new = ledger(1, EPOCH.0 + 1);
    for mounts in 2..5 {
        let executor = Executor::new(mounts);
        let table = noted(&executor, storage.0, mounts);
        executor.run(async {
            let env = executor.env(&damaged);
            let engine = Engine::open_with_peers(env, small(), &table).await.unwrap();
            let recovered = engine.recovered();
            assert!(recovered.limbo && !recovered.ledgers[&ONE].certain);
            if mounts == 2 {
                engine.stage(opening(new)).unwrap();
            } else {
                let state = &recovered.ledgers[&new];
                assert_eq!((state.certain, state.tail), (true, Some(EntryId(mounts - 3))));
            }
            let last = engine.stage(entry(new, mounts - 2, 100)).unwrap();
            durable(&engine, last).await.unwrap();
        });
    }
}

#[test]
fn without_peers_the_same_damage_is_a_refusal() {
    let disk = two_files();
    let damaged = with(&disk, "seg-2.log", |bytes| bytes[BLOCK + 20] ^= 1);
    let executor = Executor::new(3);
    executor.run(async {
        let refused = Engine::open(executor.env(&damaged), small()).await.err().unwrap();
        assert!(matches!(refused, StartError::Damaged { offset: 4096, .. }), "{refused}");
    });
    assert_eq!(contents(&damaged).len(), contents(&disk).len());
    let executor = Executor::new(4);
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), small()).await.unwrap();
        append(&engine, 2 * TEN..2 * TEN + 1).await;
    });
}
