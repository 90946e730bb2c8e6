//! What a storage knows besides the entries themselves: the fold of all frames in their order in the log.
//!
//! Invariants
//! 1. `lac`, `keep_from` and `fenced_by` of a ledger, every floor and every trim point only grow.
//! 2. No ledger wholly below its container's `keep_from` is known, nor one that was fenced while it was empty: without
//!    a run and without copies.
//! 3. A ledger that a damaged range may have touched is uncertain until a frame behind the damage proves that
//!    nothing of it was lost.
//! 4. No floor is below a fence.
//! 5. Every fact has an anchor: the file that holds the newest frame which states it in full.
//!
//! Deliberately not here: where entries lie (`index`), what to do with a fact (the replica).
//! Source: the design notes on the storage engine of a log node.

use crate::frame::{EntryFrame, Frame, LedgerState};
use crate::storage::Recovered;
use std::collections::{BTreeMap, BTreeSet};
use thalweg_actor::planted;
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId};

/// A fact that must outlive the file it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Ledger(LedgerId),
    Floor(ContainerId),
    Trim(ContainerId),
    Loss(LedgerId, EntryId),
}

/// The fold. See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    ledgers: BTreeMap<LedgerId, LedgerState>,
    floors: BTreeMap<ContainerId, Epoch>,
    keep_from: BTreeMap<ContainerId, Address>,
    losses: BTreeSet<(LedgerId, EntryId)>,
    doubted: BTreeSet<LedgerId>,
    /// Ledgers of which copies may lie outside the run.
    copied: BTreeSet<LedgerId>,
    /// A range was damaged: what is first met behind it may have begun in it.
    damaged: bool,
    anchors: BTreeMap<Subject, u64>,
}

fn blank(ledger: LedgerId, base: EntryId) -> LedgerState {
    LedgerState {
        ledger,
        incarnation: None,
        base,
        tail: None,
        lac: None,
        keep_from: Address::default(),
        fenced_by: None,
        certain: true,
    }
}

/// The entry that would continue the run of `state`.
fn expected(state: &LedgerState) -> EntryId {
    state.tail.map_or(state.base, EntryId::next)
}

impl Facts {
    /// Takes in the next frame of the log, which lies in file `file`.
    pub(crate) fn apply(&mut self, frame: &Frame, file: u64) {
        match frame {
            Frame::Entry(entry) => self.entry(entry, file),
            Frame::Repair { by, entry } => self.repair(*by, entry, file),
            Frame::Fence { ledger, by } => self.fence(*ledger, *by, file),
            Frame::State(state) => self.state(state, file),
            Frame::Floor { container, epoch } => self.floor(*container, *epoch, file),
            Frame::Trim { container, keep_from } => self.trim(*container, *keep_from, file),
            Frame::Loss { ledger, from } => {
                self.losses.insert((*ledger, *from));
                self.anchors.insert(Subject::Loss(*ledger, *from), file);
            }
        }
    }

    fn entry(&mut self, entry: &EntryFrame, file: u64) {
        if self.is_trimmed(entry.ledger) {
            return;
        }
        let known = self.ledgers.contains_key(&entry.ledger);
        let state = self.ledger(entry.ledger, entry.base, file);
        state.lac = state.lac.max(entry.lac);
        state.keep_from = state.keep_from.max(entry.keep_from);
        let continues = entry.base == state.base && entry.entry == expected(state);
        let leaps = entry.base == state.base && entry.entry > expected(state);
        if continues || leaps || !known {
            state.tail = Some(entry.entry);
        }
        if leaps || !known {
            // Its open, or what lay between, is lost: good evidence for what is here, none for what is not.
            state.certain = false;
            self.doubted.remove(&entry.ledger);
        } else if continues && self.doubted.remove(&entry.ledger) {
            self.ledger(entry.ledger, entry.base, file).certain = true;
        }
    }

    fn repair(&mut self, by: Epoch, entry: &EntryFrame, file: u64) {
        // The repair of an open ledger fences nobody.
        let fence = Some(by).filter(|by| *by > entry.ledger.epoch);
        if let Some(by) = fence {
            self.floor(entry.ledger.container, by, file);
        }
        if self.is_trimmed(entry.ledger) {
            return;
        }
        let state = self.ledger(entry.ledger, EntryId(0), file);
        state.fenced_by = state.fenced_by.max(fence);
        state.lac = state.lac.max(entry.lac);
        if entry.entry == expected(state) {
            state.tail = Some(entry.entry);
        } else {
            self.copied.insert(entry.ledger);
        }
    }

    fn fence(&mut self, ledger: LedgerId, by: Epoch, file: u64) {
        self.floor(ledger.container, by, file);
        if self.is_trimmed(ledger) {
            return;
        }
        let state = self.ledger(ledger, EntryId(0), file);
        state.fenced_by = state.fenced_by.max(Some(by));
        let no_run = (state.base, state.tail, state.lac) == (EntryId(0), None, None);
        if no_run && state.certain && !self.copied.contains(&ledger) {
            // The floor says as much of a ledger that never had an entry, and there may be one for each start.
            self.ledgers.remove(&ledger);
            self.anchors.remove(&Subject::Ledger(ledger));
        }
    }

    fn state(&mut self, new: &LedgerState, file: u64) {
        if let Some(by) = new.fenced_by {
            self.floor(new.ledger.container, by, file); // Its own frame may not have become durable.
        }
        if self.is_trimmed(new.ledger) {
            return;
        }
        let state = self.ledger(new.ledger, new.base, file);
        *state = LedgerState {
            lac: state.lac.max(new.lac),
            keep_from: state.keep_from.max(new.keep_from),
            fenced_by: state.fenced_by.max(new.fenced_by),
            ..new.clone()
        };
        self.doubted.remove(&new.ledger);
        self.anchors.insert(Subject::Ledger(new.ledger), file);
    }

    fn floor(&mut self, container: ContainerId, epoch: Epoch, file: u64) {
        let floor = self.floors.entry(container).or_default();
        if epoch >= *floor {
            *floor = epoch;
            self.anchors.insert(Subject::Floor(container), file);
        }
    }

    fn trim(&mut self, container: ContainerId, keep_from: Address, file: u64) {
        let trim = self.keep_from.entry(container).or_default();
        if keep_from < *trim {
            return;
        }
        *trim = keep_from;
        self.anchors.insert(Subject::Trim(container), file);
        self.floor(container, keep_from.epoch, file);
        let first = LedgerId { container, epoch: Epoch(0) };
        let kept = LedgerId { container, epoch: keep_from.epoch };
        let gone: Vec<LedgerId> = self.ledgers.range(first..kept).map(|(id, _)| *id).collect();
        for ledger in gone {
            self.ledgers.remove(&ledger);
            self.doubted.remove(&ledger);
            self.copied.remove(&ledger);
            self.anchors.remove(&Subject::Ledger(ledger));
        }
    }

    fn ledger(&mut self, ledger: LedgerId, base: EntryId, file: u64) -> &mut LedgerState {
        self.ledgers.entry(ledger).or_insert_with(|| {
            self.anchors.insert(Subject::Ledger(ledger), file);
            LedgerState { certain: !self.damaged, ..blank(ledger, base) }
        })
    }

    fn is_trimmed(&self, ledger: LedgerId) -> bool {
        self.keep_from.get(&ledger.container).is_some_and(|trim| ledger.epoch < trim.epoch)
    }

    /// Takes in that a range of the log is damaged and may have held anything.
    pub(crate) fn doubt_all(&mut self) {
        self.damaged = true;
        for (id, state) in &mut self.ledgers {
            if state.certain {
                state.certain = false;
                self.doubted.insert(*id);
            }
        }
    }

    /// True if the storage cannot vouch for all its ledgers.
    pub(crate) fn has_doubt(&self) -> bool {
        self.ledgers.values().any(|state| !state.certain)
    }

    /// The frames that must be written again before file `upto` and those before it may be freed.
    pub(crate) fn anchored(&self, upto: u64) -> Vec<Frame> {
        let forgotten = |subject: &Subject| {
            matches!(subject, Subject::Ledger(_) | Subject::Floor(_)) && planted!("PB-L19")
        };
        let due = self.anchors.iter().filter(|(_, file)| **file <= upto);
        let due = due.filter(|(subject, _)| !forgotten(subject));
        due.filter_map(|(subject, _)| self.frame(*subject)).collect()
    }

    fn frame(&self, subject: Subject) -> Option<Frame> {
        match subject {
            Subject::Ledger(ledger) => self.ledgers.get(&ledger).cloned().map(Frame::State),
            Subject::Floor(container) => {
                let epoch = *self.floors.get(&container)?;
                Some(Frame::Floor { container, epoch })
            }
            Subject::Trim(container) => {
                let keep_from = *self.keep_from.get(&container)?;
                Some(Frame::Trim { container, keep_from })
            }
            Subject::Loss(ledger, from) => Some(Frame::Loss { ledger, from }),
        }
    }

    /// The first entry of `ledger` that must stay; entry 0 if nothing is trimmed, `None` if all of it is.
    pub(crate) fn first_kept(&self, ledger: LedgerId) -> Option<EntryId> {
        match self.keep_from.get(&ledger.container) {
            Some(trim) if trim.epoch > ledger.epoch => None,
            Some(trim) if trim.epoch == ledger.epoch => Some(trim.entry),
            _ => Some(EntryId(0)),
        }
    }

    /// The last entry of the current run of `ledger`.
    pub(crate) fn tail(&self, ledger: LedgerId) -> Option<EntryId> {
        self.ledgers.get(&ledger)?.tail
    }

    /// What is known of `ledger`.
    pub(crate) fn state_of(&self, ledger: LedgerId) -> Option<&LedgerState> {
        self.ledgers.get(&ledger)
    }

    /// The lowest epoch of `container` that may still be opened.
    pub(crate) fn floor_of(&self, container: ContainerId) -> Option<Epoch> {
        self.floors.get(&container).copied()
    }

    /// All of it, as the storage's user sees it.
    pub(crate) fn recovered(&self, limbo: bool) -> Recovered {
        Recovered {
            ledgers: self.ledgers.clone(),
            floors: self.floors.clone(),
            keep_from: self.keep_from.clone(),
            losses: self.losses.iter().copied().collect(),
            limbo,
            limbo_upto: None,
            damages: Vec::new(),
        }
    }

    /// Asserts the invariants in the module's header.
    pub(crate) fn check(&self) {
        for (ledger, state) in &self.ledgers {
            assert!(!self.is_trimmed(*ledger), "{ledger} is known below its trim point");
            assert!(self.anchors.contains_key(&Subject::Ledger(*ledger)), "{ledger} has an anchor");
            assert!(!(state.certain && self.doubted.contains(ledger)), "{ledger} is doubted");
            let floor = self.floors.get(&ledger.container).copied();
            assert!(state.fenced_by <= floor, "{ledger} is fenced above its container's floor");
        }
        for container in self.floors.keys() {
            assert!(self.anchors.contains_key(&Subject::Floor(*container)));
        }
        for container in self.keep_from.keys() {
            assert!(self.anchors.contains_key(&Subject::Trim(*container)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::Incarnation;

    const CONTAINER: ContainerId = ContainerId(2);
    const LEDGER: LedgerId = LedgerId { container: CONTAINER, epoch: Epoch(3) };

    fn repair(by: Epoch) -> Frame {
        copy(by, EntryId(0))
    }

    fn copy(by: Epoch, entry: EntryId) -> Frame {
        let entry = EntryFrame {
            ledger: LEDGER,
            base: EntryId(0),
            entry,
            lac: None,
            keep_from: Address::default(),
            headers: bytes::Bytes::new(),
            payload: Vec::new(),
            exempt: false,
        };
        Frame::Repair { by, entry }
    }

    #[test]
    fn a_fence_within_a_state_or_a_copy_raises_the_floor() {
        let fenced = LedgerState { fenced_by: Some(Epoch(5)), ..blank(LEDGER, EntryId(0)) };
        for frame in [Frame::State(fenced), repair(Epoch(5))] {
            let mut facts = Facts::default();
            facts.apply(&frame, 0);
            facts.check();
            assert_eq!(facts.recovered(false).floors[&CONTAINER], Epoch(5));
        }
    }

    #[test]
    fn a_ledger_that_is_first_met_behind_damage_is_in_doubt() {
        let fence = Frame::Fence { ledger: LEDGER, by: Epoch(5) };
        for frame in [repair(Epoch(5)), repair(LEDGER.epoch), fence] {
            let mut facts = Facts::default();
            facts.doubt_all();
            facts.apply(&frame, 0);
            facts.check();
            // Its opening, and entries, may have been in the damaged range.
            assert!(!facts.state_of(LEDGER).unwrap().certain, "{frame:?}");
            // But what states all of it says so itself.
            let opened = blank(LedgerId { epoch: Epoch(6), ..LEDGER }, EntryId(0));
            let opened = LedgerState { incarnation: Some(Incarnation(1)), ..opened };
            facts.apply(&Frame::State(opened.clone()), 0);
            assert!(facts.state_of(opened.ledger).unwrap().certain);
        }
    }

    #[test]
    fn a_fence_drops_a_ledger_without_entries_and_none_with_copies() {
        let fence = |by| Frame::Fence { ledger: LEDGER, by: Epoch(by) };
        let mut facts = Facts::default();
        facts.apply(&fence(5), 0);
        assert_eq!(facts.state_of(LEDGER), None);
        // A recovery copies what lies behind the end of what was ever here, and the next one begins.
        facts.apply(&copy(Epoch(5), EntryId(7)), 0);
        facts.apply(&fence(6), 0);
        facts.check();
        assert_eq!(facts.state_of(LEDGER).unwrap().fenced_by, Some(Epoch(6)));
    }

    #[test]
    fn the_repair_of_an_open_ledger_fences_nobody() {
        let mut facts = Facts::default();
        let incarnation = Some(Incarnation(1));
        let open = LedgerState { incarnation, ..blank(LEDGER, EntryId(0)) };
        facts.apply(&Frame::State(open), 0);
        facts.apply(&repair(LEDGER.epoch), 0);
        facts.check();
        let state = facts.state_of(LEDGER).unwrap();
        assert_eq!((state.fenced_by, state.tail), (None, Some(EntryId(0))));
        assert_eq!(facts.recovered(false).floors.get(&CONTAINER), None);
    }
}
