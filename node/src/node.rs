//! The wiring itself.

use crate::config::Config;
use crate::error::{Ended, StartError};
use crate::segments::{LocalSegments, Serving};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::{Connection, Listener};
use thalweg_controller::{Controller, service};
use thalweg_log::engine::Engine;
use thalweg_log::local::{LocalLogs, LocalMetadataLog, Owner};
use thalweg_log::storage::Storage;
use thalweg_segment::connection::{Connections, Containers};
use thalweg_segment::container::Replayed;
use thalweg_segment::store::SegmentStore;
use thalweg_types::id::Incarnation;
use tokio::select;
use tokio::sync::watch;

/// How long a stopping node waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// The owner's session with the controller: with one voter in the same process there is only this one.
const SESSION: u64 = 1;
/// How long the listener for the native protocol waits after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a start found and how long it took.
#[derive(Clone, Debug, Default)]
pub struct StartReport {
    /// How often the data folder has been mounted, this time included. 1: it is new.
    pub mounts: u64,
    /// Damages of the log that do not hinder the start, each with file and offset.
    pub damages: Vec<String>,
    /// All containers together.
    pub replayed: Replayed,
    /// From the call until everything had recovered.
    pub took: Duration,
}

/// A running node. It opens no port: [`Node::serve_segments`] and [`Node::serve_controller`] take listeners.
pub struct Node {
    env: Env,
    engine: Arc<Engine>,
    controller: Controller,
    store: Arc<SegmentStore>,
    connections: Arc<Connections>,
}

impl Node {
    /// Mounts the folder of `env`, or makes a new storage in it, and starts everything that stands on it. The caller
    /// has locked the folder. A crash in the middle leaves it to the next start.
    pub async fn start(env: Env, config: Config) -> Result<(Self, StartReport), StartError> {
        let began = env.clock.now();
        let Config { segment_store, controller, rpc_deadline, watermark_period, log, store } =
            config;
        let host = log.node;
        let engine = Engine::open(env.clone(), log).await?;
        let storage = Arc::clone(&engine) as Arc<dyn Storage>;
        let incarnation = Incarnation(u64::try_from(env.entropy.draw() >> 64).expect("64 bits"));
        let commands = LocalMetadataLog::open(Arc::clone(&storage), incarnation)
            .await
            .map_err(StartError::ControllerLog)?;
        let (serve, serving) = watch::channel(None);
        let segments = Arc::new(LocalSegments::new(serving));
        let config = thalweg_controller::Config {
            segment_store,
            controllers: vec![controller],
            rpc_deadline,
            watermark_period,
        };
        let controller = Controller::start(env.clone(), commands, segments, config)?;
        let owner = Owner { host, session: SESSION, incarnation };
        let register = Arc::new(controller.clone());
        let logs = LocalLogs::start(
            Arc::clone(&env.clock),
            env.spawn.as_ref(),
            Arc::clone(&storage),
            register,
            owner,
        );
        let (store, started) = SegmentStore::start(&env, logs, store).await?;
        let connections = store.connections();
        let containers = Arc::clone(&store) as Arc<dyn Containers>;
        serve.send_replace(Some(Serving {
            connections: Arc::clone(&connections),
            containers,
            storage: Arc::clone(&storage),
        }));
        let report = StartReport {
            mounts: storage.mount_seq(),
            damages: storage.recovered().damages.clone(),
            replayed: started.total(),
            took: env.clock.now().since(began),
        };
        Ok((Self { env, engine, controller, store, connections }, report))
    }

    /// The controller of this process.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The containers of this process.
    pub fn store(&self) -> &Arc<SegmentStore> {
        &self.store
    }

    /// The disk log of this process.
    pub fn log(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The connections of segment-store clients.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Why appends wait for now (a full disk), if they do.
    pub fn held(&self) -> Option<Arc<str>> {
        self.engine.progress().borrow().held.clone().or_else(|| self.store.held())
    }

    /// Accepts segment-store clients at `listener` until the node stops.
    pub fn serve_segments(&self, listener: Box<dyn Listener>) {
        let listen = Arc::clone(&self.connections).listen(listener);
        self.env.spawn.spawn("segment listener", Box::pin(listen));
    }

    /// Accepts clients of the controller's native protocol at `listener` until the node stops.
    pub fn serve_controller(&self, listener: Box<dyn Listener>) {
        let accepting = accept(self.env.clone(), self.controller.clone(), listener);
        self.env.spawn.spawn("controller listener", Box::pin(accepting));
    }

    /// Waits until any part has ended, and says which and why. The process must then end.
    pub async fn ended(&self) -> Ended {
        let mut progress = self.engine.progress();
        let disk = async {
            match progress.wait_for(|now| now.stopped.is_some()).await {
                Ok(now) => now.stopped.clone().unwrap_or_else(|| "stopped".into()),
                Err(_) => "its task has ended".into(),
            }
        };
        // A failed disk ends the others too: it comes first.
        select! {
            biased;
            reason = disk => Ended::Disk(reason),
            reason = self.store.stopped() => self.disk_or(Ended::Container(reason)),
            ended = self.controller.ended() => self.disk_or(Ended::Controller(ended.reason)),
        }
    }

    fn disk_or(&self, other: Ended) -> Ended {
        let stopped = self.engine.progress().borrow().stopped.clone();
        stopped.map_or(other, Ended::Disk)
    }

    /// Stops in order: connections get the answers they are owed, containers log what was asked, the disk log is marked
    /// as cleanly stopped. What takes too long is cut off, as by a kill: the next start replays it.
    pub async fn stop(self) {
        let deadline = self.env.clock.now().after(DRAIN_MAX);
        let stopped = async {
            self.connections.stop();
            self.store.shutdown().await;
            self.controller.stop("the node stops");
            self.engine.shutdown().await;
        };
        select! {
            biased;
            () = stopped => {}
            () = self.env.clock.sleep_until(deadline) => {
                let seconds = DRAIN_MAX.as_secs();
                tracing::warn!(seconds, "stopping takes too long: the rest is left to the next start");
            }
        }
    }
}

async fn accept(env: Env, controller: Controller, mut listener: Box<dyn Listener>) {
    loop {
        let accepted = select! {
            biased;
            _ = controller.ended() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) => {
                let serve = serve(controller.clone(), connection);
                env.spawn.spawn("controller connection", Box::pin(serve));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                env.clock.sleep_until(env.clock.now().after(ACCEPT_PAUSE)).await;
            }
        }
    }
}

async fn serve(controller: Controller, connection: Connection) {
    if let Err(error) = service::serve(controller, connection).await {
        tracing::debug!(%error, "a connection to the controller ended");
    }
}
