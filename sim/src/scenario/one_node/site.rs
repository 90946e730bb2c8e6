//! The node under test: one host, its process, and what the harness does to it.

use crate::world::executor;
use crate::world::host::Host;
use crate::world::network::SimNetwork;
use crate::world::rng::Salt;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_log::engine::{self, Engine};
use thalweg_node::{Config, Ended, Node, StartError, StartReport};
use thalweg_segment::container::Tuning;
use thalweg_segment::store;
use thalweg_wire::controller::NodeUri;
use tokio::select;
use tokio::sync::oneshot;

/// The node's host.
pub(super) const HOST: &str = "node";
const CONTROLLER_PORT: u16 = 9_090;
const SEGMENTS_PORT: u16 = 12_345;
/// Bytes of an undisturbed disk.
pub(super) const CAPACITY: u64 = 256 << 20;

/// Where clients find the controller.
pub(super) fn controller() -> Endpoint {
    Endpoint::from(format!("{HOST}:{CONTROLLER_PORT}"))
}

/// Where clients find the segment store.
pub(super) fn segments() -> Endpoint {
    Endpoint::from(format!("{HOST}:{SEGMENTS_PORT}"))
}

/// Sizes so small that a short run meets every boundary.
fn config(salt: Salt) -> Config {
    let mut rng = salt.of("node config").rng();
    let uri = |port| NodeUri { host: HOST.to_owned(), port };
    let log = engine::Config::simulated(&mut salt.of("engine config").stream());
    let tuning = Tuning {
        frames_in_flight: rng.pick(&[1, 2, 6]),
        frame_bytes: rng.pick(&[2, 16, 256]) * 1_024,
        snapshot_log_bytes: rng.pick(&[8, 32, 128]) * 1_024,
        snapshot_entries: rng.pick(&[8, 64, 1_000]),
        snapshot_idle: Duration::from_millis(rng.pick(&[20, 200, 2_000])),
        event_read_held: Duration::from_millis(rng.pick(&[50, 1_000, 25_000])),
    };
    let cache_bytes = rng.pick(&[8, 64, 1_024]) * 1_024;
    let containers = rng.pick(&[1, 2, 4]);
    Config {
        log,
        store: store::Config { containers, cache_bytes, tuning },
        ..Config::production(uri(CONTROLLER_PORT), uri(SEGMENTS_PORT))
    }
}

/// A process that has started.
struct Process {
    stop: oneshot::Sender<()>,
    engine: Arc<Engine>,
    ended: oneshot::Receiver<Option<Ended>>,
}

/// How an attempt to start ended.
pub(super) enum Start {
    /// It runs.
    Up(StartReport),
    /// It refused.
    Refused(StartError),
    /// It was still starting when the time was over.
    Unfinished,
}

/// The node and its host.
pub(super) struct Site {
    /// Its machine.
    pub(super) host: Host,
    config: Config,
    process: Option<Process>,
}

impl Site {
    /// A host with an empty disk.
    pub(super) fn new(network: &SimNetwork, salt: Salt) -> Self {
        let host = Host::new(HOST, CAPACITY, network, salt);
        Self { host, config: config(salt), process: None }
    }

    /// Starts the node, and waits for it at most `limit`.
    pub(super) async fn start(&mut self, limit: Duration) -> Start {
        let env = self.host.boot();
        let (started, start) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let main = main(env.clone(), self.config.clone(), started, stopped, end);
        env.spawn.spawn("node", Box::pin(main));
        match executor::timeout(limit, start).await {
            Some(Ok(Ok((report, engine)))) => {
                self.process = Some(Process { stop, engine, ended });
                Start::Up(report)
            }
            Some(Ok(Err(error))) => Start::Refused(error),
            Some(Err(_)) => unreachable!("the node's main task answers before it ends"),
            None => Start::Unfinished,
        }
    }

    /// True while a started process has not been ended from outside.
    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Waits until the node ends by itself; for ever if it does not run.
    pub(super) async fn ended(&mut self) -> Ended {
        if let Some(process) = &mut self.process
            && let Ok(Some(ended)) = (&mut process.ended).await
        {
            self.process = None;
            return ended;
        }
        std::future::pending().await
    }

    /// Lets the disk log check its own invariants.
    fn check(&self) {
        if let Some(process) = &self.process {
            process.engine.check();
        }
    }

    /// Stops the node in order.
    pub(super) async fn stop(&mut self) {
        self.check();
        if let Some(process) = self.process.take() {
            // A process that has ended by itself listens no more.
            let _ended = process.stop.send(());
            let _why = process.ended.await;
        }
        self.host.kill().await;
    }

    /// Kills the process.
    pub(super) async fn kill(&mut self) {
        self.check();
        self.process = None;
        self.host.kill().await;
    }

    /// Cuts the power.
    pub(super) async fn cut_power(&mut self) {
        self.check();
        self.process = None;
        self.host.cut_power().await;
    }
}

type Started = Result<(StartReport, Arc<Engine>), StartError>;

async fn main(
    env: Env,
    config: Config,
    started: oneshot::Sender<Started>,
    stop: oneshot::Receiver<()>,
    end: oneshot::Sender<Option<Ended>>,
) {
    let (node, report) = match Node::start(env.clone(), config).await {
        Ok(node) => node,
        Err(error) => {
            let _gone = started.send(Err(error));
            return;
        }
    };
    let at = |port: u16| Endpoint::from(format!("{HOST}:{port}"));
    let listener = env.network.listen(&at(SEGMENTS_PORT)).await.expect("the port is free");
    node.serve_segments(listener);
    let listener = env.network.listen(&at(CONTROLLER_PORT)).await.expect("the port is free");
    node.serve_controller(listener);
    let _gone = started.send(Ok((report, Arc::clone(node.log()))));
    select! {
        biased;
        Ok(()) = stop => {
            node.stop().await;
            let _gone = end.send(None);
        }
        ended = node.ended() => {
            let _gone = end.send(Some(ended));
        }
    }
}
