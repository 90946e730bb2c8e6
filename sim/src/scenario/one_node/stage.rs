//! What the clients of a run share: the history, the phase of the play, a connection to the node.

use super::history::{Deliveries, StreamHistory};
use super::rawlog::RawLog;
use super::tables::TableLog;
use crate::report::Outcome;
use crate::world::executor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_client::Client;
use tokio::select;
use tokio::sync::watch;

/// How far the play has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Clients work, the nemesis strikes.
    Open,
    /// Nothing fails any more: clients finish what they have begun.
    Closing,
    /// Everything has been read back.
    Judged,
    /// Whoever is not done now is stuck.
    Over,
}

/// What everybody writes to.
pub(super) struct Shared {
    /// The verdict so far.
    pub(super) out: Outcome,
    /// The streams.
    pub(super) streams: Vec<StreamHistory>,
    /// Segments that are used by the wire's own commands.
    pub(super) raws: Vec<RawLog>,
    /// Tables.
    pub(super) tables: Vec<TableLog>,
    /// Of each stream, what the final read has found.
    pub(super) found: Vec<Deliveries>,
}

/// Who is at work, by what they do.
type Crew = BTreeMap<&'static str, usize>;

/// A client's place in the play. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stage {
    shared: Arc<Mutex<Shared>>,
    phase: watch::Receiver<Phase>,
    crew: Arc<watch::Sender<Crew>>,
    /// The client's host.
    pub(super) env: Env,
    /// The native client.
    pub(super) client: Client,
}

impl Stage {
    /// The place of a client on its host.
    pub(super) fn new(play: &Play, env: Env, client: Client) -> Self {
        Self {
            shared: Arc::clone(&play.shared),
            phase: play.phase.subscribe(),
            crew: Arc::clone(&play.crew),
            env,
            client,
        }
    }

    /// Looks at what is shared.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds to a figure.
    pub(super) fn count(&self, name: &'static str, by: u64) {
        self.with(|shared| shared.out.add(name, by));
    }

    /// Runs `part` as one of the crew.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        self.crew.send_modify(|crew| *crew.entry(name).or_default() += 1);
        let crew = Arc::clone(&self.crew);
        let part = async move {
            part.await;
            crew.send_modify(|crew| {
                if let Some(count) = crew.get_mut(name) {
                    *count -= 1;
                }
            });
        };
        self.env.spawn.spawn(name, Box::pin(part));
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// True when nothing new is to be begun.
    pub(super) fn is_closing(&self) -> bool {
        self.phase() > Phase::Open
    }

    /// Waits, but not beyond the opening.
    pub(super) async fn pause(&self, by: Duration) {
        let mut phase = self.phase.clone();
        select! {
            biased;
            _ = phase.wait_for(|phase| *phase > Phase::Open) => {}
            () = executor::sleep(by) => {}
        }
    }

    /// Waits until the next phase.
    pub(super) async fn news(&mut self) {
        if self.phase.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// True if a reading that goes on has met all that the final one has found, or never will.
    pub(super) fn has_followed(&self, stream: usize, deliveries: &Deliveries) -> bool {
        if self.phase() == Phase::Over {
            self.lacks(stream, deliveries);
            return true;
        }
        self.phase() == Phase::Judged
            && self.with(|shared| deliveries.lacks(&shared.found[stream]).next().is_none())
    }

    /// Complains about what a reading that ends has not met.
    pub(super) fn lacks(&self, stream: usize, deliveries: &Deliveries) {
        self.with(|shared| {
            let Some(found) = shared.found.get(stream) else { return };
            let name = &shared.streams[stream].name;
            for id in deliveries.lacks(found).take(3) {
                shared.out.violate("I13", format!("{name}: a follower never got event {id:?}"));
            }
        });
    }
}

/// The play as its director sees it.
pub(super) struct Play {
    shared: Arc<Mutex<Shared>>,
    phase: watch::Sender<Phase>,
    crew: Arc<watch::Sender<Crew>>,
    clients: Mutex<Vec<String>>,
}

impl Play {
    /// Before anything has happened.
    pub(super) fn new(streams: Vec<StreamHistory>) -> Self {
        let shared = Shared {
            out: Outcome::default(),
            streams,
            raws: Vec::new(),
            tables: Vec::new(),
            found: Vec::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            phase: watch::Sender::new(Phase::Open),
            crew: Arc::default(),
            clients: Mutex::default(),
        }
    }

    /// Looks at what is shared.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the host of a client.
    pub(super) fn add_client(&self, host: &str) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(host.to_owned());
    }

    /// The hosts of all clients so far.
    pub(super) fn clients(&self) -> Vec<String> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins the next phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until no more than `left` of the crew are at work. Says who is if they are not done within `limit`.
    pub(super) async fn crew_is(&self, left: usize, limit: Duration) -> Result<(), String> {
        let mut crew = self.crew.subscribe();
        let done = crew.wait_for(|crew| crew.values().sum::<usize>() <= left);
        if executor::timeout(limit, done).await.is_some() {
            return Ok(());
        }
        let at_work = self.crew.borrow().clone();
        let names = at_work.iter().filter(|(_, count)| **count > 0);
        Err(names.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "))
    }

    /// The verdict.
    pub(super) fn end(self) -> Outcome {
        std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).out)
    }
}
