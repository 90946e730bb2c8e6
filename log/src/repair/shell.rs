//! The tasks that repair one mounted storage: rounds over the registers, and the scrub.

use super::copy::{Copy, Effect, Input, Outcome, Task};
use super::pace::Bucket;
use super::plan::{self, Replacement, Verdict};
use super::scrub::Sweep;
use super::watch::Watch;
use super::{Config, Listing, Overview};
use crate::ledger::ReadError;
use crate::links::{Lane, Link, LinkEvent, Links, Sink};
use crate::placement::Members;
use crate::register::{Change, Register, RegisterCommand, RegisterReply};
use crate::service::{ReplicaService, load};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thalweg_actor::clock::Clock;
use thalweg_actor::machine::Machine as _;
use thalweg_actor::probe;
use thalweg_actor::spawn::Spawn;
use thalweg_types::id::{EntryId, LedgerId, ReplicaId};
use tokio::select;
use tokio::sync::mpsc;

/// What a repairer stands on.
#[derive(Clone)]
pub struct Parts {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where its tasks run.
    pub spawn: Arc<dyn Spawn>,
    /// The replicas of the storage that it repairs.
    pub service: Arc<ReplicaService>,
    /// The way to all replicas, its own included.
    pub links: Arc<dyn Links>,
    /// Where replacements are noted.
    pub register: Arc<dyn Register>,
    /// Where registers can be looked at.
    pub overview: Arc<dyn Overview>,
    /// Who may take a lost replica's place.
    pub members: Arc<dyn Members>,
    /// How.
    pub config: Config,
}

/// What a repairer has done since it began, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rounds over the registers.
    pub rounds: u64,
    /// Entries that the scrub has read, whole or not.
    pub scrubbed_entries: u64,
    /// Their bytes.
    pub scrubbed_bytes: u64,
    /// Entries that it could not read.
    pub scrub_hits: u64,
    /// Scrubs of everything that was live.
    pub sweeps: u64,
    /// Entries that were copied, to here or to a new replica.
    pub copied: u64,
    /// Entries that could not be copied; each attempt counts.
    pub failed: u64,
    /// Entries of which holders have different content: an alarm.
    pub conflicts: u64,
    /// Lost members that were replaced.
    pub replaced: u64,
    /// Ledgers whose doubt has ended.
    pub settled: u64,
    /// The storage's own doubt has ended.
    pub limbo_ended: u64,
}

/// Repairs one mounted storage. Dropping it ends that.
pub struct Repairer {
    parts: Parts,
    counters: Mutex<Counters>,
    /// Entries that could not be read here.
    hits: Mutex<BTreeSet<(LedgerId, EntryId)>>,
}

impl Repairer {
    /// Starts repairing the storage of `parts.service`, until that stops.
    pub fn start(parts: Parts) -> Arc<Self> {
        let spawn = parts.spawn.clone();
        let (counters, hits) = Default::default();
        let repairer = Arc::new(Self { parts, counters, hits });
        drop(spawn.spawn("repair", Box::pin(rounds(Arc::downgrade(&repairer)))));
        drop(spawn.spawn("scrub", Box::pin(scrub(Arc::downgrade(&repairer)))));
        repairer
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *lock(&self.counters)
    }

    /// Entries that somebody could not read here: the next round looks for copies.
    pub fn report(&self, ledger: LedgerId, entry: EntryId) {
        lock(&self.hits).insert((ledger, entry));
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    fn me(&self) -> ReplicaId {
        self.parts.service.identity()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the rounds remember of each other: nothing that anybody relies on.
struct Memory {
    watch: Watch,
    bucket: Bucket,
    /// Ledgers that were read back whole by this process.
    whole: BTreeSet<LedgerId>,
    rounds: u64,
}

/// What a storage holds is looked through in every so many rounds: it takes a while, and the disk log waits.
const LOOK_EVERY: u64 = 6;

/// Round after round, until the storage stops or nobody wants it any more.
async fn rounds(repairer: Weak<Repairer>) {
    let Some(first) = repairer.upgrade() else { return };
    let Parts { clock, config, .. } = first.parts.clone();
    drop(first);
    let bucket = Bucket::new(clock.now(), config.bandwidth, config.burst);
    let (watch, whole) = Default::default();
    let mut memory = Memory { watch, bucket, whole, rounds: 0 };
    loop {
        clock.sleep_until(clock.now().after(config.pause)).await;
        let Some(repairer) = repairer.upgrade() else { return };
        if repairer.parts.service.stopped().is_some() {
            return;
        }
        match repairer.parts.overview.listing().await {
            Ok(listing) => repairer.round(&listing, &mut memory).await,
            Err(error) => {
                probe!("repair: no listing");
                tracing::debug!(%error, "a round of repair is left out");
            }
        }
    }
}

impl Repairer {
    async fn round(&self, listing: &Listing, memory: &mut Memory) {
        self.count(|counters| counters.rounds += 1);
        let looks = memory.rounds.is_multiple_of(LOOK_EVERY);
        memory.rounds += 1;
        if looks {
            self.remove(listing);
        }
        self.settle(listing, memory).await;
        if looks || !lock(&self.hits).is_empty() {
            self.heal(listing, memory).await;
        }
        self.end_limbo(listing, memory).await;
        self.replace(listing, memory).await;
    }

    /// Lets go of what the registers say nobody needs.
    fn remove(&self, listing: &Listing) {
        let service = &self.parts.service;
        let ledgers = service.ledgers().into_iter().map(|(ledger, _)| ledger.container);
        let held = service.storage().held().0.into_iter().map(|(ledger, _)| ledger.container);
        let known = ledgers.chain(held).collect();
        for (container, keep_from) in plan::removals(listing, &known) {
            service.trim(container, keep_from);
        }
    }

    /// Ends the doubt about ledgers that nobody will ask for more than what is here.
    async fn settle(&self, listing: &Listing, memory: &mut Memory) {
        for (ledger, facts) in self.parts.service.ledgers() {
            let log = listing.logs.iter().find(|log| log.container == ledger.container);
            let Some(log) = log.filter(|_| !facts.certain) else { continue };
            let Verdict::Hold { end, tasks } = plan::verdict(log, ledger.epoch, self.me()) else {
                continue;
            };
            if self.run_all(tasks, memory).await {
                tracing::info!(%ledger, "the doubt about a ledger is over");
                memory.whole.insert(ledger);
                self.parts.service.settled(ledger, end, log.epoch);
                self.count(|counters| counters.settled += 1);
            }
        }
    }

    /// Copies what cannot be read here, or is not here and should be.
    async fn heal(&self, listing: &Listing, memory: &mut Memory) {
        let (held, _) = self.parts.service.storage().held();
        let hits = lock(&self.hits).clone();
        for task in plan::heal(listing, self.me(), &held, &hits) {
            let (ledger, entries) = (task.ledger, task.entries.clone());
            if self.run(task, memory).await.whole {
                let mended =
                    |(of, entry): &(LedgerId, EntryId)| *of == ledger && entries.contains(&entry.0);
                lock(&self.hits).retain(|hit| !mended(hit));
            }
        }
        // What no fragment names is nobody's loss; the next sweep looks again.
        let listed = |(of, _): &(LedgerId, EntryId)| {
            let log = listing.logs.iter().find(|log| log.container == of.container);
            log.is_none_or(|log| log.ledger(of.epoch).is_some())
        };
        lock(&self.hits).retain(listed);
    }

    /// Ends the doubt about ledgers that the storage does not know.
    async fn end_limbo(&self, listing: &Listing, memory: &mut Memory) {
        let storage = self.parts.service.storage();
        let recovered = storage.recovered();
        let Some(upto) = recovered.limbo_upto.as_ref().filter(|_| storage.in_limbo()) else {
            return;
        };
        for log in &listing.logs {
            let lost = upto.get(&log.container).copied().unwrap_or_default();
            for ledger in log.ledgers.iter().filter(|ledger| ledger.epoch <= lost) {
                let id = LedgerId { container: log.container, epoch: ledger.epoch };
                if memory.whole.contains(&id) {
                    continue;
                }
                if let Verdict::Hold { tasks, .. } = plan::verdict(log, ledger.epoch, self.me())
                    && self.run_all(tasks, memory).await
                {
                    memory.whole.insert(id);
                }
            }
        }
        if !plan::limbo_may_end(listing, self.me(), upto, &memory.whole) {
            return;
        }
        if storage.end_limbo().await == Ok(true) {
            probe!("repair: limbo ended");
            tracing::info!(version = listing.version, "the storage vouches for all its ledgers");
            self.parts.service.limbo_over();
            self.count(|counters| counters.limbo_ended += 1);
        }
    }

    /// Puts others in the place of lost members, those of the fewest copies first.
    async fn replace(&self, listing: &Listing, memory: &mut Memory) {
        let candidates = self.parts.members.candidates();
        let fragments = listing.logs.iter().flat_map(|log| &log.ledgers).flat_map(|l| &l.fragments);
        let named = fragments.flat_map(|fragment| fragment.ensemble.iter().copied()).collect();
        let (now, silence) = (self.parts.clock.now(), self.parts.config.silence);
        let lost = memory.watch.lost(now, &named, &candidates, &listing.lost, silence);
        for replacement in plan::replacements(listing, self.me(), &lost, &candidates) {
            if self.run(replacement.task.clone(), memory).await.whole {
                self.note(replacement).await;
            }
        }
    }

    /// Tells the register who holds the copies. If that fails, the next round finds them whole and tells it again.
    async fn note(&self, replacement: Replacement) {
        let Replacement { task, first, old, .. } = replacement;
        let LedgerId { container, epoch } = task.ledger;
        let change = Change::Repair { ledger: epoch, first, old, new: task.target };
        match self.parts.register.submit(RegisterCommand { container, change }).await {
            Ok(RegisterReply::Done(_)) => {
                probe!("repair: lost member replaced");
                tracing::info!(ledger = %task.ledger, %old, new = %task.target, "replica replaced");
                self.count(|counters| counters.replaced += 1);
            }
            Ok(RegisterReply::Stale { .. }) => probe!("repair: somebody else was faster"),
            Ok(RegisterReply::Invalid { reason }) => {
                tracing::error!(ledger = %task.ledger, reason, "a repair is refused");
            }
            Err(error) => tracing::debug!(%error, "a repair is not noted yet"),
        }
    }

    /// True if all that `tasks` want is there, whole.
    async fn run_all(&self, tasks: Vec<Task>, memory: &mut Memory) -> bool {
        for task in tasks {
            if !self.run(task, memory).await.whole {
                return false;
            }
        }
        true
    }

    /// Runs one copy to its end.
    async fn run(&self, task: Task, memory: &mut Memory) -> Outcome {
        let clock = &self.parts.clock;
        let container = task.ledger.container;
        let mut copy = Copy::new(clock.now(), task, self.parts.config, memory.bucket.clone());
        let (sender, mut events) = mpsc::unbounded_channel();
        let sink = Arc::new(Events(sender));
        let attach = |replica| {
            let link = self.parts.links.attach(container, replica, Lane::Repair, sink.clone());
            (replica, link)
        };
        let links: BTreeMap<ReplicaId, Box<dyn Link>> =
            copy.replicas().into_iter().map(attach).collect();
        let mut effects = Vec::new();
        let outcome = 'copying: loop {
            let deadline = copy.deadline();
            let input = select! {
                biased;
                Some((from, event)) = events.recv() => match event {
                    LinkEvent::Connected { .. } => Input::Connected(from),
                    LinkEvent::Lost { .. } => Input::Lost(from),
                    LinkEvent::Reply(reply) => Input::Reply { from, reply },
                },
                () = until(&**clock, deadline) => Input::Tick,
            };
            copy.step(clock.now(), input, &mut effects);
            if cfg!(debug_assertions) {
                copy.check();
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { to, request } => {
                        if let Some(link) = links.get(&to) {
                            link.send(request);
                        }
                    }
                    Effect::Ended(outcome) => break 'copying outcome,
                }
            }
        };
        memory.bucket = copy.into_bucket();
        self.count(|counters| {
            counters.copied += outcome.copied;
            counters.failed += outcome.failed;
            counters.conflicts += outcome.conflicts;
        });
        outcome
    }
}

async fn until(clock: &dyn Clock, at: Option<thalweg_types::time::Instant>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Where a copy's links report.
struct Events(mpsc::UnboundedSender<(ReplicaId, LinkEvent)>);

impl Sink for Events {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        // The receiver ends with the copy.
        let _ = self.0.send((from, event));
    }
}

/// How often the scrub looks whether it may read on.
const SCRUB_PAUSE: Duration = Duration::from_millis(250);

/// Reads what is live, at its pace, until the storage stops or nobody wants it any more.
async fn scrub(repairer: Weak<Repairer>) {
    let Some(first) = repairer.upgrade() else { return };
    let Parts { clock, config, .. } = first.parts.clone();
    drop(first);
    let mut sweep = Sweep::new(clock.now(), config.scrub_period, config.burst);
    loop {
        clock.sleep_until(clock.now().after(SCRUB_PAUSE.min(config.pause))).await;
        let Some(repairer) = repairer.upgrade() else { return };
        if repairer.parts.service.stopped().is_some() {
            return;
        }
        let storage = repairer.parts.service.storage();
        if sweep.is_due(clock.now()) {
            let (held, bytes) = storage.held();
            sweep.begin(clock.now(), held, bytes);
        }
        while let Some((ledger, entry)) = sweep.next(clock.now()) {
            let bytes = match load(&**storage, ledger, entry).await {
                Ok(found) => found.content_len() as u64,
                Err(ReadError::Unknown { reason, .. }) => {
                    // It may have been trimmed, or never become durable.
                    probe!("scrub: hit");
                    tracing::error!(%ledger, %entry, %reason, "the scrub cannot read an entry");
                    repairer.report(ledger, entry);
                    repairer.count(|counters| counters.scrub_hits += 1);
                    1
                }
                Err(ReadError::Trimmed { .. }) => 0,
                Err(ReadError::Stopped(_)) => return,
            };
            sweep.read(clock.now(), bytes.max(1));
            repairer.count(|counters| {
                counters.scrubbed_entries += 1;
                counters.scrubbed_bytes += bytes;
                counters.sweeps = sweep.ended;
            });
        }
    }
}

#[cfg(test)]
mod tests;
