//! Copies a range of one ledger to one replica.
//!
//! For each entry: ask the target, which is done if it reads it back whole; else ask every source; write what they
//! agree on. So a copy that was cut short goes on where it stopped, and a range that is whole is only read.
//!
//! Invariants, asserted by [`Copy::check`] or by construction
//! 1. What is written names the entry that was wanted, and every holder that answered agrees on it; two that
//!    differ are an alarm, and nothing is written.
//! 2. The range is whole only if each of its entries was read back or acknowledged by the target.
//! 3. No more than the window is on its way, and nothing is sent while the bandwidth is used up.
//!
//! Deliberately not here: which range, and who the sources are (`plan`); certainty, which no copy gives.

use super::Config;
use super::pace::Bucket;
use crate::frame::EntryFrame;
use crate::message::{Reply, Request};
use crc32c::{crc32c, crc32c_append};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use thalweg_actor::machine::Machine;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{EntryId, Epoch, LedgerId, ReplicaId};
use thalweg_types::time::Instant;

/// What shall be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Which ledger.
    pub(super) ledger: LedgerId,
    /// Which entries.
    pub(super) entries: Range<u64>,
    /// Who shall have them.
    pub(super) target: ReplicaId,
    /// Who may have them.
    pub(super) sources: Vec<ReplicaId>,
    /// On whose authority: the register's epoch.
    pub(super) by: Epoch,
}

/// What can happen to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// There is a connection to a replica.
    Connected(ReplicaId),
    /// There is none: what it was asked will not be answered.
    Lost(ReplicaId),
    /// A replica answers.
    Reply {
        /// Who.
        from: ReplicaId,
        /// What.
        reply: Reply,
    },
    /// The deadline has come.
    Tick,
}

/// What a copy wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send this, in order.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        request: Request,
    },
    /// Nothing more will come of it.
    Ended(Outcome),
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Every entry is there, whole.
    pub(super) whole: bool,
    /// Entries that were copied.
    pub(super) copied: u64,
    /// Entries that could not be had from anybody, or not be written.
    pub(super) failed: u64,
    /// Entries of which holders have different content: an alarm.
    pub(super) conflicts: u64,
    /// A newer epoch has been at the target: look at the register again.
    pub(super) superseded: bool,
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Awaited,
    Have(EntryFrame),
    /// Not there, or not to be had.
    Not,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The target is asked whether it has it.
    Check,
    /// The sources are asked.
    Fetch(BTreeMap<ReplicaId, Answer>),
    /// The target is to write it.
    Write,
}

/// See the module's header.
pub(super) struct Copy {
    task: Task,
    config: Config,
    bucket: Bucket,
    /// The next entry that nobody was asked for.
    next: u64,
    /// What is on its way, and until when it may be.
    steps: BTreeMap<EntryId, (Step, Instant)>,
    /// Who can be reached; who has said nothing yet is neither here nor in `gone`.
    connected: BTreeSet<ReplicaId>,
    gone: BTreeSet<ReplicaId>,
    started: Instant,
    begun: bool,
    outcome: Outcome,
    ended: bool,
}

impl Copy {
    /// A copy of `task` that begins when its replicas can be reached, or after the configured patience.
    pub(super) fn new(now: Instant, task: Task, config: Config, bucket: Bucket) -> Self {
        let next = task.entries.start;
        Self {
            task,
            config,
            bucket,
            next,
            steps: BTreeMap::new(),
            connected: BTreeSet::new(),
            gone: BTreeSet::new(),
            started: now,
            begun: false,
            outcome: Outcome::default(),
            ended: false,
        }
    }

    /// Who is asked.
    pub(super) fn replicas(&self) -> BTreeSet<ReplicaId> {
        self.task.sources.iter().copied().chain([self.task.target]).collect()
    }

    /// The bandwidth that is left for others.
    pub(super) fn into_bucket(self) -> Bucket {
        self.bucket
    }

    fn has_begun(&mut self, now: Instant) -> bool {
        let heard =
            |replica: &ReplicaId| self.connected.contains(replica) || self.gone.contains(replica);
        let begins = now.since(self.started) >= self.config.patience;
        self.begun |= begins || self.replicas().iter().all(heard);
        self.begun
    }

    fn until(&self, now: Instant) -> Instant {
        now.after(self.config.patience)
    }

    fn read(&self, entry: EntryId) -> Request {
        Request::Read { ledger: self.task.ledger, entry }
    }

    /// Sends what may be sent, and ends when nothing is left.
    fn go_on(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.ended || !self.has_begun(now) {
            return;
        }
        if !self.connected.contains(&self.task.target) {
            let left = self.task.entries.end.saturating_sub(self.next);
            self.outcome.failed += left + self.steps.len() as u64;
            return self.end(effects);
        }
        while self.next < self.task.entries.end
            && self.steps.len() < self.config.window
            && self.bucket.is_open(now)
        {
            let entry = EntryId(self.next);
            self.next += 1;
            let request = self.read(entry);
            effects.push(Effect::Send { to: self.task.target, request });
            self.steps.insert(entry, (Step::Check, self.until(now)));
            // What it takes is known when it is there; until then an entry counts as one byte.
            self.bucket.take(now, 1);
        }
        if self.next >= self.task.entries.end && self.steps.is_empty() {
            self.end(effects);
        }
    }

    fn end(&mut self, effects: &mut Vec<Effect>) {
        self.ended = true;
        self.steps.clear();
        let Outcome { failed, conflicts, superseded, .. } = self.outcome;
        self.outcome.whole = failed == 0 && conflicts == 0 && !superseded;
        effects.push(Effect::Ended(self.outcome));
    }

    fn fail(&mut self, entry: EntryId) {
        if self.steps.remove(&entry).is_some() {
            self.outcome.failed += 1;
        }
    }

    fn fetch(&mut self, now: Instant, entry: EntryId, effects: &mut Vec<Effect>) {
        let mut answers = BTreeMap::new();
        for source in &self.task.sources {
            if self.connected.contains(source) {
                let request = self.read(entry);
                effects.push(Effect::Send { to: *source, request });
                answers.insert(*source, Answer::Awaited);
            }
        }
        self.steps.insert(entry, (Step::Fetch(answers), self.until(now)));
        self.decide(now, entry, effects);
    }

    /// Writes what the sources agree on, once all have answered.
    fn decide(&mut self, now: Instant, entry: EntryId, effects: &mut Vec<Effect>) {
        let Some((Step::Fetch(answers), _)) = self.steps.get(&entry) else { return };
        let mut had = answers.values().filter_map(|answer| match answer {
            Answer::Have(frame) => Some(frame),
            Answer::Awaited | Answer::Not => None,
        });
        let first = had.next().cloned();
        let hasty = planted!("PB-D11") && first.is_some();
        if answers.values().any(|answer| *answer == Answer::Awaited) && !hasty {
            return;
        }
        let Some(frame) = first else {
            probe!("repair: nobody has the entry");
            return self.fail(entry);
        };
        let digest = digest(&frame);
        if had.any(|other| self::digest(other) != digest) && !hasty {
            tracing::error!(ledger = %self.task.ledger, %entry, "replicas hold different content");
            self.steps.remove(&entry);
            self.outcome.conflicts += 1;
            return;
        }
        let request = Request::Repair { by: self.task.by, entry: frame };
        effects.push(Effect::Send { to: self.task.target, request });
        self.steps.insert(entry, (Step::Write, self.until(now)));
    }

    fn reply(&mut self, now: Instant, from: ReplicaId, reply: Reply, effects: &mut Vec<Effect>) {
        match reply {
            Reply::Have(frame) if frame.ledger == self.task.ledger => {
                self.bucket.take(now, frame.content_len() as u64);
                let entry = frame.entry;
                if from == self.task.target && self.is_checked(entry) {
                    self.steps.remove(&entry);
                } else {
                    self.answer(now, from, entry, Answer::Have(frame), effects);
                }
            }
            Reply::Unknown { ledger, entry } | Reply::NeverHad { ledger, entry, .. }
                if ledger == self.task.ledger =>
            {
                if from == self.task.target && self.is_checked(entry) {
                    self.fetch(now, entry, effects);
                } else {
                    self.answer(now, from, entry, Answer::Not, effects);
                }
            }
            Reply::Repaired { ledger, entry }
                if ledger == self.task.ledger && from == self.task.target =>
            {
                if matches!(self.steps.get(&entry), Some((Step::Write, _))) {
                    probe!("repair: entry copied");
                    self.steps.remove(&entry);
                    self.outcome.copied += 1;
                }
            }
            Reply::Fenced { .. } if from == self.task.target => {
                probe!("repair: superseded");
                self.outcome.superseded = true;
                self.end(effects);
            }
            // They name no entry; no other of this target will fare better.
            Reply::Refused { .. } | Reply::OutOfOrder { .. } if from == self.task.target => {
                let writes = |step: &(Step, Instant)| step.0 == Step::Write;
                let refused = self.steps.iter().find(|(_, step)| writes(step)).map(|(at, _)| *at);
                if let Some(entry) = refused {
                    self.fail(entry);
                }
            }
            _ => {}
        }
    }

    fn is_checked(&self, entry: EntryId) -> bool {
        matches!(self.steps.get(&entry), Some((Step::Check, _)))
    }

    fn answer(
        &mut self,
        now: Instant,
        from: ReplicaId,
        entry: EntryId,
        answer: Answer,
        effects: &mut Vec<Effect>,
    ) {
        if let Some((Step::Fetch(answers), _)) = self.steps.get_mut(&entry)
            && let Some(awaited) = answers.get_mut(&from)
        {
            *awaited = answer;
            self.decide(now, entry, effects);
        }
    }

    /// `replica` will not answer what it was asked.
    fn lost(&mut self, now: Instant, replica: ReplicaId, effects: &mut Vec<Effect>) {
        self.connected.remove(&replica);
        self.gone.insert(replica);
        for entry in self.steps.keys().copied().collect::<Vec<_>>() {
            self.answer(now, replica, entry, Answer::Not, effects);
        }
    }

    /// Gives up on answers that are overdue, and asks whoever has owed one nothing more: silence is UNKNOWN, and one
    /// that hangs must not hold up every entry.
    fn overdue(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let late = self.steps.values().filter(|(_, at)| *at <= now);
        let owing = late.flat_map(|(step, _)| match step {
            Step::Check | Step::Write => vec![self.task.target],
            Step::Fetch(answers) => {
                let awaited = answers.iter().filter(|(_, answer)| **answer == Answer::Awaited);
                awaited.map(|(source, _)| *source).collect()
            }
        });
        for silent in owing.collect::<BTreeSet<ReplicaId>>() {
            probe!("repair: one that hangs is left out");
            self.lost(now, silent, effects);
        }
    }
}

impl Machine for Copy {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.ended {
            return;
        }
        match input {
            Input::Connected(replica) => {
                self.lost(now, replica, effects);
                self.gone.remove(&replica);
                self.connected.insert(replica);
            }
            Input::Lost(replica) => self.lost(now, replica, effects),
            Input::Reply { from, reply } => self.reply(now, from, reply, effects),
            Input::Tick => self.overdue(now, effects),
        }
        self.go_on(now, effects);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let waits = self.steps.values().map(|(_, at)| *at).min();
        if !self.begun {
            return Some(self.started.after(self.config.patience));
        }
        let idle = self.steps.len() < self.config.window && self.next < self.task.entries.end;
        let flows = idle.then(|| self.bucket.opens_at());
        waits.into_iter().chain(flows).min()
    }

    fn check(&self) {
        assert!(self.steps.len() <= self.config.window.max(1));
        assert!(self.steps.keys().all(|entry| self.task.entries.contains(&entry.0)));
        assert!(self.steps.keys().all(|entry| entry.0 < self.next));
    }
}

/// What two copies of one entry must have in common: their content, not what rides along.
fn digest(entry: &EntryFrame) -> (usize, u32, usize, u32) {
    let payload = entry.payload.iter().fold(0, |crc, chunk| crc32c_append(crc, chunk));
    let len = entry.content_len() - entry.headers.len();
    (entry.headers.len(), crc32c(&entry.headers), len, payload)
}

#[cfg(test)]
mod tests;
