//! The engine on a disk in memory: good paths, every crash point, every flipped byte.

use super::*;
use crate::frame::{EntryFrame, LedgerState};
use crate::testing::{Executor, MemoryDisk};
use std::time::Duration;
use thalweg_types::id::{Address, ContainerId, Epoch, Incarnation};

fn tiny() -> Config {
    Config {
        file_first: 64 * 1024,
        file_max: 128 * 1024,
        reserve: 32 * 1024,
        batch_target: 8 * 1024,
        allocate_step: 32 * 1024,
        allocate_pause: Duration::ZERO,
        dead_max: 0,
        full_retry: Duration::from_millis(20),
        ..Config::production()
    }
}

fn ledger(container: u32, epoch: u64) -> LedgerId {
    LedgerId { container: ContainerId(container), epoch: Epoch(epoch) }
}

fn opening(ledger: LedgerId) -> Frame {
    Frame::State(LedgerState {
        ledger,
        incarnation: Some(Incarnation(7)),
        base: EntryId(0),
        tail: None,
        lac: None,
        keep_from: Address::default(),
        fenced_by: None,
        certain: true,
    })
}

/// Bytes that tell which entry they belong to.
fn payload_of(ledger: LedgerId, entry: u64, len: usize) -> Bytes {
    let mark = format!("<{ledger}:{entry}>").into_bytes();
    Bytes::from(mark.iter().copied().cycle().take(len).collect::<Vec<u8>>())
}

fn entry(ledger: LedgerId, entry: u64, len: usize) -> Frame {
    Frame::Entry(EntryFrame {
        ledger,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: entry.checked_sub(1).map(EntryId),
        keep_from: Address::default(),
        headers: payload_of(ledger, entry, 20),
        payload: vec![payload_of(ledger, entry, len)],
        exempt: false,
    })
}

async fn durable(engine: &Engine, ticket: Ticket) -> Result<(), Arc<str>> {
    let mut progress = engine.progress();
    let seen = progress.wait_for(|p| p.covers(ticket) || p.stopped.is_some()).await.unwrap();
    match &seen.stopped {
        Some(reason) if !seen.covers(ticket) => Err(reason.clone()),
        _ => Ok(()),
    }
}

async fn expect(engine: &Engine, ledger: LedgerId, entries: impl Iterator<Item = u64>, len: usize) {
    for at in entries {
        let payload = engine.payload(ledger, EntryId(at)).await.unwrap();
        assert_eq!(payload, payload_of(ledger, at, len), "{ledger}:{at}");
        let headers = engine.headers(ledger, EntryId(at), 1).await.unwrap();
        assert_eq!(headers[0].headers, payload_of(ledger, at, 20));
        assert_eq!((headers[0].entry, headers[0].payload_len), (EntryId(at), len));
    }
}

#[test]
fn what_is_durable_is_found_again_after_a_power_loss_and_after_a_clean_stop() {
    let (executor, disk, one) = (Executor::new(1), MemoryDisk::new(), ledger(1, 1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(one)).unwrap();
        let mut last = Ticket(0);
        for at in 0..100 {
            last = engine.stage(entry(one, at, 3000)).unwrap();
        }
        durable(&engine, last).await.unwrap();
        expect(&engine, one, 0..100, 3000).await;
        engine.check();
    });
    let (executor, disk) = (Executor::new(2), disk.power_loss(1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        let state = engine.recovered().ledgers[&one].clone();
        assert_eq!((state.tail, state.certain), (Some(EntryId(99)), true));
        expect(&engine, one, 0..100, 3000).await;
        let all = engine.headers(one, EntryId(0), 1000).await.unwrap();
        assert_eq!(all.len(), 100);
        assert!(engine.headers(one, EntryId(100), 10).await.unwrap().is_empty());
        let last = engine.stage(entry(one, 100, 10)).unwrap();
        durable(&engine, last).await.unwrap();
        engine.shutdown().await;
        assert!(engine.stage(entry(one, 101, 10)).is_err());
    });
    let (executor, disk) = (Executor::new(3), disk.power_loss(2));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        assert_eq!(engine.recovered().ledgers[&one].tail, Some(EntryId(100)));
        assert_eq!(engine.mount_seq(), 3);
        expect(&engine, one, 0..100, 3000).await;
    });
}

#[test]
fn trimmed_files_are_recycled_and_facts_outlive_them() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    let (quiet, busy) = (ledger(1, 1), ledger(2, 1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(quiet)).unwrap();
        engine.stage(opening(busy)).unwrap();
        engine.stage(entry(quiet, 0, 100)).unwrap();
        engine.stage(Frame::Fence { ledger: quiet, by: Epoch(2) }).unwrap();
        for at in 0..2000 {
            let last = engine.stage(entry(busy, at, 2000)).unwrap();
            durable(&engine, last).await.unwrap();
            if at % 50 == 49 {
                let keep_from = Address::new(Epoch(1), EntryId(at - 20));
                let trim = Frame::Trim { container: ContainerId(2), keep_from };
                durable(&engine, engine.stage(trim).unwrap()).await.unwrap();
            }
        }
        engine.check();
        expect(&engine, quiet, 0..1, 100).await;
        expect(&engine, busy, 1980..2000, 2000).await;
        let gone = engine.payload(busy, EntryId(5)).await;
        assert!(matches!(gone, Err(ReadError::Trimmed { .. })));
    });
    let used: usize = disk.names().iter().map(|name| disk.bytes(name).len()).sum();
    assert!(used < 1024 * 1024, "{used} bytes in {:?}", disk.names());
    let (executor, disk) = (Executor::new(2), disk.power_loss(5));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        let recovered = engine.recovered();
        let state = &recovered.ledgers[&quiet];
        assert_eq!((state.tail, state.fenced_by), (Some(EntryId(0)), Some(Epoch(2))));
        assert_eq!(recovered.ledgers[&busy].tail, Some(EntryId(1999)));
        assert_eq!(recovered.floors[&ContainerId(1)], Epoch(2));
        assert!(recovered.ledgers.values().all(|state| state.certain));
        expect(&engine, quiet, 0..1, 100).await;
        expect(&engine, busy, 1980..2000, 2000).await;
    });
}

/// Entries moved, and bytes used in the end, while a ledger is written and trimmed by and by.
fn moved(dead_max: u64) -> (u64, usize) {
    thalweg_actor::planted::start_run(None, None);
    let (executor, disk, busy) = (Executor::new(1), MemoryDisk::new(), ledger(2, 1));
    executor.run(async {
        let config = Config { dead_max, ..tiny() };
        let engine = Engine::open(executor.env(&disk), config).await.unwrap();
        engine.stage(opening(busy)).unwrap();
        for at in 0..1000 {
            let last = engine.stage(entry(busy, at, 2000)).unwrap();
            durable(&engine, last).await.unwrap();
            if at % 50 == 49 {
                let keep_from = Address::new(Epoch(1), EntryId(at - 20));
                let trim = Frame::Trim { container: ContainerId(2), keep_from };
                durable(&engine, engine.stage(trim).unwrap()).await.unwrap();
            }
        }
        expect(&engine, busy, 980..1000, 2000).await;
    });
    let moved = thalweg_actor::planted::probes();
    let used = disk.names().iter().map(|name| disk.bytes(name).len()).sum();
    (moved.get("engine: entry moved").copied().unwrap_or(0), used)
}

#[test]
fn where_there_is_room_files_are_left_to_die() {
    let ((often, little), (seldom, more)) = (moved(0), moved(1024 * 1024));
    assert!(often > 0 && seldom * 4 < often, "{often} and {seldom} entries moved");
    assert!(more < little + 1024 * 1024, "{little} and {more} bytes used");
}

mod crash;
mod damage;
mod full;
mod peers;
mod planted;
