//! What a listing of the registers says about one storage: pure.
//!
//! * A ledger's doubt may end when the register shows that nobody will ever ask for more than what is there.
//! * A range is copied to this storage if a fragment names it and the entries cannot be read here.
//! * A lost member of a closed ledger's fragment is replaced; the first member that is left and can be reached does it.
//! * What a register has trimmed, or a deletion covers, may go. What is not mentioned stays.

use super::Listing;
use super::copy::Task;
use super::scrub::Held;
use crate::placement::{Candidate, Policy, Spread, substitute};
use crate::register::{ContainerLog, LedgerRecord, LedgerStage};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId, ReplicaId};

/// What becomes of the doubt about a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Wait,
    /// It ends when these have been read back whole: the ledger is closed at `end`.
    Hold { end: EntryId, tasks: Vec<Task> },
}

/// A fragment's part that must be kept, and who holds it.
struct Part<'a> {
    first: EntryId,
    entries: Range<u64>,
    ensemble: &'a [ReplicaId],
}

impl Part<'_> {
    /// `entries` of it, copied from its other members to `target`.
    fn copied_to(
        &self,
        ledger: LedgerId,
        entries: Range<u64>,
        target: ReplicaId,
        by: Epoch,
    ) -> Task {
        let others = self.ensemble.iter().copied().filter(|member| *member != target);
        Task { ledger, entries, target, sources: others.collect(), by }
    }
}

/// The parts of `ledger`'s fragments that must be kept; the last one of a ledger that is not closed has no end.
fn parts<'a>(log: &ContainerLog, ledger: &'a LedgerRecord) -> Vec<Part<'a>> {
    let kept = log.keep_from_in(ledger.epoch).0;
    let firsts = ledger.fragments.iter().map(|fragment| fragment.first.0);
    let ends = firsts.skip(1).chain([ledger.end().map_or(u64::MAX, |end| end.0)]);
    let parts = ledger.fragments.iter().zip(ends).map(|(fragment, end)| Part {
        first: fragment.first,
        entries: fragment.first.0.max(kept)..end,
        ensemble: &fragment.ensemble,
    });
    parts.filter(|part| part.entries.start < part.entries.end).collect()
}

/// What `log` says about the doubt of `me` about the ledger of `epoch`.
pub(super) fn verdict(log: &ContainerLog, epoch: Epoch, me: ReplicaId) -> Verdict {
    if epoch >= log.epoch {
        return Verdict::Wait; // It is open, or about to be.
    }
    let gone = Verdict::Hold { end: EntryId(0), tasks: Vec::new() };
    // Not listed, and a later epoch acts: trimmed, closed without an entry, or never opened.
    let Some(ledger) = log.ledger(epoch) else { return gone };
    let LedgerStage::Closed { end } = ledger.stage else { return Verdict::Wait };
    let id = LedgerId { container: log.container, epoch };
    let mine = parts(log, ledger).into_iter().filter(|part| part.ensemble.contains(&me));
    let tasks = mine.map(|part| part.copied_to(id, part.entries.clone(), me, log.epoch));
    Verdict::Hold { end, tasks: tasks.collect() }
}

/// True if the doubt of `me` about what it does not know may end: nothing that may have been lost is open or being
/// recovered (so no change or repair can name it any more), and each closed ledger that names it is in `whole`.
pub(super) fn limbo_may_end(
    listing: &Listing,
    me: ReplicaId,
    upto: &BTreeMap<ContainerId, Epoch>,
    whole: &BTreeSet<LedgerId>,
) -> bool {
    let ended = |log: &ContainerLog| {
        let upto = upto.get(&log.container).copied().unwrap_or_default();
        let over = |ledger: &LedgerRecord| ledger.epoch > upto || ledger.end().is_some();
        let named = |ledger: &&LedgerRecord| {
            ledger.epoch <= upto && parts(log, ledger).iter().any(|p| p.ensemble.contains(&me))
        };
        let id = |epoch| LedgerId { container: log.container, epoch };
        (log.epoch > upto || upto == Epoch(0))
            && log.ledgers.iter().all(over)
            && log.ledgers.iter().filter(named).all(|ledger| whole.contains(&id(ledger.epoch)))
    };
    let listed = |container: &ContainerId| {
        let known = listing.logs.iter().any(|log| log.container == *container);
        known || listing.deleted.contains(container)
    };
    listing.complete && upto.keys().all(listed) && listing.logs.iter().all(ended)
}

/// What may go, by container: everything below. `known` are the containers of which the storage has anything.
pub(super) fn removals(
    listing: &Listing,
    known: &BTreeSet<ContainerId>,
) -> Vec<(ContainerId, Address)> {
    let all = Address::new(Epoch(u64::MAX - 1), EntryId(0));
    let trims = listing.logs.iter().map(|log| (log.container, log.keep_from));
    let deleted = listing.deleted.iter().map(|container| (*container, all));
    let mut found: Vec<_> = trims.chain(deleted).filter(|(c, _)| known.contains(c)).collect();
    if planted!("PB-D9") {
        let listed: BTreeSet<_> = listing.logs.iter().map(|log| log.container).collect();
        found.extend(known.difference(&listed).map(|container| (*container, all)));
    }
    found
}

/// The copies that this storage needs: of entries that a scrub could not read, and of those that a closed ledger's
/// fragment says are here and are not. `held` is what is here, by ledger.
pub(super) fn heal(
    listing: &Listing,
    me: ReplicaId,
    held: &[Held],
    hits: &BTreeSet<(LedgerId, EntryId)>,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    for log in &listing.logs {
        for ledger in &log.ledgers {
            if ledger.stage == LedgerStage::Recovering {
                continue;
            }
            let id = LedgerId { container: log.container, epoch: ledger.epoch };
            // The open ledger is repaired on its own authority: that fences nobody.
            let by = if ledger.end().is_some() { log.epoch } else { ledger.epoch };
            for part in parts(log, ledger).iter().filter(|part| part.ensemble.contains(&me)) {
                let from = (id, EntryId(part.entries.start));
                let upto = (id, EntryId(part.entries.end));
                let mut entries: Vec<Range<u64>> =
                    hits.range(from..upto).map(|(_, entry)| entry.0..entry.0 + 1).collect();
                if ledger.end().is_some() {
                    entries.extend(holes(part.entries.clone(), id, held));
                }
                let task = |entries| part.copied_to(id, entries, me, by);
                tasks.extend(joined(entries).into_iter().map(task));
            }
        }
    }
    tasks
}

/// What of `wanted` is not in `held`.
fn holes(wanted: Range<u64>, ledger: LedgerId, held: &[Held]) -> Vec<Range<u64>> {
    let (mut at, mut found) = (wanted.start, Vec::new());
    let mine = held.iter().filter(|(of, _)| *of == ledger).map(|(_, entries)| entries);
    let mut mine: Vec<&Range<u64>> = mine.collect();
    mine.sort_by_key(|entries| entries.start);
    for entries in mine {
        if entries.start > at {
            found.push(at..entries.start.min(wanted.end));
        }
        at = at.max(entries.end);
    }
    found.push(at..wanted.end);
    found.retain(|hole| hole.start < hole.end);
    found
}

/// Overlapping and neighbouring ranges in one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut found: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match found.last_mut().filter(|last| last.end >= range.start) {
            Some(last) => last.end = last.end.max(range.end),
            None => found.push(range),
        }
    }
    found
}

/// A lost member that another storage takes the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    /// How many members are left: those with the fewest come first.
    pub(super) left: usize,
    pub(super) task: Task,
    pub(super) first: EntryId,
    pub(super) old: ReplicaId,
}

/// The replacements that are up to `me`: those of closed ledgers with a lost member of which it is the first member
/// that can be reached. Others will see to the rest; if two do, the register takes the first.
pub(super) fn replacements(
    listing: &Listing,
    me: ReplicaId,
    lost: &BTreeSet<ReplicaId>,
    candidates: &[Candidate],
) -> Vec<Replacement> {
    let up: BTreeSet<ReplicaId> =
        candidates.iter().filter(|known| known.up).map(|known| known.replica).collect();
    let mut found = Vec::new();
    for log in &listing.logs {
        for ledger in log.ledgers.iter().filter(|ledger| ledger.end().is_some()) {
            let id = LedgerId { container: log.container, epoch: ledger.epoch };
            for part in parts(log, ledger) {
                let left: Vec<ReplicaId> =
                    part.ensemble.iter().copied().filter(|member| !lost.contains(member)).collect();
                let doer = left.iter().find(|member| up.contains(member) || **member == me);
                if left.len() == part.ensemble.len() || doer != Some(&me) {
                    continue;
                }
                let policy = Policy { spread: Spread::Prefer, ..Policy::new(ledger.quorum) };
                for old in part.ensemble.iter().filter(|member| lost.contains(member)) {
                    // The same for all that repair it, so that a second one goes on where the first has stopped.
                    let seed = seed(id, part.first, *old);
                    let avoid: Vec<ReplicaId> = lost.iter().copied().collect();
                    let new = substitute(&policy, candidates, part.ensemble, *old, &avoid, seed);
                    let Ok(new) = new.inspect_err(|error| {
                        probe!("repair: nobody can take a lost member's place");
                        tracing::warn!(ledger = %id, %error, "a lost replica has no substitute");
                    }) else {
                        continue;
                    };
                    let (by, entries, sources) = (log.epoch, part.entries.clone(), left.clone());
                    let task = Task { ledger: id, entries, target: new, sources, by };
                    let (left, first, old) = (left.len(), part.first, *old);
                    found.push(Replacement { left, task, first, old });
                }
            }
        }
    }
    found.sort_by_key(|found| (found.left, found.task.ledger, found.first, found.old));
    found
}

fn seed(ledger: LedgerId, first: EntryId, old: ReplicaId) -> u64 {
    let mut bytes = Vec::with_capacity(44);
    bytes.extend(ledger.container.0.to_le_bytes());
    bytes.extend(ledger.epoch.0.to_le_bytes());
    bytes.extend(first.0.to_le_bytes());
    bytes.extend(old.storage.0.to_le_bytes());
    u64::from(crc32c::crc32c(&bytes)) << 32 | u64::from(crc32c::crc32c(&bytes[4..]))
}

#[cfg(test)]
mod tests;
