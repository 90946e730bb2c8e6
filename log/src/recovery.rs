//! Recovery: a newer epoch ends an older one's ledger. Fence and tails, copy what may be committed, close.
//!
//! An entry may be dropped only if so many fenced, certain members lack it that it cannot have been committed. A read
//! that fails proves nothing: a recovery may get stuck, but it never truncates.
//!
//! Invariants, asserted by [`Recovery::check`]:
//! 1. A close drops no entry that fewer than `write − ack + 1` certain members lack (L7).
//! 2. Everything between start and end has been copied to the ack quorum of the ending's ensemble (L9).
//! 3. Only replies to a fence count, never silence, doubt, or a tail from before the fence.
//!
//! Deliberately not here: earlier fragments (they hold committed entries alone), and reading the log afterwards.

use crate::frame::EntryFrame;
use crate::message::{Reply, Request, RunFacts};
use crate::quorum::{Quorum, nth_smallest};
use crate::register::{Change, Ending};
use std::collections::VecDeque;
use thalweg_actor::explore::Digest;
use thalweg_actor::machine::Machine;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{EntryId, Epoch, LedgerId, ReplicaId};
use thalweg_types::time::Instant;

/// Entries that are read and copied at once.
pub const COPIES_MAX: usize = 32;

/// What is to be recovered, and what comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The ledger to be ended.
    pub ledger: LedgerId,
    /// Its quorum.
    pub quorum: Quorum,
    /// First entry of its last fragment.
    pub first: EntryId,
    /// The members of its last fragment.
    pub ensemble: Vec<ReplicaId>,
    /// The first entry of it that must be kept.
    pub keep_from: EntryId,
    /// The epoch of the recoverer, and of the next ledger.
    pub by: Epoch,
    /// Quorum of the next ledger.
    pub next_quorum: Quorum,
    /// Ensemble of the next ledger.
    pub next_ensemble: Vec<ReplicaId>,
    /// Entries that are read and copied at once; at most [`COPIES_MAX`].
    pub copies: usize,
}

/// What can happen to a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The first input.
    Begin,
    /// A replica answers.
    Reply {
        /// Who.
        from: ReplicaId,
        /// What.
        reply: Reply,
    },
    /// Time to ask again whoever has not answered, and to read again what could not be read.
    Retry,
    /// There is a new connection to a replica: what it has not answered may never have reached it.
    Connected {
        /// To whom.
        replica: ReplicaId,
    },
    /// Copies go to `new` in place of `old`, which is out of reach or in doubt.
    Substitute {
        /// The member that shall go.
        old: ReplicaId,
        /// The replica that shall take its place.
        new: ReplicaId,
    },
    /// The register has applied the close.
    Closed,
    /// The register has answered `Stale`.
    Stale,
}

/// What a recovery wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send this to the replica.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        request: Request,
    },
    /// Submit this to the register until an outcome is known.
    Register(Change),
    /// Nobody within reach can give this entry, and it may be committed: raise an alarm, then retry.
    Stuck {
        /// Which entry.
        entry: EntryId,
    },
    /// The ledger is closed and the next one is open.
    Done,
    /// A newer epoch acts: give up.
    Abdicated,
}

/// What one member said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    replica: ReplicaId,
    run: RunFacts,
    /// A read of what it claimed has failed: its claim still stands, its silence no longer does.
    failed: bool,
}

/// One entry on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Copy {
    entry: EntryId,
    frame: Option<EntryFrame>,
    /// Who could not give it.
    tried: Vec<ReplicaId>,
    asked: Option<ReplicaId>,
    /// Who was asked and let a retry come, the last one last: they may hang, so others are asked first.
    silent: Vec<ReplicaId>,
    /// Members of the ending's ensemble that have it, durably.
    acked: Vec<ReplicaId>,
}

impl Copy {
    fn new(entry: EntryId) -> Self {
        let (tried, silent, acked) = (Vec::new(), Vec::new(), Vec::new());
        Self { entry, frame: None, tried, asked: None, silent, acked }
    }

    /// How long ago `replica` let a retry come: 0 if it never did, then the least recent first.
    fn silence(&self, replica: ReplicaId) -> usize {
        self.silent.iter().position(|silent| *silent == replica).map_or(0, |at| at + 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Fencing,
    Copying,
    Closing,
    Ended,
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    plan: Plan,
    phase: Phase,
    answers: Vec<Answer>,
    /// Where copies go: the last fragment's ensemble with substitutes.
    target: Vec<ReplicaId>,
    /// Fixed when copying begins.
    start: EntryId,
    /// Everything in `start..copied_end` is on the ack quorum of `target`.
    copied_end: EntryId,
    copies: VecDeque<Copy>,
    /// The first entry that nobody could give and nobody must.
    given_up: Option<EntryId>,
    /// What [`Hello`](Request::Hello) said, in the planted variant that reads tails before it fences.
    early: Vec<(ReplicaId, RunFacts)>,
}

impl Recovery {
    /// A recovery that carries out `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            target: plan.ensemble.clone(),
            plan,
            phase: Phase::Fencing,
            answers: Vec::new(),
            start: EntryId(0),
            copied_end: EntryId(0),
            copies: VecDeque::new(),
            given_up: None,
            early: Vec::new(),
        }
    }

    /// What it carries out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Everything that decides what it will do, for the explorer. `place` numbers the replicas; their order in a list
    /// decides nothing, but which of two sources that are equally good is read follows from their ids.
    pub fn digest<const N: usize>(
        &self,
        place: impl Fn(ReplicaId) -> usize,
        digest: &mut Digest<N>,
    ) {
        let Self { plan, phase, answers, target, start, copied_end, copies, given_up, early } =
            self;
        let Plan { ledger, quorum, first, ensemble, keep_from, by, .. } = plan;
        let Plan { next_quorum, next_ensemble, copies: at_once, .. } = plan;
        digest.all(&(by, phase));
        if *phase == Phase::Ended {
            return; // It does nothing any more.
        }
        digest.all(&(ledger, quorum, first, keep_from, next_quorum, at_once));
        digest.all(&(start, copied_end, given_up));
        let places = |members: &[ReplicaId]| members.iter().map(|r| place(*r)).collect::<Vec<_>>();
        digest.of_each(places(ensemble), &("recovery: ensemble", by));
        digest.of_each(places(next_ensemble), &("recovery: next", by));
        digest.of_each(places(target), &("recovery: target", by));
        for (replica, run) in early {
            digest.of(place(*replica), &("recovery: early", by, run));
        }
        for Answer { replica, run, failed } in answers {
            digest.of(place(*replica), &("recovery: answer", by, run, failed));
        }
        for Copy { entry, frame: _, tried, asked, silent, acked } in copies {
            digest.of_each(places(tried), &("recovery: tried", by, entry));
            digest.of_each(places(asked.as_slice()), &("recovery: asked", by, entry));
            digest.of_each(places(acked), &("recovery: copied", by, entry));
            for (at, replica) in silent.iter().enumerate() {
                digest.of(place(*replica), &("recovery: silent", by, entry, at));
            }
        }
        for Copy { entry, frame, .. } in copies {
            digest.all(&(entry, frame));
        }
    }

    /// True once it has closed or abdicated.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Members that have not answered the fence.
    pub fn silent(&self) -> impl Iterator<Item = ReplicaId> {
        let answered = |replica: &ReplicaId| self.answers.iter().any(|a| a.replica == *replica);
        self.plan.ensemble.iter().copied().filter(move |replica| !answered(replica))
    }

    /// True once enough members vouch for the end.
    pub fn is_copying(&self) -> bool {
        matches!(self.phase, Phase::Copying | Phase::Closing)
    }

    /// Where copies go.
    pub fn target(&self) -> &[ReplicaId] {
        &self.target
    }

    /// Those of the target that have not acked the oldest copy that was sent to them.
    pub fn lagging(&self) -> impl Iterator<Item = ReplicaId> {
        let oldest = self.copies.front().filter(|copy| copy.frame.is_some());
        oldest.into_iter().flat_map(|copy| {
            self.target.iter().copied().filter(|replica| !copy.acked.contains(replica))
        })
    }

    /// Members that have answered but cannot vouch for their tail.
    pub fn doubtful(&self) -> impl Iterator<Item = ReplicaId> {
        self.answers.iter().filter(|a| a.failed || !a.run.certain).map(|a| a.replica)
    }
}

impl Machine for Recovery {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, _now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Begin => self.fence_silent(effects),
            Input::Reply { from, reply } => self.reply(from, reply, effects),
            Input::Retry => self.retry(effects),
            Input::Connected { replica } => self.connected(replica, effects),
            Input::Substitute { old, new } => self.substitute(old, new, effects),
            Input::Closed if self.phase == Phase::Closing => self.end(Effect::Done, effects),
            Input::Closed => {}
            Input::Stale => self.end(Effect::Abdicated, effects),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn check(&self) {
        assert!(self.copies.iter().zip(self.copied_end.0..).all(|(c, n)| c.entry.0 == n));
        let asked = self.answers.iter().all(|a| self.plan.ensemble.contains(&a.replica));
        assert!(asked && self.answers.len() <= self.plan.ensemble.len());
        if self.phase == Phase::Closing {
            assert!(self.must_end().is_some_and(|must| self.copied_end >= must));
        }
    }
}

impl Recovery {
    fn fence_silent(&mut self, effects: &mut Vec<Effect>) {
        let Plan { ledger, by, .. } = self.plan;
        for to in self.silent() {
            let fence = Request::Fence { ledger, by };
            let early = self.early.iter().any(|(replica, _)| *replica == to);
            let hello = planted!("PB-L24") && !early;
            let request = if hello { Request::Hello { ledger } } else { fence };
            effects.push(Effect::Send { to, request });
        }
    }

    fn reply(&mut self, from: ReplicaId, reply: Reply, effects: &mut Vec<Effect>) {
        let Plan { ledger, by, .. } = self.plan;
        match reply {
            Reply::FenceDone { ledger: of, by: mine, run } if (of, mine) == (ledger, by) => {
                self.answered(from, run, effects);
            }
            Reply::Fenced { ledger: of, by: newer } if of == ledger && newer > by => {
                self.end(Effect::Abdicated, effects);
            }
            Reply::Have(frame) if frame.ledger == ledger => self.have(from, frame, effects),
            Reply::NeverHad { ledger: of, entry, .. } | Reply::Unknown { ledger: of, entry }
                if of == ledger =>
            {
                self.cannot_give(from, entry, effects);
            }
            Reply::Repaired { ledger: of, entry } if of == ledger => {
                self.repaired(from, entry, effects);
            }
            Reply::Greeting { ledger: of, run: Some(run), .. }
                if of == ledger && planted!("PB-L24") =>
            {
                self.early.push((from, run));
                effects.push(Effect::Send { to: from, request: Request::Fence { ledger, by } });
            }
            _ => {} // Of another ledger, or no answer to anything a recoverer asks.
        }
    }

    fn answered(&mut self, from: ReplicaId, run: RunFacts, effects: &mut Vec<Effect>) {
        let member = self.plan.ensemble.contains(&from);
        if !member || self.answers.iter().any(|answer| answer.replica == from) {
            return;
        }
        let early = self.early.iter().find(|(replica, _)| *replica == from).map(|(_, run)| *run);
        self.answers.push(Answer { replica: from, run: early.unwrap_or(run), failed: false });
        // Kept in the order of the ensemble, so that the order of arrival leaves no trace.
        let place = |a: &Answer| self.plan.ensemble.iter().position(|r| *r == a.replica);
        self.answers.sort_by_key(place);
        // It may have what nobody else could give, or prove that nobody must.
        self.ask_all(effects);
        self.proceed(effects);
    }

    /// Asks for every entry that nobody has given and nobody is asked for.
    fn ask_all(&mut self, effects: &mut Vec<Effect>) {
        let entries: Vec<EntryId> = self.copies.iter().map(|copy| copy.entry).collect();
        for entry in entries {
            self.ask(entry, effects);
        }
    }

    /// How many vouching members prove that what they lack was never committed.
    fn needed(&self) -> usize {
        let needed = self.plan.quorum.recovery();
        if planted!("PB-B7") {
            return self.plan.ensemble.len();
        }
        if planted!("PB-L15") { needed - 1 } else { needed }
    }

    /// Members whose tail is evidence: fenced, certain, and in their run since the fragment began.
    fn vouching(&self) -> impl Iterator<Item = &Answer> {
        let certain = |a: &&Answer| (a.run.certain && !a.failed) || planted!("PB-L5");
        self.answers.iter().filter(certain).filter(|a| a.run.base <= self.plan.first)
    }

    /// Everything below is committed, or disposable.
    fn settled_end(&self) -> EntryId {
        if planted!("PB-L9") {
            return EntryId(0);
        }
        let said = self.answers.iter().map(|answer| answer.run.committed_end);
        let floor = self.plan.first.max(self.plan.keep_from);
        said.fold(floor, EntryId::max)
    }

    /// Where the ledger may end at the earliest; `None` until enough members vouch.
    fn must_end(&self) -> Option<EntryId> {
        let ends = self.vouching().map(|answer| answer.run.end);
        nth_smallest(ends, self.needed()).map(|end| end.max(self.settled_end()))
    }

    /// The end of the longest run that anybody claims, trusted or not.
    fn claimed_end(&self) -> EntryId {
        self.answers.iter().map(|answer| answer.run.end).fold(self.start, EntryId::max)
    }

    fn proceed(&mut self, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Closing || self.phase == Phase::Ended {
            return;
        }
        let Some(must_end) = self.must_end() else { return };
        if self.phase == Phase::Fencing {
            self.phase = Phase::Copying;
            self.start = self.settled_end();
            self.copied_end = self.start;
        }
        if self.given_up.is_some_and(|entry| entry < must_end) {
            self.given_up = None; // It must be there after all.
        }
        let target_end = self.given_up.unwrap_or_else(|| self.claimed_end()).max(self.start);
        while self.copies.len() < self.plan.copies {
            let entry = EntryId(self.copied_end.0 + self.copies.len() as u64);
            if entry >= target_end {
                break;
            }
            self.copies.push_back(Copy::new(entry));
            self.ask(entry, effects);
            if self.phase == Phase::Closing || self.given_up.is_some() {
                return;
            }
        }
        if self.copies.is_empty() && self.copied_end >= must_end {
            self.close(effects);
        }
    }

    /// Asks the next replica for an entry, or gives the entry up if it need not be there.
    fn ask(&mut self, entry: EntryId, effects: &mut Vec<Effect>) {
        let Some(at) = self.place_of(entry) else { return };
        let copy = &self.copies[at];
        if copy.frame.is_some() || copy.asked.is_some() {
            return;
        }
        let untried = self.answers.iter().filter(|answer| !copy.tried.contains(&answer.replica));
        let lacks = |answer: &Answer| !(answer.run.base..answer.run.end).contains(&entry);
        let order = |a: &&Answer| (lacks(a), copy.silence(a.replica), a.replica);
        let source = untried.min_by_key(order);
        if let Some(to) = source.map(|answer| answer.replica) {
            self.copies[at].asked = Some(to);
            let request = Request::Read { ledger: self.plan.ledger, entry };
            return effects.push(Effect::Send { to, request });
        }
        let must = self.must_end().is_none_or(|must_end| entry < must_end);
        if must && !planted!("PB-L17") {
            probe!("recovery: stuck on an entry that must be read");
            return effects.push(Effect::Stuck { entry });
        }
        probe!("recovery: entry given up");
        self.given_up = Some(entry);
        self.copies.truncate(at);
        if planted!("PB-L17") && self.copies.is_empty() {
            return self.close(effects);
        }
        self.proceed(effects);
    }

    fn have(&mut self, from: ReplicaId, frame: EntryFrame, effects: &mut Vec<Effect>) {
        let Some(at) = self.place_of(frame.entry) else { return };
        let copy = &mut self.copies[at];
        let asked = copy.asked == Some(from) || copy.silent.contains(&from);
        if !asked || copy.frame.is_some() {
            return;
        }
        copy.asked = None;
        copy.frame = Some(frame);
        self.send_copies(at, effects);
    }

    fn send_copies(&self, at: usize, effects: &mut Vec<Effect>) {
        let copy = &self.copies[at];
        let Some(frame) = &copy.frame else { return };
        for to in self.target.iter().copied().filter(|to| !copy.acked.contains(to)) {
            let request = Request::Repair { by: self.plan.by, entry: frame.clone() };
            effects.push(Effect::Send { to, request });
        }
    }

    fn cannot_give(&mut self, from: ReplicaId, entry: EntryId, effects: &mut Vec<Effect>) {
        let Some(at) = self.place_of(entry) else { return };
        if self.copies[at].asked != Some(from) {
            return;
        }
        self.copies[at].asked = None;
        self.copies[at].tried.push(from);
        self.copies[at].tried.sort_unstable();
        let claims = |run: &RunFacts| (run.base..run.end).contains(&entry);
        let claimant = self.answers.iter_mut().find(|a| a.replica == from && claims(&a.run));
        if let Some(answer) = claimant {
            probe!("recovery: a replica cannot read what it claims");
            answer.failed = true;
        }
        self.ask(entry, effects);
        self.proceed(effects);
    }

    fn repaired(&mut self, from: ReplicaId, entry: EntryId, effects: &mut Vec<Effect>) {
        let Some(at) = self.place_of(entry) else { return };
        let copy = &mut self.copies[at];
        let again = copy.acked.contains(&from) && !planted!("PB-B18");
        if !self.target.contains(&from) || again || copy.frame.is_none() {
            return;
        }
        copy.acked.push(from);
        copy.acked.sort_unstable();
        let enough = usize::from(self.plan.quorum.ack);
        while self.copies.pop_front_if(|copy| copy.acked.len() >= enough).is_some() {
            self.copied_end = self.copied_end.next();
        }
        self.proceed(effects);
    }

    fn retry(&mut self, effects: &mut Vec<Effect>) {
        self.fence_silent(effects);
        for copy in &mut self.copies {
            copy.tried.clear();
            if let Some(silent) = copy.asked.take().filter(|_| !planted!("PB-B7r")) {
                probe!("recovery: a replica that was to be read from is silent");
                copy.silent.retain(|replica| *replica != silent);
                copy.silent.push(silent);
            }
        }
        for at in 0..self.copies.len() {
            self.send_copies(at, effects);
        }
        self.ask_all(effects);
        self.proceed(effects);
    }

    /// Sends a replica again what it has not answered, and nobody else anything.
    fn connected(&mut self, to: ReplicaId, effects: &mut Vec<Effect>) {
        let Plan { ledger, by, .. } = self.plan;
        let mut send = |request| effects.push(Effect::Send { to, request });
        if self.silent().any(|silent| silent == to) {
            send(Request::Fence { ledger, by });
        }
        let takes_copies = self.target.contains(&to);
        for copy in &self.copies {
            let entry = copy.entry;
            match &copy.frame {
                None if copy.asked == Some(to) => send(Request::Read { ledger, entry }),
                Some(frame) if takes_copies && !copy.acked.contains(&to) => {
                    send(Request::Repair { by, entry: frame.clone() });
                }
                _ => {}
            }
        }
    }

    /// Copies begin anew: what was counted may have been on the member that goes.
    fn substitute(&mut self, old: ReplicaId, new: ReplicaId, effects: &mut Vec<Effect>) {
        let swap = |member: &ReplicaId| if *member == old { new } else { *member };
        let target: Vec<ReplicaId> = self.target.iter().map(swap).collect();
        let known = self.target.contains(&new) || !self.target.contains(&old);
        let late = self.phase == Phase::Closing;
        if late || known || self.plan.quorum.validate_ensemble(&target).is_err() {
            return;
        }
        probe!("recovery: copies go to a substitute");
        self.target = target;
        self.copied_end = self.start;
        self.copies.clear();
        if planted!("PB-L25") {
            let Plan { by: epoch, first, .. } = self.plan;
            let first = first.max(self.start);
            let ensemble = self.target.clone();
            let early = Change::ChangeEnsemble { epoch, id: u64::MAX, first, ensemble };
            effects.push(Effect::Register(early));
        }
        self.proceed(effects);
    }

    fn close(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Closing;
        let ending =
            Ending { start: self.start, end: self.copied_end, ensemble: self.target.clone() };
        effects.push(Effect::Register(Change::Close {
            epoch: self.plan.by,
            ending,
            quorum: self.plan.next_quorum,
            ensemble: self.plan.next_ensemble.clone(),
        }));
    }

    fn end(&mut self, effect: Effect, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        self.copies.clear();
        effects.push(effect);
    }

    fn place_of(&self, entry: EntryId) -> Option<usize> {
        let at = usize::try_from(entry.0.checked_sub(self.copied_end.0)?).ok()?;
        (at < self.copies.len()).then_some(at)
    }
}

#[cfg(test)]
mod tests;
