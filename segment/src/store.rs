//! The segment store of one process: its containers, their cache, and the way in for requests.
//!
//! Each container is one task (`store/shell.rs`) around the machine in `container`. Containers start concurrently; the
//! store takes no request before all have recovered. A container whose log has stopped answers nothing any more; the
//! process decides what that means ([`SegmentStore::stopped`]).
//!
//! Not here: which containers belong to this process (all of them so far), and the connections themselves.

mod count;
mod load;
mod recover;
mod shell;
#[cfg(test)]
mod tests;

use crate::cache::Cache;
use crate::connection::{Connections, Containers, SubmitError, target};
use crate::container::{Acknowledged, RecoveryError, Replayed, Tuning};
use crate::request::{ConnectionId, Outgoing, Request, What, replies};
use count::Count;
use shell::Shell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::clock::Clock;
use thalweg_actor::env::Env;
use thalweg_actor::network::Listener;
use thalweg_actor::spawn::Spawn;
use thalweg_log::ledger::{Logs, OpenError, ReadError};
use thalweg_types::id::ContainerId;
use thalweg_types::limits::{CONTAINER_IN_FLIGHT_BYTES_MAX, CONTAINERS};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::Command;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Requests that may wait for one container; beyond it connections wait.
const QUEUE_MAX: usize = 1024;
/// Callers inside the process get numbers from here up; connections count from 0.
const FIRST_CALLER: u64 = 1 << 63;

/// What may be set about a store.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Containers, all of them in this process.
    pub containers: u32,
    /// Bytes of log payload kept in memory for readers, all containers together.
    pub cache_bytes: usize,
    /// What may be set about each container.
    pub tuning: Tuning,
}

impl Default for Config {
    fn default() -> Self {
        Self { containers: CONTAINERS, cache_bytes: 256 * 1024 * 1024, tuning: Tuning::default() }
    }
}

/// Why a store cannot start. Nothing has been changed or lost.
#[derive(Clone, Debug, Error)]
pub enum StartError {
    /// A container's log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A container's log cannot be read to its end.
    #[error("container {container}: {fault}")]
    Read {
        /// Which container.
        container: ContainerId,
        /// Where and why.
        fault: ReadError,
    },
    /// A container's state cannot be rebuilt from its log.
    #[error("container {container}: {fault}")]
    Recovery {
        /// Which container.
        container: ContainerId,
        /// Where and why.
        fault: RecoveryError,
    },
    /// A container's log ended before the container had started.
    #[error("container {container} has stopped: {reason}")]
    Stopped {
        /// Which container.
        container: ContainerId,
        /// Why.
        reason: Arc<str>,
    },
}

/// What a start found, container by container.
#[derive(Clone, Debug, Default)]
pub struct StartReport {
    /// What each container replayed, in the order of their numbers.
    pub containers: Vec<Replayed>,
    /// From the call to the last container's start.
    pub took: Duration,
}

impl StartReport {
    /// All containers together.
    pub fn total(&self) -> Replayed {
        self.containers.iter().fold(Replayed::default(), |sum, one| Replayed {
            entries: sum.entries + one.entries,
            bytes: sum.bytes + one.bytes,
            segments: sum.segments + one.segments,
            from_snapshot: sum.from_snapshot || one.from_snapshot,
        })
    }
}

/// How a container fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why its appends wait for now (a full disk). Reads go on.
    pub held: Option<Arc<str>>,
    /// Why it has ended. Final.
    pub stopped: Option<Arc<str>>,
    /// Segments that it holds.
    pub segments: usize,
}

/// A container as the store sees it.
struct Handle {
    queue: mpsc::Sender<Request>,
    /// Bytes of appends and table updates that may still come in.
    room: Arc<Semaphore>,
    health: watch::Receiver<Health>,
    count: Arc<Count>,
}

/// The containers of this process. Share it in an [`Arc`].
pub struct SegmentStore {
    clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    containers: Vec<Handle>,
    cache: Arc<Cache>,
    stop: watch::Sender<bool>,
    next_caller: AtomicU64,
}

impl SegmentStore {
    /// Opens and recovers every container, concurrently. An error of one is the store's; what the others did is
    /// undone by the next start.
    pub async fn start(
        env: &Env,
        logs: Arc<dyn Logs>,
        config: Config,
    ) -> Result<(Arc<Self>, StartReport), StartError> {
        Self::start_on(Arc::clone(&env.clock), Arc::clone(&env.spawn), logs, config).await
    }

    async fn start_on(
        clock: Arc<dyn Clock>,
        spawn: Arc<dyn Spawn>,
        logs: Arc<dyn Logs>,
        config: Config,
    ) -> Result<(Arc<Self>, StartReport), StartError> {
        let began = clock.now();
        let cache = Arc::new(Cache::new(config.cache_bytes));
        let stop = watch::Sender::new(false);
        let mut containers = Vec::new();
        let mut starts = Vec::new();
        for container in (0..config.containers).map(ContainerId) {
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            let room = Arc::new(Semaphore::new(CONTAINER_IN_FLIGHT_BYTES_MAX));
            let (report, health) = watch::channel(Health::default());
            let (started, start) = oneshot::channel();
            let count = Arc::new(Count::default());
            let shell = Shell {
                clock: Arc::clone(&clock),
                spawn: Arc::clone(&spawn),
                logs: Arc::clone(&logs),
                cache: Arc::clone(&cache),
                container,
                tuning: config.tuning,
                requests,
                room: Arc::clone(&room),
                health: report,
                count: Arc::clone(&count),
                stop: stop.subscribe(),
            };
            spawn.spawn("segment container", Box::pin(shell.run(started)));
            containers.push(Handle { queue, room, health, count });
            starts.push((container, start));
        }
        let mut report = StartReport::default();
        for (container, start) in starts {
            let reason = "its task ended before it had started";
            let gone = |_| StartError::Stopped { container, reason: reason.into() };
            report.containers.push(start.await.map_err(gone)??);
        }
        report.took = clock.now().since(began);
        let next_caller = AtomicU64::new(FIRST_CALLER);
        Ok((Arc::new(Self { clock, spawn, containers, cache, stop, next_caller }), report))
    }

    /// The container of a segment.
    pub fn container(&self, segment: &SegmentName) -> ContainerId {
        segment.container(self.count())
    }

    /// Asks on behalf of a caller inside this process. `None`: nobody can say what became of it, as with a broken
    /// connection.
    pub async fn call(&self, command: Command) -> Option<Command> {
        let connection = ConnectionId(self.next_caller.fetch_add(1, Ordering::Relaxed));
        let (replies, mut outbox) = replies();
        let to = self.container(target(&command)?.1);
        let keeps_something =
            matches!(command, Command::SetupAppend(_) | Command::CreateTransientSegment(_));
        let is_read = matches!(command, Command::ReadSegment(_));
        let what = What::Command(command);
        let request = Request { connection, replies: replies.clone(), what };
        self.submit(to, request).await.ok()?;
        let answer = match outbox.next().await {
            Some(Outgoing::Reply(answer)) => Some(answer),
            Some(Outgoing::Close(_)) | None => None,
        };
        if keeps_something || is_read || answer.is_none() {
            let what = What::ConnectionClosed;
            self.submit(to, Request { connection, replies, what }).await.ok()?;
        }
        answer
    }

    /// How each container fares, in the order of their numbers.
    pub fn health(&self) -> Vec<Health> {
        self.containers.iter().map(|handle| handle.health.borrow().clone()).collect()
    }

    /// Why appends wait for now, if they do anywhere: for a typed refusal to those who would rather not wait.
    pub fn held(&self) -> Option<Arc<str>> {
        self.containers.iter().find_map(|handle| handle.health.borrow().held.clone())
    }

    /// Waits until any container has ended, and says why. The process must not go on as if nothing had happened.
    pub async fn stopped(&self) -> Arc<str> {
        let mut healths: Vec<_> =
            self.containers.iter().map(|handle| handle.health.clone()).collect();
        let mut waits: Vec<BoxFuture<'_, Arc<str>>> = Vec::new();
        for health in &mut healths {
            waits.push(Box::pin(async move {
                match health.wait_for(|health| health.stopped.is_some()).await {
                    Ok(health) => health.stopped.clone().unwrap_or_else(|| "stopped".into()),
                    Err(_) => "a container's task has ended".into(),
                }
            }));
        }
        std::future::poll_fn(|context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                std::task::Poll::Ready(reason) => Some(reason),
                std::task::Poll::Pending => None,
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }

    /// Appends that have been acknowledged since the start, all containers together.
    pub fn acknowledged(&self) -> Acknowledged {
        self.containers.iter().fold(Acknowledged::default(), |sum, handle| {
            let one = handle.count.get();
            Acknowledged {
                blocks: sum.blocks + one.blocks,
                events: sum.events + one.events,
                bytes: sum.bytes + one.bytes,
            }
        })
    }

    /// Bytes of log payload in memory for readers.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The connections of this store: a listener may be given to them. They end with [`Connections::stop`].
    pub fn connections(self: &Arc<Self>) -> Arc<Connections> {
        let containers = Arc::clone(self) as Arc<dyn Containers>;
        Connections::with(Arc::clone(&self.clock), Arc::clone(&self.spawn), containers)
    }

    /// Accepts connections at `listener` until the returned connections are stopped.
    pub fn serve(self: &Arc<Self>, listener: Box<dyn Listener>) -> Arc<Connections> {
        let connections = self.connections();
        let listen = Arc::clone(&connections).listen(listener);
        self.spawn.spawn("segment listener", Box::pin(listen));
        connections
    }

    /// Ends every container: what was asked is logged and answered, held reads are answered with nothing. Connections
    /// are to be stopped first. Returns when nothing is under way any more.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        for handle in &self.containers {
            handle.queue.closed().await;
        }
    }
}

impl Containers for SegmentStore {
    fn count(&self) -> u32 {
        u32::try_from(self.containers.len()).expect("counted in 32 bits")
    }

    fn submit(&self, to: ContainerId, request: Request) -> BoxFuture<'_, Result<(), SubmitError>> {
        Box::pin(async move {
            let handle = self.containers.get(to.0 as usize).ok_or(SubmitError::NotHere)?;
            // Not forgotten before the request is in the queue: a caller that gives up takes nothing with it.
            let room = handle.room.acquire_many(room_for(request.what.bytes())).await;
            let slot = handle.queue.reserve().await.map_err(|_| SubmitError::Stopped)?;
            room.map_err(|_| SubmitError::Stopped)?.forget();
            slot.send(request);
            Ok(())
        })
    }
}

/// What a request of that many bytes takes of a container's room; never more than there is.
fn room_for(bytes: usize) -> u32 {
    u32::try_from(bytes.min(CONTAINER_IN_FLIGHT_BYTES_MAX)).expect("the room fits 32 bits")
}
