//! One storage with a replica on it: the real engine on a disk in memory, and the real replica machine, whose effects
//! are carried out on the spot.

use super::cluster::CONTAINER;
use super::play::Outcome;
use crate::engine::{Config, Engine, StartError};
use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::message::{EntryHeaders, Peer, Reply, Request};
use crate::replica::{Effect, Input, Replica};
use crate::storage::{Storage, StoredEntry, Ticket};
use crate::testing::{Executor, MemoryDisk};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, ReplicaId,
};
use thalweg_types::time::Instant;

/// Bytes in front of which a batch begins.
const BLOCK: usize = 4096;
const PEER: Peer = Peer(1);

/// Small files, so that few entries meet every boundary.
pub(super) fn config(node: NodeId) -> Config {
    Config {
        node,
        file_first: 32 * 1024,
        file_max: 32 * 1024,
        reserve: 16 * 1024,
        batch_target: 16 * 1024,
        allocate_step: 32 * 1024,
        allocate_pause: Duration::ZERO,
        dead_max: 0,
        full_retry: Duration::from_millis(20),
        ..Config::production()
    }
}

/// What an entry of a script consists of.
pub(super) fn content(ledger: LedgerId, entry: EntryId) -> EntryFrame {
    content_of(ledger, entry, super::cluster::Shape::THREE.payload)
}

/// The same with a payload of `len` bytes. All of it says which entry it is.
pub(super) fn content_of(ledger: LedgerId, entry: EntryId, len: usize) -> EntryFrame {
    let mark = mark(ledger, entry);
    let payload: Vec<u8> = mark.iter().copied().cycle().take(len).collect();
    EntryFrame {
        ledger,
        base: EntryId(0),
        entry,
        lac: None,
        keep_from: Address::default(),
        headers: Bytes::from(mark),
        payload: vec![Bytes::from(payload)],
        exempt: false,
    }
}

fn mark(ledger: LedgerId, entry: EntryId) -> Vec<u8> {
    format!("<{ledger}:{entry}>").into_bytes()
}

/// What goes wrong where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Damage {
    /// A byte of the header of its batch: everything in the batch.
    BatchHeader(usize),
    /// A byte of its payload.
    Payload,
}

impl Damage {
    /// Damages every copy of the entry on `disk`.
    pub(super) fn inflict(self, disk: &MemoryDisk, ledger: LedgerId, entry: EntryId) -> Outcome {
        // Only the payload repeats the mark.
        let twice = mark(ledger, entry).repeat(2);
        let mut hits = 0;
        for name in disk.names() {
            let mut bytes = disk.bytes(&name);
            let find = |from: usize, bytes: &[u8]| {
                bytes[from..].windows(twice.len()).position(|w| w == twice).map(|at| at + from)
            };
            let mut from = 0;
            while let Some(at) = find(from, &bytes) {
                let whole = bytes[at..].chunks(twice.len() / 2);
                let len = whole
                    .take_while(|part| twice.starts_with(part))
                    .map(<[u8]>::len)
                    .sum::<usize>();
                match self {
                    Self::Payload => bytes[at + len - 3] ^= 0x40,
                    Self::BatchHeader(byte) => {
                        let begin = batch_of(&bytes, at);
                        bytes[begin + byte] ^= 0x40;
                    }
                }
                hits += 1;
                from = at + len;
            }
            disk.set_bytes(&name, bytes);
        }
        if hits == 0 {
            Err(format!("the script: entry {entry} is nowhere on the disk"))
        } else {
            Ok(())
        }
    }
}

/// Where the batch begins that `at` lies in: the last block in front of it that begins as the first batch does.
fn batch_of(bytes: &[u8], at: usize) -> usize {
    let magic = &bytes[BLOCK..BLOCK + 4];
    let begins = |block: &usize| bytes[*block..].starts_with(magic);
    (BLOCK..=at).step_by(BLOCK).filter(begins).last().unwrap_or(BLOCK)
}

/// See the module's header.
pub(super) struct Site {
    engine: Arc<Engine>,
    executor: Executor,
    disk: MemoryDisk,
    id: ReplicaId,
    replica: Replica,
    /// Frames that the replica has not heard of as durable.
    waiting: VecDeque<Ticket>,
}

impl Site {
    /// Mounts what is on `disk`; the register's newest epoch is `upto`.
    pub(super) fn mount(
        node: NodeId,
        disk: &MemoryDisk,
        seed: u64,
        upto: Epoch,
    ) -> Result<Self, StartError> {
        let executor = Executor::new(seed);
        let engine = executor.run(Engine::open(executor.env(disk), config(node)))?;
        let recovered = engine.recovered();
        let id = ReplicaId { node, storage: engine.uuid() };
        let replica = Replica::new(CONTAINER, &recovered);
        let disk = disk.clone();
        let waiting = VecDeque::new();
        let mut site = Self { engine, executor, disk, id, replica, waiting };
        if recovered.limbo {
            site.step(Input::Limbo { upto });
            site.settle();
        }
        Ok(site)
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.id
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Long enough for the mark that proves the last batch durable.
    pub(super) fn idle(&self) {
        let clock = self.executor.env(&self.disk).clock;
        self.executor.run(clock.sleep_until(clock.now().after(Duration::from_millis(50))));
    }

    /// One request, and everything that is staged by now becomes durable; every reply.
    pub(super) fn ask(&mut self, request: Request) -> Vec<Reply> {
        let mut replies = self.take(request);
        replies.extend(self.settle());
        replies
    }

    /// One request, and the replies that wait for nothing.
    pub(super) fn take(&mut self, request: Request) -> Vec<Reply> {
        self.step(Input::Request { peer: PEER, request })
    }

    fn step(&mut self, input: Input) -> Vec<Reply> {
        let mut inputs = VecDeque::from([input]);
        let mut replies = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.replica.step(Instant::default(), input, &mut effects);
            self.replica.check();
            for effect in effects {
                match effect {
                    Effect::Stage(frame) => {
                        let ticket = self.engine.stage(frame).expect("the engine runs");
                        self.waiting.push_back(ticket);
                    }
                    Effect::Reply { reply, .. } => replies.push(reply),
                    Effect::Load { ledger, entry, .. } => replies.push(self.load(ledger, entry)),
                    Effect::LoadHeaders { ledger, from, entries_max, .. } => {
                        replies.push(self.load_headers(ledger, from, entries_max as usize));
                    }
                    Effect::Verify { peer, by, entry } => {
                        let stored = self.load(entry.ledger, entry.entry);
                        let intact = matches!(stored, Reply::Have(_));
                        inputs.push_back(Input::Verified { peer, by, entry, intact });
                    }
                }
            }
        }
        replies
    }

    /// Everything staged becomes durable; what follows from it.
    pub(super) fn settle(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(last) = self.waiting.back().copied() {
            self.durable(last);
            let frames = self.waiting.len();
            self.waiting.clear();
            replies.extend(self.step(Input::Durable { frames }));
        }
        replies
    }

    /// Lets the engine do what it can without time passing: a write may have begun, and nobody waits for it.
    pub(super) fn poll(&self) {
        let mut yielded = false;
        self.executor.run(std::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }));
    }

    fn durable(&self, ticket: Ticket) {
        let mut progress = self.engine.progress();
        self.executor.run(async {
            let seen = progress.wait_for(|p| p.covers(ticket) || p.stopped.is_some()).await;
            let stopped = seen.expect("the engine runs").stopped.clone();
            assert_eq!(stopped, None, "the disk has no faults while it runs");
        });
    }

    fn load(&self, ledger: LedgerId, entry: EntryId) -> Reply {
        let found = self.executor.run(async {
            let headers = self.engine.headers(ledger, entry, 1).await.ok()?.pop()?;
            let payload = self.engine.payload(ledger, entry).await.ok()?;
            Some((headers.headers, payload))
        });
        let Some((headers, payload)) = found else { return Reply::Unknown { ledger, entry } };
        let frame = EntryFrame {
            ledger,
            base: EntryId(0),
            entry,
            lac: None,
            keep_from: Address::default(),
            headers,
            payload: vec![payload],
            exempt: false,
        };
        Reply::Have(frame)
    }

    fn load_headers(&self, ledger: LedgerId, from: EntryId, max: usize) -> Reply {
        let found = self.executor.run(self.engine.headers(ledger, from, max)).unwrap_or_default();
        if found.is_empty() {
            return Reply::Unknown { ledger, entry: from };
        }
        let each = |entry: StoredEntry| EntryHeaders {
            headers: entry.headers,
            payload_len: entry.payload_len,
        };
        Reply::Headers { ledger, from, entries: found.into_iter().map(each).collect() }
    }

    /// Stages frames and waits until they are durable, past the replica.
    pub(super) fn put(&self, frame: Frame) {
        let ticket = self.engine.stage(frame).expect("the engine runs");
        self.durable(ticket);
    }

    /// Another container writes and trims so much that every file of before has been freed.
    pub(super) fn churn(&self) {
        let container = ContainerId(9);
        let ledger = LedgerId { container, epoch: Epoch(1) };
        self.put(Frame::State(LedgerState {
            ledger,
            incarnation: Some(Incarnation(1)),
            base: EntryId(0),
            tail: None,
            lac: None,
            keep_from: Address::default(),
            fenced_by: None,
            certain: true,
        }));
        for entry in (0..60).map(EntryId) {
            self.put(Frame::Entry(content_of(ledger, entry, 2000)));
            if entry.0 % 6 == 5 {
                let keep_from = Address::new(Epoch(1), entry);
                self.put(Frame::Trim { container, keep_from });
                self.idle();
            }
        }
    }
}
