//! A short history, stopped at every step of the disk; then again while it starts.

use super::*;
use std::cell::Cell;

const QUIET: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
const BUSY: LedgerId = LedgerId { container: ContainerId(2), epoch: Epoch(1) };
const LEN: usize = 2500;

/// What the history has seen to be durable: the number of entries of each ledger, the fence, the trim point.
#[derive(Clone, Copy, Debug, Default)]
struct Acked {
    quiet: u64,
    busy: u64,
    fenced: bool,
    trimmed: u64,
}

fn small() -> Config {
    let (file_first, file_max, reserve) = (32 * 1024, 96 * 1024, 24 * 1024);
    Config { file_first, file_max, reserve, allocate_step: 16 * 1024, ..tiny() }
}

async fn history(env: Env, acked: &Cell<Acked>) -> Result<(), Arc<str>> {
    let engine = Engine::open(env, small()).await.map_err(|error| Arc::from(error.to_string()))?;
    let note = |change: &dyn Fn(&mut Acked)| {
        let mut now = acked.get();
        change(&mut now);
        acked.set(now);
    };
    engine.stage(opening(QUIET)).map_err(|stopped| stopped.reason)?;
    engine.stage(opening(BUSY)).map_err(|stopped| stopped.reason)?;
    let stage = |frame| engine.stage(frame).map_err(|stopped| stopped.reason);
    let ticket = stage(entry(QUIET, 0, LEN))?;
    durable(&engine, ticket).await?;
    note(&|acked| acked.quiet = 1);
    let ticket = stage(Frame::Fence { ledger: QUIET, by: Epoch(2) })?;
    durable(&engine, ticket).await?;
    note(&|acked| acked.fenced = true);
    for round in 0..14_u64 {
        let mut last = Ticket(0);
        for at in round * 4..round * 4 + 4 {
            last = stage(entry(BUSY, at, LEN))?;
        }
        durable(&engine, last).await?;
        note(&|acked| acked.busy = round * 4 + 4);
        if round % 3 == 2 {
            let from = EntryId(round * 4);
            let keep_from = Address::new(Epoch(1), from);
            let ticket = stage(Frame::Trim { container: ContainerId(2), keep_from })?;
            durable(&engine, ticket).await?;
            note(&|acked| acked.trimmed = from.0);
        }
    }
    engine.shutdown().await;
    Ok(())
}

/// Starts from `disk` and asserts that nothing acknowledged is missing and that nothing is half there.
async fn verify(env: Env, acked: Acked, context: &str) {
    let engine = Engine::open(env, small()).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    let recovered = engine.recovered();
    assert!(!recovered.limbo && recovered.damages.is_empty(), "{context}: {recovered:?}");
    for (ledger, count) in [(QUIET, acked.quiet), (BUSY, acked.busy)] {
        let Some(state) = recovered.ledgers.get(&ledger) else {
            assert_eq!(count, 0, "{context}: {ledger} is lost");
            continue;
        };
        assert!(state.certain, "{context}: {ledger} is in doubt");
        let held = state.tail.map_or(0, |tail| tail.0 + 1);
        assert!(held >= count, "{context}: {ledger} has {held} of {count}");
        let kept = recovered.keep_from.get(&ledger.container).map_or(0, |trim| trim.entry.0);
        assert!(ledger == QUIET || kept >= acked.trimmed);
        for at in kept..held {
            let payload = engine.payload(ledger, EntryId(at)).await;
            let payload = payload.unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(payload, payload_of(ledger, at, LEN), "{context}: {ledger}:{at}");
        }
        let headers = engine.headers(ledger, EntryId(kept), 1000).await.unwrap();
        assert_eq!(headers.len() as u64, held - kept, "{context}: headers of {ledger}");
    }
    if acked.fenced {
        assert_eq!(recovered.ledgers[&QUIET].fenced_by, Some(Epoch(2)), "{context}");
        assert!(recovered.floors[&QUIET.container] >= Epoch(2), "{context}");
    }
    engine.check();
    // The log goes on: a further entry, then a clean stop.
    let Some(state) = recovered.ledgers.get(&BUSY) else { return };
    let next = state.tail.map_or(0, |tail| tail.0 + 1);
    let last = engine.stage(entry(BUSY, next, LEN)).unwrap();
    durable(&engine, last).await.unwrap();
    expect(&engine, BUSY, next..=next, LEN).await;
}

fn after_losses(disk: &MemoryDisk, step: u64) -> Vec<(String, MemoryDisk)> {
    let mut found = vec![(format!("step {step}, process end"), disk.process_end())];
    for seed in 0..4 {
        let seed = step * 31 + seed;
        found.push((format!("step {step}, power loss {seed}"), disk.power_loss(seed)));
    }
    found
}

pub(super) fn every_step(from: u64, stride: u64, nested: bool) {
    let whole = MemoryDisk::new();
    let acked = Cell::default();
    let executor = Executor::new(7);
    executor.run(history(executor.env(&whole), &acked)).unwrap();
    let steps = whole.steps();
    assert!(steps > 150, "the history has {steps} steps");
    for step in (from..=steps).step_by(usize::try_from(stride).unwrap()) {
        let disk = MemoryDisk::new();
        disk.halt_at(step);
        let (executor, acked) = (Executor::new(7), Cell::default());
        let _ = executor.try_run(history(executor.env(&disk), &acked));
        for (context, survivor) in after_losses(&disk, step) {
            let executor = Executor::new(step + 1000);
            let first = survivor.process_end();
            executor.run(verify(executor.env(&first), acked.get(), &context));
            if !nested {
                continue;
            }
            for inner in 1..=first.steps() {
                let disk = survivor.process_end();
                disk.halt_at(inner);
                let executor = Executor::new(step * 1000 + inner);
                let _ = executor.try_run(verify(executor.env(&disk), acked.get(), &context));
                let context = format!("{context}, then step {inner} of the start");
                let (disk, executor) = (disk.power_loss(inner), Executor::new(inner));
                executor.run(verify(executor.env(&disk), acked.get(), &context));
            }
        }
    }
}

#[test]
pub(super) fn a_stop_at_any_step_loses_nothing_acknowledged_and_shows_nothing_by_halves() {
    every_step(1, 1, false);
}

#[test]
pub(super) fn a_stop_at_any_step_of_the_start_after_it_loses_nothing_either() {
    every_step(3, 29, true);
}

#[test]
pub(super) fn a_failed_sync_stops_the_engine_and_loses_nothing_acknowledged() {
    for sync in 1..120 {
        let (disk, executor, acked) = (MemoryDisk::new(), Executor::new(7), Cell::default());
        disk.fail_sync_at(sync);
        let outcome = executor.run(history(executor.env(&disk), &acked));
        let Err(reason) = outcome else { continue };
        assert!(reason.contains("injected"), "{reason}");
        for seed in 0..3 {
            let (disk, executor) = (disk.power_loss(seed), Executor::new(seed));
            executor.run(verify(executor.env(&disk), acked.get(), &format!("sync {sync}")));
        }
    }
}

#[test]
fn what_a_failed_sync_has_dropped_is_not_relied_on_by_the_next_process() {
    for sync in 1..120 {
        let (disk, executor, acked) = (MemoryDisk::new(), Executor::new(7), Cell::default());
        disk.fail_sync_at(sync);
        if executor.run(history(executor.env(&disk), &acked)).is_ok() {
            continue;
        }
        for seed in 0..3 {
            let context = format!("sync {sync}");
            let (disk, executor) = (disk.process_end(), Executor::new(seed));
            executor.run(verify(executor.env(&disk), acked.get(), &context));
            let context = format!("{context}, then a power loss");
            let (disk, executor) = (disk.power_loss(seed), Executor::new(seed));
            executor.run(verify(executor.env(&disk), acked.get(), &context));
        }
    }
}

#[test]
fn a_file_that_is_about_to_be_used_and_the_next_one_both_keep_their_numbers() {
    let (disk, executor) = (MemoryDisk::new(), Executor::new(7));
    disk.hang_rename_to("seg-3.log");
    executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), small()).await.unwrap();
        engine.stage(opening(BUSY)).unwrap();
        for at in 0..60 {
            engine.stage(entry(BUSY, at, LEN)).unwrap();
        }
        // The writer hangs in the renaming; then something calls for the keeper.
        for _ in 0..2 {
            env.clock.sleep_until(env.clock.now().after(Duration::from_millis(50))).await;
            engine.core.chores.notify_one();
        }
    });
    let prepared = disk.names().iter().filter(|name| name.starts_with("next-")).count();
    assert_eq!(prepared, 2, "{:?}", disk.names());
    let mut disk = disk.process_end();
    for start in 1..4 {
        let executor = Executor::new(start);
        executor.run(verify(executor.env(&disk), Acked::default(), &format!("start {start}")));
        disk = disk.power_loss(start);
    }
}
