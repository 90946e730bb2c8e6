//! What owners submitted, what they were told, what anybody ever read, what the register went through: and the rules
//! that all of it must follow.
//!
//! Everything is judged as it is observed. An entry whose outcome nobody was told may be there or not, but it is the
//! same for everybody.

use super::content::{self, Content};
use crate::report::Outcome;
use crate::world::rng::Rng;
use crate::world::trace::trace;
use bytes::Bytes;
use std::collections::BTreeMap;
use thalweg_log::ledger::{Entry, ReadError, ReplayedEntry, SnapshotPointer, SnapshotPointers};
use thalweg_log::register::{Change, ContainerLog, LedgerStage};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch};

/// One ledger.
#[derive(Clone, Debug, Default)]
struct LedgerHistory {
    /// The process that has opened it.
    owner: Option<u64>,
    entries: Vec<Content>,
    /// Everything below was announced as committed.
    committed: u64,
    /// Where the register has closed it.
    end: Option<u64>,
}

/// The log of one container.
#[derive(Clone, Debug, Default)]
pub(super) struct LogHistory {
    ledgers: BTreeMap<Epoch, LedgerHistory>,
    /// The highest `keep_from` that anybody has asked for.
    asked: Address,
    /// The highest that the register has.
    kept: Address,
    /// What was asked for together.
    pairs: Vec<(Address, SnapshotPointers)>,
}

/// What was known when somebody began to open a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    kept: Address,
    newest: Epoch,
}

/// How far a replay has come.
#[derive(Clone, Debug)]
pub(super) struct ReplayCheck {
    container: usize,
    /// Of the owner that replays.
    epoch: Epoch,
    from: Address,
    next: Address,
    /// Entries met.
    pub(super) met: u64,
}

/// All logs, and the verdict.
#[derive(Debug, Default)]
pub(super) struct History {
    logs: Vec<LogHistory>,
    next_serial: u64,
    /// The verdict so far.
    pub(super) out: Outcome,
}

/// Violations of one rule that are kept: the rest says nothing new.
const VIOLATIONS_MAX: usize = 20;

impl History {
    /// The history of so many containers.
    pub(super) fn new(containers: usize) -> Self {
        Self { logs: vec![LogHistory::default(); containers], ..Self::default() }
    }

    /// Records a broken rule.
    pub(super) fn violate(&mut self, rule: &'static str, what: String) {
        trace!("VIOLATION {rule}: {what}");
        if self.out.violations.len() < VIOLATIONS_MAX {
            self.out.violate(rule, what);
        }
    }

    /// What anybody may expect who opens the log now.
    pub(super) fn before(&self, container: usize) -> Before {
        let log = &self.logs[container];
        let opened = log.ledgers.iter().rev().find(|(_, ledger)| ledger.owner.is_some());
        Before { kept: log.kept, newest: opened.map_or(Epoch(0), |(epoch, _)| *epoch) }
    }

    /// A process has opened the log.
    pub(super) fn opened(
        &mut self,
        container: usize,
        before: Before,
        (epoch, process): (Epoch, u64),
        (keep_from, snapshots): (Address, &SnapshotPointers),
    ) -> ReplayCheck {
        trace!("container {container}: epoch {epoch} opened by {process}, kept from {keep_from}");
        self.out.add("takeovers", 1);
        let log = &self.logs[container];
        let asked = log.asked;
        let known = keep_from == Address::default()
            || log.pairs.iter().any(|(at, pointers)| *at == keep_from && pointers == snapshots);
        if epoch <= before.newest {
            let newest = before.newest;
            self.violate("L12", format!("c{container}: opened epoch {epoch} after {newest}"));
        }
        if keep_from < before.kept || keep_from > asked {
            let what = format!("kept from {keep_from}, not within {}..={asked}", before.kept);
            self.violate("L13", format!("c{container} epoch {epoch}: {what}"));
        }
        if !known {
            let what = format!("keep_from {keep_from} with snapshots that nobody stored with it");
            self.violate("L13", format!("c{container} epoch {epoch}: {what}"));
        }
        let ledger = self.logs[container].ledgers.entry(epoch).or_default();
        if let Some(other) = ledger.owner.replace(process) {
            self.violate(
                "L1",
                format!("c{container}: epoch {epoch} opened by {other} and {process}"),
            );
        }
        ReplayCheck { container, epoch, from: keep_from, next: keep_from, met: 0 }
    }

    /// The next entry for an owner to append.
    pub(super) fn compose(&mut self, rng: &mut Rng) -> (Content, Entry) {
        self.next_serial += 1;
        let content = Content::draw(self.next_serial, rng);
        (content, content.entry(rng))
    }

    /// The owner has appended `content`, and was given the number `entry`.
    pub(super) fn submitted(
        &mut self,
        container: usize,
        epoch: Epoch,
        entry: EntryId,
        content: Content,
    ) {
        self.out.add("appends", 1);
        let Some(ledger) = self.logs[container].ledgers.get_mut(&epoch) else { return };
        let expected = ledger.entries.len() as u64;
        ledger.entries.push(content);
        if entry.0 != expected {
            let what = format!("c{container} epoch {epoch}: append {expected} got number {entry}");
            self.violate("L5", what);
        }
    }

    /// The owner's ledger announces how far it has come. Returns how many entries are newly committed.
    pub(super) fn committed(&mut self, container: usize, epoch: Epoch, last: EntryId) -> u64 {
        let log = &mut self.logs[container];
        let Some(ledger) = log.ledgers.get_mut(&epoch) else { return 0 };
        let (before, end) = (ledger.committed, last.0 + 1);
        let (submitted, closed) = (ledger.entries.len() as u64, ledger.end);
        ledger.committed = before.max(end);
        if end < before {
            self.violate("L5", format!("c{container} epoch {epoch}: from {before} back to {end}"));
        }
        if end > submitted {
            let what = format!("c{container} epoch {epoch}: {end} committed of {submitted}");
            self.violate("L4", what);
        }
        // What was committed in time but announced late is in the closed ledger.
        if let Some(closed) = closed.filter(|closed| end > *closed && end > before) {
            let what = format!("entry {} is announced, but the ledger closed at {closed}", end - 1);
            self.violate("I12", format!("c{container} epoch {epoch}: {what}"));
        }
        let new = end.saturating_sub(before);
        self.out.add("appends committed", new);
        new
    }

    /// How many of an owner's entries were submitted and not yet announced.
    pub(super) fn in_flight(&self, container: usize, epoch: Epoch) -> u64 {
        let ledger = self.logs[container].ledgers.get(&epoch);
        ledger.map_or(0, |ledger| (ledger.entries.len() as u64).saturating_sub(ledger.committed))
    }

    /// Everything of the ledger below this was announced as committed.
    pub(super) fn committed_end(&self, container: usize, epoch: Epoch) -> u64 {
        self.logs[container].ledgers.get(&epoch).map_or(0, |ledger| ledger.committed)
    }

    /// Everything of the ledger below this was submitted.
    pub(super) fn submitted_end(&self, container: usize, epoch: Epoch) -> u64 {
        let ledger = self.logs[container].ledgers.get(&epoch);
        ledger.map_or(0, |ledger| ledger.entries.len() as u64)
    }

    /// Some address that its reader may ask for: committed, kept, of `epoch` or an older one.
    pub(super) fn readable(
        &self,
        container: usize,
        epoch: Epoch,
        rng: &mut Rng,
    ) -> Option<Address> {
        let log = &self.logs[container];
        let from = log.asked;
        let mut ranges = Vec::new();
        if from.epoch > epoch {
            return None; // A zombie's log: others have trimmed all of it.
        }
        for (of, ledger) in log.ledgers.range(from.epoch..=epoch) {
            let end = if *of == epoch { ledger.committed } else { ledger.end.unwrap_or(0) };
            let first = if *of == from.epoch { from.entry.0 } else { 0 };
            if first < end {
                ranges.push((*of, first, end));
            }
        }
        if ranges.is_empty() {
            return None;
        }
        let (of, first, end) = rng.pick(&ranges);
        Some(Address::new(of, EntryId(rng.range(first, end))))
    }

    /// The owner of `epoch` is about to move `keep_from`.
    pub(super) fn asks_to_keep(
        &mut self,
        container: usize,
        keep_from: Address,
        snapshots: SnapshotPointers,
    ) {
        trace!("container {container}: keep from {keep_from}?");
        let log = &mut self.logs[container];
        log.asked = log.asked.max(keep_from);
        log.pairs.push((keep_from, snapshots));
    }

    /// The highest `keep_from` that anybody has asked for.
    pub(super) fn asked(&self, container: usize) -> Address {
        self.logs[container].asked
    }

    /// The owner was told that `keep_from` is stored.
    pub(super) fn keeps(&mut self, container: usize, keep_from: Address) {
        self.out.add("trims", 1);
        if self.logs[container].kept < keep_from {
            let what = format!("c{container}: told to keep from {keep_from}, never stored");
            self.violate("L13", what);
        }
    }
}

/// What is read.
impl History {
    /// What stands at `address`, if anybody submitted it.
    pub(super) fn content(&self, container: usize, address: Address) -> Option<Content> {
        let ledger = self.logs[container].ledgers.get(&address.epoch)?;
        ledger.entries.get(usize::try_from(address.entry.0).ok()?).copied()
    }

    /// Judges headers that somebody has met at `address`.
    fn judge_headers(&mut self, container: usize, address: Address, headers: &[u8], who: &str) {
        let at = format!("c{container} {address} ({who})");
        match self.content(container, address) {
            None => self.violate("I3", format!("{at}: an entry that nobody submitted")),
            Some(content) if content.headers() == headers => {}
            Some(content) => match content::claim(headers) {
                Some(other) => {
                    let what = format!("{at}: entry #{other} instead of #{}", content.serial);
                    self.violate("I4", what);
                }
                None => self.violate("I3", format!("{at}: headers that nobody wrote")),
            },
        }
    }

    /// Judges the payload that somebody has read at `address`.
    pub(super) fn judge_payload(
        &mut self,
        container: usize,
        address: Address,
        payload: &Bytes,
        who: &str,
    ) {
        self.out.add("reads", 1);
        let at = format!("c{container} {address} ({who})");
        match self.content(container, address) {
            None => self.violate("I3", format!("{at}: a payload that nobody submitted")),
            Some(content) if content.payload() == *payload => {}
            Some(content) => {
                let what = format!("{at}: other bytes than those of entry #{}", content.serial);
                self.violate("I4", what);
            }
        }
    }

    /// Judges a read that gave nothing. Silence and doubt are fine while things fail.
    pub(super) fn judge_refusal(&mut self, container: usize, address: Address, error: &ReadError) {
        let asked = self.logs[container].asked;
        self.out.add("reads refused", 1);
        if matches!(error, ReadError::Trimmed { .. }) && address >= asked {
            let what = format!("c{container} {address}: trimmed, but kept from {asked}");
            self.violate("I1", what);
        }
    }

    /// A replay meets an entry.
    pub(super) fn replayed(&mut self, check: &mut ReplayCheck, entry: &ReplayedEntry) {
        let ReplayedEntry { address, headers, payload_len } = entry;
        let container = check.container;
        let ReplayCheck { epoch, next, .. } = *check;
        self.out.add("entries replayed", 1);
        check.met += 1;
        if *address != next && !self.may_follow(container, next, *address) {
            let what =
                format!("c{container} epoch {epoch}: a replay goes from {next} to {address}");
            self.violate("L5", what);
        }
        if address.epoch >= epoch {
            let what = format!("c{container} epoch {epoch}: a replay meets {address}");
            self.violate("L7", what);
        }
        self.judge_headers(container, *address, headers, "a replay");
        let content = self.content(container, *address);
        if content.is_some_and(|content| content.payload_len as usize != *payload_len) {
            let what = format!("c{container} {address}: a payload of {payload_len} bytes");
            self.violate("I4", what);
        }
        check.next = Address::new(address.epoch, address.entry.next());
    }

    /// True if a replay may go from the end `next` of one ledger to the first entry of another: nothing of what lies
    /// between is in a closed ledger.
    fn may_follow(&self, container: usize, next: Address, to: Address) -> bool {
        let log = &self.logs[container];
        let whole = |epoch: Epoch| log.ledgers.get(&epoch).and_then(|ledger| ledger.end);
        let ended = whole(next.epoch).is_none_or(|end| next.entry.0 >= end);
        if to.epoch <= next.epoch {
            return false;
        }
        let between = log.ledgers.range(Epoch(next.epoch.0 + 1)..to.epoch);
        let mut between = between.filter_map(|(_, ledger)| ledger.end);
        to.entry == EntryId(0) && ended && between.all(|end| end == 0)
    }

    /// A replay has come to its end without an error.
    pub(super) fn replay_ended(&mut self, check: &ReplayCheck) {
        self.out.add("replays", 1);
        let ReplayCheck { container, epoch, from, next, .. } = *check;
        let log = &self.logs[container];
        let mut lost = Vec::new();
        for (of, ledger) in log.ledgers.range(from.epoch..epoch.max(from.epoch)) {
            let met = match of.cmp(&next.epoch) {
                std::cmp::Ordering::Less => u64::MAX,
                std::cmp::Ordering::Equal => next.entry.0,
                std::cmp::Ordering::Greater => 0,
            };
            let due = ledger.committed.max(ledger.end.unwrap_or(0));
            if met < due && Address::new(*of, EntryId(due - 1)) >= from {
                let committed = ledger.committed;
                lost.push(format!(
                    "e{of}: met up to {met}, committed {committed}, closed at {due}"
                ));
            }
        }
        for what in lost {
            self.violate(
                "I1",
                format!("c{container} epoch {epoch}: a replay lacks entries of {what}"),
            );
        }
    }
}

/// What the register goes through.
impl History {
    /// A command has been applied to the register.
    pub(super) fn registered(
        &mut self,
        container: usize,
        change: &Change,
        before: Option<&ContainerLog>,
        after: &ContainerLog,
    ) {
        let epoch = before.map_or(Epoch(0), |log| log.epoch);
        let at = format!("c{container}: {}", name(change));
        if after.epoch < epoch {
            let now = after.epoch;
            self.violate("L12", format!("{at}: the register's epoch goes from {epoch} to {now}"));
        }
        if commands(change).is_some_and(|of| of < epoch) && before != Some(after) {
            let what = format!("{at}: a command of an epoch before {epoch} has an effect");
            self.violate("L12", what);
        }
        let log = &mut self.logs[container];
        log.kept = log.kept.max(after.keep_from);
        for ledger in before.iter().flat_map(|log| &log.ledgers) {
            self.judge_end(container, ledger.epoch, before, after, change);
        }
        if matches!(change, Change::ChangeEnsemble { .. }) && before != Some(after) {
            self.out.add("ensemble changes", 1);
        }
        if let (Change::Close { ending, .. }, Some(before)) = (change, before)
            && before != after
            && let Some(last) = before.ledgers.last()
            && !matches!(last.stage, LedgerStage::Closed { .. })
        {
            self.out.add("ledgers closed", 1);
            if ending.ensemble != last.last_fragment().ensemble && ending.start < ending.end {
                self.out.add("members replaced by a recovery", 1);
            }
        }
        if matches!(change, Change::Repair { .. }) && before != Some(after) {
            self.out.add("members repaired", 1);
        }
    }

    /// Where the ledger of `epoch` ends after `change`, and whether it may.
    fn judge_end(
        &mut self,
        container: usize,
        epoch: Epoch,
        before: Option<&ContainerLog>,
        after: &ContainerLog,
        change: &Change,
    ) {
        let was = before.and_then(|log| log.ledger(epoch)).map(|ledger| ledger.stage);
        let now = after.ledger(epoch).map(|ledger| ledger.stage);
        let at = format!("c{container} epoch {epoch}");
        let end = match (was, now, change) {
            (_, Some(LedgerStage::Closed { end }), _) => Some(end.0),
            // Closed and dropped in one step: nothing of it is kept.
            (
                Some(LedgerStage::Open | LedgerStage::Recovering),
                None,
                Change::Close { ending, .. },
            ) => Some(ending.end.0),
            _ => None,
        };
        let kept = after.keep_from;
        let ledger = self.logs[container].ledgers.entry(epoch).or_default();
        let (committed, known) = (ledger.committed, ledger.end);
        if let Some(end) = end {
            ledger.end = Some(end);
        }
        match (known, end, now) {
            (Some(known), Some(end), _) if known != end => {
                self.violate("L8", format!("{at}: closed at {known}, and then at {end}"));
            }
            (Some(known), None, Some(stage)) => {
                self.violate("L8", format!("{at}: closed at {known}, and then {stage:?}"));
            }
            (None, Some(end), _) => {
                trace!("{at}: closed at {end}, committed {committed}");
                if end < committed {
                    let what = format!("{at}: closed at {end}, but {committed} were committed");
                    self.violate("I1", what);
                }
            }
            (known, None, None) => {
                let due = committed.max(known.unwrap_or(0));
                let last = Address::new(epoch, EntryId(due.saturating_sub(1)));
                if due > 0 && last >= kept {
                    self.violate("L9", format!("{at}: has left the register with {due} entries"));
                }
            }
            _ => {}
        }
    }

    /// A command has broken the register itself.
    pub(super) fn register_broke(&mut self, container: usize, change: &Change, epoch: Epoch) {
        let stale = commands(change).is_some_and(|of| of < epoch);
        let rule = if stale { "L12" } else { "L8" };
        let what = format!("c{container}: {} breaks the register of epoch {epoch}", name(change));
        self.violate(rule, what);
    }
}

/// The epoch on whose authority a command acts.
fn commands(change: &Change) -> Option<Epoch> {
    match change {
        Change::Assign { .. } | Change::Repair { .. } => None,
        Change::BeginRecovery { epoch, .. }
        | Change::Close { epoch, .. }
        | Change::ChangeEnsemble { epoch, .. }
        | Change::SetKeepFrom { epoch, .. } => Some(*epoch),
    }
}

/// What a command is called.
pub(super) fn name(change: &Change) -> String {
    match change {
        Change::Assign { host, .. } => format!("assign {host}"),
        Change::BeginRecovery { epoch, .. } => format!("begin {epoch}"),
        Change::Close { epoch, ending, .. } => {
            format!("close {}..{} for {epoch}", ending.start, ending.end)
        }
        Change::ChangeEnsemble { epoch, id, first, .. } => {
            format!("change {id} of {epoch} from {first}")
        }
        Change::SetKeepFrom { epoch, keep_from, .. } => format!("keep {keep_from} by {epoch}"),
        Change::Repair { ledger, first, old, new } => {
            format!("repair {ledger} from {first}: {old} by {new}")
        }
    }
}

/// Snapshot pointers that nobody else stores.
pub(super) fn pointers(keep_from: Address, mark: u64) -> SnapshotPointers {
    let at = Address::new(keep_from.epoch, EntryId(mark));
    let pointer = |covers| Some(SnapshotPointer { at, covers });
    SnapshotPointers { newest: pointer(Some(keep_from)), older: pointer(None) }
}

/// The container with that number.
pub(super) fn id(container: usize) -> ContainerId {
    ContainerId(u32::try_from(container).expect("few containers"))
}
