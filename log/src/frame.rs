//! What a replica writes to its storage: entries, and the facts about ledgers that outlive files.

use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId};
pub use thalweg_wire::ledger::EntryFrame;

/// One unit of the disk log. The order of staging is the order in the log, and the order of replay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// An entry from the ledger's writer.
    Entry(EntryFrame),
    /// An entry copied here by a recoverer of epoch `by`, or by repair.
    Repair {
        /// On whose authority.
        by: Epoch,
        /// The entry; `base` and `exempt` mean nothing here.
        entry: EntryFrame,
    },
    /// Appends of epochs below `by` are refused from here on.
    Fence {
        /// Which ledger.
        ledger: LedgerId,
        /// The epoch that fenced it.
        by: Epoch,
    },
    /// Everything this replica knows about a ledger besides its entries: an open, a new run, an end of doubt.
    State(LedgerState),
    /// The lowest epoch of `container` that may still be opened here.
    Floor {
        /// Which container.
        container: ContainerId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Entries of `container` below `keep_from` may go. Carries only what the register has.
    Trim {
        /// Which container.
        container: ContainerId,
        /// The first address that must stay.
        keep_from: Address,
    },
    /// An operator declared everything of `ledger` from `from` on lost.
    Loss {
        /// Which ledger.
        ledger: LedgerId,
        /// The first lost entry.
        from: EntryId,
    },
}

/// What a replica durably knows about one ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerState {
    /// Which ledger.
    pub ledger: LedgerId,
    /// The writer that opened it; `None` for a ledger first met by a fence or a repair.
    pub incarnation: Option<Incarnation>,
    /// First entry of the current run.
    pub base: EntryId,
    /// Last entry of the current run; `None` while it is empty.
    pub tail: Option<EntryId>,
    /// Highest commit point seen.
    pub lac: Option<EntryId>,
    /// Exclusive, as in the register.
    pub keep_from: Address,
    /// Epoch of the newest fence.
    pub fenced_by: Option<Epoch>,
    /// False while the replica cannot vouch for its tail.
    pub certain: bool,
}
