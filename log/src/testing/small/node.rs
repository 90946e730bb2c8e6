//! A storage in a small world: the real replica on a model of a disk, and the oracles that need nothing else.
//!
//! The disk folds what is durable with the fold that the engine uses. Reads are answered at once.

use super::{CONTAINER, content};
use crate::engine::facts::Facts;
use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::message::{Peer, Reply, Request};
use crate::replica::{Effect, Input, Replica};
use std::collections::{BTreeMap, VecDeque};
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{Address, EntryId, Epoch, LedgerId};
use thalweg_types::time::Instant;

/// The entries of one ledger on one disk, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Entries {
    staged: u16,
    durable: u16,
    /// Durable once, and unreadable by now.
    rotten: u16,
    /// Durable once, and gone without a trace.
    lost: u16,
    /// The ends that were acked, by the base of their run.
    acked: BTreeMap<EntryId, EntryId>,
    /// The newest fence that was reported.
    fenced_by: Option<Epoch>,
}

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    replica: Replica,
    staged: VecDeque<Frame>,
    facts: Facts,
    entries: BTreeMap<Epoch, Entries>,
}

fn bits(from: EntryId, end: EntryId) -> u16 {
    let below = |end: EntryId| (1_u32 << end.0.min(16)) - 1;
    let mask = below(end) & !below(from);
    u16::try_from(mask).expect("sixteen bits")
}

fn bit(entry: EntryId) -> u16 {
    bits(entry, entry.next())
}

impl Node {
    /// A blank storage.
    pub(super) fn blank() -> Self {
        let facts = Facts::default();
        let replica = Replica::new(CONTAINER, &facts.recovered(false));
        Self { replica, staged: VecDeque::new(), facts, entries: BTreeMap::new() }
    }

    /// One request, with everything that follows at once; `out` gets the replies.
    pub(super) fn request(
        &mut self,
        peer: Peer,
        request: Request,
        out: &mut Vec<(Peer, Reply)>,
    ) -> Result<(), String> {
        self.step(Input::Request { peer, request }, out)
    }

    fn step(&mut self, input: Input, out: &mut Vec<(Peer, Reply)>) -> Result<(), String> {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let copying = matches!(&input, Input::Verified { .. })
                || matches!(&input, Input::Request { request: Request::Repair { .. }, .. });
            self.replica.step(Instant::default(), input, &mut effects);
            self.replica.check();
            for effect in effects.drain(..) {
                match effect {
                    Effect::Stage(frame) => self.stage(frame)?,
                    Effect::Reply { peer, reply } => {
                        if copying && matches!(reply, Reply::Ack { .. }) {
                            return Err("L14: a copy was acked as an append".to_owned());
                        }
                        self.judge(&reply)?;
                        out.push((peer, reply));
                    }
                    Effect::Load { peer, ledger, entry } => {
                        out.push((peer, self.load(ledger, entry)));
                    }
                    Effect::LoadHeaders { .. } => {} // Nobody replays in this world.
                    Effect::Verify { peer, by, entry } => {
                        let intact = self.readable(entry.ledger.epoch, entry.entry);
                        inputs.push_back(Input::Verified { peer, by, entry, intact });
                    }
                }
            }
        }
        self.judge_runs()
    }

    fn stage(&mut self, frame: Frame) -> Result<(), String> {
        if let Frame::Entry(entry) | Frame::Repair { entry, .. } = &frame {
            let epoch = entry.ledger.epoch;
            if entry.headers != content(epoch, entry.entry) {
                return Err(format!("L2: entry {} of epoch {epoch} has other bytes", entry.entry));
            }
            let facts = self.replica.facts(epoch);
            let entries = self.entries.entry(epoch).or_default();
            match &frame {
                Frame::Entry(_) if entries.fenced_by.is_some() => {
                    return Err("L6: an append was taken behind a reported fence".to_owned());
                }
                Frame::Entry(_) if facts.is_some_and(|facts| !facts.certain) => {
                    return Err("L16: an append was taken in doubt".to_owned());
                }
                Frame::Repair { by, .. } if entries.fenced_by.is_some_and(|newer| newer > *by) => {
                    return Err("L14: a copy from below the newest fence was taken".to_owned());
                }
                _ => {}
            }
            entries.staged |= bit(entry.entry);
            if matches!(frame, Frame::Repair { .. }) {
                entries.rotten &= !bit(entry.entry);
                entries.lost &= !bit(entry.entry);
            }
        }
        if let Frame::State(LedgerState { ledger, fenced_by: None, .. }) = &frame
            && self.facts.floor_of(CONTAINER).is_some_and(|floor| ledger.epoch < floor)
        {
            return Err(format!("L17: ledger {ledger} was opened below the floor"));
        }
        self.staged.push_back(frame);
        Ok(())
    }

    /// What a reply promises must be true already.
    fn judge(&mut self, reply: &Reply) -> Result<(), String> {
        match *reply {
            Reply::Opened { ledger, base, end } | Reply::Ack { ledger, base, end } => {
                let kept = self.facts.first_kept(ledger).unwrap_or(end).min(end).max(base);
                let entries = self.entries.entry(ledger.epoch).or_default();
                if matches!(reply, Reply::Ack { .. }) && entries.fenced_by.is_some() {
                    return Err("L6: an ack behind a reported fence".to_owned());
                }
                let there = entries.durable | entries.rotten | entries.lost;
                if bits(kept, end) & !there != 0 {
                    return Err(format!("L20: acked {base}..{end} and not all of it is durable"));
                }
                let acked = entries.acked.entry(base).or_insert(end);
                *acked = end.max(*acked);
                Ok(())
            }
            Reply::FenceDone { ledger, by, run } => {
                // Of a ledger that never had an entry, the floor alone tells.
                let floor = self.facts.floor_of(CONTAINER);
                let durable = self.facts.state_of(ledger).map_or(floor, |state| state.fenced_by);
                if durable < Some(by) {
                    return Err("L6: a fence was reported that is not durable".to_owned());
                }
                let entries = self.entries.entry(ledger.epoch).or_default();
                if entries.fenced_by.is_some_and(|newer| newer > by) {
                    return Err("L6: a fence went back".to_owned());
                }
                entries.fenced_by = Some(by);
                let newer = entries.acked.range(run.base..).next_back();
                if run.certain
                    && newer.is_some_and(|(base, end)| *base > run.base || *end > run.end)
                {
                    return Err(format!("L11: certain of {run:?}, but more was acked: {newer:?}"));
                }
                Ok(())
            }
            Reply::NeverHad { ledger, entry, end } => {
                let entries = self.entries.entry(ledger.epoch).or_default();
                let had = entries.durable | entries.rotten | entries.lost;
                let more = entries.acked.values().any(|acked| *acked > end);
                if had & bit(entry) != 0 || more {
                    return Err(format!("L11: never had {entry}, but it was here"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// L3: all of every current run is there, but for what was trimmed or has been destroyed.
    fn judge_runs(&self) -> Result<(), String> {
        for (epoch, entries) in &self.entries {
            let Some(run) = self.replica.facts(*epoch) else { continue };
            let kept = self.facts.first_kept(ledger(*epoch)).unwrap_or(run.end);
            let there = entries.durable | entries.rotten | entries.lost;
            if bits(run.base.max(kept), run.end.max(kept)) & !there != 0 {
                return Err(format!("L3, L20: {run:?} and not all of it is there: {there:b}"));
            }
        }
        Ok(())
    }

    fn load(&self, ledger: LedgerId, entry: EntryId) -> Reply {
        if !self.readable(ledger.epoch, entry) {
            return Reply::Unknown { ledger, entry };
        }
        Reply::Have(frame(ledger, entry))
    }

    fn readable(&self, epoch: Epoch, entry: EntryId) -> bool {
        let kept = self.facts.first_kept(ledger(epoch)).is_some_and(|first| entry >= first);
        let found = self.entries.get(&epoch).is_some_and(|entries| {
            (entries.staged | entries.durable) & !entries.rotten & bit(entry) != 0
        });
        kept && found
    }

    /// Frames that are staged and not durable.
    pub(super) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// The oldest `frames` staged frames become durable.
    pub(super) fn sync(
        &mut self,
        frames: usize,
        out: &mut Vec<(Peer, Reply)>,
    ) -> Result<(), String> {
        for frame in self.staged.drain(..frames) {
            self.facts.apply(&frame, 0);
            if let Frame::Entry(entry) | Frame::Repair { entry, .. } = &frame {
                let entries = self.entries.entry(entry.ledger.epoch).or_default();
                entries.durable |= bit(entry.entry);
            }
            if let Frame::Trim { keep_from, .. } = &frame {
                for (epoch, entries) in &mut self.entries {
                    let first = match epoch.cmp(&keep_from.epoch) {
                        std::cmp::Ordering::Less => EntryId(16),
                        std::cmp::Ordering::Equal => keep_from.entry,
                        std::cmp::Ordering::Greater => EntryId(0),
                    };
                    let gone = bits(EntryId(0), first);
                    entries.durable &= !gone;
                    entries.rotten &= !gone;
                    entries.lost &= !gone;
                }
            }
        }
        self.facts.check();
        for entries in self.entries.values_mut() {
            entries.staged = 0;
        }
        for frame in &self.staged {
            if let Frame::Entry(entry) | Frame::Repair { entry, .. } = frame {
                self.entries.entry(entry.ledger.epoch).or_default().staged |= bit(entry.entry);
            }
        }
        self.step(Input::Durable { frames }, out)
    }

    /// True if the entry is durable here and can be read.
    pub(super) fn holds(&self, epoch: Epoch, entry: EntryId) -> bool {
        let durable = |entries: &Entries| entries.durable & !entries.rotten & bit(entry) != 0;
        self.entries.get(&epoch).is_some_and(durable)
    }

    /// The replica itself.
    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// True if the storage is fenced against the request, and will be.
    pub(super) fn refuses(&self, request: &Request) -> bool {
        let replica = &self.replica;
        match request {
            Request::Open { ledger, .. } => replica.fence_of(ledger.epoch).is_some(),
            Request::Append(entry) => replica.fence_of(entry.ledger.epoch).is_some(),
            Request::Fence { ledger, by } => replica.newer_than(ledger.epoch, *by).is_some(),
            Request::Repair { by, entry } => replica.newer_than(entry.ledger.epoch, *by).is_some(),
            _ => false,
        }
    }

    /// True if a fence of `epoch` is durable in a frame of its own.
    pub(super) fn has_lone_fence(&self, epoch: Epoch) -> bool {
        let state = self.facts.state_of(ledger(epoch));
        state.is_some_and(|state| state.fenced_by.is_some() && state.incarnation.is_some())
    }

    /// The entries of `epoch` that are durable and could rot.
    pub(super) fn sound(&self, epoch: Epoch) -> impl Iterator<Item = EntryId> {
        (0..16).map(EntryId).filter(move |entry| self.holds(epoch, *entry))
    }

    /// A latent error: the entry is there and can no longer be read.
    pub(super) fn rot(&mut self, epoch: Epoch, entry: EntryId) {
        self.entries.entry(epoch).or_default().rotten |= bit(entry);
    }

    /// A power loss and a start: what was not durable is gone. The files that held facts have been freed meanwhile, so
    /// all that is left of those is what was written again.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        let before = self.facts.recovered(false);
        self.staged.clear();
        let mut facts = Facts::default();
        for frame in self.facts.anchored(0) {
            facts.apply(&frame, 0);
        }
        self.facts = facts;
        let after = self.facts.recovered(false);
        for (ledger, was) in &before.ledgers {
            let now = after.ledgers.get(ledger);
            if now != Some(was) {
                return Err(format!("L17: {was:?} went with its file, and left {now:?}"));
            }
        }
        if before.floors != after.floors {
            return Err(format!("L17: floors {:?} after {:?}", after.floors, before.floors));
        }
        self.mount(false);
        Ok(())
    }

    /// A start after damage that took the entries of `epoch` from `from` on, and the fence if `fence`: the ledger is in
    /// doubt.
    pub(super) fn doubt(&mut self, epoch: Epoch, from: EntryId, fence: bool) {
        self.staged.clear();
        self.facts.doubt_all();
        let Some(mut state) = self.facts.state_of(ledger(epoch)).cloned() else { return };
        let end = from.max(state.base);
        let tail = if end > state.base { end.0.checked_sub(1).map(EntryId) } else { None };
        state.tail = state.tail.min(tail);
        state.certain = false;
        if fence {
            state.fenced_by = None;
        }
        // A fold only raises a fence, so what is left is folded anew.
        let frames = self.facts.anchored(0);
        let other = |frame: &&Frame| !matches!(frame, Frame::State(s) if s.ledger.epoch == epoch);
        let mut facts = Facts::default();
        frames.iter().filter(other).for_each(|frame| facts.apply(frame, 0));
        facts.apply(&Frame::State(state), 0);
        self.facts = facts;
        let entries = self.entries.entry(epoch).or_default();
        let gone = entries.durable & !bits(EntryId(0), from);
        entries.lost |= gone;
        entries.durable &= !gone;
        self.mount(false);
    }

    /// A start after damage that took everything about the ledger of `epoch`, its open included. The register says that
    /// `upto` is the newest epoch.
    pub(super) fn forget(&mut self, epoch: Epoch, upto: Epoch) {
        self.staged.clear();
        let mut facts = Facts::default();
        for frame in self.facts.anchored(0) {
            let gone = matches!(&frame, Frame::State(state) if state.ledger.epoch == epoch)
                || matches!(frame, Frame::Floor { .. });
            if !gone {
                facts.apply(&frame, 0);
            }
        }
        facts.doubt_all();
        self.facts = facts;
        let entries = self.entries.entry(epoch).or_default();
        entries.lost |= entries.durable;
        entries.durable = 0;
        self.mount(true);
        let _ = self.step(Input::Limbo { upto }, &mut Vec::new());
    }

    fn mount(&mut self, limbo: bool) {
        self.replica = Replica::new(CONTAINER, &self.facts.recovered(limbo));
        for entries in self.entries.values_mut() {
            entries.staged = 0;
        }
    }
}

fn ledger(epoch: Epoch) -> LedgerId {
    LedgerId { container: CONTAINER, epoch }
}

/// An entry as it is read back or copied.
pub(super) fn frame(ledger: LedgerId, entry: EntryId) -> EntryFrame {
    EntryFrame {
        ledger,
        base: EntryId(0),
        entry,
        lac: None,
        keep_from: Address::default(),
        headers: content(ledger.epoch, entry),
        payload: Vec::new(),
        exempt: false,
    }
}
