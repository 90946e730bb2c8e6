use super::*;
use crate::request::Append;
use crate::testing::MemoryLogs;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use thalweg_actor::spawn::Task;
use thalweg_types::id::WriterId;
use thalweg_types::time::{Instant, WallTime};
use thalweg_wire::segment::{
    CreateSegment, CreateTableSegment, GetStreamSegmentInfo, GetTableSegmentInfo, NULL,
    ReadSegment, ReadTable, SetupAppend, TableEntry, TableKey, UpdateTableEntries,
};

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000)
    }
}

/// Polls everything again and again.
#[derive(Clone, Default)]
struct Executor(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl Spawn for Executor {
    fn spawn(&self, _: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        self.0.lock().unwrap().push(actor);
        Task::new(|| {})
    }
}

impl Executor {
    fn poll_all(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap());
        tasks.retain_mut(|task| poll(task.as_mut()).is_pending());
        self.0.lock().unwrap().append(&mut tasks);
    }

    /// What the future gives, `None` if it still waits after a long time.
    fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = Box::pin(future);
        for _ in 0..1000 {
            if let Poll::Ready(value) = poll(future.as_mut()) {
                return Some(value);
            }
            self.poll_all();
        }
        None
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn start(logs: &MemoryLogs) -> (Executor, Arc<SegmentStore>, StartReport) {
    try_start(logs).unwrap()
}

fn try_start(logs: &MemoryLogs) -> Result<(Executor, Arc<SegmentStore>, StartReport), StartError> {
    let executor = Executor::default();
    let config = Config { containers: 4, ..Config::default() };
    let clock = Arc::new(TestClock::default());
    let spawn = Arc::new(executor.clone());
    let start = SegmentStore::start_on(clock, spawn, Arc::new(logs.clone()), config);
    let (store, report) = executor.run(start).expect("the start ends")?;
    Ok((executor, store, report))
}

fn name() -> SegmentName {
    SegmentName::from("s/t/0.#epoch.0")
}

fn create() -> Command {
    CreateSegment {
        request_id: 1,
        segment: name(),
        target_rate: 0,
        scale_type: 0,
        token: String::new(),
        rollover_size_bytes: 0,
    }
    .into()
}

fn read(offset: i64) -> Command {
    ReadSegment {
        segment: name(),
        offset,
        suggested_length: 1000,
        token: String::new(),
        request_id: 2,
    }
    .into()
}

/// A client with one writer.
struct Client {
    executor: Executor,
    store: Arc<SegmentStore>,
    connection: ConnectionId,
    replies: crate::request::Replies,
    outbox: crate::request::Outbox,
}

impl Client {
    fn new(executor: &Executor, store: &Arc<SegmentStore>, connection: u64) -> Self {
        let (replies, outbox) = replies();
        Self {
            executor: executor.clone(),
            store: Arc::clone(store),
            connection: ConnectionId(connection),
            replies,
            outbox,
        }
    }

    fn send(&self, what: What) -> Option<Result<(), SubmitError>> {
        let request = Request { connection: self.connection, replies: self.replies.clone(), what };
        self.executor.run(self.store.submit(self.store.container(&name()), request))
    }

    fn setup(&mut self) -> i64 {
        let setup = SetupAppend {
            request_id: 3,
            writer_id: WriterId(7),
            segment: name(),
            token: String::new(),
        };
        self.send(What::Command(setup.into())).unwrap().unwrap();
        match self.answer() {
            Some(Command::AppendSetup(setup)) => setup.last_event_number,
            other => panic!("{other:?}"),
        }
    }

    fn append(&self, event_number: i64, data: &'static [u8]) -> Option<Result<(), SubmitError>> {
        self.send(What::Append(Append {
            segment: name(),
            writer: WriterId(7),
            event_number,
            event_count: 1,
            expected_offset: None,
            request_id: 4,
            data: Bytes::from_static(data).into(),
        }))
    }

    fn answer(&mut self) -> Option<Command> {
        for _ in 0..10 {
            self.executor.poll_all();
            match self.outbox.try_next() {
                Some(Outgoing::Reply(answer)) => return Some(answer),
                Some(Outgoing::Close(reason)) => panic!("closed: {reason}"),
                None => {}
            }
        }
        None
    }
}

fn call(executor: &Executor, store: &SegmentStore, command: Command) -> Command {
    executor.run(store.call(command)).expect("a call is answered").expect("with an answer")
}

fn data(command: Command) -> Bytes {
    match command {
        Command::SegmentRead(read) => read.data.into_bytes(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_acknowledged_is_read_before_and_after_a_power_loss() {
    let logs = MemoryLogs::new();
    let (executor, store, report) = start(&logs);
    assert_eq!(report.total().entries, 0);
    assert!(matches!(call(&executor, &store, create()), Command::SegmentCreated(_)));
    let mut client = Client::new(&executor, &store, 1);
    assert_eq!(client.setup(), NULL);
    client.append(1, b"hello ").unwrap().unwrap();
    client.append(2, b"world").unwrap().unwrap();
    assert!(matches!(client.answer(), Some(Command::DataAppended(_))));
    executor.poll_all();
    assert_eq!(&data(call(&executor, &store, read(0)))[..], b"hello world");
    assert_eq!(logs.reads(), 0, "the cache serves what was just written");

    let (executor, store, report) = start(&logs.crashed());
    assert_eq!(report.total().segments, 1);
    assert_eq!(&data(call(&executor, &store, read(3)))[..], b"lo world");
    let mut client = Client::new(&executor, &store, 1);
    assert_eq!(client.setup(), 2);
}

#[test]
fn nothing_is_acknowledged_or_read_before_it_is_committed() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let container = store.container(&name());
    call(&executor, &store, create());
    let mut client = Client::new(&executor, &store, 1);
    client.setup();
    logs.hold(container);
    client.append(1, b"hello").unwrap().unwrap();
    let mut reader = Client::new(&executor, &store, 2);
    reader.send(What::Command(read(0))).unwrap().unwrap();
    assert_eq!((client.answer(), reader.answer()), (None, None));
    logs.release(container);
    assert!(matches!(client.answer(), Some(Command::DataAppended(_))));
    assert_eq!(&data(reader.answer().unwrap())[..], b"hello");
}

#[test]
fn table_values_come_from_the_log_after_a_restart() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let table = SegmentName::from("s/g_kvtable/0.#epoch.0");
    let (request_id, token) = (1, String::new());
    let asked = CreateTableSegment {
        request_id,
        segment: table.clone(),
        token: token.clone(),
        sorted_deprecated: false,
        key_length: 0,
        rollover_size_bytes: 0,
    };
    assert!(matches!(call(&executor, &store, asked.into()), Command::SegmentCreated(_)));
    let key = TableKey { key: Bytes::from_static(b"k"), version: NULL };
    let put = UpdateTableEntries {
        request_id,
        segment: table.clone(),
        token: token.clone(),
        entries: vec![TableEntry { key: key.clone(), value: Bytes::from_static(b"value") }],
        table_segment_offset: -1,
    };
    assert!(matches!(call(&executor, &store, put.into()), Command::TableEntriesUpdated(_)));
    for (executor, store) in [(executor, store), {
        let (executor, store, _) = start(&logs.crashed());
        (executor, store)
    }] {
        let get = ReadTable {
            request_id,
            segment: table.clone(),
            token: token.clone(),
            keys: vec![key.clone()],
        };
        let Command::TableRead(got) = call(&executor, &store, get.into()) else { panic!() };
        assert_eq!((&got.entries[0].value[..], got.entries[0].key.version), (&b"value"[..], 0));
    }
}

#[test]
fn a_stopped_log_ends_the_container_without_an_answer() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let container = store.container(&name());
    call(&executor, &store, create());
    let mut client = Client::new(&executor, &store, 1);
    client.setup();
    logs.hold(container);
    client.append(1, b"hello").unwrap().unwrap();
    logs.stop(container, "the disk failed");
    assert_eq!(client.answer(), None);
    assert_eq!(executor.run(store.stopped()).as_deref(), Some("the disk failed"));
    assert_eq!(client.append(2, b"x").unwrap(), Err(SubmitError::Stopped));
}

#[test]
fn a_full_disk_holds_appends_and_lets_reads_go_on() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let container = store.container(&name());
    call(&executor, &store, create());
    let mut client = Client::new(&executor, &store, 1);
    client.setup();
    client.append(1, b"hello").unwrap().unwrap();
    assert!(client.answer().is_some());
    logs.hold(container);
    logs.set_held(container, Some("disk full"));
    client.append(2, b"more").unwrap().unwrap();
    assert_eq!(client.answer(), None);
    assert_eq!(store.held().as_deref(), Some("disk full"));
    assert_eq!(&data(call(&executor, &store, read(0)))[..], b"hello");
    logs.set_held(container, None);
    logs.release(container);
    assert!(matches!(client.answer(), Some(Command::DataAppended(_))));
    assert_eq!(store.held(), None);
}

#[test]
fn appends_wait_when_a_container_has_too_many_under_way() {
    static CHUNK: [u8; 4 << 20] = [0; 4 << 20];
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let container = store.container(&name());
    call(&executor, &store, create());
    let mut client = Client::new(&executor, &store, 1);
    client.setup();
    logs.hold(container);
    let fit = i64::try_from(CONTAINER_IN_FLIGHT_BYTES_MAX / CHUNK.len()).unwrap();
    for number in 1..=fit {
        client.append(number, &CHUNK).expect("there is room").unwrap();
    }
    assert!(client.append(fit + 1, &CHUNK).is_none(), "it waits");
    logs.release(container);
    client.append(fit + 1, &CHUNK).expect("there is room again").unwrap();
}

#[test]
fn rotten_bytes_are_refused_and_the_rest_goes_on() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    call(&executor, &store, create());
    let mut client = Client::new(&executor, &store, 1);
    client.setup();
    for number in 1..=2 {
        client.append(number, b"hello").unwrap().unwrap();
        assert!(client.answer().is_some());
    }
    let logs = logs.crashed();
    let container = store.container(&name());
    let entries = logs.len(container) as u64;
    let first = thalweg_types::id::EntryId(entries - 2);
    logs.rot(container, thalweg_types::id::Address::new(thalweg_types::id::Epoch(1), first));
    let (executor, store, _) = start(&logs);
    assert!(matches!(call(&executor, &store, read(0)), Command::ErrorMessage(_)));
    assert_eq!(&data(call(&executor, &store, read(5)))[..], b"hello");
}

#[test]
fn a_shutdown_answers_held_reads_and_ends() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    call(&executor, &store, create());
    let mut reader = Client::new(&executor, &store, 2);
    reader.send(What::Command(read(0))).unwrap().unwrap();
    assert_eq!(reader.answer(), None);
    executor.run(store.shutdown()).expect("it ends");
    let Some(Command::SegmentRead(read)) = reader.answer() else { panic!("no answer") };
    assert!(read.data.is_empty() && read.at_tail && !read.end_of_segment);
    let info = GetStreamSegmentInfo { request_id: 1, segment: name(), token: String::new() };
    assert_eq!(executor.run(store.call(info.into())), Some(None));
}

#[test]
fn a_table_that_is_overwritten_again_and_again_is_compacted_and_keeps_its_entries() {
    let logs = MemoryLogs::new();
    let (executor, store, _) = start(&logs);
    let table = SegmentName::from("s/g_kvtable/0.#epoch.0");
    let (request_id, token) = (1, String::new());
    let asked = CreateTableSegment {
        request_id,
        segment: table.clone(),
        token: token.clone(),
        sorted_deprecated: false,
        key_length: 0,
        rollover_size_bytes: 0,
    };
    call(&executor, &store, asked.into());
    let put = |executor: &Executor, store: &SegmentStore, name: &'static str, value: Bytes| {
        let key = TableKey { key: name.into(), version: NULL };
        let put = UpdateTableEntries {
            request_id,
            segment: table.clone(),
            token: token.clone(),
            entries: vec![TableEntry { key, value }],
            table_segment_offset: -1,
        };
        let answer = call(executor, store, put.into());
        assert!(matches!(answer, Command::TableEntriesUpdated(_)), "{answer:?}");
    };
    put(&executor, &store, "old", "never touched again".into());
    put(&executor, &store, "empty", Bytes::new());
    for round in 0..100_u8 {
        put(&executor, &store, "hot", vec![round; 10_000].into());
    }
    for _ in 0..50 {
        executor.poll_all();
    }
    let (restarted, recovered, _) = start(&logs.crashed());
    for (executor, store) in [(executor, store), (restarted, recovered)] {
        let (segment, token) = (table.clone(), token.clone());
        let info = GetTableSegmentInfo { request_id, segment, token };
        let Command::TableSegmentInfo(info) = call(&executor, &store, info.into()) else {
            panic!()
        };
        assert_eq!(info.entry_count, 3);
        assert!(info.start_offset > 0, "it was compacted");
        assert!(info.length - info.start_offset < 500_000, "{info:?}");
        let keys = ["old", "empty", "hot"];
        let key = |name: &'static str| TableKey { key: name.into(), version: NULL };
        let (segment, token) = (table.clone(), String::new());
        let get = ReadTable { request_id, segment, token, keys: keys.map(key).into() };
        let Command::TableRead(got) = call(&executor, &store, get.into()) else { panic!() };
        let versions: Vec<_> = got.entries.iter().map(|entry| entry.key.version).collect();
        assert_eq!(versions[..2], [0, 39], "versions stay");
        let values: Vec<_> = got.entries.iter().map(|entry| &entry.value[..]).collect();
        assert_eq!(values, [&b"never touched again"[..], b"", &[99; 10_000]]);
    }
}
