use super::*;
use crate::request::Append;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use thalweg_actor::clock::Clock;
use thalweg_actor::network::{ByteReader, ByteWriter};
use thalweg_actor::spawn::{Spawn, Task};
use thalweg_types::id::WriterId;
use thalweg_types::limits::{CONNECTION_IN_FLIGHT_BYTES_MAX, OUTPUT_BYTES_MAX};
use thalweg_types::name::SegmentName;
use thalweg_types::time::{Instant, WallTime};
use thalweg_wire::segment::frame;
use thalweg_wire::segment::{
    AppendBlock, AppendBlockEnd, Command, ConditionalAppend, DataAppended, GetStreamSegmentInfo,
    Hello, KeepAlive, SealSegment, SegmentRead, SegmentSealed, SetupAppend, WrongHost,
};

/// A clock that tests move.
#[derive(Default)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

/// The tests' executor polls everything again and again, so nothing here wakes anybody.
fn when<T: Send + 'static>(
    mut ready: impl FnMut() -> Option<T> + Send + 'static,
) -> BoxFuture<'static, T> {
    Box::pin(std::future::poll_fn(move |_| ready().map_or(Poll::Pending, Poll::Ready)))
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let now = Arc::clone(&self.0);
        when(move || (now.load(Ordering::Relaxed) >= at.0).then_some(()))
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    ended: bool,
    /// The peer does not read: writes wait.
    stuck: bool,
}

type Shared = Arc<Mutex<Pipe>>;

struct End(Shared);

impl ByteReader for End {
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(std::future::poll_fn(move |_| {
            let mut pipe = self.0.lock().unwrap();
            if pipe.bytes.is_empty() && !pipe.ended {
                return Poll::Pending;
            }
            let room = into.capacity() - into.len();
            assert!(room > 0, "a read without room");
            let taken: Vec<u8> = (0..room).map_while(|_| pipe.bytes.pop_front()).collect();
            into.extend_from_slice(&taken);
            Poll::Ready(Ok(taken.len()))
        }))
    }
}

impl ByteWriter for End {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        let pipe = Arc::clone(&self.0);
        when(move || {
            let mut pipe = pipe.lock().unwrap();
            if pipe.stuck {
                return None;
            }
            pipe.bytes.extend(chunks.iter().flatten());
            Some(Ok(()))
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        self.0.lock().unwrap().ended = true;
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Nothing;

impl Spawn for Nothing {
    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) -> Task {
        unreachable!("the tests poll connections themselves")
    }
}

/// Containers that note what they are asked, answer some of it, and hold back the rest.
#[derive(Default)]
struct Notes {
    requests: Mutex<Vec<Request>>,
    closed: Mutex<Vec<ContainerId>>,
    away: Mutex<Option<SubmitError>>,
}

impl Containers for Notes {
    fn count(&self) -> u32 {
        4
    }

    fn submit(&self, to: ContainerId, request: Request) -> BoxFuture<'_, Result<(), SubmitError>> {
        assert!(to.0 < 4);
        if let Some(error) = *self.away.lock().unwrap() {
            return Box::pin(std::future::ready(Err(error)));
        }
        if let What::Command(Command::SealSegment(seal)) = &request.what {
            let (request_id, segment) = (seal.request_id, seal.segment.clone());
            request.replies.send(SegmentSealed { request_id, segment });
        }
        let mut requests = self.requests.lock().unwrap();
        if let What::ConnectionClosed = request.what {
            // As a container does: what the connection waited for is dropped.
            requests.retain(|known| known.connection != request.connection);
            self.closed.lock().unwrap().push(to);
        } else {
            requests.push(request);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

struct World {
    notes: Arc<Notes>,
    clock: Arc<TestClock>,
    connections: Arc<Connections>,
    input: Shared,
    output: Shared,
    serve: Option<BoxFuture<'static, ()>>,
}

impl World {
    fn new() -> Self {
        let (notes, clock) = (Arc::new(Notes::default()), Arc::new(TestClock::default()));
        let connections = Connections::with(clock.clone(), Arc::new(Nothing), notes.clone());
        let (input, output) = (Shared::default(), Shared::default());
        let connection = Connection {
            reader: Box::new(End(input.clone())),
            writer: Box::new(End(output.clone())),
            peer: "test:1".into(),
        };
        let serve: BoxFuture<'static, ()> = Box::pin(connections.clone().serve(connection));
        Self { notes, clock, connections, input, output, serve: Some(serve) }
    }

    fn send(&self, command: impl Into<Command>) {
        self.raw(&Bytes::from(&command.into()));
    }

    fn raw(&self, bytes: &[u8]) {
        self.input.lock().unwrap().bytes.extend(bytes);
    }

    fn run(&mut self) {
        for _ in 0..200 {
            let Some(serve) = &mut self.serve else { return };
            let mut context = Context::from_waker(Waker::noop());
            if serve.as_mut().poll(&mut context).is_ready() {
                self.serve = None;
            }
        }
    }

    /// What has been sent to the client since the last look.
    fn replies(&mut self) -> Vec<Command> {
        self.run();
        let sent: Vec<u8> = self.output.lock().unwrap().bytes.drain(..).collect();
        let mut stream = BytesMut::from(&sent[..]);
        let replies = std::iter::from_fn(|| frame::next(&mut stream).unwrap());
        replies.map(|frame| Command::decode(frame).unwrap()).collect()
    }

    fn is_over(&mut self) -> bool {
        self.run();
        assert_eq!(self.connections.open(), usize::from(self.serve.is_some()));
        self.serve.is_none() && self.output.lock().unwrap().ended
    }

    fn appends(&self) -> Vec<Append> {
        let requests = self.notes.requests.lock().unwrap();
        let append = |request: &Request| match &request.what {
            What::Append(append) => Some(append.clone()),
            _ => None,
        };
        requests.iter().filter_map(append).collect()
    }

    fn answer_first(&self, reply: impl Into<Command>) {
        self.notes.requests.lock().unwrap().first().unwrap().replies.send(reply);
    }
}

fn segment() -> SegmentName {
    SegmentName::from("s/t/0.#epoch.0")
}

fn info(request_id: i64) -> GetStreamSegmentInfo {
    GetStreamSegmentInfo { request_id, segment: segment(), token: String::new() }
}

fn seal(request_id: i64) -> SealSegment {
    SealSegment { request_id, segment: segment(), token: String::new() }
}

fn setup(writer: u128, segment: &str) -> SetupAppend {
    let (request_id, segment) = (1, SegmentName::from(segment));
    SetupAppend { request_id, writer_id: WriterId(writer), segment, token: String::new() }
}

fn end(writer: u128, number: i64, data: &'static [u8]) -> AppendBlockEnd {
    AppendBlockEnd {
        writer_id: WriterId(writer),
        size_of_whole_events: i32::try_from(data.len()).unwrap(),
        data: Bytes::from_static(data),
        num_events: 1,
        last_event_number: number,
        request_id: 7,
    }
}

const KEEP_ALIVE: KeepAlive = KeepAlive {};

#[test]
fn hello_is_answered_before_it_is_judged() {
    let mut world = World::new();
    assert_eq!(world.replies(), [], "the server never speaks first");
    world.send(Hello { high: 15, low: 5 });
    world.send(Hello { high: 1000, low: 17 });
    let ours = Command::from(Hello { high: 17, low: 5 });
    assert_eq!(world.replies(), [ours.clone(), ours.clone()]);
    assert!(!world.is_over());
    world.send(Hello { high: 4, low: 1 });
    assert_eq!(world.replies(), [ours]);
    assert!(world.is_over());
}

#[test]
fn keep_alive_is_echoed_within_a_block_too() {
    let mut world = World::new();
    world.send(KEEP_ALIVE);
    world.send(setup(1, "s/t/0.#epoch.0"));
    world.send(AppendBlock { writer_id: WriterId(1), data: Bytes::from_static(b"abc") });
    world.send(KEEP_ALIVE);
    world.send(info(5));
    let end = AppendBlockEnd { size_of_whole_events: 3, ..end(1, 4, b"") };
    world.send(end);
    assert_eq!(world.replies(), [KEEP_ALIVE.into(), KEEP_ALIVE.into()]);
    let appends = world.appends();
    assert_eq!(appends.len(), 1);
    assert_eq!(appends[0].data.clone().into_bytes(), "abc");
    assert_eq!((appends[0].event_number, appends[0].request_id), (4, 7));
}

#[test]
fn appends_go_to_the_segment_of_the_writers_last_setup() {
    let mut world = World::new();
    for name in ["s/a/0.#epoch.0", "s/b/0.#epoch.0"] {
        world.send(setup(1, name));
    }
    world.send(end(1, 1, b"abc"));
    let event = Bytes::from_static(b"\0\0\0\0\0\0\0\x01x");
    for expected_offset in [3, -1] {
        world.send(ConditionalAppend {
            writer_id: WriterId(1),
            event_number: 2,
            expected_offset,
            event: event.clone(),
            request_id: 8,
        });
    }
    world.run();
    let appends = world.appends();
    assert!(appends.iter().all(|append| append.segment.as_str() == "s/b/0.#epoch.0"));
    let offsets: Vec<_> = appends.iter().map(|append| append.expected_offset).collect();
    assert_eq!(offsets, [None, Some(3), None]);
    assert_eq!(appends[1].data.clone().into_bytes(), event, "the event's header is stored too");
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_and_nothing_is_appended() {
    let set_up = Bytes::from(&Command::from(setup(1, "s/t/0.#epoch.0")));
    let bad: Vec<Command> = vec![
        end(2, 1, b"x").into(),
        end(1, -1, b"x").into(),
        AppendBlockEnd { num_events: 0, ..end(1, 1, b"x") }.into(),
        SegmentSealed { request_id: 1, segment: segment() }.into(),
        thalweg_wire::segment::PartialEvent { data: Bytes::from_static(b"x") }.into(),
        thalweg_wire::segment::StorageFlushed { request_id: 1 }.into(),
        GetStreamSegmentInfo { segment: SegmentName::from(""), ..info(1) }.into(),
    ];
    for command in bad {
        let mut world = World::new();
        world.raw(&set_up);
        world.send(command.clone());
        assert!(world.is_over(), "{command:?}");
        assert!(world.appends().is_empty(), "{command:?}");
    }
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[0xFF; 16], &[0, 0, 0, 11, 0, 0, 0, 1, 0]] {
        let mut world = World::new();
        world.raw(bytes);
        assert!(world.is_over() && world.replies().is_empty(), "{bytes:?}");
    }
}

#[test]
fn answers_that_are_due_are_sent_before_a_bad_frame_ends_the_connection() {
    let mut world = World::new();
    world.send(seal(4));
    world.raw(&[0, 0, 0, 99, 0, 0, 0, 0]);
    let sealed = SegmentSealed { request_id: 4, segment: segment() };
    assert_eq!(world.replies(), [sealed.into()]);
    assert!(world.is_over());
    assert_eq!(world.notes.closed.lock().unwrap().len(), 1);
}

#[test]
fn a_peer_that_ends_its_direction_still_gets_its_answer_or_two_seconds() {
    let mut world = World::new();
    world.send(info(4));
    world.run();
    // Somebody else still holds the queue, as a container does until an answer is committed.
    let held = world.notes.requests.lock().unwrap()[0].replies.clone();
    world.input.lock().unwrap().ended = true;
    assert!(!world.is_over());
    held.send(SegmentSealed { request_id: 4, segment: segment() });
    assert_eq!(world.replies().len(), 1);
    drop(held);
    assert!(world.is_over());

    let mut world = World::new();
    world.send(info(4));
    world.run();
    let _held = world.notes.requests.lock().unwrap()[0].replies.clone();
    world.input.lock().unwrap().ended = true;
    assert!(!world.is_over());
    world.clock.advance(FAREWELL);
    world.run();
    assert!(world.serve.is_none());
}

#[test]
fn a_container_can_end_the_connection_behind_its_answers() {
    let mut world = World::new();
    world.send(info(4));
    world.run();
    world.answer_first(SegmentSealed { request_id: 4, segment: segment() });
    world.notes.requests.lock().unwrap()[0].replies.close("number refused");
    assert_eq!(world.replies().len(), 1);
    assert!(world.is_over());
    assert_eq!(world.notes.closed.lock().unwrap().len(), 1);
}

#[test]
fn the_socket_is_not_read_while_too_many_bytes_of_appends_are_under_way() {
    const BLOCK: &[u8] = &[7; CONNECTION_IN_FLIGHT_BYTES_MAX / 4];
    let mut world = World::new();
    world.send(setup(1, "s/t/0.#epoch.0"));
    for number in 1..=6 {
        world.send(end(1, number, BLOCK));
    }
    world.run();
    assert_eq!(world.appends().len(), 4);
    let replies = world.notes.requests.lock().unwrap()[1].replies.clone();
    replies.refund(BLOCK.len());
    replies.send(DataAppended {
        writer_id: WriterId(1),
        event_number: 1,
        previous_event_number: i64::MIN,
        request_id: 7,
        current_segment_write_offset: 0,
    });
    assert_eq!(world.replies().len(), 1, "answers leave while the socket is not read");
    assert_eq!(world.appends().len(), 5);
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let mut world = World::new();
    world.send(info(4));
    world.run();
    world.output.lock().unwrap().stuck = true;
    let read = SegmentRead {
        segment: segment(),
        offset: 0,
        at_tail: false,
        end_of_segment: false,
        data: Bytes::from(vec![0; OUTPUT_BYTES_MAX / 16]).into(),
        request_id: 4,
    };
    for _ in 0..10 {
        world.answer_first(read.clone());
    }
    world.run();
    assert!(world.serve.is_some());
    for _ in 0..10 {
        world.answer_first(read.clone());
    }
    world.run();
    assert!(world.serve.is_none());
}

#[test]
fn a_segment_that_is_elsewhere_is_told_so_and_a_stopped_container_ends_the_connection() {
    let mut world = World::new();
    *world.notes.away.lock().unwrap() = Some(SubmitError::NotHere);
    world.send(info(4));
    let (correct_host, trace) = (String::new(), String::new());
    let wrong = WrongHost { request_id: 4, segment: segment(), correct_host, trace };
    assert_eq!(world.replies(), [wrong.into()]);
    *world.notes.away.lock().unwrap() = Some(SubmitError::Stopped);
    world.send(info(4));
    assert!(world.is_over());
}

#[test]
fn stopping_ends_every_connection() {
    let mut world = World::new();
    world.send(seal(4));
    assert_eq!(world.replies().len(), 1);
    world.connections.stop();
    assert!(world.is_over());
}

#[test]
fn a_frame_may_arrive_byte_by_byte_and_many_in_one_packet() {
    let mut world = World::new();
    for byte in Bytes::from(&Command::from(seal(1))) {
        world.raw(&[byte]);
        world.run();
    }
    for request_id in 2..=20 {
        world.send(seal(request_id));
    }
    let ids = world.replies().into_iter().map(|reply| match reply {
        Command::SegmentSealed(reply) => reply.request_id,
        other => panic!("{other:?}"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
}
