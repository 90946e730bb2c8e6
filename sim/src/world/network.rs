//! The simulated network: hosts, links that can be cut one way, connections made of [`pipe::Pipe`]s.

mod pipe;

use super::executor;
use super::rng::{Rng, Salt};
use super::trace::trace;
use bytes::{Buf as _, Bytes, BytesMut};
use pipe::{End, Found, Pipe, Whole};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint, Listener, Network};
use tokio::sync::Notify;

/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 128;
/// How long a connection attempt goes on in silence.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);
/// What a reader without spare capacity is given at most.
const READ_DEFAULT: usize = 8 << 10;

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkFaults {
    /// Lowest and highest one-way delay, in microseconds.
    pub(crate) delay_us: (u64, u64),
    /// A write breaks its connection.
    pub(crate) reset_ppm: u32,
    /// Accepting fails once.
    pub(crate) accept_error_ppm: u32,
    /// Smallest and largest window in bytes; one is drawn per connection.
    pub(crate) window: (u64, u64),
}

impl Default for NetworkFaults {
    fn default() -> Self {
        Self { delay_us: (20, 200), reset_ppm: 0, accept_error_ppm: 0, window: (64 << 10, 1 << 20) }
    }
}

/// What has happened on the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetworkCounts {
    /// Connections made.
    pub(crate) connections: u64,
    /// Connections broken by the nemesis.
    pub(crate) resets: u64,
    /// Directions of links cut.
    pub(crate) cuts: u64,
}

struct Waiting {
    backlog: VecDeque<(u64, Endpoint)>,
    arrived: Arc<Notify>,
    host: Arc<str>,
}

struct State {
    rng: Rng,
    faults: NetworkFaults,
    counts: NetworkCounts,
    dark: BTreeSet<Arc<str>>,
    cuts: BTreeSet<(Arc<str>, Arc<str>)>,
    listeners: BTreeMap<Endpoint, Waiting>,
    pipes: BTreeMap<u64, Pipe>,
    next_id: u64,
    next_port: u16,
}

/// The network as the harness holds it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SimNetwork {
    state: Arc<Mutex<State>>,
}

impl State {
    fn is_open(&self, from: &Arc<str>, to: &Arc<str>) -> bool {
        !self.dark.contains(to)
            && !self.dark.contains(from)
            && (self.cuts.is_empty() || !self.cuts.contains(&(Arc::clone(from), Arc::clone(to))))
    }

    fn whole(&self, pipe: &Pipe) -> Whole {
        let [near, far] = &pipe.ends;
        [self.is_open(&near.host, &far.host), self.is_open(&far.host, &near.host)]
    }

    /// The connection, which of its directions are whole, and the dice.
    fn pipe(&mut self, id: u64) -> Option<(&mut Pipe, Whole, &mut Rng)> {
        let whole = self.whole(self.pipes.get(&id)?);
        self.pipes.get_mut(&id).map(|pipe| (pipe, whole, &mut self.rng))
    }

    fn forget_dead(&mut self, id: u64) {
        if self.pipes.get(&id).is_some_and(Pipe::is_dead) {
            self.pipes.remove(&id);
        }
    }

    fn delay(&mut self) -> Duration {
        let (low, high) = self.faults.delay_us;
        self.rng.micros(low, high)
    }

    fn wake_all(&mut self) {
        let now = executor::now();
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        for id in ids {
            if let Some((pipe, whole, rng)) = self.pipe(id)
                && whole == [true, true]
            {
                pipe.healed(now, rng);
            }
        }
    }

    /// Lets everything arrive that should have before a link changes.
    fn settle_all(&mut self) {
        let now = executor::now();
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        for id in ids {
            if let Some((pipe, whole, rng)) = self.pipe(id) {
                pipe.settle(now, whole, rng);
            }
        }
    }
}

impl SimNetwork {
    /// A network without hosts.
    pub(crate) fn new(salt: Salt) -> Self {
        let state = State {
            rng: salt.of("network").rng(),
            faults: NetworkFaults::default(),
            counts: NetworkCounts::default(),
            dark: BTreeSet::new(),
            cuts: BTreeSet::new(),
            listeners: BTreeMap::new(),
            pipes: BTreeMap::new(),
            next_id: 1,
            next_port: 40_000,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seam for process number `process` of `host`.
    pub(crate) fn attach(&self, host: &str, process: u64) -> Arc<dyn Network> {
        Arc::new(Attached { network: self.clone(), host: host.into(), process })
    }

    /// How the network behaves from now on.
    pub(crate) fn set_faults(&self, faults: NetworkFaults) {
        self.lock().faults = faults;
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> NetworkCounts {
        self.lock().counts
    }

    /// Nothing passes from `from` to `to` any more.
    pub(crate) fn cut(&self, from: &str, to: &str) {
        trace!("network: cut {from} -> {to}");
        let mut state = self.lock();
        state.settle_all();
        state.counts.cuts += 1;
        state.cuts.insert((from.into(), to.into()));
    }

    /// Takes a cut back.
    pub(crate) fn mend(&self, from: &str, to: &str) {
        trace!("network: mended {from} -> {to}");
        let mut state = self.lock();
        state.settle_all();
        state.cuts.remove(&(from.into(), to.into()));
        state.wake_all();
    }

    /// All links are whole.
    pub(crate) fn heal(&self) {
        trace!("network: healed");
        let mut state = self.lock();
        state.cuts.clear();
        state.wake_all();
    }

    /// Breaks up to `count` connections, each at one end or at both.
    pub(crate) fn reset(&self, count: usize) {
        let mut state = self.lock();
        let state = &mut *state;
        let mut ids: Vec<u64> = state.pipes.keys().copied().collect();
        state.rng.shuffle(&mut ids);
        for id in ids.into_iter().take(count) {
            let Some((pipe, _, rng)) = state.pipe(id) else { continue };
            let at = rng.index(2);
            trace!("network: connection {id} breaks at {}", pipe.ends[at].host);
            pipe.abort(at, executor::now(), rng);
            state.counts.resets += 1;
        }
    }

    /// A process has been killed; its system closes what it had open.
    pub(crate) fn process_ended(&self, host: &str) {
        self.end_of_process(host, false);
    }

    /// A host has lost power: it falls silent until [`SimNetwork::power_on`].
    pub(crate) fn power_lost(&self, host: &str) {
        self.end_of_process(host, true);
    }

    /// A host has power again. Connections of its past are answered with resets.
    pub(crate) fn power_on(&self, host: &str) {
        let mut state = self.lock();
        state.dark.remove(host);
        state.wake_all();
    }

    fn end_of_process(&self, host: &str, silent: bool) {
        let mut state = self.lock();
        state.settle_all();
        let state = &mut *state;
        let now = executor::now();
        state.listeners.retain(|_, waiting| &*waiting.host != host);
        for pipe in state.pipes.values_mut() {
            for at in 0..2 {
                if &*pipe.ends[at].host != host || pipe.ends[at].process.is_none() {
                    continue;
                }
                if silent {
                    pipe.silenced(at);
                } else {
                    pipe.closed_by_system(at, now, &mut state.rng);
                }
            }
        }
        state.pipes.retain(|_, pipe| !pipe.is_dead());
        if silent {
            state.dark.insert(host.into());
        }
    }
}

struct Attached {
    network: SimNetwork,
    host: Arc<str>,
    process: u64,
}

impl Attached {
    /// Host and port; names for "here" mean this host.
    fn parse(&self, endpoint: &Endpoint) -> io::Result<(Arc<str>, u16)> {
        let bad = || io::Error::new(ErrorKind::InvalidInput, format!("bad endpoint {endpoint}"));
        let (host, port) = endpoint.0.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let here = ["127.0.0.1", "0.0.0.0", "localhost"].contains(&host);
        Ok((if here { Arc::clone(&self.host) } else { host.into() }, port))
    }

    fn ends(&self, id: u64, at: usize, peer: Endpoint) -> Connection {
        let half = |_| Half { network: self.network.clone(), id, at };
        Connection {
            reader: Box::new(SimReader { half: half(0) }),
            writer: Box::new(SimWriter { half: half(1), finished: false }),
            peer,
        }
    }

    /// One attempt: `None` if it went unanswered.
    async fn attempt(&self, to: &Endpoint, host: &Arc<str>) -> Option<io::Result<Connection>> {
        let delay = {
            let mut state = self.network.lock();
            if !state.is_open(&self.host, host) {
                return None;
            }
            state.delay()
        };
        executor::sleep(delay).await;
        let (delay, made) = {
            let mut state = self.network.lock();
            if !state.is_open(host, &self.host) {
                return None;
            }
            (state.delay(), self.knock(&mut state, to))
        };
        executor::sleep(delay).await;
        match made? {
            Ok(id) => Some(Ok(self.ends(id, 0, to.clone()))),
            Err(kind) => Some(Err(kind.into())),
        }
    }

    /// The attempt has reached the host of `to`.
    fn knock(&self, state: &mut State, to: &Endpoint) -> Option<Result<u64, ErrorKind>> {
        let Some(waiting) = state.listeners.get_mut(to) else {
            return Some(Err(ErrorKind::ConnectionRefused));
        };
        if waiting.backlog.len() >= BACKLOG_MAX {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.counts.connections += 1;
        let peer = Endpoint::from(format!("{}:{}", self.host, 10_000 + id % 30_000));
        waiting.backlog.push_back((id, peer));
        waiting.arrived.notify_one();
        let (low, high) = state.faults.window;
        let window = usize::try_from(state.rng.range(low, high + 1)).unwrap_or(usize::MAX);
        let (low, high) = state.faults.delay_us;
        // The acceptor's process is filled in when it accepts.
        let ends = [End::new(&self.host, self.process), End::new(&waiting.host, 0)];
        state.pipes.insert(id, Pipe::new(ends, window, (low * 1_000, high * 1_000)));
        trace!("network: connection {id} from {} to {to}", self.host);
        Some(Ok(id))
    }
}

impl Network for Attached {
    fn listen<'a>(&'a self, at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (host, mut port) = self.parse(at)?;
            let mut state = self.network.lock();
            if host != self.host {
                return Err(ErrorKind::AddrNotAvailable.into());
            }
            if port == 0 {
                port = state.next_port;
                state.next_port += 1;
            }
            let local = Endpoint::from(format!("{host}:{port}"));
            if state.listeners.contains_key(&local) {
                return Err(ErrorKind::AddrInUse.into());
            }
            let arrived = Arc::new(Notify::new());
            let waiting = Waiting { backlog: VecDeque::new(), arrived: Arc::clone(&arrived), host };
            state.listeners.insert(local.clone(), waiting);
            let attached = Self {
                network: self.network.clone(),
                host: Arc::clone(&self.host),
                process: self.process,
            };
            let listener: Box<dyn Listener> = Box::new(SimListener { attached, local, arrived });
            Ok(listener)
        })
    }

    fn connect<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let (host, port) = self.parse(to)?;
            let to = Endpoint::from(format!("{host}:{port}"));
            let until =
                executor::now() + u64::try_from(CONNECT_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
            let mut pause = Duration::from_millis(250);
            while executor::now() < until {
                if let Some(connection) = self.attempt(&to, &host).await {
                    return connection;
                }
                executor::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(4));
            }
            Err(ErrorKind::TimedOut.into())
        })
    }
}

struct SimListener {
    attached: Attached,
    local: Endpoint,
    arrived: Arc<Notify>,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.attached.network.lock();
        let state = &mut *state;
        // Another process may listen here by now.
        if !state.listeners.get(&self.local).is_some_and(|w| Arc::ptr_eq(&w.arrived, &self.arrived))
        {
            return;
        }
        let Some(waiting) = state.listeners.remove(&self.local) else { return };
        for (id, _) in waiting.backlog {
            if let Some(pipe) = state.pipes.get_mut(&id) {
                pipe.abort(1, executor::now(), &mut state.rng);
                pipe.silenced(1);
            }
        }
    }
}

impl Listener for SimListener {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            loop {
                let next = {
                    let mut state = self.attached.network.lock();
                    let error_ppm = state.faults.accept_error_ppm;
                    let waiting = state.listeners.get_mut(&self.local);
                    let next = waiting.and_then(|waiting| waiting.backlog.pop_front());
                    if let Some((id, _)) = &next {
                        if let Some(pipe) = state.pipes.get_mut(id) {
                            pipe.ends[1].process = Some(self.attached.process);
                        }
                        if state.rng.per_million(error_ppm) {
                            if let Some((pipe, _, rng)) = state.pipe(*id) {
                                pipe.abort(1, executor::now(), rng);
                                pipe.silenced(1);
                            }
                            return Err(io::Error::other("too many open files"));
                        }
                    }
                    next
                };
                if let Some((id, peer)) = next {
                    return Ok(self.attached.ends(id, 1, peer));
                }
                self.arrived.notified().await;
            }
        })
    }
}

/// One end's half of a connection.
struct Half {
    network: SimNetwork,
    id: u64,
    at: usize,
}

async fn wait(notify: &Notify, due: Option<u64>) {
    match due {
        None => notify.notified().await,
        Some(due) => {
            tokio::select! {
                biased;
                () = notify.notified() => {}
                () = executor::sleep_until(due) => {}
            }
        }
    }
}

struct SimReader {
    half: Half,
}

impl ByteReader for SimReader {
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            let Half { network, id, at } = &self.half;
            loop {
                let spare = into.capacity() - into.len();
                let max = if spare == 0 { READ_DEFAULT } else { spare };
                let (due, readable) = {
                    let mut state = network.lock();
                    let Some((pipe, whole, rng)) = state.pipe(*id) else {
                        return Err(ErrorKind::ConnectionReset.into());
                    };
                    match pipe.read(*at, executor::now(), whole, max, rng) {
                        Found::Bytes(bytes) => {
                            into.extend_from_slice(&bytes);
                            return Ok(bytes.len());
                        }
                        Found::End => return Ok(0),
                        Found::Reset => return Err(ErrorKind::ConnectionReset.into()),
                        Found::Nothing(due) => (due, Arc::clone(&pipe.ends[*at].readable)),
                    }
                };
                wait(&readable, due).await;
            }
        })
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        let Half { network, id, at } = &self.half;
        let mut state = network.lock();
        if let Some((pipe, _, _)) = state.pipe(*id)
            && pipe.ends[*at].process.is_some()
        {
            pipe.ends[*at].reader_open = false;
            pipe.ends[*at].half_dropped();
        }
        state.forget_dead(*id);
    }
}

struct SimWriter {
    half: Half,
    finished: bool,
}

impl ByteWriter for SimWriter {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let Half { network, id, at } = &self.half;
            let broken = || io::Error::from(ErrorKind::BrokenPipe);
            {
                let mut state = network.lock();
                let reset_ppm = state.faults.reset_ppm;
                let Some((pipe, _, rng)) = state.pipe(*id) else { return Err(broken()) };
                if rng.per_million(reset_ppm) {
                    trace!("network: connection {id} breaks in a write");
                    pipe.abort(*at, executor::now(), rng);
                    state.counts.resets += 1;
                }
            }
            for mut chunk in chunks {
                while chunk.has_remaining() {
                    let (due, writable) = {
                        let mut state = network.lock();
                        let Some((pipe, whole, rng)) = state.pipe(*id) else {
                            return Err(broken());
                        };
                        let rest = pipe.write(*at, executor::now(), whole, chunk, rng);
                        chunk = rest.map_err(|()| broken())?;
                        if chunk.is_empty() {
                            break;
                        }
                        (pipe.room_due(*at, whole), Arc::clone(&pipe.ends[*at].writable))
                    };
                    wait(&writable, due).await;
                }
            }
            Ok(())
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let Half { network, id, at } = &self.half;
            let mut state = network.lock();
            let Some((pipe, _, rng)) = state.pipe(*id) else {
                return Err(ErrorKind::BrokenPipe.into());
            };
            if pipe.ends[*at].reset {
                return Err(ErrorKind::BrokenPipe.into());
            }
            pipe.finish(*at, executor::now(), rng);
            self.finished = true;
            Ok(())
        })
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        let Half { network, id, at } = &self.half;
        let mut state = network.lock();
        let Some((pipe, _, rng)) = state.pipe(*id) else { return };
        if pipe.ends[*at].process.is_none() {
            return; // Killed or without power: the system, or nobody, has spoken for it.
        }
        if !self.finished {
            pipe.finish(*at, executor::now(), rng);
        }
        pipe.ends[*at].writer_open = false;
        pipe.ends[*at].half_dropped();
        state.forget_dead(*id);
    }
}
