//! A network in memory: connections with windows, and faults on demand. Nothing takes time.

use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use thalweg_actor::BoxFuture;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint, Listener, Network};
use tokio::sync::Notify;

/// Bytes on their way in one direction.
const WINDOW_BYTES: usize = 64 * 1024;
/// What a reader without spare capacity is given at most.
const READ_DEFAULT: usize = 8 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Flow {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// The writer has ended it.
    ended: bool,
    /// Nobody reads any more, or the connection was broken.
    broken: bool,
    /// Nothing arrives any more, and nobody is told.
    frozen: bool,
    /// Breaks when so many bytes more have arrived.
    breaks_after: Option<usize>,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    flow: Mutex<Flow>,
    news: Notify,
}

impl Pipe {
    fn change(&self, change: impl FnOnce(&mut Flow)) {
        change(&mut lock(&self.flow));
        self.news.notify_waiters();
    }
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<Endpoint, Arc<Waiting>>,
    pipes: Vec<Weak<Pipe>>,
    next_port: u16,
    connected: usize,
}

#[derive(Default)]
struct Waiting {
    backlog: Mutex<VecDeque<Connection>>,
    news: Notify,
}

/// A [`Network`] in memory. Clones share everything.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

impl MemoryNetwork {
    /// Breaks every connection that there is.
    pub fn break_all(&self) {
        self.each(|flow| flow.broken = true);
    }

    /// From now on nothing arrives on the connections that there are, and nobody is told.
    pub fn freeze_all(&self) {
        self.each(|flow| flow.frozen = true);
    }

    /// Each direction of the connections that there are breaks after `bytes` more bytes.
    pub fn break_all_after(&self, bytes: usize) {
        self.each(|flow| flow.breaks_after = Some(bytes));
    }

    /// Connections ever made.
    pub fn connected(&self) -> usize {
        lock(&self.state).connected
    }

    /// Bytes that are on their way.
    pub fn under_way(&self) -> usize {
        self.pipes().iter().map(|pipe| lock(&pipe.flow).bytes).sum()
    }

    fn pipes(&self) -> Vec<Arc<Pipe>> {
        lock(&self.state).pipes.iter().filter_map(Weak::upgrade).collect()
    }

    fn each(&self, change: impl Fn(&mut Flow)) {
        for pipe in self.pipes() {
            pipe.change(&change);
        }
    }
}

impl Network for MemoryNetwork {
    fn listen<'a>(&'a self, at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut state = lock(&self.state);
            let local = match at.0.strip_suffix(":0") {
                Some(host) => {
                    state.next_port += 1;
                    Endpoint::from(format!("{host}:{}", state.next_port))
                }
                None => at.clone(),
            };
            let waiting = Arc::new(Waiting::default());
            if state.listeners.insert(local.clone(), waiting.clone()).is_some() {
                return Err(ErrorKind::AddrInUse.into());
            }
            let listening = Listening { state: self.state.clone(), local, waiting };
            Ok(Box::new(listening) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let mut state = lock(&self.state);
            let Some(waiting) = state.listeners.get(to).cloned() else {
                return Err(ErrorKind::ConnectionRefused.into());
            };
            let (there, back) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
            state.pipes.retain(|pipe| pipe.strong_count() > 0);
            state.pipes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
            state.connected += 1;
            let end = |reader: &Arc<Pipe>, writer: &Arc<Pipe>| Connection {
                reader: Box::new(Reader(reader.clone())),
                writer: Box::new(Writer(writer.clone())),
                peer: to.clone(),
            };
            lock(&waiting.backlog).push_back(end(&there, &back));
            waiting.news.notify_one();
            Ok(end(&back, &there))
        })
    }
}

struct Listening {
    state: Arc<Mutex<State>>,
    local: Endpoint,
    waiting: Arc<Waiting>,
}

impl Listener for Listening {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            loop {
                if let Some(connection) = lock(&self.waiting.backlog).pop_front() {
                    return Ok(connection);
                }
                self.waiting.news.notified().await;
            }
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.state).listeners.remove(&self.local);
    }
}

struct Reader(Arc<Pipe>);

impl Reader {
    fn take(&self, into: &mut BytesMut) -> Option<io::Result<usize>> {
        let mut flow = lock(&self.0.flow);
        if flow.broken {
            return Some(Err(ErrorKind::ConnectionReset.into()));
        }
        if flow.frozen || (flow.chunks.is_empty() && !flow.ended) {
            return None;
        }
        if into.capacity() == into.len() {
            into.reserve(READ_DEFAULT);
        }
        let mut room = into.capacity() - into.len();
        if let Some(left) = flow.breaks_after {
            room = room.min(left);
            flow.broken = room == 0;
        }
        let mut taken = 0;
        while room > taken
            && let Some(chunk) = flow.chunks.front_mut()
        {
            let piece = chunk.len().min(room - taken);
            into.extend_from_slice(&chunk[..piece]);
            chunk.advance(piece);
            if chunk.is_empty() {
                flow.chunks.pop_front();
            }
            taken += piece;
        }
        flow.bytes -= taken;
        if let Some(left) = &mut flow.breaks_after {
            *left -= taken;
        }
        if flow.broken {
            return Some(Err(ErrorKind::ConnectionReset.into()));
        }
        Some(Ok(taken))
    }
}

impl ByteReader for Reader {
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            loop {
                let news = self.0.news.notified();
                if let Some(read) = self.take(into) {
                    self.0.news.notify_waiters();
                    return read;
                }
                news.await;
            }
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.change(|flow| flow.broken |= !flow.frozen);
    }
}

struct Writer(Arc<Pipe>);

impl ByteWriter for Writer {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
                loop {
                    let news = self.0.news.notified();
                    {
                        let mut flow = lock(&self.0.flow);
                        if flow.broken {
                            return Err(ErrorKind::BrokenPipe.into());
                        }
                        if flow.bytes < WINDOW_BYTES {
                            flow.bytes += chunk.len();
                            flow.chunks.push_back(chunk);
                            break;
                        }
                    }
                    news.await;
                }
                self.0.news.notify_waiters();
            }
            Ok(())
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.0.change(|flow| flow.ended = true);
            Ok(())
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.change(|flow| flow.ended = true);
    }
}
