use super::*;
use crate::frame::Frame;
use crate::ledger::ReplayedEntry;
use crate::register::MemoryRegister;
use crate::storage::Ticket;
use crate::testing::MemoryStorage;
use std::future::Future;
use thalweg_actor::spawn::Task;
use thalweg_types::id::Epoch;
use thalweg_types::time::{Instant, WallTime};

const CONTAINER: ContainerId = ContainerId(5);

struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Instant {
        Instant(0)
    }

    fn sleep_until(&self, _at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

struct LocalSpawn;

impl Spawn for LocalSpawn {
    fn spawn(&self, _name: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        let task = tokio::spawn(actor);
        Task::new(move || task.abort())
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs");
    });
}

fn logs(storage: &Arc<MemoryStorage>, register: &Arc<MemoryRegister>) -> Arc<LocalLogs> {
    let owner =
        Owner { host: NodeId(1), session: 1, incarnation: Incarnation(storage.mount_seq()) };
    let clock = Arc::new(StillClock);
    LocalLogs::start(clock, &LocalSpawn, storage.clone(), register.clone(), owner)
}

fn entry(text: &'static str) -> Entry {
    Entry {
        headers: Bytes::from_static(text.as_bytes()),
        payload: vec![Bytes::from_static(b"<"), Bytes::from_static(text.as_bytes())],
        exempt: false,
    }
}

async fn committed(opened: &Opened, entry: EntryId) {
    let mut progress = opened.ledger.progress();
    let done = progress.wait_for(|seen| seen.committed >= Some(entry)).await;
    assert_eq!(done.unwrap().stopped, None);
}

async fn replayed(logs: &LocalLogs, opened: &Opened) -> Result<Vec<ReplayedEntry>, ReadError> {
    let mut replay = logs.replay(opened, None);
    let mut entries = Vec::new();
    while let Some(entry) = replay.next().await? {
        entries.push(entry);
    }
    Ok(entries)
}

fn texts(entries: &[ReplayedEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.headers).unwrap()).collect()
}

/// Lets other tasks run until nothing moves.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn what_was_committed_is_replayed_by_the_next_owner() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let first = logs(&storage, &register);
        let opened = first.open(CONTAINER).await.unwrap();
        assert_eq!(opened.ledger.append(entry("a")), Ok(EntryId(0)));
        assert_eq!(opened.ledger.append(entry("b")), Ok(EntryId(1)));
        committed(&opened, EntryId(1)).await;
        assert!(replayed(&first, &opened).await.unwrap().is_empty());

        let storage = storage.restart();
        let second = logs(&storage, &register);
        let opened = second.open(CONTAINER).await.unwrap();
        assert_eq!(opened.ledger.id().epoch, Epoch(2));
        let entries = replayed(&second, &opened).await.unwrap();
        assert_eq!(texts(&entries), ["a", "b"]);
        assert_eq!(entries[1].payload_len, 2);
        assert_eq!(opened.ledger.read(entries[1].address).await.unwrap(), "<b");
        assert_eq!(opened.ledger.append(entry("c")), Ok(EntryId(0)));
        committed(&opened, EntryId(0)).await;

        let third = logs(&storage.restart(), &register);
        let opened = third.open(CONTAINER).await.unwrap();
        assert_eq!(texts(&replayed(&third, &opened).await.unwrap()), ["a", "b", "c"]);
        let from = Some(Address::new(Epoch(1), EntryId(1)));
        let mut replay = third.replay(&opened, from);
        assert_eq!(replay.next().await.unwrap().unwrap().headers, "b");
    });
}

#[test]
fn restarts_of_an_idle_container_leave_no_trace() {
    run(async {
        for is_empty in [true, false] {
            let (mut storage, register) = (MemoryStorage::auto(), Arc::default());
            let first = logs(&storage, &register);
            let opened = first.open(CONTAINER).await.unwrap();
            if !is_empty {
                assert_eq!(opened.ledger.append(entry("a")), Ok(EntryId(0)));
                committed(&opened, EntryId(0)).await;
            }
            for _ in 0..1000 {
                storage = storage.restart();
                let logs = logs(&storage, &register);
                logs.open(CONTAINER).await.unwrap();
                settle().await;
            }
            let listed = if is_empty { 1 } else { 2 };
            assert_eq!(register.get(CONTAINER).unwrap().ledgers.len(), listed);
            storage = storage.restart();
            assert_eq!(storage.recovered().ledgers.len(), listed);
            let last = logs(&storage, &register);
            let opened = last.open(CONTAINER).await.unwrap();
            assert_eq!(opened.ledger.id().epoch, Epoch(1002));
            let entries = replayed(&last, &opened).await.unwrap();
            assert_eq!(texts(&entries), &["a"][..listed - 1]);
        }
    });
}

#[test]
fn nothing_is_committed_before_the_storage_says_that_it_is_durable() {
    run(async {
        let (storage, register) = (MemoryStorage::manual(), Arc::default());
        let logs = logs(&storage, &register);
        let opened = logs.open(CONTAINER).await.unwrap();
        opened.ledger.append(entry("a")).unwrap();
        opened.ledger.append(entry("b")).unwrap();
        settle().await;
        assert_eq!(opened.ledger.progress().borrow().committed, None);
        storage.make_durable(Ticket(storage.staged().0 - 1));
        settle().await;
        assert_eq!(opened.ledger.progress().borrow().committed, Some(EntryId(0)));
        storage.make_durable(storage.staged());
        committed(&opened, EntryId(1)).await;
    });
}

#[test]
fn an_entry_that_was_durable_but_never_announced_survives_and_one_that_was_not_is_gone() {
    run(async {
        let (storage, register) = (MemoryStorage::manual(), Arc::default());
        let opened = logs(&storage, &register).open(CONTAINER).await.unwrap();
        opened.ledger.append(entry("a")).unwrap();
        storage.make_durable(storage.staged());
        opened.ledger.append(entry("b")).unwrap();
        let storage = storage.restart();
        let again = logs(&storage, &register);
        let keeper = tokio::spawn(keep_durable(storage.clone()));
        let opened = again.open(CONTAINER).await.unwrap();
        assert_eq!(texts(&replayed(&again, &opened).await.unwrap()), ["a"]);
        keeper.abort();
    });
}

async fn keep_durable(storage: Arc<MemoryStorage>) {
    loop {
        storage.make_durable(storage.staged());
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_takeover_waits_until_its_fence_is_durable() {
    run(async {
        let (storage, register) = (MemoryStorage::manual(), Arc::default());
        let logs = logs(&storage, &register);
        let opened = logs.open(CONTAINER).await.unwrap();
        storage.make_durable(storage.staged());
        opened.ledger.append(entry("a")).unwrap();
        let (other, before) = (logs.clone(), storage.staged());
        let takeover =
            tokio::spawn(async move { other.open(CONTAINER).await.map(|o| o.ledger.id()) });
        settle().await;
        assert!(!takeover.is_finished());
        let fenced = storage.frames().iter().any(|frame| matches!(frame, Frame::Fence { .. }));
        assert!(fenced && storage.staged() > before);
        let stopped = opened.ledger.progress().borrow().stopped.clone();
        assert!(stopped.is_some(), "the old owner hears of it at once");
        assert_eq!(opened.ledger.append(entry("b")).unwrap_err().reason, stopped.unwrap());
        storage.make_durable(storage.staged());
        assert_eq!(takeover.await.unwrap().unwrap().epoch, Epoch(2));
        // What was durable at the fence is kept, although its owner never heard of it.
        let record = register.get(CONTAINER).unwrap();
        assert_eq!(record.ledgers[0].end(), Some(EntryId(1)));
    });
}

#[test]
fn damage_in_one_container_leaves_the_others_alone() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let first = logs(&storage, &register);
        let (bad, good) = (CONTAINER, ContainerId(6));
        for container in [bad, good] {
            let opened = first.open(container).await.unwrap();
            for text in ["a", "b", "c"] {
                opened.ledger.append(entry(text)).unwrap();
            }
            committed(&opened, EntryId(2)).await;
        }
        storage.damage(LedgerId { container: bad, epoch: Epoch(1) }, EntryId(2));
        let storage = storage.restart();
        let second = logs(&storage, &register);
        let error = second.open(bad).await.err().unwrap();
        assert!(matches!(&error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("damaged by the test"), "{error}");
        let opened = second.open(good).await.unwrap();
        assert_eq!(texts(&replayed(&second, &opened).await.unwrap()), ["a", "b", "c"]);
        // Trying again neither helps nor harms.
        assert!(matches!(second.open(bad).await, Err(OpenError::Damaged { .. })));
        assert_eq!(register.get(bad).unwrap().ledgers[0].end(), None);
    });
}

#[test]
fn damage_below_the_recovered_tail_ends_the_replay() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let opened = logs(&storage, &register).open(CONTAINER).await.unwrap();
        for text in ["a", "b", "c", "d"] {
            let number = opened.ledger.append(entry(text)).unwrap();
            committed(&opened, number).await;
        }
        storage.damage(LedgerId { container: CONTAINER, epoch: Epoch(1) }, EntryId(1));
        let again = logs(&storage.restart(), &register);
        let opened = again.open(CONTAINER).await.unwrap();
        let error = replayed(&again, &opened).await.unwrap_err();
        assert!(matches!(error, ReadError::Unknown { .. }), "{error}");
    });
}

#[test]
fn an_accepted_loss_lets_the_container_open_without_what_is_lost() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let opened = logs(&storage, &register).open(CONTAINER).await.unwrap();
        for text in ["a", "b", "c"] {
            opened.ledger.append(entry(text)).unwrap();
        }
        committed(&opened, EntryId(2)).await;
        let ledger = opened.ledger.id();
        storage.damage(ledger, EntryId(2));
        storage.stage(Frame::Loss { ledger, from: EntryId(2) }).unwrap();
        let again = logs(&storage.restart(), &register);
        let opened = again.open(CONTAINER).await.unwrap();
        assert_eq!(texts(&replayed(&again, &opened).await.unwrap()), ["a", "b"]);
    });
}

#[test]
fn another_disk_is_not_taken_for_the_one_that_is_gone() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let opened = logs(&storage, &register).open(CONTAINER).await.unwrap();
        opened.ledger.append(entry("a")).unwrap();
        let owner = Owner { host: NodeId(2), session: 1, incarnation: Incarnation(9) };
        let (clock, blank) = (Arc::new(StillClock), MemoryStorage::auto());
        let other = LocalLogs::start(clock, &LocalSpawn, blank, register.clone(), owner);
        let error = other.open(CONTAINER).await.err().unwrap();
        assert!(error.to_string().contains("but the storage mounted here is"), "{error}");
    });
}

#[test]
fn trimmed_entries_leave_the_log_and_the_register() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let first = logs(&storage, &register);
        let opened = first.open(CONTAINER).await.unwrap();
        for text in ["a", "b", "c"] {
            opened.ledger.append(entry(text)).unwrap();
        }
        committed(&opened, EntryId(2)).await;
        let keep_from = Address::new(Epoch(1), EntryId(1));
        let newest = crate::ledger::SnapshotPointer { at: keep_from, covers: None };
        let snapshots = SnapshotPointers { newest: Some(newest), older: None };
        opened.ledger.set_keep_from(keep_from, snapshots.clone()).await.unwrap();
        let below = Address::new(Epoch(1), EntryId(0));
        let refused = opened.ledger.read(below).await;
        assert_eq!(refused, Err(ReadError::Trimmed { address: below }));

        let again = logs(&storage.restart(), &register);
        let opened = again.open(CONTAINER).await.unwrap();
        assert_eq!((opened.keep_from, &opened.snapshots), (keep_from, &snapshots));
        assert_eq!(texts(&replayed(&again, &opened).await.unwrap()), ["b", "c"]);
        let whole = Address::new(Epoch(2), EntryId(0));
        opened.ledger.set_keep_from(whole, snapshots).await.unwrap();
        assert_eq!(register.get(CONTAINER).unwrap().ledgers.len(), 1);
        let mut replay = again.replay(&opened, Some(below));
        assert!(matches!(replay.next().await, Err(ReadError::Trimmed { .. })));
    });
}

#[test]
fn a_superseded_owner_cannot_trim() {
    run(async {
        let (storage, register) = (MemoryStorage::auto(), Arc::default());
        let old = logs(&storage, &register).open(CONTAINER).await.unwrap();
        // Another process has taken over; this one has not heard of it.
        let assign = Change::Assign { host: NodeId(2), session: 3, incarnation: Incarnation(8) };
        let begin = Change::BeginRecovery { epoch: Epoch(2), incarnation: Incarnation(8) };
        for change in [assign, begin] {
            let command = RegisterCommand { container: CONTAINER, change };
            register.submit(command).await.unwrap();
        }
        let keep_from = Address::new(Epoch(1), EntryId(0));
        let refused = old.ledger.set_keep_from(keep_from, SnapshotPointers::default()).await;
        assert!(refused.is_err());
        assert!(old.ledger.append(entry("late")).is_err());
    });
}

#[test]
fn a_full_disk_is_told_and_a_failed_one_stops_everything() {
    run(async {
        let (storage, register) = (MemoryStorage::manual(), Arc::default());
        let logs = logs(&storage, &register);
        let opened = logs.open(CONTAINER).await.unwrap();
        storage.make_durable(storage.staged());
        storage.hold(Some("the disk is full"));
        settle().await;
        let held = opened.ledger.progress().borrow().held.clone();
        assert_eq!(held.as_deref(), Some("the disk is full"));
        storage.hold(None);
        opened.ledger.append(entry("a")).unwrap();
        storage.fail("sync failed");
        settle().await;
        let seen = opened.ledger.progress().borrow().clone();
        assert_eq!(seen.stopped.as_deref(), Some("sync failed"));
        assert_eq!((seen.held, seen.committed), (None, None));
        assert!(opened.ledger.append(entry("b")).is_err());
        assert!(matches!(logs.open(CONTAINER).await, Err(OpenError::Unavailable { .. })));
    });
}
