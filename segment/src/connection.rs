//! Client connections: from bytes to requests, and from answers to bytes.
//!
//! Each connection is one actor. It greets, echoes keep-alives, assembles blocks of appends, remembers which segment
//! each writer was set up on, and forwards everything else to the container that holds the segment. What a request
//! means is decided there; answers come back through the connection's own queue, in any order but that of one writer's
//! appends.
//!
//! A connection never makes its server grow: it is not read while too many bytes of its appends are under way, it is
//! closed when too many bytes of answers wait for it, and garbage ends it at its first 8 bytes. Whatever ends it,
//! answers that are due are sent first, within reason.
//!
//! Not here: the meaning of requests and the fate of appends (containers), which container is where (the caller's
//! [`Containers`]). Source: design notes on Pravega's protocol (framing, append blocks, close rules).

mod blocks;
mod input;
mod notice;
mod output;
mod receive;
#[cfg(test)]
mod tests;

use crate::request::{ConnectionId, Replies, Request, What, replies};
pub(crate) use input::target;
use input::{Ending, Input};
pub use notice::Notices;
use output::Written;
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use thalweg_actor::clock::Clock;
use thalweg_actor::env::Env;
use thalweg_actor::network::{Connection, Listener};
use thalweg_actor::spawn::Spawn;
use thalweg_actor::{BoxFuture, probe};
use thalweg_types::id::ContainerId;
use thiserror::Error;
use tokio::select;
use tokio::sync::watch;

/// How long a connection that has ended waits for answers that are still due.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the listener waits after a failed accept: too many open files do not get fewer by asking again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Why a container did not take a request. The request has had no effect.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// The container runs elsewhere, or nowhere: the client asks the controller again.
    #[error("the container is not here")]
    NotHere,
    /// The container runs here but has stopped: the client reconnects.
    #[error("the container has stopped")]
    Stopped,
}

/// The containers that this process serves.
pub trait Containers: Send + Sync {
    /// How many containers segments are spread over.
    fn count(&self) -> u32;

    /// Hands `request` to a container, behind all earlier ones of the same connection. May wait while the container
    /// has too much to do: the connection is then not read. Dropping the future leaves it open whether the request was
    /// taken.
    fn submit(&self, to: ContainerId, request: Request) -> BoxFuture<'_, Result<(), SubmitError>>;
}

/// All connections of a process. Cheap to share; ends with [`Connections::stop`].
pub struct Connections {
    clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    containers: Arc<dyn Containers>,
    next_id: AtomicU64,
    open: AtomicUsize,
    stop: watch::Sender<bool>,
    notices: Notices,
}

impl Connections {
    /// Connections to `containers`, none yet.
    pub fn new(env: &Env, containers: Arc<dyn Containers>) -> Arc<Self> {
        Self::with(env.clock.clone(), env.spawn.clone(), containers)
    }

    pub(crate) fn with(
        clock: Arc<dyn Clock>,
        spawn: Arc<dyn Spawn>,
        containers: Arc<dyn Containers>,
    ) -> Arc<Self> {
        let notices = Notices::new(clock.clone());
        Arc::new(Self {
            clock,
            spawn,
            containers,
            next_id: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            notices,
        })
    }

    /// A number for a connection, or for a caller inside this process. Never given twice.
    pub fn next_id(&self) -> ConnectionId {
        ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Accepts connections until [`Connections::stop`]. An attempt that fails is noted and does not end it.
    pub async fn listen(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(connection) => {
                    let serve = Arc::clone(&self).serve(connection);
                    self.spawn.spawn("segment connection", Box::pin(serve));
                }
                Err(error) => {
                    probe!("connection: accept failed");
                    self.notices.say(|| format!("cannot accept a connection: {error}"));
                    self.clock.sleep_until(self.clock.now().after(ACCEPT_PAUSE)).await;
                }
            }
        }
    }

    /// Ends all connections, each behind the answers it is owed, and all listeners. Returns at once.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, connection: Connection) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let Connection { reader, writer, peer } = connection;
        let (replies, outbox) = replies();
        let mut session = Session {
            id: self.next_id(),
            replies,
            containers: Arc::clone(&self.containers),
            touched: BTreeSet::new(),
        };
        let mut write = pin!(output::write(outbox, writer));
        let mut stop = self.stop.subscribe();
        let (written, ending) = {
            let mut read = pin!(Input::new(reader).read(&mut session));
            select! {
                biased;
                written = &mut write => (Some(written), None),
                _ = stop.wait_for(|stop| *stop) => (None, None),
                ending = &mut read => (None, Some(ending)),
            }
        };
        if let Some(Ending::Bad(reason)) = &ending {
            self.notices.say(|| format!("connection from {peer} closed: {reason}"));
        }
        session.end().await;
        let written = match written {
            Some(written) => written,
            None => self.say_farewell(write.as_mut()).await,
        };
        if let Written::Closed(reason) = written {
            self.notices.say(|| format!("connection from {peer} closed: {reason}"));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Lets answers that are due leave. Nobody reads the connection any more.
    async fn say_farewell(
        &self,
        write: Pin<&mut (impl Future<Output = Written> + Send)>,
    ) -> Written {
        select! {
            biased;
            written = write => written,
            () = self.clock.sleep_until(self.clock.now().after(FAREWELL)) => Written::Gone,
        }
    }
}

/// What a connection needs to have something done.
struct Session {
    id: ConnectionId,
    replies: Replies,
    containers: Arc<dyn Containers>,
    /// Containers that know this connection and must hear of its end.
    touched: BTreeSet<ContainerId>,
}

impl Session {
    async fn submit(&mut self, to: ContainerId, what: What) -> Result<(), SubmitError> {
        self.touched.insert(to);
        // Here the socket waits while too much of this connection is under way.
        self.replies.charge(what.bytes()).await;
        let request = Request { connection: self.id, replies: self.replies.clone(), what };
        self.containers.submit(to, request).await
    }

    /// Tells every container that asked about it; then only answers still due hold the queue open.
    async fn end(mut self) {
        for container in std::mem::take(&mut self.touched) {
            // A container that has stopped forgets its connections anyway.
            let _ = self.submit(container, What::ConnectionClosed).await;
        }
    }
}
