//! A full disk: appends wait, facts and what relieves it pass, and all goes on when there is space again.

use super::*;
use std::cell::Cell;

const ONE: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
const TWO: LedgerId = LedgerId { container: ContainerId(2), epoch: Epoch(1) };
const LEN: usize = 3000;
const KIB: u64 = 1024;

async fn held(engine: &Engine, is_held: bool) {
    let mut progress = engine.progress();
    progress.wait_for(|progress| progress.held.is_some() == is_held).await.unwrap();
}

fn exempt(ledger: LedgerId, at: u64, len: usize) -> Frame {
    let Frame::Entry(relief) = entry(ledger, at, len) else { unreachable!() };
    Frame::Entry(EntryFrame { exempt: true, ..relief })
}

fn trim(ledger: LedgerId, from: u64) -> Frame {
    let keep_from = Address::new(ledger.epoch, EntryId(from));
    Frame::Trim { container: ledger.container, keep_from }
}

/// Stages entries of `ledger` from `from` on until the disk is full; returns the ticket of each.
async fn fill(engine: &Engine, ledger: LedgerId, from: u64) -> Vec<Ticket> {
    let stage = |at| engine.stage(entry(ledger, at, LEN)).unwrap();
    let tickets: Vec<Ticket> = (from..from + 300).map(stage).collect();
    held(engine, true).await;
    tickets
}

/// How many of `tickets` are durable; asserts that it is a prefix.
fn covered(engine: &Engine, tickets: &[Ticket]) -> u64 {
    let progress = engine.progress().borrow().clone();
    let count = tickets.iter().take_while(|ticket| progress.covers(**ticket)).count();
    assert!(!tickets[count..].iter().any(|ticket| progress.covers(*ticket)));
    count as u64
}

async fn wait(env: &Env, time: Duration) {
    env.clock.sleep_until(env.clock.now().after(time)).await;
}

/// A store of `capacity` bytes that has just become full. Returns how many entries of `ONE` are durable.
fn full_store(config: Config, capacity: u64) -> (MemoryDisk, u64) {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(capacity));
    let count = executor.run(async {
        let engine = Engine::open(executor.env(&disk), config).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        durable(&engine, engine.stage(opening(TWO)).unwrap()).await.unwrap();
        covered(&engine, &fill(&engine, ONE, 0).await)
    });
    (disk, count)
}

#[test]
pub(super) fn a_full_disk_holds_appends_lets_exempt_entries_and_facts_pass_and_goes_on_afterwards()
{
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(216 * KIB));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        let tickets = fill(&engine, ONE, 0).await;
        let before = covered(&engine, &tickets);
        assert!((10..300).contains(&before), "{before}");
        let reason = engine.progress().borrow().held.clone().unwrap();
        assert!(reason.contains("memory is full"), "{reason}");
        expect(&engine, ONE, 0..300, LEN).await;
        let passed = engine.stage(exempt(TWO, 0, 500)).unwrap();
        durable(&engine, passed).await.unwrap();
        assert!(engine.progress().borrow().passed.contains(&passed));
        // A fence of the held ledger waits with it; one of another ledger does not.
        let waits = engine.stage(Frame::Fence { ledger: ONE, by: Epoch(2) }).unwrap();
        let fence = engine.stage(Frame::Fence { ledger: TWO, by: Epoch(2) }).unwrap();
        durable(&engine, fence).await.unwrap();
        assert!(!engine.progress().borrow().covers(waits));
        assert_eq!(covered(&engine, &tickets), before);
        disk.set_capacity(Some(8192 * KIB));
        durable(&engine, waits).await.unwrap();
        held(&engine, false).await;
        assert_eq!(engine.progress().borrow().durable, fence);
        assert!(engine.progress().borrow().passed.is_empty());
        expect(&engine, ONE, 0..300, LEN).await;
        engine.check();
    });
    let (executor, disk) = (Executor::new(2), disk.power_loss(3));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        let recovered = engine.recovered();
        assert_eq!(recovered.ledgers[&ONE].tail, Some(EntryId(299)));
        assert_eq!(recovered.ledgers[&TWO].tail, Some(EntryId(0)));
        expect(&engine, ONE, 0..300, LEN).await;
        expect(&engine, TWO, 0..1, 500).await;
    });
}

#[test]
pub(super) fn what_cannot_be_passed_by_an_exempt_entry_of_its_ledger_goes_with_it() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(216 * KIB));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        let tickets = fill(&engine, ONE, 0).await;
        let before = covered(&engine, &tickets);
        for at in 0..4 {
            engine.stage(entry(TWO, at, LEN)).unwrap();
        }
        let relief = engine.stage(exempt(TWO, 4, 500)).unwrap();
        durable(&engine, relief).await.unwrap();
        assert_eq!(covered(&engine, &tickets), before);
        expect(&engine, TWO, 0..4, LEN).await;
        engine.check();
    });
}

#[test]
pub(super) fn facts_still_pass_when_the_first_reserve_is_used_up() {
    let (disk, count) = full_store(tiny(), 216 * KIB);
    let executor = Executor::new(2);
    let (exempts, facts) = executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), tiny()).await.unwrap();
        let stage = |at| engine.stage(exempt(TWO, at, LEN)).unwrap();
        let exempts: Vec<Ticket> = (0..100).map(stage).collect();
        wait(&env, Duration::from_secs(1)).await;
        let passed = covered(&engine, &exempts);
        assert!((1..100).contains(&passed), "{passed}");
        let fact = engine.stage(Frame::Floor { container: ContainerId(3), epoch: Epoch(4) });
        durable(&engine, fact.unwrap()).await.unwrap();
        assert_eq!(covered(&engine, &exempts), passed);
        // The last reserve comes to its end as well, and nothing is lost by that.
        let stage = |at| engine.stage(Frame::Floor { container: ContainerId(at), epoch: Epoch(4) });
        let facts: Vec<Ticket> = (10..2000).map(|at| stage(at).unwrap()).collect();
        wait(&env, Duration::from_secs(1)).await;
        let facts = covered(&engine, &facts);
        assert!((20..1990).contains(&facts), "{facts}");
        expect(&engine, ONE, 0..count, LEN).await;
        expect(&engine, TWO, 0..100, LEN).await;
        (passed, facts)
    });
    let (executor, disk) = (Executor::new(3), disk.power_loss(1));
    disk.set_capacity(None);
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        let recovered = engine.recovered();
        assert!(recovered.ledgers[&TWO].tail >= Some(EntryId(exempts - 1)));
        assert!(recovered.floors.len() as u64 >= facts);
        expect(&engine, ONE, 0..count, LEN).await;
        expect(&engine, TWO, 0..exempts, LEN).await;
    });
}

#[test]
pub(super) fn a_full_disk_is_relieved_by_trims_alone_again_and_again() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(400 * KIB));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(TWO)).unwrap();
        engine.stage(exempt(TWO, 0, 100)).unwrap();
        engine.stage(opening(ONE)).unwrap();
        let mut from = 0;
        for round in 0..20_u64 {
            let tickets = fill(&engine, ONE, from).await;
            // As a container does it: a snapshot behind what is staged, then the trim that the snapshot allows.
            let mut kept = from;
            while engine.progress().borrow().held.is_some() {
                let done = covered(&engine, &tickets);
                if done == 300 {
                    break;
                }
                kept = kept.max(from + done.saturating_sub(5));
                durable(&engine, engine.stage(trim(ONE, kept)).unwrap()).await.unwrap();
                wait(&executor.env(&disk), Duration::from_millis(100)).await;
            }
            durable(&engine, tickets[299]).await.unwrap();
            from += 300;
            expect(&engine, ONE, kept..from, LEN).await;
            durable(&engine, engine.stage(exempt(TWO, round + 1, 100)).unwrap()).await.unwrap();
            engine.check();
        }
        expect(&engine, TWO, 0..20, 100).await;
    });
}

#[test]
pub(super) fn a_disk_that_stays_full_is_left_in_peace() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(216 * KIB));
    executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        fill(&engine, ONE, 0).await;
        wait(&env, Duration::from_millis(100)).await;
        let before = disk.steps();
        wait(&env, Duration::from_secs(10)).await;
        assert_eq!(disk.steps(), before, "nothing can be done, so nothing is tried");
        let passed = engine.stage(exempt(TWO, 0, 500)).unwrap();
        durable(&engine, passed).await.unwrap();
        // The reserve stays open; a frame larger than all of it waits without unrest, too.
        engine.stage(exempt(TWO, 1, 100_000)).unwrap();
        wait(&env, Duration::from_millis(100)).await;
        let before = disk.steps();
        wait(&env, Duration::from_secs(10)).await;
        assert!(disk.steps() - before < 5, "{} steps", disk.steps() - before);
    });
}

#[test]
pub(super) fn a_full_disk_does_not_keep_the_engine_from_stopping_cleanly() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(216 * KIB));
    let count = executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        let tickets = fill(&engine, ONE, 0).await;
        engine.shutdown().await;
        covered(&engine, &tickets)
    });
    let (executor, disk) = (Executor::new(2), disk.power_loss(1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        assert_eq!(engine.recovered().ledgers[&ONE].tail, Some(EntryId(count - 1)));
        expect(&engine, ONE, 0..count, LEN).await;
    });
}

#[test]
pub(super) fn a_start_on_a_full_disk_holds_appends_from_the_begin_and_goes_on_when_there_is_space()
{
    let (disk, count) = full_store(tiny(), 300 * KIB);
    let (executor, disk) = (Executor::new(2), disk.power_loss(9));
    executor.run(async {
        let env = executor.env(&disk);
        let engine = Engine::open(env.clone(), tiny()).await.unwrap();
        held(&engine, true).await;
        let next = engine.recovered().ledgers[&ONE].tail.unwrap().0 + 1;
        assert!(next >= count);
        expect(&engine, ONE, 0..next, LEN).await;
        let waits = engine.stage(entry(ONE, next, LEN)).unwrap();
        wait(&env, Duration::from_secs(3)).await;
        assert!(!engine.progress().borrow().covers(waits));
        durable(&engine, engine.stage(exempt(TWO, 0, 500)).unwrap()).await.unwrap();
        disk.set_capacity(Some(8192 * KIB));
        durable(&engine, waits).await.unwrap();
        held(&engine, false).await;
        expect(&engine, ONE, 0..=next, LEN).await;
        engine.check();
    });
}

#[test]
pub(super) fn many_kills_on_a_full_disk_leave_room_for_starts_and_for_the_trim_that_ends_it() {
    let roomy = || Config { reserve: 512 * KIB, ..tiny() };
    let (mut disk, count) = full_store(roomy(), 1800 * KIB);
    for start in 0..8 {
        disk = if start % 2 == 0 { disk.process_end() } else { disk.power_loss(start) };
        let executor = Executor::new(100 + start);
        executor.run(async {
            let env = executor.env(&disk);
            let opened = Engine::open(env.clone(), roomy()).await;
            let engine = opened.unwrap_or_else(|error| panic!("start {start}: {error}"));
            let next = engine.recovered().ledgers[&ONE].tail.unwrap().0 + 1;
            assert!(next >= count, "start {start}: {next} of {count}");
            expect(&engine, ONE, 0..next, LEN).await;
            let fact = Frame::Floor { container: ContainerId(3), epoch: Epoch(start + 1) };
            durable(&engine, engine.stage(fact).unwrap()).await.unwrap();
            wait(&env, Duration::from_millis(50)).await;
        });
    }
    let (disk, executor) = (disk.process_end(), Executor::new(2));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), roomy()).await.unwrap();
        held(&engine, true).await;
        let next = engine.recovered().ledgers[&ONE].tail.unwrap().0 + 1;
        durable(&engine, engine.stage(trim(ONE, next - 2)).unwrap()).await.unwrap();
        held(&engine, false).await;
        let last = engine.stage(entry(ONE, next, LEN)).unwrap();
        durable(&engine, last).await.unwrap();
        expect(&engine, ONE, next - 2..=next, LEN).await;
    });
}

/// What has been seen to be durable: entries of `ONE` and of `TWO`.
type Acked = Cell<(u64, u64)>;

/// Fills the disk, lets an exempt entry pass, trims, and fills what that frees.
async fn history(env: Env, acked: &Acked) -> Result<(), Arc<str>> {
    let opened = Engine::open(env, tiny()).await;
    let engine = opened.map_err(|error| Arc::from(error.to_string()))?;
    engine.stage(opening(ONE)).unwrap();
    engine.stage(opening(TWO)).unwrap();
    let stage = |at| engine.stage(entry(ONE, at, LEN)).unwrap();
    let tickets: Vec<Ticket> = (0..150).map(stage).collect();
    let mut progress = engine.progress();
    while progress.borrow().held.is_none() {
        let done = covered(&engine, &tickets);
        acked.set((done, 0));
        progress.changed().await.map_err(|_| Arc::from("gone"))?;
    }
    acked.set((covered(&engine, &tickets), 0));
    durable(&engine, engine.stage(exempt(TWO, 0, 500)).unwrap()).await?;
    acked.set((acked.get().0, 1));
    durable(&engine, engine.stage(trim(ONE, 40)).unwrap()).await?;
    durable(&engine, tickets[80]).await?;
    acked.set((81, 1));
    engine.shutdown().await;
    Ok(())
}

#[test]
pub(super) fn a_stop_at_any_step_of_a_full_disk_loses_nothing_acknowledged() {
    let capacity = Some(400 * KIB);
    let (executor, disk, acked) = (Executor::new(7), MemoryDisk::new(), Acked::default());
    disk.set_capacity(capacity);
    executor.run(history(executor.env(&disk), &acked)).unwrap();
    let steps = disk.steps();
    assert!(steps > 100, "the history has {steps} steps");
    for step in 1..=steps {
        let (executor, disk, acked) = (Executor::new(7), MemoryDisk::new(), Acked::default());
        disk.set_capacity(capacity);
        disk.halt_at(step);
        // A full disk is asked again for ever, so that a process whose disk hangs never comes to rest.
        executor.run(async {
            let env = executor.env(&disk);
            tokio::select! {
                biased;
                _ = history(env.clone(), &acked) => {}
                () = wait(&env, Duration::from_secs(2)) => {}
            }
        });
        let survivors = [disk.process_end(), disk.power_loss(step), disk.power_loss(step * 7 + 1)];
        for (number, disk) in survivors.into_iter().enumerate() {
            let executor = Executor::new(step + 1000);
            executor.run(goes_on(executor.env(&disk), &disk, acked.get(), (step, number)));
        }
    }
}

/// Starts while the disk is as full as it was, then gives it space.
async fn goes_on(env: Env, disk: &MemoryDisk, (one, two): (u64, u64), context: (u64, usize)) {
    let engine = Engine::open(env, tiny()).await.unwrap_or_else(|e| panic!("{context:?}: {e}"));
    let recovered = engine.recovered();
    let next = |ledger| recovered.ledgers.get(&ledger).and_then(|s| s.tail).map_or(0, |t| t.0 + 1);
    assert!(next(ONE) >= one && next(TWO) >= two, "{context:?}: {:?}", recovered.ledgers);
    let first = recovered.keep_from.get(&ONE.container).map_or(0, |from| from.entry.0);
    expect(&engine, ONE, first..next(ONE), LEN).await;
    expect(&engine, TWO, 0..next(TWO), 500).await;
    disk.set_capacity(None);
    let at = next(ONE);
    durable(&engine, engine.stage(entry(ONE, at, LEN)).unwrap()).await.unwrap();
    held(&engine, false).await;
    expect(&engine, ONE, at..=at, LEN).await;
    engine.check();
}

#[test]
fn an_empty_folder_on_a_full_disk_says_how_much_is_missing() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(20 * 1024));
    let error = executor.run(Engine::open(executor.env(&disk), tiny())).err().unwrap();
    assert!(matches!(error, StartError::Full { .. }), "{error}");
}

#[test]
pub(super) fn a_frame_larger_than_any_file_gets_a_file_of_its_own() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        for at in 0..4 {
            let last = engine.stage(entry(ONE, at, 500_000)).unwrap();
            durable(&engine, last).await.unwrap();
        }
        expect(&engine, ONE, 0..4, 500_000).await;
    });
    let (executor, disk) = (Executor::new(2), disk.power_loss(1));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        expect(&engine, ONE, 0..4, 500_000).await;
    });
}
