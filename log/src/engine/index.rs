//! Where every live entry lies.
//!
//! Invariants
//! 1. The runs of a ledger do not overlap.
//! 2. `live` of a file counts exactly the entries and bytes of the runs that lie in it.

use std::collections::BTreeMap;
use std::ops::Range;
use thalweg_types::id::{ContainerId, EntryId, LedgerId};

/// The slot that holds one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The file's number.
    pub file: u64,
    /// Where the batch begins in it, in bytes.
    pub offset: u64,
    /// The frame's number in the batch.
    pub slot: u32,
}

/// Consecutive entries in consecutive slots of one batch.
#[derive(Clone, Copy, Debug)]
struct Run {
    spot: Spot,
    count: u32,
    bytes: u64,
}

/// What of a file is still needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    pub entries: u64,
    pub bytes: u64,
}

/// See the module's header.
#[derive(Default)]
pub(super) struct Index {
    ledgers: BTreeMap<LedgerId, BTreeMap<u64, Run>>,
    live: BTreeMap<u64, Live>,
}

impl Index {
    /// Notes that `entry`, of `bytes` bytes, lies at `spot`. A later note wins over an earlier one.
    pub(super) fn insert(&mut self, ledger: LedgerId, entry: EntryId, spot: Spot, bytes: u64) {
        let runs = self.ledgers.entry(ledger).or_default();
        let live = self.live.entry(spot.file).or_default();
        live.entries += 1;
        live.bytes += bytes;
        let last = runs.last_entry();
        if let Some(mut last) = last {
            let first = *last.key();
            let run = last.get_mut();
            let end = first + u64::from(run.count);
            if end <= entry.0 {
                let continues = (run.spot.file, run.spot.offset) == (spot.file, spot.offset)
                    && run.spot.slot + run.count == spot.slot
                    && end == entry.0;
                if continues {
                    run.count += 1;
                    run.bytes += bytes;
                    return;
                }
                runs.insert(entry.0, Run { spot, count: 1, bytes });
                return;
            }
        }
        Self::cut(runs, &mut self.live, entry.0, entry.0 + 1);
        runs.insert(entry.0, Run { spot, count: 1, bytes });
    }

    /// Forgets the entries of `from..to`.
    fn cut(runs: &mut BTreeMap<u64, Run>, live: &mut BTreeMap<u64, Live>, from: u64, to: u64) {
        let before = runs.range(..from).next_back();
        let begin = before
            .filter(|(first, run)| **first + u64::from(run.count) > from)
            .map_or(from, |(first, _)| *first);
        let touched: Vec<(u64, Run)> = runs.range(begin..to).map(|(at, run)| (*at, *run)).collect();
        for (first, run) in touched {
            runs.remove(&first);
            let account = live.entry(run.spot.file).or_default();
            account.entries -= u64::from(run.count);
            account.bytes -= run.bytes;
            let end = first + u64::from(run.count);
            for (keep_from, keep_to) in [(first, from.min(end)), (to.max(first), end)] {
                if keep_from >= keep_to {
                    continue;
                }
                let skipped = u32::try_from(keep_from - first).expect("within the run");
                let count = u32::try_from(keep_to - keep_from).expect("within the run");
                let bytes = run.bytes * u64::from(count) / u64::from(run.count);
                let spot = Spot { slot: run.spot.slot + skipped, ..run.spot };
                runs.insert(keep_from, Run { spot, count, bytes });
                let account = live.entry(run.spot.file).or_default();
                account.entries += u64::from(count);
                account.bytes += bytes;
            }
        }
    }

    /// Forgets what of `container` lies below entry `first` of the ledger `epoch`, all earlier ledgers included.
    pub(super) fn trim(&mut self, container: ContainerId, keep_from: thalweg_types::id::Address) {
        let begin = LedgerId { container, epoch: thalweg_types::id::Epoch(0) };
        let kept = LedgerId { container, epoch: keep_from.epoch };
        let gone: Vec<LedgerId> = self.ledgers.range(begin..kept).map(|(id, _)| *id).collect();
        for ledger in gone {
            let Some(mut runs) = self.ledgers.remove(&ledger) else { continue };
            Self::cut(&mut runs, &mut self.live, 0, u64::MAX);
        }
        if let Some(runs) = self.ledgers.get_mut(&kept) {
            Self::cut(runs, &mut self.live, 0, keep_from.entry.0);
        }
    }

    /// Where `entry` lies, and how many entries follow in consecutive slots of the same batch, itself included.
    pub(super) fn find(&self, ledger: LedgerId, entry: EntryId) -> Option<(Spot, u32)> {
        let runs = self.ledgers.get(&ledger)?;
        let (first, run) = runs.range(..=entry.0).next_back()?;
        let skipped = u32::try_from(entry.0 - first).ok().filter(|skip| *skip < run.count)?;
        let spot = Spot { slot: run.spot.slot + skipped, ..run.spot };
        Some((spot, run.count - skipped))
    }

    /// The last entry of `ledger` that lies anywhere.
    pub(super) fn last(&self, ledger: LedgerId) -> Option<EntryId> {
        let (first, run) = self.ledgers.get(&ledger)?.last_key_value()?;
        Some(EntryId(first + u64::from(run.count) - 1))
    }

    /// Everything that lies anywhere, as runs by ledger, and its bytes.
    pub(super) fn held(&self) -> (Vec<(LedgerId, Range<u64>)>, u64) {
        let mut found: Vec<(LedgerId, Range<u64>)> = Vec::new();
        for (ledger, runs) in &self.ledgers {
            for (first, run) in runs {
                let end = first + u64::from(run.count);
                match found.last_mut().filter(|(of, last)| of == ledger && last.end == *first) {
                    Some((_, last)) => last.end = end,
                    None => found.push((*ledger, *first..end)),
                }
            }
        }
        (found, self.live.values().map(|live| live.bytes).sum())
    }

    /// What of file `number` is still needed.
    pub(super) fn live(&self, number: u64) -> Live {
        self.live.get(&number).copied().unwrap_or_default()
    }

    /// The batches of file `number` that hold live entries, with the slots, in order.
    pub(super) fn batches(&self, number: u64) -> BTreeMap<u64, Vec<u32>> {
        let mut found: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let runs = self.ledgers.values().flat_map(BTreeMap::values);
        for run in runs.filter(|run| run.spot.file == number) {
            let slots = run.spot.slot..run.spot.slot + run.count;
            found.entry(run.spot.offset).or_default().extend(slots);
        }
        for slots in found.values_mut() {
            slots.sort_unstable();
        }
        found
    }

    /// Forgets a file that holds nothing any more.
    pub(super) fn forget(&mut self, number: u64) {
        if self.live(number).entries == 0 {
            self.live.remove(&number);
        }
    }

    /// Asserts the invariants in the module's header.
    pub(super) fn check(&self) {
        let mut live: BTreeMap<u64, Live> = BTreeMap::new();
        for (ledger, runs) in &self.ledgers {
            let mut end = 0;
            for (first, run) in runs {
                assert!(*first >= end && run.count > 0, "runs of {ledger} overlap");
                end = first + u64::from(run.count);
                let account = live.entry(run.spot.file).or_default();
                account.entries += u64::from(run.count);
                account.bytes += run.bytes;
            }
        }
        for (file, account) in &self.live {
            assert_eq!(*account, live.get(file).copied().unwrap_or_default(), "file {file}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use thalweg_types::id::{Address, Epoch};

    const LEDGER: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(4) };

    proptest! {
        #[test]
        fn the_index_finds_what_a_plain_map_finds(
            steps in proptest::collection::vec((0..40_u64, 0..3_u64, 0..4_u64, any::<bool>()), 1..80),
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            let mut slot = 0;
            for (entry, file, batch, trim) in steps {
                if trim && entry < 4 {
                    index.trim(LEDGER.container, Address::new(LEDGER.epoch, EntryId(entry)));
                    model.retain(|at, _| *at >= entry);
                } else {
                    let spot = Spot { file, offset: batch * 4096, slot };
                    index.insert(LEDGER, EntryId(entry), spot, 10);
                    model.insert(entry, spot);
                    slot += 1;
                }
                index.check();
            }
            for entry in 0..45 {
                let found = index.find(LEDGER, EntryId(entry)).map(|(spot, _)| spot);
                prop_assert_eq!(found, model.get(&entry).copied());
            }
            let (held, bytes) = index.held();
            let held: Vec<u64> = held.into_iter().flat_map(|(_, run)| run).collect();
            prop_assert_eq!(&held, &model.keys().copied().collect::<Vec<u64>>());
            prop_assert_eq!(bytes, held.len() as u64 * 10);
            prop_assert_eq!(index.last(LEDGER).map(|e| e.0), model.keys().last().copied());
        }
    }
}
