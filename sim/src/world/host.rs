//! A machine with a disk, a network address and at most one process.

use super::clock::{SimClock, WallOffset};
use super::disk::SimDisk;
use super::entropy::SimEntropy;
use super::executor::Process;
use super::network::SimNetwork;
use super::rng::Salt;
use super::trace::trace;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_actor::env::Env;
use thalweg_actor::spawn::{Spawn, Task};

/// A host as the harness holds it. The disk outlives processes.
pub(crate) struct Host {
    /// Its name, also its network address.
    pub(crate) name: String,
    /// Its disk.
    pub(crate) disk: SimDisk,
    network: SimNetwork,
    wall: WallOffset,
    salt: Salt,
    processes: u64,
    running: Option<Arc<Process>>,
}

struct SimSpawn(Arc<Process>);

impl Spawn for SimSpawn {
    fn spawn(&self, _name: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        self.0.spawn(actor)
    }
}

impl Host {
    /// A host with an empty disk of `capacity` bytes, switched on, running nothing.
    pub(crate) fn new(name: &str, capacity: u64, network: &SimNetwork, salt: Salt) -> Self {
        let salt = salt.of("host").of(name);
        Self {
            name: name.to_owned(),
            disk: SimDisk::new(name, capacity, salt),
            network: network.clone(),
            wall: WallOffset::default(),
            salt,
            processes: 0,
            running: None,
        }
    }

    /// Starts a process and returns its world. The host MUST NOT be running one.
    pub(crate) fn boot(&mut self) -> Env {
        assert!(self.running.is_none(), "{} runs a process", self.name);
        self.processes += 1;
        trace!("{} starts process {}", self.name, self.processes);
        self.network.power_on(&self.name);
        let salt = self.salt.of("process").at(self.processes);
        let process = Arc::new(Process::start(&format!("{}/{}", self.name, self.processes)));
        self.running = Some(Arc::clone(&process));
        Env {
            network: self.network.attach(&self.name, self.processes),
            disk: self.disk.mount(),
            clock: Arc::new(SimClock::new(&mut salt.of("clock").rng(), self.wall.clone())),
            entropy: Arc::new(SimEntropy::new(salt.of("entropy"))),
            spawn: Arc::new(SimSpawn(process)),
        }
    }

    /// The host's wall clock.
    pub(crate) fn wall(&self) -> &WallOffset {
        &self.wall
    }

    /// Stops the process, if there is one, as a debugger or a stalled machine does: nothing is lost, nothing moves.
    pub(crate) fn pause(&self) {
        if let Some(process) = &self.running {
            trace!("{} is paused", self.name);
            process.pause();
        }
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        if let Some(process) = &self.running {
            trace!("{} goes on", self.name);
            process.resume();
        }
    }

    /// Kills the process, if there is one: the page cache stays, the system closes its connections.
    pub(crate) async fn kill(&mut self) {
        let Some(process) = self.running.take() else { return };
        trace!("{} is killed", self.name);
        self.network.process_ended(&self.name);
        self.disk.process_ended();
        process.kill().await;
    }

    /// Cuts the power: what was not synced may be lost, connections fall silent. Also of a host without a process,
    /// whose page cache may hold what an earlier one wrote.
    pub(crate) async fn cut_power(&mut self) {
        trace!("{} loses power", self.name);
        self.network.power_lost(&self.name);
        self.disk.power_lost();
        if let Some(process) = self.running.take() {
            process.kill().await;
        }
    }
}
