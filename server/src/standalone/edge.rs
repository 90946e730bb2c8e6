//! The controller's port: gRPC and the native protocol, told apart by a connection's first byte.
//!
//! An HTTP/2 client begins with `PRI `, a native one with a record's magic number. Anything else is served as native
//! and ends at its first header, with one line in the log.

use crate::grpc;
use crate::os::tcp;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use thalweg_actor::clock::Clock;
use thalweg_actor::spawn::Spawn;
use thalweg_controller::Controller;
use thalweg_controller::service::{ServeError, serve};
use thalweg_segment::connection::Notices;
use thalweg_types::record::RECORD_MAGIC;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// What an HTTP/2 client sends first.
const HTTP2: u8 = b'P';
const _: () = assert!(RECORD_MAGIC.to_le_bytes()[0] != HTTP2);

/// How long a connection may say nothing at all before it is closed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A quiet gRPC client is pinged this often…
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// …and given up when it does not answer for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls of one gRPC connection that are under way at once.
const STREAMS_MAX: u32 = 256;
/// How long calls that are under way may take when the node stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// The pause after a failed accept: too many open files do not get fewer by asking again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The port's connections.
pub(super) struct Edge {
    controller: Controller,
    grpc: grpc::Server,
    spawn: Arc<dyn Spawn>,
    notices: Notices,
    open: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Edge {
    /// No connections yet.
    pub(super) fn new(
        controller: Controller,
        clock: Arc<dyn Clock>,
        spawn: Arc<dyn Spawn>,
    ) -> Arc<Self> {
        let grpc = grpc::service(controller.clone());
        let (notices, open) = (Notices::new(clock), AtomicUsize::new(0));
        Arc::new(Self { controller, grpc, spawn, notices, open, stop: watch::Sender::new(false) })
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Accepts connections until [`Edge::stop`].
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut stop = self.stop.subscribe();
        loop {
            let accepted = select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let serve = Arc::clone(&self).serve(stream);
                    self.spawn.spawn("controller connection", Box::pin(serve));
                }
                Err(error) => {
                    self.notices.say(|| format!("cannot accept a connection: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Ends the listener and, behind what is under way, all connections. Returns at once.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns when no connection is open any more, or when those that are have had their time.
    pub(super) async fn drained(&self) {
        let drained = async {
            while self.open() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // What is left has been told to go and did not.
        let _ = timeout(FAREWELL, drained).await;
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.serve_by_first_byte(stream).await;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn serve_by_first_byte(&self, stream: TcpStream) {
        let mut stop = self.stop.subscribe();
        let mut first = [0];
        let peeked = select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            peeked = timeout(SILENCE_MAX, stream.peek(&mut first)) => peeked,
        };
        // A client that said nothing, or has gone.
        let Ok(Ok(1..)) = peeked else { return };
        if first[0] == HTTP2 {
            self.serve_grpc(stream, stop).await;
        } else {
            self.serve_native(stream, stop).await;
        }
    }

    async fn serve_grpc(&self, stream: TcpStream, mut stop: watch::Receiver<bool>) {
        if let Err(error) = tcp::tune(&stream) {
            return tracing::debug!(%error, "a connection cannot be tuned");
        }
        let peer = stream.peer_addr();
        let connection = http2::Builder::new(Actors(Arc::clone(&self.spawn)))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.grpc.clone()));
        let mut connection = pin!(connection);
        let ended = select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        };
        let Err(error) = ended else { return };
        if error.source().is_some_and(<dyn Error>::is::<io::Error>) {
            return tracing::debug!(%error, "a client has gone");
        }
        let peer = peer.map_or_else(|_| "?".to_owned(), |peer| peer.to_string());
        let why = error.source().map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
        self.notices.say(|| format!("connection from {peer} closed: {why}"));
    }

    async fn serve_native(&self, stream: TcpStream, mut stop: watch::Receiver<bool>) {
        let connection = match tcp::connection(stream) {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%error, "a connection cannot be tuned"),
        };
        let ended = select! {
            biased;
            ended = serve(self.controller.clone(), connection) => ended,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match ended {
            Ok(()) => {}
            Err(error @ ServeError::Broken { .. }) => tracing::debug!(%error, "a client has gone"),
            Err(error) => self.notices.say(|| error.to_string()),
        }
    }
}

/// Runs the calls of gRPC connections as actors: a bug in one ends the process like any other.
#[derive(Clone)]
struct Actors(Arc<dyn Spawn>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Actors {
    fn execute(&self, call: F) {
        self.0.spawn("grpc call", Box::pin(call));
    }
}
