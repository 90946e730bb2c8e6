//! The replica: one storage's part in one container's ledgers. It decides what is stored, acked, refused, vouched for.
//!
//! It stages frames and hears, in the same order, that they are durable; nothing is promised before.
//!
//! Invariants, asserted by [`Replica::check`] or by construction:
//! 1. A run is contiguous, and what is durable of it is a prefix of what is staged (L3, L20).
//! 2. Bases of a ledger only grow (L15).
//! 3. A fenced ledger takes no append; fences only rise, and `floor` is never below one (L6).
//! 4. An uncertain ledger takes no append and becomes certain by no copy from a peer (L16).
//! 5. The commit point that it reports is one that a writer sent, or `keep_from` (L10).
//!
//! Deliberately not here: bytes and files (the storage), and reading entries back (the shell).

use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::message::{Peer, Refusal, Reply, Request, RunFacts};
use crate::storage::Recovered;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use thalweg_actor::machine::Machine;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId};
use thalweg_types::time::Instant;

/// What can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Somebody asks for something.
    Request {
        /// Who.
        peer: Peer,
        /// What.
        request: Request,
    },
    /// The oldest `frames` staged frames that were not durable are durable now.
    Durable {
        /// How many.
        frames: usize,
    },
    /// The answer to [`Effect::Verify`].
    Verified {
        /// Who asked.
        peer: Peer,
        /// On whose authority.
        by: Epoch,
        /// The copy offered.
        entry: EntryFrame,
        /// The stored entry is there and whole.
        intact: bool,
    },
    /// The disk has become full, or has room again.
    Full(bool),
    /// Damage may have swallowed whole ledgers, of epochs up to this one.
    Limbo {
        /// The register's epoch when the storage was mounted; the highest if that is not known yet.
        upto: Epoch,
    },
    /// The ledger of `epoch` is closed, and every entry that the register wants here is held and has been verified.
    Settled {
        /// Which ledger.
        epoch: Epoch,
        /// Where it is closed.
        end: EntryId,
        /// The register's epoch: it is behind that one for good.
        by: Epoch,
    },
    /// The damage has swallowed nothing that anybody relies on, as the registers of all containers show.
    LimboOver,
}

/// What a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Stage this frame behind all earlier ones.
    Stage(Frame),
    /// Answer.
    Reply {
        /// Whom.
        peer: Peer,
        /// What.
        reply: Reply,
    },
    /// Read the entry and answer [`Reply::Have`] or [`Reply::Unknown`].
    Load {
        /// Who wants it.
        peer: Peer,
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry.
        entry: EntryId,
    },
    /// Read the headers of a run of entries and answer [`Reply::Headers`], or [`Reply::Unknown`] for the first entry.
    LoadHeaders {
        /// Who wants them.
        peer: Peer,
        /// Which ledger.
        ledger: LedgerId,
        /// The first entry.
        from: EntryId,
        /// No more entries than this.
        entries_max: u32,
        /// No more bytes than this, but for a first entry that is larger.
        bytes_max: u32,
    },
    /// Read the stored entry, check it, and come back with [`Input::Verified`].
    Verify {
        /// Who asked.
        peer: Peer,
        /// On whose authority.
        by: Epoch,
        /// The copy offered.
        entry: EntryFrame,
    },
}

/// A contiguous run of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    base: EntryId,
    staged_end: EntryId,
    durable_end: EntryId,
    /// The frame that began it is durable.
    opened: bool,
}

/// One ledger, as far as this storage is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    incarnation: Option<Incarnation>,
    /// Ascending bases; the last is the current run. After a restart only that one is known.
    runs: Vec<Run>,
    /// Copies outside the current run.
    repaired: BTreeSet<EntryId>,
    /// Those are all: nothing of the ledger is older than this process.
    copies_known: bool,
    committed_end: EntryId,
    fenced_by: Option<Epoch>,
    certain: bool,
    /// Where acks go.
    writer: Peer,
}

impl Part {
    fn new(base: EntryId) -> Self {
        Self {
            incarnation: None,
            runs: vec![Run { base, staged_end: base, durable_end: base, opened: false }],
            repaired: BTreeSet::new(),
            copies_known: true,
            committed_end: EntryId(0),
            fenced_by: None,
            certain: true,
            writer: Peer::default(),
        }
    }

    /// One whose run has come to `end` already, in the planted variant that begins a ledger with an append.
    fn at(base: EntryId, end: EntryId) -> Self {
        let run = Run { base, staged_end: end, durable_end: end, opened: true };
        Self { runs: vec![run], ..Self::new(base) }
    }

    fn recovered(state: &LedgerState) -> Self {
        let end = state.tail.map_or(state.base, EntryId::next);
        let run = Run { base: state.base, staged_end: end, durable_end: end, opened: true };
        Self {
            incarnation: state.incarnation,
            runs: vec![run],
            repaired: BTreeSet::new(),
            copies_known: false,
            committed_end: state.lac.map_or(EntryId(0), EntryId::next),
            fenced_by: state.fenced_by,
            certain: state.certain || planted!("PB-L8"),
            writer: Peer::default(),
        }
    }

    fn run(&self) -> &Run {
        self.runs.last().expect("a part is born with a run")
    }

    fn run_mut(&mut self) -> &mut Run {
        self.runs.last_mut().expect("a part is born with a run")
    }

    fn facts(&self) -> RunFacts {
        let oldest = planted!("PB-L22").then(|| self.runs.first()).flatten();
        let run = oldest.unwrap_or_else(|| self.run());
        RunFacts {
            base: run.base,
            end: run.durable_end,
            committed_end: self.committed_end,
            certain: self.certain,
        }
    }

    /// True if the entry has been staged here. False says nothing about entries from before a restart.
    fn holds(&self, entry: EntryId) -> bool {
        let within = |run: &Run| (run.base..run.staged_end).contains(&entry);
        self.repaired.contains(&entry) || self.runs.iter().any(within)
    }

    fn state(&self, ledger: LedgerId, keep_from: Address) -> LedgerState {
        let run = self.run();
        let last = |end: EntryId| end.0.checked_sub(1).map(EntryId);
        LedgerState {
            ledger,
            incarnation: self.incarnation,
            base: run.base,
            tail: if run.staged_end > run.base { last(run.staged_end) } else { None },
            lac: last(self.committed_end),
            keep_from,
            fenced_by: self.fenced_by,
            certain: self.certain,
        }
    }
}

/// What follows when the frame in the same place of the staging order is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    Nothing,
    Opened { peer: Peer, epoch: Epoch, base: EntryId },
    Run { epoch: Epoch, base: EntryId, end: EntryId },
    Fenced { peer: Peer, epoch: Epoch, by: Epoch },
    Repaired { peer: Peer, epoch: Epoch, entry: EntryId },
    Trimmed { below: Epoch },
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    container: ContainerId,
    floor: Epoch,
    keep_from: Address,
    limbo_upto: Option<Epoch>,
    full: bool,
    parts: BTreeMap<Epoch, Part>,
    pending: VecDeque<Pending>,
}

impl Replica {
    /// The replica of `container` on a storage whose recovery found `recovered`.
    pub fn new(container: ContainerId, recovered: &Recovered) -> Self {
        let mine = recovered.ledgers.iter().filter(|(ledger, _)| ledger.container == container);
        Self {
            container,
            floor: recovered.floors.get(&container).copied().unwrap_or_default(),
            keep_from: recovered.keep_from.get(&container).copied().unwrap_or_default(),
            limbo_upto: recovered.limbo.then(|| {
                let known = recovered.limbo_upto.as_ref();
                known.map_or(Epoch(u64::MAX), |upto| {
                    upto.get(&container).copied().unwrap_or_default()
                })
            }),
            full: false,
            parts: mine.map(|(ledger, state)| (ledger.epoch, Part::recovered(state))).collect(),
            pending: VecDeque::new(),
        }
    }

    /// Every ledger that is known, with what is known of it.
    pub fn ledgers(&self) -> impl Iterator<Item = (LedgerId, RunFacts)> {
        self.parts.iter().map(|(epoch, part)| (self.ledger(*epoch), part.facts()))
    }

    /// What is known of the ledger of `epoch`.
    pub fn facts(&self, epoch: Epoch) -> Option<RunFacts> {
        self.parts.get(&epoch).map(Part::facts)
    }

    /// The first address that must stay, as far as it has heard.
    pub fn keep_from(&self) -> Address {
        self.keep_from
    }

    /// Frames staged and not yet durable.
    pub fn staged(&self) -> usize {
        self.pending.len()
    }
}

impl Machine for Replica {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, _now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Request { peer, request } => self.request(peer, request, effects),
            Input::Durable { frames } => self.durable(frames, effects),
            Input::Verified { peer, by, entry, intact } => {
                self.verified(peer, by, entry, intact, effects);
            }
            Input::Full(full) => self.full = full,
            Input::Limbo { upto } => {
                self.limbo_upto = Some(upto);
                self.raise_floor(upto, effects);
            }
            Input::Settled { epoch, end, by } => self.settled(epoch, end, by, effects),
            Input::LimboOver => self.limbo_upto = None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn check(&self) {
        for part in self.parts.values() {
            assert!(part.runs.is_sorted_by(|a, b| a.base < b.base));
            for run in &part.runs {
                assert!(run.base <= run.durable_end && run.durable_end <= run.staged_end);
            }
            assert!(part.fenced_by.is_none_or(|by| by <= self.floor));
            // Damage may have swallowed the open of a ledger of which entries are left.
            let opened = part.incarnation.is_some() || part.fenced_by.is_some();
            assert!(opened || !part.certain);
        }
    }
}

impl Replica {
    fn request(&mut self, peer: Peer, request: Request, effects: &mut Vec<Effect>) {
        match request {
            Request::Open { ledger, base, incarnation, committed_end } => {
                let open = Open { epoch: ledger.epoch, base, incarnation, committed_end };
                self.open(peer, &open, effects);
            }
            Request::Append(entry) => self.append(peer, entry, effects),
            Request::Fence { ledger, by } => self.fence(peer, ledger.epoch, by, effects),
            Request::Repair { by, entry } => self.repair(peer, by, entry, effects),
            Request::Read { ledger, entry } => {
                let load = Effect::Load { peer, ledger, entry };
                self.read(peer, ledger.epoch, entry, load, effects);
            }
            Request::Headers { ledger, from, entries_max, bytes_max } => {
                let load = Effect::LoadHeaders { peer, ledger, from, entries_max, bytes_max };
                self.read(peer, ledger.epoch, from, load, effects);
            }
            Request::Trim { keep_from } => self.trim(keep_from, effects),
            Request::Committed { ledger, end } => {
                if let Some(part) = self.parts.get_mut(&ledger.epoch) {
                    part.committed_end = part.committed_end.max(end);
                }
            }
            Request::Hello { ledger } => {
                let part = self.parts.get_mut(&ledger.epoch);
                let fenced_by = part.as_ref().and_then(|part| part.fenced_by);
                let run = part.map(|part| {
                    // In the planted variant a recoverer says hello, and must not take the writer's acks.
                    if !planted!("PB-L24") {
                        part.writer = peer;
                    }
                    if planted!("PB-L13") {
                        part.committed_end = EntryId(0);
                    }
                    part.facts()
                });
                let reply = Reply::Greeting { ledger, run, fenced_by };
                effects.push(Effect::Reply { peer, reply });
            }
        }
    }

    fn open(&mut self, peer: Peer, open: &Open, effects: &mut Vec<Effect>) {
        let Open { epoch, base, incarnation, committed_end } = *open;
        let ledger = self.ledger(epoch);
        if let Some(by) = self.fence_of(epoch) {
            probe!("replica: open refused by a fence");
            return effects.push(Effect::Reply { peer, reply: Reply::Fenced { ledger, by } });
        }
        let refuse = |why| Effect::Reply { peer, reply: Reply::Refused { ledger, why } };
        let doubtful = self.in_limbo(epoch);
        match self.parts.get_mut(&epoch) {
            Some(part) if part.incarnation.is_some_and(|known| known != incarnation) => {
                let reply = Reply::Fenced { ledger, by: epoch };
                return effects.push(Effect::Reply { peer, reply });
            }
            Some(part) if !part.certain => return effects.push(refuse(Refusal::Limbo)),
            Some(part) if part.run().base == base => {
                part.writer = peer;
                let Run { durable_end: end, opened, .. } = *part.run();
                if opened {
                    let reply = Reply::Opened { ledger, base, end };
                    effects.push(Effect::Reply { peer, reply });
                }
                return;
            }
            Some(part) if base < part.run().base => return,
            Some(_) | None if self.full => return effects.push(refuse(Refusal::Full)),
            None if doubtful => {
                probe!("replica: open of a ledger in limbo");
                return effects.push(refuse(Refusal::Limbo));
            }
            Some(part) => {
                let run = Run { base, staged_end: base, durable_end: base, opened: false };
                part.runs.push(run);
                part.committed_end = part.committed_end.max(committed_end);
            }
            None => {
                let part =
                    Part { incarnation: Some(incarnation), committed_end, ..Part::new(base) };
                self.parts.insert(epoch, part);
            }
        }
        let part = self.parts.get_mut(&epoch).expect("made above");
        part.writer = peer;
        let state = part.state(ledger, self.keep_from);
        self.stage(Frame::State(state), Pending::Opened { peer, epoch, base }, effects);
    }

    fn append(&mut self, peer: Peer, entry: EntryFrame, effects: &mut Vec<Effect>) {
        let EntryFrame { ledger, base, entry: number, .. } = entry;
        let epoch = ledger.epoch;
        let refuse = |why| Effect::Reply { peer, reply: Reply::Refused { ledger, why } };
        if let Some(by) = self.fence_of(epoch) {
            probe!("replica: append refused by a fence");
            return effects.push(Effect::Reply { peer, reply: Reply::Fenced { ledger, by } });
        }
        if planted!("PB-B25") {
            let begun = || Part { incarnation: Some(Incarnation(0)), ..Part::at(base, number) };
            self.parts.entry(epoch).or_insert_with(begun);
        }
        let Some(part) = self.parts.get_mut(&epoch) else {
            return effects.push(refuse(Refusal::UnknownLedger));
        };
        if !part.certain && !planted!("PB-L20") {
            return effects.push(refuse(Refusal::Limbo));
        }
        if self.full && !entry.exempt {
            return effects.push(refuse(Refusal::Full));
        }
        let Run { base: current, staged_end, durable_end, .. } = *part.run();
        if base != current {
            return; // Of a run that is over.
        }
        part.writer = peer;
        if number < staged_end {
            probe!("replica: append that is held already");
            let reply = Reply::Ack { ledger, base, end: durable_end };
            return effects.push(Effect::Reply { peer, reply });
        }
        if number > staged_end && !planted!("PB-L12") {
            probe!("replica: append that would leave a hole");
            let reply = Reply::OutOfOrder { ledger, base, end: staged_end };
            return effects.push(Effect::Reply { peer, reply });
        }
        let end = number.next();
        part.run_mut().staged_end = end;
        let committed_end = entry.lac.map_or(EntryId(0), EntryId::next);
        part.committed_end = part.committed_end.max(committed_end);
        if planted!("PB-B19") {
            part.committed_end = end;
        }
        self.stage(Frame::Entry(entry), Pending::Run { epoch, base, end }, effects);
    }

    fn fence(&mut self, peer: Peer, epoch: Epoch, by: Epoch, effects: &mut Vec<Effect>) {
        if let Some(reply) = self.newer_than(epoch, by) {
            probe!("replica: fence of an older recoverer");
            return effects.push(Effect::Reply { peer, reply });
        }
        self.put_fence(epoch, by, effects);
        let pending = Pending::Fenced { peer, epoch, by };
        if let Some(last @ Pending::Nothing) = self.pending.back_mut() {
            *last = pending; // Rides on the fence's own last frame.
        } else if self.pending.is_empty() || planted!("PB-L6") {
            self.settle(pending, effects); // Fenced and durable since long.
        } else {
            // Whatever was staged before must be durable first: the floor stands for it.
            let frame = Frame::Floor { container: self.container, epoch: self.floor };
            self.stage(frame, pending, effects);
        }
    }

    /// The refusal of recoverer `by`, if a newer one has been here, or the ledger was closed and trimmed since: what is
    /// gone for good does not come back as a ledger that never was. The floor stands for fences of ledgers that the
    /// storage has dropped because they were empty.
    pub(crate) fn newer_than(&self, epoch: Epoch, by: Epoch) -> Option<Reply> {
        let newest = self.floor.max(self.keep_from.epoch);
        let late = epoch < self.keep_from.epoch || newest > by;
        late.then_some(Reply::Fenced { ledger: self.ledger(epoch), by: newest })
    }

    /// Fences `epoch` for `by`, and stages what makes that durable, ending in [`Pending::Nothing`]; nothing if it was
    /// fenced so before. A ledger that is met first by its fence or by a copy is one that never had a run here: what it
    /// vouches for is that nothing was ever acked.
    fn put_fence(&mut self, epoch: Epoch, by: Epoch, effects: &mut Vec<Effect>) {
        let ledger = self.ledger(epoch);
        let certain = !self.in_limbo(epoch) || planted!("PB-L21");
        let keep_from = self.keep_from;
        match self.parts.get_mut(&epoch) {
            Some(part) if part.fenced_by == Some(by) => return,
            Some(part) => {
                if planted!("PB-L4") {
                    return;
                }
                part.fenced_by = Some(by);
                if planted!("PB-L6") {
                    self.floor = self.floor.max(by); // In memory alone, like the fence.
                    return;
                }
                self.stage(Frame::Fence { ledger, by }, Pending::Nothing, effects);
            }
            None => {
                probe!("replica: fence of an unknown ledger");
                let part = Part { fenced_by: Some(by), certain, ..Part::new(EntryId(0)) };
                let state = part.state(ledger, keep_from);
                self.parts.insert(epoch, part);
                self.stage(Frame::State(state), Pending::Nothing, effects);
            }
        }
        self.raise_floor(by, effects);
    }

    fn repair(&mut self, peer: Peer, by: Epoch, entry: EntryFrame, effects: &mut Vec<Effect>) {
        let (ledger, number) = (entry.ledger, entry.entry);
        if let Some(reply) = self.newer_than(ledger.epoch, by) {
            probe!("replica: repair of an older recoverer");
            return effects.push(Effect::Reply { peer, reply });
        }
        if by > ledger.epoch {
            self.put_fence(ledger.epoch, by, effects);
        } else if let Some(reply) = self.unfit(&entry, by) {
            return effects.push(Effect::Reply { peer, reply });
        }
        let part = self.parts.get(&ledger.epoch);
        if part.is_some_and(|part| part.holds(number)) && planted!("PB-B24") {
            let reply = Reply::Repaired { ledger, entry: number };
            effects.push(Effect::Reply { peer, reply });
        } else if part.is_some_and(|part| part.holds(number)) {
            effects.push(Effect::Verify { peer, by, entry });
        } else {
            self.store_copy(peer, by, entry, effects);
        }
    }

    /// A ledger that is still open may be repaired on its own epoch's authority: that fences nobody, begins no ledger,
    /// and moves no tail that can be vouched for. The refusal of a copy that would.
    fn unfit(&self, entry: &EntryFrame, by: Epoch) -> Option<Reply> {
        let ledger = entry.ledger;
        let part = self.parts.get(&ledger.epoch).filter(|_| by == ledger.epoch);
        let Some(part) = part else {
            return Some(Reply::Refused { ledger, why: Refusal::UnknownLedger });
        };
        let Run { base, staged_end: end, .. } = *part.run();
        let beyond = part.certain && entry.entry >= end;
        beyond.then_some(Reply::OutOfOrder { ledger, base, end })
    }

    fn verified(
        &mut self,
        peer: Peer,
        by: Epoch,
        entry: EntryFrame,
        intact: bool,
        effects: &mut Vec<Effect>,
    ) {
        let (ledger, number) = (entry.ledger, entry.entry);
        let Some(part) = self.parts.get(&ledger.epoch) else {
            return; // Trimmed meanwhile.
        };
        if part.fenced_by.is_some_and(|newer| newer > by) {
            return; // The newer recoverer will copy what it needs.
        }
        let run = part.run();
        let waits = self.pending.iter().any(|pending| match pending {
            Pending::Repaired { epoch, entry, .. } => (*epoch, *entry) == (ledger.epoch, number),
            Pending::Run { epoch, end, .. } => *epoch == ledger.epoch && *end == number.next(),
            _ => false,
        });
        if intact && !waits {
            let reply = Reply::Repaired { ledger, entry: number };
            effects.push(Effect::Reply { peer, reply });
        } else {
            if !intact && run.durable_end > number {
                probe!("replica: copy replaces a damaged entry");
            }
            self.store_copy(peer, by, entry, effects);
        }
    }

    fn store_copy(&mut self, peer: Peer, by: Epoch, entry: EntryFrame, effects: &mut Vec<Effect>) {
        let (epoch, number) = (entry.ledger.epoch, entry.entry);
        let part = self.parts.get_mut(&epoch).expect("a repair fences, and so makes the part");
        if planted!("PB-L18") {
            part.certain = true;
        }
        let pending = Pending::Repaired { peer, epoch, entry: number };
        if number == part.run().staged_end {
            part.run_mut().staged_end = number.next();
        } else if !part.holds(number) {
            part.repaired.insert(number);
        }
        self.stage(Frame::Repair { by, entry }, pending, effects);
    }

    /// Ends the doubt about a ledger that nobody will recover any more.
    fn settled(&mut self, epoch: Epoch, end: EntryId, by: Epoch, effects: &mut Vec<Effect>) {
        let doubtful = self.parts.get(&epoch).is_some_and(|part| !part.certain);
        if !doubtful || by <= epoch {
            return;
        }
        probe!("replica: doubt over");
        self.put_fence(epoch, by.max(self.floor), effects);
        let keep_from = self.keep_from;
        let part = self.parts.get_mut(&epoch).expect("looked at above");
        part.certain = true;
        // What is held may lie outside any run that is known: the storage has to look.
        part.copies_known = false;
        let run = part.run_mut();
        run.staged_end = run.staged_end.max(end);
        run.durable_end = run.durable_end.max(end);
        let state = part.state(LedgerId { container: self.container, epoch }, keep_from);
        self.stage(Frame::State(state), Pending::Nothing, effects);
    }

    /// Answers what needs no look at the disk; otherwise `load` shall have one.
    fn read(
        &self,
        peer: Peer,
        epoch: Epoch,
        entry: EntryId,
        load: Effect,
        effects: &mut Vec<Effect>,
    ) {
        let ledger = self.ledger(epoch);
        let part = self.parts.get(&epoch);
        // A copy from before a restart lies in no run that is known, so there the storage has to look.
        let vouches = |part: &&Part| {
            let fenced = part.fenced_by.is_some() || planted!("PB-B20");
            part.certain && fenced && part.copies_known
        };
        let vouching = part.filter(vouches);
        let reply = match vouching {
            Some(part) if !part.holds(entry) && entry >= part.run().durable_end => {
                Reply::NeverHad { ledger, entry, end: part.run().durable_end }
            }
            _ if part.is_none() || Address::new(epoch, entry) < self.keep_from => {
                Reply::Unknown { ledger, entry }
            }
            _ => return effects.push(load),
        };
        effects.push(Effect::Reply { peer, reply });
    }

    fn trim(&mut self, keep_from: Address, effects: &mut Vec<Effect>) {
        if keep_from <= self.keep_from {
            return;
        }
        self.keep_from = keep_from;
        for (epoch, part) in &mut self.parts {
            if *epoch == keep_from.epoch {
                part.committed_end = part.committed_end.max(keep_from.entry);
            }
        }
        if !planted!("PB-L16") {
            self.raise_floor(keep_from.epoch, effects);
        }
        let frame = Frame::Trim { container: self.container, keep_from };
        self.stage(frame, Pending::Trimmed { below: keep_from.epoch }, effects);
    }

    fn durable(&mut self, frames: usize, effects: &mut Vec<Effect>) {
        let mut acked: Option<(Epoch, EntryId)> = None;
        for _ in 0..frames {
            let Some(pending) = self.pending.pop_front() else { break };
            let Pending::Run { epoch, base, end } = pending else {
                if let Some(before) = acked.take_if(|_| matches!(pending, Pending::Fenced { .. })) {
                    self.ack(before, effects); // Behind a fence nothing is acked.
                }
                self.settle(pending, effects);
                continue;
            };
            // One ack per ledger and batch: the next entry's ack covers this one's.
            if let Some(other) = acked.filter(|other| *other != (epoch, base)) {
                self.ack(other, effects);
            }
            acked = Some((epoch, base));
            if let Some(part) = self.parts.get_mut(&epoch) {
                let run = part.runs.iter_mut().rev().find(|run| run.base == base);
                if let Some(run) = run {
                    run.durable_end = run.durable_end.max(end);
                }
            }
        }
        if let Some(last) = acked {
            self.ack(last, effects);
        }
    }

    fn ack(&self, (epoch, base): (Epoch, EntryId), effects: &mut Vec<Effect>) {
        let Some(part) = self.parts.get(&epoch).filter(|part| part.run().base == base) else {
            return;
        };
        let reply = Reply::Ack { ledger: self.ledger(epoch), base, end: part.run().durable_end };
        effects.push(Effect::Reply { peer: part.writer, reply });
    }

    fn settle(&mut self, pending: Pending, effects: &mut Vec<Effect>) {
        match pending {
            Pending::Nothing | Pending::Run { .. } => {}
            Pending::Opened { peer, epoch, base } => {
                let ledger = self.ledger(epoch);
                let Some(part) = self.parts.get_mut(&epoch) else { return };
                let run = part.runs.iter_mut().find(|run| run.base == base);
                if let Some(run) = run {
                    run.opened = true;
                    let reply = Reply::Opened { ledger, base, end: run.durable_end };
                    effects.push(Effect::Reply { peer, reply });
                }
            }
            Pending::Fenced { peer, epoch, by } => {
                let ledger = self.ledger(epoch);
                if let Some(part) = self.parts.get_mut(&epoch) {
                    let reply = Reply::FenceDone { ledger, by, run: part.facts() };
                    effects.push(Effect::Reply { peer, reply });
                    if planted!("PB-L7") && part.incarnation.is_some() {
                        part.fenced_by = None; // On disk, and no more in memory.
                        let fences = self.parts.values().filter_map(|part| part.fenced_by);
                        self.floor = fences.max().unwrap_or_default();
                    }
                }
            }
            Pending::Repaired { peer, epoch, entry } => {
                let ledger = self.ledger(epoch);
                if let Some(part) = self.parts.get_mut(&epoch) {
                    let run = part.run_mut();
                    // A copy from before the run reached it says nothing about what lies between.
                    if entry == run.durable_end && entry < run.staged_end {
                        run.durable_end = entry.next();
                    }
                    let reply = Reply::Repaired { ledger, entry };
                    effects.push(Effect::Reply { peer, reply });
                }
            }
            Pending::Trimmed { below } => self.parts.retain(|epoch, _| *epoch >= below),
        }
    }

    fn raise_floor(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        if epoch > self.floor && epoch != Epoch(u64::MAX) {
            self.floor = epoch;
            let frame = Frame::Floor { container: self.container, epoch };
            self.stage(frame, Pending::Nothing, effects);
        }
    }

    fn stage(&mut self, frame: Frame, pending: Pending, effects: &mut Vec<Effect>) {
        self.pending.push_back(pending);
        effects.push(Effect::Stage(frame));
    }

    fn ledger(&self, epoch: Epoch) -> LedgerId {
        LedgerId { container: self.container, epoch }
    }

    /// The epoch that keeps writers of `epoch` out, if one does.
    pub(crate) fn fence_of(&self, epoch: Epoch) -> Option<Epoch> {
        let fenced_by = self.parts.get(&epoch).and_then(|part| part.fenced_by);
        let forgets = planted!("PB-L16");
        fenced_by.or((epoch < self.floor && !forgets).then_some(self.floor))
    }

    /// True if the ledger may have been here and was lost.
    fn in_limbo(&self, epoch: Epoch) -> bool {
        self.limbo_upto.is_some_and(|upto| epoch <= upto)
    }
}

/// The fields of [`Request::Open`].
struct Open {
    epoch: Epoch,
    base: EntryId,
    incarnation: Incarnation,
    committed_end: EntryId,
}

#[cfg(test)]
mod tests;
