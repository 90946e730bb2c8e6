//! The ledger writer: sends entries to the ensemble, and counts acks into a commit point.
//!
//! A member that is slow, gone or distrusted is replaced by an ensemble change through the register. While the outcome
//! of a change is not known the register may hold either ensemble: frames go to the members of both, and only the acks
//! of members of both count.
//!
//! Invariants, asserted by [`Writer::check`]:
//! 1. The commit point is what the ack quorum of the eligible members has reached, and never goes back (L4, L5).
//! 2. At most one change is outstanding, and no possible ensemble has two members on one node (L18, L19).
//! 3. The window holds a contiguous run of entries up to the newest, and every entry that is not committed (L5).
//! 4. A member's base is at most the commit point at the time it was opened (L15).
//! 5. A stopped writer never moves its commit point again (L1).
//!
//! Deliberately not here: which replica replaces which, and when (the shell asks placement, by measured latency).

use crate::frame::EntryFrame;
use crate::ledger::Entry;
use crate::message::{Refusal, Reply, Request, RunFacts};
use crate::quorum::Quorum;
use crate::register::Change;
use std::collections::VecDeque;
use thalweg_actor::explore::Digest;
use thalweg_actor::machine::Machine;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{Address, EntryId, Epoch, Incarnation, LedgerId, ReplicaId};
use thalweg_types::time::Instant;

/// Bytes of entries kept for members that have not acked them; beyond it committed entries are dropped and a member
/// that lacks them is left behind.
pub const WINDOW_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What can happen to a writer.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input: the ledger is open in the register.
    Begin,
    /// The owner wants `Entry` appended as [`Writer::next`].
    Submit(Entry),
    /// A replica answers.
    Reply {
        /// Who.
        from: ReplicaId,
        /// What.
        reply: Reply,
    },
    /// The connection to a replica is back: what has it got?
    Reconnected {
        /// Whose.
        replica: ReplicaId,
    },
    /// Time to see whether a replica whose disk was full has room again.
    Retry {
        /// Whose.
        replica: ReplicaId,
    },
    /// The shell has reason not to rely on a member any more.
    Distrust {
        /// Whom.
        replica: ReplicaId,
        /// Why.
        why: Distrust,
    },
    /// Placement has found a substitute for a member.
    Replace {
        /// The member that shall go.
        old: ReplicaId,
        /// The replica that shall take its place.
        new: ReplicaId,
    },
    /// The register has answered the outstanding change: it is applied.
    Changed,
    /// The register has moved `keep_from`.
    Kept {
        /// The first address that must be kept.
        keep_from: Address,
    },
    /// The register has answered `Stale`, or the owner gives up: nothing more may be committed.
    Stop(StopReason),
}

/// Why a writer has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A replica was fenced by this epoch.
    Fenced {
        /// The newer owner's epoch.
        by: Epoch,
    },
    /// The register belongs to a newer epoch.
    Superseded,
    /// The local storage has failed.
    StorageFailed,
    /// The owner ends.
    ShutDown,
    /// The owner wants a fresh ensemble, which only a new epoch can give: it shall open the log again at once.
    Renew,
}

/// Why a member's acks no longer count, for the life of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distrust {
    /// It was too slow for the window.
    LeftBehind,
    /// It has lost what it had acked: an alarm.
    LostData,
    /// It does not know the ledger, or cannot vouch for it.
    Doubtful,
    /// Its storage was mounted more often before than now: what it had acked since is gone.
    RolledBack,
}

/// What a writer wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this to the replica, in order.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        request: Request,
    },
    /// Everything below `end` is committed.
    Committed {
        /// The commit point.
        end: EntryId,
    },
    /// Submit this change to the register until an outcome is known, then step [`Input::Changed`] or
    /// [`Input::Stop`].
    Register(Change),
    /// A member's acks no longer count: find a substitute.
    Distrusted {
        /// Who.
        replica: ReplicaId,
        /// Why.
        why: Distrust,
    },
    /// A member's disk is full: it gets only what may use the reserve, until a retry is acked. Its acks still count.
    Full {
        /// Whose.
        replica: ReplicaId,
    },
    /// Nothing more is committed. Entries beyond the commit point have an unknown outcome.
    Stopped(StopReason),
}

/// One replica that gets frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Member {
    replica: ReplicaId,
    base: EntryId,
    /// What counts towards the commit point.
    acked_end: EntryId,
    /// What it said it has, whether that counted or not.
    seen_end: EntryId,
    distrusted: bool,
    /// It has refused entries because its disk is full.
    full: bool,
    /// Where it was last rewound to on this connection: what it was sent before that may be refused many times over.
    rewound_to: Option<EntryId>,
}

impl Member {
    fn new(replica: ReplicaId, base: EntryId) -> Self {
        let (distrusted, full, rewound_to) = (false, false, None);
        Self { replica, base, acked_end: base, seen_end: base, distrusted, full, rewound_to }
    }
}

/// A change whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal {
    id: u64,
    first: EntryId,
    old: ReplicaId,
    new: ReplicaId,
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Writer {
    ledger: LedgerId,
    incarnation: Incarnation,
    quorum: Quorum,
    /// The ensemble that the register is known to have had last.
    ensemble: Vec<ReplicaId>,
    proposal: Option<Proposal>,
    last_change_id: u64,
    members: Vec<Member>,
    next: EntryId,
    committed_end: EntryId,
    keep_from: Address,
    window: VecDeque<EntryFrame>,
    window_bytes: usize,
    window_bytes_max: usize,
    stopped: Option<StopReason>,
}

impl Writer {
    /// The writer of a ledger that the register has just opened with `ensemble`.
    pub fn new(
        ledger: LedgerId,
        incarnation: Incarnation,
        quorum: Quorum,
        ensemble: &[ReplicaId],
        keep_from: Address,
    ) -> Self {
        let mut writer = Self {
            ledger,
            incarnation,
            quorum,
            ensemble: ensemble.to_vec(),
            proposal: None,
            last_change_id: 0,
            members: Vec::new(),
            next: EntryId(0),
            committed_end: EntryId(0),
            keep_from,
            window: VecDeque::new(),
            window_bytes: 0,
            window_bytes_max: WINDOW_BYTES_MAX,
            stopped: None,
        };
        writer.members = ensemble.iter().map(|replica| Member::new(*replica, EntryId(0))).collect();
        writer
    }

    /// Keeps no more than `bytes` for members that lack them, instead of [`WINDOW_BYTES_MAX`].
    #[must_use]
    pub fn with_window(self, bytes: usize) -> Self {
        Self { window_bytes_max: bytes, ..self }
    }

    /// Which ledger.
    pub fn ledger(&self) -> LedgerId {
        self.ledger
    }

    /// The number that the next submitted entry gets.
    pub fn next(&self) -> EntryId {
        self.next
    }

    /// Everything below is committed.
    pub fn committed_end(&self) -> EntryId {
        self.committed_end
    }

    /// Why it has stopped, if it has.
    pub fn stopped(&self) -> Option<StopReason> {
        self.stopped
    }

    /// The ensemble that the register is known to have had last.
    pub fn ensemble(&self) -> &[ReplicaId] {
        &self.ensemble
    }

    /// True while the outcome of an ensemble change is not known.
    pub fn is_changing(&self) -> bool {
        self.proposal.is_some()
    }

    /// Everything that decides what it will do, for the explorer. `place` numbers the replicas; their order in a list
    /// decides nothing.
    pub fn digest<const N: usize>(
        &self,
        place: impl Fn(ReplicaId) -> usize,
        digest: &mut Digest<N>,
    ) {
        let Self { ledger, incarnation, quorum, ensemble, proposal, .. } = self;
        let Self { last_change_id, members, next, committed_end, keep_from, .. } = self;
        let Self { window, window_bytes, stopped, .. } = self;
        digest.all(&(ledger, committed_end, stopped.is_some()));
        if stopped.is_some() {
            return; // It does nothing any more.
        }
        let proposed = proposal.as_ref().map(|proposal| (proposal.id, proposal.first));
        digest.all(&(incarnation, quorum, proposed, last_change_id));
        digest.all(&(next, keep_from, window, window_bytes));
        for replica in ensemble {
            digest.of(place(*replica), &("writer: ensemble", ledger.epoch));
        }
        if let Some(Proposal { old, new, .. }) = proposal {
            digest.of(place(*old), &("writer: leaves", ledger.epoch));
            digest.of(place(*new), &("writer: joins", ledger.epoch));
        }
        for member in members {
            let Member { replica, base, acked_end, seen_end, .. } = member;
            let Member { distrusted, full, rewound_to, .. } = member;
            let ends = (base, acked_end, seen_end, distrusted, full, rewound_to);
            digest.of(place(*replica), &("writer: member", ledger.epoch, ends));
        }
    }

    /// Members whose acks no longer count.
    pub fn distrusted(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.iter().filter(|member| member.distrusted).map(|member| member.replica)
    }

    /// Members whose disk is full.
    pub fn full(&self) -> impl Iterator<Item = ReplicaId> {
        let full = self.members.iter().filter(|member| member.full && !member.distrusted);
        full.map(|member| member.replica)
    }

    /// Everybody who gets frames: the members of every ensemble that the register may hold.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.iter().map(|member| member.replica)
    }

    /// Bytes of the entries that are kept for members which lack them.
    pub fn window_bytes(&self) -> usize {
        self.window_bytes
    }
}

impl Machine for Writer {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, _now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.stopped.is_some() && !planted!("PB-B9") {
            return;
        }
        match input {
            Input::Begin => {
                for member in &self.members {
                    effects.push(self.open(member));
                }
            }
            Input::Submit(entry) => self.submit(entry, effects),
            Input::Reply { from, reply } => self.reply(from, &reply, effects),
            Input::Reconnected { replica } => self.reconnected(replica, effects),
            Input::Retry { replica } => self.retry(replica, effects),
            Input::Distrust { replica, why } => self.distrust(replica, why, effects),
            Input::Replace { old, new } => self.replace(old, new, effects),
            Input::Changed => self.changed(effects),
            Input::Kept { keep_from } => self.keep_from = self.keep_from.max(keep_from),
            Input::Stop(why) => self.stop(why, effects),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn check(&self) {
        assert!(self.committed_end <= self.next);
        let oldest = EntryId(self.next.0 - self.window.len() as u64);
        let mut numbers = self.window.iter().zip(oldest.0..);
        assert!(numbers.all(|(frame, number)| frame.entry.0 == number));
        if self.stopped.is_none() {
            assert!(oldest <= self.committed_end);
            assert!(self.reached().is_none_or(|end| end <= self.committed_end));
        }
        for ensemble in self.possible() {
            assert!(self.quorum.validate_ensemble(&ensemble).is_ok());
        }
        let early = |member: &Member| member.base <= self.committed_end || planted!("PB-L10");
        assert!(self.members.iter().all(early));
    }
}

impl Writer {
    fn open(&self, member: &Member) -> Effect {
        let request = Request::Open {
            ledger: self.ledger,
            base: member.base,
            incarnation: self.incarnation,
            committed_end: self.committed_end,
        };
        Effect::Send { to: member.replica, request }
    }

    fn submit(&mut self, entry: Entry, effects: &mut Vec<Effect>) {
        let frame = EntryFrame {
            ledger: self.ledger,
            base: EntryId(0), // Each member's own, filled in when it is sent.
            entry: self.next,
            lac: self.committed_end.0.checked_sub(1).map(EntryId),
            keep_from: self.keep_from,
            headers: entry.headers,
            payload: entry.payload,
            exempt: entry.exempt,
        };
        self.next = self.next.next();
        for member in self.members.iter().filter(|member| !member.distrusted && !member.full) {
            effects.push(append(member, &frame));
        }
        let relieves = frame.exempt;
        self.window_bytes += frame.content_len();
        self.window.push_back(frame);
        if relieves {
            self.draw_along(effects);
        }
        self.shrink_window(effects);
    }

    fn reply(&mut self, from: ReplicaId, reply: &Reply, effects: &mut Vec<Effect>) {
        match *reply {
            Reply::Opened { ledger, base, end } | Reply::Ack { ledger, base, end } => {
                self.acked(from, ledger, base, end, effects);
            }
            Reply::Fenced { ledger, by } if ledger == self.ledger => {
                self.stop(StopReason::Fenced { by }, effects);
            }
            Reply::OutOfOrder { ledger, base, end } if ledger == self.ledger => {
                self.rewind(from, base, end, effects);
            }
            Reply::Refused { ledger, why } if ledger == self.ledger => {
                self.refused(from, why, effects);
            }
            Reply::Greeting { ledger, run, fenced_by } if ledger == self.ledger => {
                self.greeting(from, run, fenced_by, effects);
            }
            _ => {} // Of another ledger, or no answer to anything a writer asks.
        }
    }

    fn acked(
        &mut self,
        from: ReplicaId,
        ledger: LedgerId,
        base: EntryId,
        end: EntryId,
        effects: &mut Vec<Effect>,
    ) {
        if ledger != self.ledger || end > self.next {
            return; // Of another ledger, or of entries nobody sent: refused.
        }
        let eligible = self.is_eligible(from);
        let Some(member) = self.members.iter_mut().find(|m| m.replica == from) else {
            return; // Replaced by an ensemble change: its vote no longer counts.
        };
        if member.base != base {
            return; // Of a run that is over.
        }
        let has_room = member.full && end > member.seen_end;
        member.full &= !has_room;
        member.seen_end = member.seen_end.max(end);
        if eligible {
            member.acked_end = member.acked_end.max(end);
            self.advance(effects);
        }
        if has_room {
            probe!("writer: a full replica has room again");
            self.resend(from, base, end, effects);
        }
        self.shrink_window(effects);
    }

    fn refused(&mut self, from: ReplicaId, why: Refusal, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.iter_mut().find(|m| m.replica == from) else { return };
        match why {
            Refusal::Full if member.full || member.distrusted => {}
            Refusal::Full => {
                probe!("writer: a replica is full");
                member.full = true;
                effects.push(Effect::Full { replica: from });
                self.draw_along(effects);
            }
            // What followed an open that a full disk refused.
            Refusal::UnknownLedger if member.full => {}
            Refusal::UnknownLedger | Refusal::Limbo => {
                self.distrust(from, Distrust::Doubtful, effects);
            }
        }
    }

    /// Sends a full member the oldest entry that it lacks: if that is acked, the rest follows.
    fn retry(&mut self, replica: ReplicaId, effects: &mut Vec<Effect>) {
        let full = |m: &&Member| m.replica == replica && m.full && !m.distrusted;
        let Some(member) = self.members.iter().find(full) else { return };
        effects.push(self.open(member));
        effects.extend(self.lacking(member).take(1).map(|frame| append(member, frame)));
        self.draw_along(effects);
    }

    /// An entry that may use the reserve of a full disk draws those in front of it along.
    fn draw_along(&self, effects: &mut Vec<Effect>) {
        for member in self.members.iter().filter(|member| member.full && !member.distrusted) {
            let last = self.lacking(member).filter(|frame| frame.exempt).last();
            let Some(last) = last.map(|frame| frame.entry) else { continue };
            let drawn = self.lacking(member).take_while(|frame| frame.entry <= last);
            effects.extend(drawn.map(|frame| {
                let frame = EntryFrame { base: member.base, exempt: true, ..frame.clone() };
                Effect::Send { to: member.replica, request: Request::Append(frame) }
            }));
        }
    }

    /// What the window has that the member has not acked.
    fn lacking(&self, member: &Member) -> impl Iterator<Item = &EntryFrame> {
        let oldest = self.next.0 - self.window.len() as u64;
        let skip = usize::try_from(member.seen_end.0.saturating_sub(oldest)).unwrap_or(usize::MAX);
        self.window.iter().skip(skip)
    }

    /// The end that the ack quorum of the eligible members has reached.
    fn reached(&self) -> Option<EntryId> {
        let eligible = self.members.iter().filter(|member| self.is_eligible(member.replica));
        let acked = eligible.map(|member| member.acked_end);
        if planted!("PB-L3") {
            let twice: Vec<EntryId> = acked.flat_map(|end| [end, end]).collect();
            return self.quorum.committed_end(twice.into_iter());
        }
        if planted!("PB-L2") {
            let fewer = Quorum { ack: self.quorum.ack - 1, ..self.quorum };
            return fewer.committed_end(acked);
        }
        self.quorum.committed_end(acked)
    }

    fn advance(&mut self, effects: &mut Vec<Effect>) {
        if let Some(end) = self.reached().filter(|end| *end > self.committed_end) {
            self.committed_end = end;
            effects.push(Effect::Committed { end });
        }
    }

    fn reconnected(&mut self, replica: ReplicaId, effects: &mut Vec<Effect>) {
        let member = self.members.iter_mut().find(|member| member.replica == replica);
        if let Some(member) = member {
            member.rewound_to = None;
            // The open may have been lost with the connection; repeating it is harmless.
            let member = member.clone();
            effects.push(self.open(&member));
            let hello = Request::Hello { ledger: self.ledger };
            effects.push(Effect::Send { to: replica, request: hello });
        }
    }

    fn greeting(
        &mut self,
        from: ReplicaId,
        run: Option<RunFacts>,
        fenced_by: Option<Epoch>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(by) = fenced_by {
            return self.stop(StopReason::Fenced { by }, effects);
        }
        let Some(member) = self.members.iter().find(|member| member.replica == from) else {
            return;
        };
        match run {
            Some(run) if run.base == member.base && run.certain && run.end >= member.seen_end => {
                let base = run.base;
                self.acked(from, self.ledger, base, run.end, effects);
                self.resend(from, base, run.end, effects);
            }
            Some(run) if run.base == member.base && run.certain => {
                // A disk that was told to keep it has not.
                self.distrust(from, Distrust::LostData, effects);
            }
            // A full disk has refused the open as well.
            None if member.full => {}
            _ => self.distrust(from, Distrust::Doubtful, effects),
        }
    }

    /// The replica expects `end`. Everything that was sent behind it meets the same refusal; one rewind serves all.
    fn rewind(&mut self, to: ReplicaId, base: EntryId, end: EntryId, effects: &mut Vec<Effect>) {
        let member = self.members.iter_mut().find(|m| m.replica == to && m.base == base);
        let Some(member) = member.filter(|member| member.rewound_to != Some(end)) else { return };
        probe!("writer: rewind");
        member.rewound_to = Some(end);
        self.resend(to, base, end, effects);
    }

    /// Sends everything from `end` on again.
    fn resend(&mut self, to: ReplicaId, base: EntryId, end: EntryId, effects: &mut Vec<Effect>) {
        let member = self.members.iter().find(|m| m.replica == to && m.base == base);
        let Some(member) = member.filter(|member| !member.distrusted && !member.full) else {
            return;
        };
        let oldest = self.next.0 - self.window.len() as u64;
        let Some(skip) = end.0.checked_sub(oldest) else {
            return self.distrust(to, Distrust::LeftBehind, effects);
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        effects.extend(self.window.iter().skip(skip).map(|frame| append(member, frame)));
    }

    fn distrust(&mut self, replica: ReplicaId, why: Distrust, effects: &mut Vec<Effect>) {
        let member = self.members.iter_mut().find(|m| m.replica == replica && !m.distrusted);
        if let Some(member) = member {
            probe!("writer: member distrusted");
            member.distrusted = true;
            effects.push(Effect::Distrusted { replica, why });
            self.shrink_window(effects);
        }
    }

    /// Proposes `new` in place of `old`. Refused (nothing happens) if a change is outstanding, `old` is no member,
    /// `new` has been one, or lives on the node of another member.
    fn replace(&mut self, old: ReplicaId, new: ReplicaId, effects: &mut Vec<Effect>) {
        let proposed = substitute(&self.ensemble, old, new);
        let valid =
            self.quorum.validate_ensemble(&proposed).is_ok() && self.ensemble.contains(&old);
        let known = self.members.iter().any(|member| member.replica == new);
        if self.proposal.is_some() || !valid || known {
            return;
        }
        let (id, first) = (self.last_change_id + 1, self.committed_end);
        // The planted variant begins behind what is under way, and never sends that.
        let base = if planted!("PB-L10") { self.next } else { first };
        let member = Member::new(new, base);
        effects.push(self.open(&member));
        self.members.push(member);
        self.proposal = Some(Proposal { id, first, old, new });
        if !planted!("PB-L10") {
            self.resend(new, first, first, effects);
        }
        let epoch = self.ledger.epoch;
        let change = Change::ChangeEnsemble { epoch, id, first, ensemble: proposed };
        effects.push(Effect::Register(change));
    }

    fn changed(&mut self, effects: &mut Vec<Effect>) {
        let Some(Proposal { id, first, old, new }) = self.proposal.take() else { return };
        self.ensemble = substitute(&self.ensemble, old, new);
        self.last_change_id = id;
        self.members.retain(|member| member.replica != old);
        if let Some(member) = self.members.iter_mut().find(|member| member.replica == new) {
            member.acked_end = first.max(member.seen_end);
        }
        self.advance(effects);
        self.shrink_window(effects);
    }

    fn stop(&mut self, why: StopReason, effects: &mut Vec<Effect>) {
        self.stopped = Some(why);
        self.window.clear();
        self.window_bytes = 0;
        effects.push(Effect::Stopped(why));
    }

    /// Drops what every trusted member has; over the limit, drops what is committed and leaves behind who lacks it.
    fn shrink_window(&mut self, effects: &mut Vec<Effect>) {
        let trusted = self.members.iter().filter(|member| !member.distrusted);
        let everywhere = trusted.map(|member| member.seen_end).min();
        let everywhere = everywhere.unwrap_or(self.committed_end).min(self.committed_end);
        self.drop_below(everywhere);
        while self.window_bytes > self.window_bytes_max {
            let Some(oldest) = self.window.front().map(|frame| frame.entry) else { return };
            if oldest >= self.committed_end {
                return; // Callers bound what is in flight.
            }
            self.drop_below(oldest.next());
            let lacks = |m: &&mut Member| !m.distrusted && m.seen_end <= oldest;
            for member in self.members.iter_mut().filter(lacks) {
                probe!("writer: member left behind");
                member.distrusted = true;
                let (replica, why) = (member.replica, Distrust::LeftBehind);
                effects.push(Effect::Distrusted { replica, why });
            }
        }
    }

    fn drop_below(&mut self, end: EntryId) {
        while let Some(frame) = self.window.pop_front_if(|frame| frame.entry < end) {
            self.window_bytes -= frame.content_len();
        }
    }

    /// Every ensemble that the register may hold.
    fn possible(&self) -> impl Iterator<Item = Vec<ReplicaId>> {
        let proposed = self.proposal.as_ref().map(|p| substitute(&self.ensemble, p.old, p.new));
        std::iter::once(self.ensemble.clone()).chain(proposed)
    }

    /// True if the replica is in every possible ensemble and trusted: its acks count.
    fn is_eligible(&self, replica: ReplicaId) -> bool {
        let leaving = self.proposal.as_ref().is_some_and(|p| p.old == replica);
        let distrusted = self.members.iter().any(|m| m.replica == replica && m.distrusted);
        let kept = !leaving || planted!("PB-L23");
        self.ensemble.contains(&replica) && kept && !distrusted
    }
}

fn append(member: &Member, frame: &EntryFrame) -> Effect {
    let frame = EntryFrame { base: member.base, ..frame.clone() };
    Effect::Send { to: member.replica, request: Request::Append(frame) }
}

fn substitute(ensemble: &[ReplicaId], old: ReplicaId, new: ReplicaId) -> Vec<ReplicaId> {
    ensemble.iter().map(|member| if *member == old { new } else { *member }).collect()
}

#[cfg(test)]
mod tests;
