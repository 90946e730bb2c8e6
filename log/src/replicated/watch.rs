//! Looks after a ledger's members while it is written: who is too slow, who must go, and when to tell a commit point
//! that no entry carries.
//!
//! A member is *slow* when it leaves entries unacked, without any progress, for longer than the others ever take: eight
//! times the 99th percentile of their ack latency, but never less than [`SILENCE_MIN`]. It must look so twice: an owner
//! that was itself suspended finds everybody silent at its first look.
//!
//! Invariants, asserted by [`Watch::check`]:
//! 1. At most one replacement is asked for at a time, and none while a change is pending.
//! 2. What is asked for is a member.
//! 3. Whoever has nothing to ack is not silent.
//!
//! Deliberately not here: who takes a place (placement), how many changes a node may make ([`Budget`] is shared by all
//! its ledgers), and what a change is (the writer).

use std::time::Duration;
use thalweg_actor::machine::Machine;
use thalweg_actor::probe;
use thalweg_types::id::{EntryId, ReplicaId};
use thalweg_types::time::Instant;

/// Less silence than this makes nobody slow.
pub(super) const SILENCE_MIN: Duration = Duration::from_millis(50);
/// How many times the others' latency makes silence suspicious.
const SILENCE_FACTOR: u32 = 8;
/// Between looks, while something is under way. Also how long a ledger is idle before its commit point is told.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks at which a member must be slow before it is replaced.
const LOOKS: u32 = 2;
/// While several members look slow the fault may be the owner's or the network's: nobody is replaced until it has
/// lasted this long.
pub(super) const SEVERAL_SLOW: Duration = Duration::from_secs(5);
/// After a replacement was refused it is asked for again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A member that is silent or full is addressed again.
const NUDGE_EVERY: Duration = Duration::from_millis(500);
/// Ack latencies that are remembered per member.
const SAMPLES: usize = 128;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// An entry has been sent to all members; everything below `committed_end` is known to be committed by it.
    Sent { end: EntryId, committed_end: EntryId },
    /// A member has acked.
    Acked { replica: ReplicaId, end: EntryId },
    /// Everything below is committed.
    Committed { end: EntryId },
    /// A member joins.
    Joined { replica: ReplicaId },
    /// A member is gone.
    Left { replica: ReplicaId },
    /// A member counts no more, for the life of the ledger.
    Unfit { replica: ReplicaId },
    /// A member's disk is full, or has room again.
    Full { replica: ReplicaId, full: bool },
    /// The replacement that was asked for has been proposed.
    Proposed,
    /// It has not: nobody can take the place, or not yet.
    Refused { again: Instant },
    /// The outcome of a change is known.
    Changed,
    /// The deadline has come.
    Look,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Find a substitute for this member.
    Replace { replica: ReplicaId },
    /// Tell all members the commit point.
    Tell { end: EntryId },
    /// The member is silent: ask it what it has.
    Nudge { replica: ReplicaId },
    /// The member is full: ask it whether it has room.
    Retry { replica: ReplicaId },
}

/// The last ack latencies of one member.
#[derive(Clone, Debug)]
struct Latencies {
    nanos: [u64; SAMPLES],
    next: usize,
    count: usize,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        self.nanos[self.next] = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.next = (self.next + 1) % SAMPLES;
        self.count = (self.count + 1).min(SAMPLES);
    }
}

#[derive(Clone, Debug)]
struct Seat {
    replica: ReplicaId,
    acked_end: EntryId,
    /// Since when it has entries to ack and has made no progress.
    silent_since: Option<Instant>,
    /// An entry whose ack is being timed: the end that covers it, and when it was sent.
    timed: Option<(EntryId, Instant)>,
    latencies: Latencies,
    slow_looks: u32,
    unfit: bool,
    full: bool,
    nudged: Instant,
}

impl Seat {
    fn new(replica: ReplicaId, acked_end: EntryId) -> Self {
        Self {
            replica,
            acked_end,
            silent_since: None,
            timed: None,
            latencies: Latencies { nanos: [0; SAMPLES], next: 0, count: 0 },
            slow_looks: 0,
            unfit: false,
            full: false,
            nudged: Instant(0),
        }
    }

    fn is_slow(&self) -> bool {
        self.slow_looks >= LOOKS
    }
}

/// Whether somebody waits for a substitute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    /// The shell looks for one.
    Asked(ReplicaId),
    /// The register decides.
    Pending,
}

/// See the module's header.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    seats: Vec<Seat>,
    sent_end: EntryId,
    sent_at: Instant,
    committed_end: EntryId,
    /// What members have heard of `committed_end`.
    told_end: EntryId,
    asking: Asking,
    /// No replacement is asked for before.
    ask_at: Instant,
    /// Since when several members have been slow.
    several_since: Option<Instant>,
    look_at: Option<Instant>,
}

impl Watch {
    /// Over a ledger that has just been opened on `ensemble`.
    pub(super) fn new(ensemble: &[ReplicaId]) -> Self {
        Self {
            seats: ensemble.iter().map(|replica| Seat::new(*replica, EntryId(0))).collect(),
            sent_end: EntryId(0),
            sent_at: Instant(0),
            committed_end: EntryId(0),
            told_end: EntryId(0),
            asking: Asking::No,
            ask_at: Instant(0),
            several_since: None,
            look_at: None,
        }
    }

    /// Members that have been silent for too long.
    pub(super) fn slow(&self) -> impl Iterator<Item = ReplicaId> {
        self.seats.iter().filter(|seat| seat.is_slow()).map(|seat| seat.replica)
    }
}

impl Machine for Watch {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Sent { end, committed_end } => self.sent(now, end, committed_end),
            Input::Acked { replica, end } => self.acked(now, replica, end),
            Input::Committed { end } => {
                self.committed_end = end;
                self.look_soon(now);
            }
            Input::Joined { replica } => {
                let mut seat = Seat::new(replica, self.committed_end);
                // It has the window to catch up with.
                seat.silent_since = (self.sent_end > seat.acked_end).then_some(now);
                self.seats.push(seat);
                self.look_soon(now);
            }
            Input::Left { replica } => self.seats.retain(|seat| seat.replica != replica),
            Input::Unfit { replica } => {
                if let Some(seat) = self.seat(replica) {
                    seat.unfit = true;
                    seat.silent_since = None;
                    seat.slow_looks = 0;
                }
                self.look_soon(now);
            }
            Input::Full { replica, full } => {
                if let Some(seat) = self.seat(replica) {
                    seat.full = full;
                    seat.nudged = now;
                }
                self.look_soon(now);
            }
            Input::Proposed => self.asking = Asking::Pending,
            Input::Refused { again } => {
                self.asking = Asking::No;
                self.ask_at = again;
                self.look_soon(now);
            }
            Input::Changed => {
                self.asking = Asking::No;
                self.look_soon(now);
            }
            Input::Look => self.look(now, effects),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    fn check(&self) {
        if let Asking::Asked(replica) = self.asking {
            assert!(self.seats.iter().any(|seat| seat.replica == replica));
        }
        for seat in &self.seats {
            assert!(seat.silent_since.is_none() || seat.acked_end < self.sent_end);
        }
    }
}

impl Watch {
    fn seat(&mut self, replica: ReplicaId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.replica == replica)
    }

    fn look_soon(&mut self, now: Instant) {
        let soon = now.after(LOOK_EVERY);
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
    }

    fn sent(&mut self, now: Instant, end: EntryId, committed_end: EntryId) {
        self.sent_end = end;
        self.sent_at = now;
        self.told_end = self.told_end.max(committed_end);
        for seat in self.seats.iter_mut().filter(|seat| !seat.unfit) {
            seat.silent_since.get_or_insert(now);
            seat.timed.get_or_insert((end, now));
        }
        self.look_soon(now);
    }

    fn acked(&mut self, now: Instant, replica: ReplicaId, end: EntryId) {
        let sent_end = self.sent_end;
        let end = end.min(sent_end);
        let Some(seat) = self.seat(replica).filter(|seat| seat.acked_end < end) else { return };
        seat.acked_end = end;
        seat.slow_looks = 0;
        seat.silent_since = (end < sent_end && !seat.unfit).then_some(now);
        if let Some((_, sent_at)) = seat.timed.filter(|(timed_end, _)| *timed_end <= end) {
            seat.timed = None;
            seat.latencies.add(now.since(sent_at));
        }
    }

    /// How much silence makes `of` slow: it follows from what the others take.
    fn patience(&self, of: ReplicaId) -> Duration {
        let others = self.seats.iter().filter(|seat| seat.replica != of);
        let samples = others.flat_map(|seat| seat.latencies.nanos[..seat.latencies.count].iter());
        let mut nanos: Vec<u64> = samples.copied().collect();
        nanos.sort_unstable();
        let rank = (nanos.len() * 99).div_ceil(100);
        let high = rank.checked_sub(1).map_or(0, |at| nanos[at]);
        (Duration::from_nanos(high) * SILENCE_FACTOR).max(SILENCE_MIN)
    }

    fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.count_slow(now);
        self.tell(now, effects);
        self.nudge(now, effects);
        if let Some(replica) = self.to_replace(now) {
            self.asking = Asking::Asked(replica);
            effects.push(Effect::Replace { replica });
        }
        self.look_at = self.next_look(now);
    }

    fn count_slow(&mut self, now: Instant) {
        for at in 0..self.seats.len() {
            let replica = self.seats[at].replica;
            let late = self.seats[at].silent_since.is_some_and(|since| {
                let silence = now.since(since);
                silence > SILENCE_MIN && silence > self.patience(replica)
            });
            let seat = &mut self.seats[at];
            seat.slow_looks = if late { seat.slow_looks.saturating_add(1) } else { 0 };
        }
        if self.slow().count() > 1 {
            self.several_since.get_or_insert(now);
        } else {
            self.several_since = None;
        }
    }

    fn tell(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.committed_end > self.told_end && now.since(self.sent_at) >= LOOK_EVERY {
            self.told_end = self.committed_end;
            effects.push(Effect::Tell { end: self.committed_end });
        }
    }

    fn nudge(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for seat in self.seats.iter_mut().filter(|seat| !seat.unfit) {
            let due = now.since(seat.nudged) >= NUDGE_EVERY;
            if due && (seat.full || seat.is_slow()) {
                seat.nudged = now;
                let replica = seat.replica;
                effects.push(if seat.full {
                    Effect::Retry { replica }
                } else {
                    Effect::Nudge { replica }
                });
            }
        }
    }

    /// Whose substitute shall be looked for now.
    fn to_replace(&self, now: Instant) -> Option<ReplicaId> {
        if self.asking != Asking::No || now < self.ask_at {
            return None;
        }
        let several = self.several_since.is_some_and(|since| now.since(since) < SEVERAL_SLOW);
        if several {
            probe!("watch: several members look slow");
            return None;
        }
        let unfit = self.seats.iter().find(|seat| seat.unfit);
        let full = self.seats.iter().find(|seat| seat.full);
        let slow = self.seats.iter().find(|seat| seat.is_slow());
        unfit.or(full).or(slow).map(|seat| seat.replica)
    }

    fn next_look(&self, now: Instant) -> Option<Instant> {
        let busy = self.seats.iter().any(|seat| seat.silent_since.is_some() && !seat.is_slow());
        if busy || self.committed_end > self.told_end {
            return Some(now.after(LOOK_EVERY));
        }
        let lingering = |seat: &Seat| seat.unfit || seat.full || seat.is_slow();
        let nudge = now.after(NUDGE_EVERY);
        let ask = Some(self.ask_at).filter(|at| *at > now);
        self.seats.iter().any(lingering).then(|| ask.map_or(nudge, |at| at.min(nudge)))
    }
}

/// How many ensemble changes this process may propose, over all its ledgers: one per second. A disk that stalls touches
/// every container at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    next: Instant,
}

impl Budget {
    /// Takes one change out of the budget, or says when there will be one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        if now < self.next {
            probe!("watch: change put off by the budget");
            return Err(self.next);
        }
        self.next = now.after(Duration::from_secs(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
