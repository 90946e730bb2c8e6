//! One ledger that this process writes: its writer, the ways to its members and the watch over them, behind one lock.
//!
//! Whoever holds the lock performs what the machines want. Events of connections are queued beside the lock and handled
//! by whoever can have it next, so that a connection's task never waits for it, and acks that arrive together are
//! counted together.
//!
//! Deliberately not here: everything that waits (the register, the watch's deadlines: `tend`).

use super::watch::{self, Watch};
use super::{Parts, Registered, member_is_healthy};
use crate::ledger::{Entry, Progress, Stopped};
use crate::links::{Lane, Link, LinkEvent, Sink};
use crate::local::describe;
use crate::message::{Reply, Request};
use crate::placement;
use crate::register::{Change, ContainerLog};
use crate::writer::{self, Distrust, StopReason, Writer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;
use thalweg_actor::machine::Machine as _;
use thalweg_actor::{buggify, planted, probe};
use thalweg_types::id::{Address, EntryId, LedgerId, ReplicaId};
use thalweg_types::time::Instant;
use tokio::sync::{Notify, watch as channel};

/// A ledger lives at least this long before its owner asks for a new epoch.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// The same where nothing can be committed otherwise.
const RENEW_BLOCKED: Duration = Duration::from_secs(5);
/// The same in simulation, now and then.
const RENEW_SOON: Duration = Duration::from_secs(2);
/// In simulation, now and then, entries of members that lack them are kept up to this many bytes.
const WINDOW_BYTES_SMALL: usize = 4096;

/// See the module's header.
pub(super) struct Running {
    id: LedgerId,
    parts: Arc<Parts>,
    began: Instant,
    /// No new epoch is asked for before, while entries are committed.
    renew_at: Instant,
    state: Mutex<State>,
    events: Mutex<VecDeque<(ReplicaId, LinkEvent)>>,
    /// Somebody has to look: a change for the register, a nearer deadline, or the end.
    pub(super) news: Arc<Notify>,
    me: Weak<Self>,
}

/// The way to one member.
struct Way {
    replica: ReplicaId,
    link: Box<dyn Link>,
    connected: bool,
    /// How many times its storage had been mounted when it was last heard of.
    mount_seq: u64,
}

struct State {
    writer: Writer,
    watch: Watch,
    ways: Vec<Way>,
    /// The register as it was last seen.
    log: Arc<ContainerLog>,
    /// Replicas that have been members: a run of this ledger is never begun there again.
    used: Vec<ReplicaId>,
    /// For the register.
    change: Option<Change>,
    progress: channel::Sender<Progress>,
    committed_end: EntryId,
    /// When `tend` will look next.
    look_at: Option<Instant>,
    effects: Vec<writer::Effect>,
    watch_effects: Vec<watch::Effect>,
    batch: VecDeque<(ReplicaId, LinkEvent)>,
}

impl Running {
    /// Begins the ledger that `log` ends in.
    pub(super) fn begin(parts: Arc<Parts>, log: Arc<ContainerLog>) -> Arc<Self> {
        let record = log.ledgers.last().expect("a close opens a ledger");
        let id = LedgerId { container: log.container, epoch: record.epoch };
        let incarnation = log.owner.expect("a recovery has an owner").incarnation;
        let ensemble = record.last_fragment().ensemble.clone();
        let writer = Writer::new(id, incarnation, record.quorum, &ensemble, log.keep_from);
        let small = buggify!("owner: small window");
        let window = if small { WINDOW_BYTES_SMALL } else { writer::WINDOW_BYTES_MAX };
        let hasty = buggify!("owner: renews soon");
        let state = State {
            writer: writer.with_window(window),
            watch: Watch::new(&ensemble),
            ways: Vec::with_capacity(ensemble.len() + 1),
            log,
            used: ensemble,
            change: None,
            progress: channel::channel(Progress::default()).0,
            committed_end: EntryId(0),
            look_at: None,
            effects: Vec::new(),
            watch_effects: Vec::new(),
            batch: VecDeque::new(),
        };
        let running = Arc::new_cyclic(|me| Self {
            id,
            began: parts.clock.now(),
            renew_at: parts.clock.now().after(if hasty { RENEW_SOON } else { RENEW_AFTER }),
            parts,
            state: Mutex::new(state),
            events: Mutex::default(),
            news: Arc::default(),
            me: me.clone(),
        });
        running.writer(writer::Input::Begin);
        running
    }

    pub(super) fn id(&self) -> LedgerId {
        self.id
    }

    pub(super) fn progress(&self) -> channel::Receiver<Progress> {
        self.lock().progress.subscribe()
    }

    /// The register as it was last seen.
    pub(super) fn log(&self) -> Arc<ContainerLog> {
        self.lock().log.clone()
    }

    /// Everything below is committed.
    pub(super) fn committed_end(&self) -> EntryId {
        self.lock().committed_end
    }

    pub(super) fn why_stopped(&self) -> Option<Stopped> {
        let state = self.lock();
        let reason = state.progress.borrow().stopped.clone();
        reason.map(|reason| Stopped { reason })
    }

    pub(super) fn append(&self, entry: Entry) -> Result<EntryId, Stopped> {
        self.with(|state, running, now| {
            if state.writer.stopped().is_some() {
                let reason = state.progress.borrow().stopped.clone();
                return Err(Stopped { reason: reason.expect("it is told when it stops") });
            }
            let number = state.writer.next();
            state.step(running, now, writer::Input::Submit(entry));
            let committed_end = state.writer.committed_end();
            state.look(running, now, watch::Input::Sent { end: number.next(), committed_end });
            Ok(number)
        })
    }

    /// Steps the writer.
    pub(super) fn writer(&self, input: writer::Input) {
        self.with(|state, running, now| state.step(running, now, input));
    }

    /// The outcome of the change that was submitted.
    pub(super) fn changed(&self, outcome: Registered) {
        self.with(|state, running, now| match outcome {
            Registered::Done(log) => {
                state.learn(Arc::from(log));
                state.step(running, now, writer::Input::Changed);
                state.forget_old(running, now);
            }
            Registered::Stale | Registered::Invalid(_) => {
                state.step(running, now, writer::Input::Stop(StopReason::Superseded));
            }
        });
    }

    /// The register has moved `keep_from`: tells the members.
    pub(super) fn kept(&self, log: Arc<ContainerLog>) {
        self.with(|state, running, now| {
            let keep_from = log.keep_from;
            state.learn(log);
            state.step(running, now, writer::Input::Kept { keep_from });
            for way in &state.ways {
                way.link.send(Request::Trim { keep_from });
            }
        });
    }

    /// Does what is due, and says when to come again. What has to go to the register comes with it.
    pub(super) fn tick(&self) -> (Option<Instant>, Option<Change>) {
        self.with(|state, running, now| {
            if state.watch.deadline().is_some_and(|at| at <= now) {
                state.look(running, now, watch::Input::Look);
            }
            state.look_at = state.watch.deadline();
            (state.look_at, state.change.take())
        })
    }

    /// Runs `act` under the lock, and then what connections have brought meanwhile.
    fn with<T>(&self, act: impl FnOnce(&mut State, &Self, Instant) -> T) -> T {
        let now = self.parts.clock.now();
        let mut state = self.lock();
        let result = act(&mut state, self, now);
        state.finish(self);
        drop(state);
        self.settle();
        result
    }

    /// Handles queued events unless somebody is at it: he will find them when he is done.
    fn settle(&self) {
        while !self.events().is_empty() {
            let mut state = match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let now = self.parts.clock.now();
            let mut batch = std::mem::take(&mut state.batch);
            std::mem::swap(&mut *self.events(), &mut batch);
            for (from, event) in batch.drain(..) {
                state.event(self, now, from, event);
            }
            state.batch = batch;
            state.finish(self);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<(ReplicaId, LinkEvent)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(Events(self.me.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.news.notify_one();
    }
}

/// Where the members' connections report to.
struct Events(Weak<Running>);

impl Sink for Events {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        if let Some(running) = self.0.upgrade() {
            running.events().push_back((from, event));
            running.settle();
        }
    }
}

impl State {
    fn event(&mut self, running: &Running, now: Instant, from: ReplicaId, event: LinkEvent) {
        match event {
            LinkEvent::Connected { mount_seq } => self.connected(running, now, from, mount_seq),
            LinkEvent::Reply(reply) => {
                let acked = match &reply {
                    Reply::Ack { ledger, end, .. } | Reply::Opened { ledger, end, .. } => {
                        (*ledger == running.id).then_some(*end)
                    }
                    Reply::Greeting { ledger, run: Some(run), .. } if *ledger == running.id => {
                        Some(run.end)
                    }
                    _ => None,
                };
                let was_full = acked.is_some() && self.writer.full().any(|full| full == from);
                self.step(running, now, writer::Input::Reply { from, reply });
                if let Some(end) = acked {
                    self.look(running, now, watch::Input::Acked { replica: from, end });
                }
                if was_full && !self.writer.full().any(|full| full == from) {
                    let room = watch::Input::Full { replica: from, full: false };
                    self.look(running, now, room);
                    self.announce_held();
                }
            }
            LinkEvent::Lost { reason } => {
                tracing::debug!(ledger = %running.id, replica = %from, %reason, "connection lost");
                if let Some(way) = self.ways.iter_mut().find(|way| way.replica == from) {
                    way.connected = false;
                }
            }
        }
    }

    fn connected(&mut self, running: &Running, now: Instant, from: ReplicaId, mount_seq: u64) {
        let Some(way) = self.ways.iter_mut().find(|way| way.replica == from) else { return };
        way.connected = true;
        let went_back = mount_seq < way.mount_seq;
        way.mount_seq = way.mount_seq.max(mount_seq);
        if went_back && !planted!("PB-L26") {
            // Its own start should have found that.
            let why = Distrust::RolledBack;
            self.step(running, now, writer::Input::Distrust { replica: from, why });
        }
        // It may have missed the last trim, and whatever has left the register with it.
        let keep_from = self.log.lowest();
        if keep_from > Address::default() {
            self.send(running, from, Request::Trim { keep_from });
        }
        self.step(running, now, writer::Input::Reconnected { replica: from });
    }

    /// Steps the writer and does what it wants.
    fn step(&mut self, running: &Running, now: Instant, input: writer::Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.writer.step(now, input, &mut effects);
        if cfg!(debug_assertions) {
            self.writer.check();
        }
        for effect in effects.drain(..) {
            match effect {
                writer::Effect::Send { to, request } => self.send(running, to, request),
                writer::Effect::Committed { end } => {
                    self.look(running, now, watch::Input::Committed { end });
                }
                writer::Effect::Register(change) => {
                    self.change = Some(change);
                    running.news.notify_one();
                }
                writer::Effect::Distrusted { replica, why } => {
                    tracing::warn!(ledger = %running.id, %replica, ?why, "a replica counts no more");
                    self.look(running, now, watch::Input::Unfit { replica });
                }
                writer::Effect::Full { replica } => {
                    tracing::warn!(ledger = %running.id, %replica, "a replica's disk is full");
                    self.look(running, now, watch::Input::Full { replica, full: true });
                    self.announce_held();
                }
                writer::Effect::Stopped(why) => self.stopped(running, why),
            }
        }
        self.effects = effects;
    }

    /// Steps the watch and does what it wants.
    fn look(&mut self, running: &Running, now: Instant, input: watch::Input) {
        let mut effects = std::mem::take(&mut self.watch_effects);
        self.watch.step(now, input, &mut effects);
        if cfg!(debug_assertions) {
            self.watch.check();
        }
        for effect in effects.drain(..) {
            match effect {
                watch::Effect::Replace { replica } => self.replace(running, now, replica),
                watch::Effect::Tell { end } => {
                    for way in &self.ways {
                        way.link.send(Request::Committed { ledger: running.id, end });
                    }
                }
                watch::Effect::Nudge { replica } => {
                    self.step(running, now, writer::Input::Reconnected { replica });
                }
                watch::Effect::Retry { replica } => {
                    self.step(running, now, writer::Input::Retry { replica });
                }
            }
        }
        self.watch_effects = effects;
    }

    fn send(&mut self, running: &Running, to: ReplicaId, request: Request) {
        let at = self.ways.iter().position(|way| way.replica == to).unwrap_or_else(|| {
            let links = &running.parts.links;
            let link = links.attach(running.id.container, to, Lane::Data, running.sink());
            self.ways.push(Way { replica: to, link, connected: false, mount_seq: 0 });
            self.ways.len() - 1
        });
        self.ways[at].link.send(request);
    }

    /// Looks for a substitute and proposes it.
    fn replace(&mut self, running: &Running, now: Instant, old: ReplicaId) {
        let parts = &running.parts;
        let candidates = parts.members.candidates();
        let ensemble = self.writer.ensemble();
        let seed = parts.seed();
        let found =
            placement::substitute(&parts.policy, &candidates, ensemble, old, &self.used, seed);
        let refused = |again| watch::Input::Refused { again };
        let new = match found {
            Ok(new) => new,
            Err(error) => {
                probe!("owner: no substitute");
                tracing::debug!(ledger = %running.id, %error, "a replica stays in its place");
                self.look(running, now, refused(now.after(watch::ASK_AGAIN)));
                return self.renew(running, now, old, &candidates);
            }
        };
        if let Err(again) = parts.take_change(now) {
            return self.look(running, now, refused(again));
        }
        self.look(running, now, watch::Input::Proposed);
        self.step(running, now, writer::Input::Replace { old, new });
        if self.writer.is_changing() {
            tracing::info!(ledger = %running.id, %old, %new, "a replica is replaced");
            self.used.push(new);
            self.look(running, now, watch::Input::Joined { replica: new });
        } else {
            self.look(running, now, refused(now.after(watch::ASK_AGAIN)));
        }
    }

    /// Nobody can take a member's place but replicas that have been in this ledger before: a new epoch may have them.
    fn renew(
        &mut self,
        running: &Running,
        now: Instant,
        old: ReplicaId,
        candidates: &[placement::Candidate],
    ) {
        let distrusted = self.writer.distrusted().any(|replica| replica == old);
        let connected = self.ways.iter().any(|way| way.replica == old && way.connected);
        let back = distrusted && connected && member_is_healthy(candidates, old);
        let others = placement::substitute(
            &running.parts.policy,
            candidates,
            self.writer.ensemble(),
            old,
            &[],
            running.parts.seed(),
        );
        let worth_it = back || others.is_ok();
        let blocked_for_long = self.is_blocked() && now.since(running.began) >= RENEW_BLOCKED;
        if worth_it && (blocked_for_long || now >= running.renew_at) {
            probe!("owner: asks for a new epoch");
            self.step(running, now, writer::Input::Stop(StopReason::Renew));
        }
    }

    /// True if fewer members than the ack quorum can ack anything.
    fn is_blocked(&self) -> bool {
        let ensemble = self.writer.ensemble();
        let lost = |replica: &&ReplicaId| {
            self.writer.distrusted().any(|distrusted| distrusted == **replica)
                || self.watch.slow().any(|slow| slow == **replica)
        };
        let record = self.log.ledgers.last().expect("it is open");
        ensemble.len() - ensemble.iter().filter(lost).count() < usize::from(record.quorum.ack)
    }

    /// Keeps what the register has answered. Answers to two commands may come in either order.
    fn learn(&mut self, log: Arc<ContainerLog>) {
        let age = |log: &ContainerLog| (log.last_change_id, log.keep_from);
        let ((changes, kept), (known_changes, known_kept)) = (age(&log), age(&self.log));
        if changes >= known_changes && kept >= known_kept {
            self.log = log;
        }
    }

    /// A change is over: whoever is no member any more needs no way.
    fn forget_old(&mut self, running: &Running, now: Instant) {
        let members: Vec<ReplicaId> = self.writer.members().collect();
        let gone = |way: &Way| !members.contains(&way.replica);
        let left: Vec<_> = self.ways.iter().filter(|w| gone(w)).map(|w| w.replica).collect();
        self.ways.retain(|way| members.contains(&way.replica));
        for replica in left {
            self.look(running, now, watch::Input::Left { replica });
        }
        self.look(running, now, watch::Input::Changed);
        self.announce_held();
    }

    /// Says whether entries are held because too many disks are full.
    fn announce_held(&self) {
        let full: Vec<String> = self.writer.full().map(|replica| replica.to_string()).collect();
        let distrusted = self.writer.distrusted().count();
        let record = self.log.ledgers.last().expect("it is open");
        let spare = usize::from(record.quorum.write - record.quorum.ack);
        let held = !full.is_empty() && full.len() + distrusted > spare;
        let held = held.then(|| Arc::from(format!("disks are full: {}", full.join(", "))));
        self.progress.send_if_modified(|seen| {
            let differs = seen.held != held;
            seen.held = held;
            differs
        });
    }

    fn stopped(&mut self, running: &Running, why: StopReason) {
        self.progress.send_modify(|seen| {
            seen.stopped = Some(describe(why, None));
            seen.renew = why == StopReason::Renew;
        });
        running.news.notify_one();
    }

    /// Announces what has come of all steps together.
    fn finish(&mut self, running: &Running) {
        let end = self.writer.committed_end();
        if end > self.committed_end {
            self.committed_end = end;
            self.progress.send_modify(|seen| seen.committed = end.0.checked_sub(1).map(EntryId));
        }
        if self.writer.stopped().is_some() {
            self.ways.clear();
        }
        let nearer = self.watch.deadline().is_some_and(|at| self.look_at.is_none_or(|l| at < l));
        if nearer {
            self.look_at = self.watch.deadline();
            running.news.notify_one();
        }
    }
}
