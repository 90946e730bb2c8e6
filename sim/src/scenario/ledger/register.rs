//! The register that all processes share: delays, requests and replies that get lost, requests that come late.
//!
//! A request that has been sent may be applied long after its sender gave it up, and again when it is sent again.

use super::history::{History, name};
use crate::world::executor::{self, Process};
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::{BoxFuture, planted};
use thalweg_log::mounts::{Mount, MountReply, MountTable, Mounts, Standing};
use thalweg_log::register::{
    ContainerLog, Register, RegisterCommand, RegisterReply, RegisterUnavailable, Registers,
};
use thalweg_log::repair::{Listing, Overview};
use thalweg_types::id::{ContainerId, Epoch, NodeId, ReplicaId, StorageUuid};

/// How the way to the register behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegisterFaults {
    /// Lowest and highest delay one way, in microseconds.
    pub(super) delay_us: (u64, u64),
    /// Requests that never arrive.
    pub(super) lost_requests_percent: u32,
    /// Replies that never arrive.
    pub(super) lost_replies_percent: u32,
    /// Requests that arrive when their sender has given up.
    pub(super) late_percent: u32,
}

impl Default for RegisterFaults {
    fn default() -> Self {
        Self {
            delay_us: (50, 500),
            lost_requests_percent: 0,
            lost_replies_percent: 0,
            late_percent: 0,
        }
    }
}

struct State {
    registers: Registers,
    mounts: MountTable,
    /// How often anything was changed.
    version: u64,
    rng: Rng,
    faults: RegisterFaults,
    /// Hosts that cannot reach it.
    cut: BTreeSet<String>,
}

/// The register as the harness holds it.
pub(super) struct SimRegister {
    state: Mutex<State>,
    history: Arc<Mutex<History>>,
    /// Where late requests are delivered: no process's end takes them back.
    way: Process,
}

/// What happens to a request.
enum Fate {
    Answered,
    RequestLost,
    ReplyLost,
    Late(Duration),
}

impl SimRegister {
    /// A register that nobody has asked anything.
    pub(super) fn new(history: &Arc<Mutex<History>>, rng: Rng) -> Arc<Self> {
        let state = State {
            registers: Registers::default(),
            mounts: MountTable::default(),
            version: 0,
            rng,
            faults: RegisterFaults::default(),
            cut: BTreeSet::new(),
        };
        let way = Process::start("register");
        Arc::new(Self { state: Mutex::new(state), history: Arc::clone(history), way })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the way to it behaves from now on.
    pub(super) fn set_faults(&self, faults: RegisterFaults) {
        self.lock().faults = faults;
    }

    /// Nothing passes between `host` and the register any more.
    pub(super) fn cut(&self, host: &str) {
        trace!("register: cut from {host}");
        self.lock().cut.insert(host.to_owned());
    }

    /// Every host reaches it again.
    pub(super) fn heal(&self) {
        self.lock().cut.clear();
    }

    /// The register of `container` as it stands.
    pub(super) fn get(&self, container: ContainerId) -> Option<ContainerLog> {
        self.lock().registers.get(container).cloned()
    }

    /// The storages that are lost.
    pub(super) fn lost(&self) -> Vec<ReplicaId> {
        self.lock().mounts.lost().collect()
    }

    /// The way of a process of `host` to the register.
    pub(super) fn desk(self: &Arc<Self>, host: &str) -> Arc<Desk> {
        Arc::new(Desk { register: Arc::clone(self), host: host.to_owned() })
    }

    fn apply(&self, command: &RegisterCommand) -> RegisterReply {
        let mut state = self.lock();
        let before = state.registers.get(command.container).cloned();
        let epoch = before.as_ref().map_or(Epoch(0), |log| log.epoch);
        let container = command.container.0 as usize;
        let mut registers = state.registers.clone();
        let applied = AssertUnwindSafe(|| {
            let reply = registers.apply(command);
            (registers, reply)
        });
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok((registers, reply)) = panic::catch_unwind(applied) else {
            history.register_broke(container, &command.change, epoch);
            return RegisterReply::Stale { epoch, stage: None };
        };
        state.registers = registers;
        state.version += 1;
        let done = match &reply {
            RegisterReply::Done(_) => "done",
            RegisterReply::Stale { .. } => "stale",
            RegisterReply::Invalid { reason } => reason,
        };
        trace!("register: c{container} {}: {done}", name(&command.change));
        if let Some(after) = state.registers.get(command.container) {
            history.registered(container, &command.change, before.as_ref(), after);
        }
        reply
    }

    fn draw(&self, host: &str) -> (Duration, Fate) {
        let mut state = self.lock();
        let state = &mut *state;
        let (low, high) = state.faults.delay_us;
        let delay = state.rng.micros(low, high);
        let RegisterFaults { lost_requests_percent, lost_replies_percent, late_percent, .. } =
            state.faults;
        let fate = if state.cut.contains(host) || state.rng.percent(lost_requests_percent) {
            Fate::RequestLost
        } else if state.rng.percent(late_percent) {
            Fate::Late(state.rng.millis(5, 3_000))
        } else if state.rng.percent(lost_replies_percent) {
            Fate::ReplyLost
        } else {
            Fate::Answered
        };
        (delay, fate)
    }

    /// How long a sender waits for an answer that does not come.
    fn patience(&self) -> Duration {
        self.lock().rng.millis(5, 400)
    }
}

/// One process's way to the register.
pub(super) struct Desk {
    register: Arc<SimRegister>,
    host: String,
}

impl Desk {
    /// Asks for `wanted`, which takes effect once, later, or not at all; who asks may never know.
    async fn ask<T: Send + 'static>(
        &self,
        wanted: impl FnOnce(&SimRegister) -> T + Send + 'static,
    ) -> Result<T, RegisterUnavailable> {
        let (delay, fate) = self.register.draw(&self.host);
        executor::sleep(delay).await;
        let why = match fate {
            Fate::RequestLost => "no way to it",
            Fate::Late(by) => {
                let register = Arc::clone(&self.register);
                let late = async move {
                    executor::sleep(by).await;
                    wanted(&register);
                };
                drop(self.register.way.spawn(Box::pin(late)));
                "no answer"
            }
            Fate::ReplyLost => {
                wanted(&self.register);
                "no answer"
            }
            Fate::Answered => {
                let reply = wanted(&self.register);
                executor::sleep(delay).await;
                return Ok(reply);
            }
        };
        executor::sleep(self.register.patience()).await;
        Err(RegisterUnavailable { reason: why.into() })
    }
}

impl Register for Desk {
    fn submit(
        &self,
        command: RegisterCommand,
    ) -> BoxFuture<'_, Result<RegisterReply, RegisterUnavailable>> {
        Box::pin(self.ask(move |register| register.apply(&command)))
    }
}

impl Mounts for Desk {
    fn standing(
        &self,
        node: NodeId,
        storage: StorageUuid,
    ) -> BoxFuture<'_, Result<Standing, RegisterUnavailable>> {
        Box::pin(self.ask(move |register| {
            if planted!("PB-L14") || planted!("PB-L26") {
                return Standing::default();
            }
            register.lock().mounts.standing(node, storage)
        }))
    }

    fn mount(&self, mount: Mount) -> BoxFuture<'_, Result<MountReply, RegisterUnavailable>> {
        Box::pin(self.ask(move |register| {
            if planted!("PB-L14") || planted!("PB-L26") {
                return MountReply::Accepted; // Whoever relies on this check alone shall be seen.
            }
            let mut state = register.lock();
            let reply = state.mounts.apply(&mount);
            state.mounts.check();
            trace!("register: {mount:?}: {reply:?}");
            reply
        }))
    }

    fn epochs(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerId, Epoch>, RegisterUnavailable>> {
        Box::pin(self.ask(|register| {
            let state = register.lock();
            state.registers.iter().map(|log| (log.container, log.epoch)).collect()
        }))
    }
}

impl Overview for Desk {
    fn listing(&self) -> BoxFuture<'_, Result<Listing, RegisterUnavailable>> {
        Box::pin(self.ask(|register| {
            let state = register.lock();
            Listing {
                version: state.version,
                complete: true,
                logs: state.registers.iter().cloned().collect(),
                deleted: Vec::new(),
                lost: state.mounts.lost().collect(),
            }
        }))
    }
}
