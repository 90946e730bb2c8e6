//! A full disk: appends wait, facts and what relieves it pass, and all goes on when there is space again.

use super::*;

const ONE: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
const TWO: LedgerId = LedgerId { container: ContainerId(2), epoch: Epoch(1) };

async fn held(engine: &Engine, is_held: bool) {
    let mut progress = engine.progress();
    progress.wait_for(|progress| progress.held.is_some() == is_held).await.unwrap();
}

#[test]
fn a_full_disk_holds_appends_lets_exempt_entries_and_facts_pass_and_goes_on_afterwards() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(256 * 1024));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        engine.stage(opening(TWO)).unwrap();
        let mut last = Ticket(0);
        for at in 0..150 {
            last = engine.stage(entry(ONE, at, 3000)).unwrap();
        }
        held(&engine, true).await;
        let before = engine.progress().borrow().durable;
        assert!(before < last && before > Ticket(10), "{before:?}");
        expect(&engine, ONE, 0..150, 3000).await;
        let Frame::Entry(relief) = entry(TWO, 0, 500) else { unreachable!() };
        let exempt = Frame::Entry(EntryFrame { exempt: true, ..relief });
        let passed = engine.stage(exempt).unwrap();
        durable(&engine, passed).await.unwrap();
        assert!(engine.progress().borrow().passed.contains(&passed));
        // A fence of the held ledger waits with it; one of another ledger does not.
        let waits = engine.stage(Frame::Fence { ledger: ONE, by: Epoch(2) }).unwrap();
        let beyond = engine.stage(Frame::Fence { ledger: TWO, by: Epoch(2) }).unwrap();
        durable(&engine, beyond).await.unwrap();
        assert!(!engine.progress().borrow().covers(waits));
        assert!(!engine.progress().borrow().covers(last));
        disk.set_capacity(Some(8 * 1024 * 1024));
        durable(&engine, waits).await.unwrap();
        assert!(engine.progress().borrow().held.is_none());
        assert_eq!(engine.progress().borrow().durable, beyond);
        expect(&engine, ONE, 0..150, 3000).await;
        engine.check();
    });
    let (executor, disk) = (Executor::new(2), disk.power_loss(3));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        let recovered = engine.recovered();
        assert_eq!(recovered.ledgers[&ONE].tail, Some(EntryId(149)));
        assert_eq!(recovered.ledgers[&TWO].tail, Some(EntryId(0)));
        expect(&engine, ONE, 0..150, 3000).await;
        expect(&engine, TWO, 0..1, 500).await;
    });
}

#[test]
fn a_full_disk_is_relieved_by_a_trim() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(400 * 1024));
    executor.run(async {
        let engine = Engine::open(executor.env(&disk), tiny()).await.unwrap();
        engine.stage(opening(ONE)).unwrap();
        let mut last = Ticket(0);
        for at in 0..150 {
            last = engine.stage(entry(ONE, at, 3000)).unwrap();
        }
        held(&engine, true).await;
        let keep_from = Address::new(Epoch(1), EntryId(60));
        engine.stage(Frame::Trim { container: ContainerId(1), keep_from }).unwrap();
        durable(&engine, last).await.unwrap();
        expect(&engine, ONE, 60..150, 3000).await;
    });
}

#[test]
fn an_empty_folder_on_a_full_disk_says_how_much_is_missing() {
    let (executor, disk) = (Executor::new(1), MemoryDisk::new());
    disk.set_capacity(Some(20 * 1024));
    let error = executor.run(Engine::open(executor.env(&disk), tiny())).err().unwrap();
    assert!(matches!(error, StartError::Full { .. }), "{error}");
}

#[test]
fn a_frame_larger_than_any_file_gets_a_file_of_its_own() {
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
