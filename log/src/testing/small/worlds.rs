//! The small worlds that are searched, and the planted bugs that must be found in them.

use super::Budget;

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that is folded or not")]
pub struct Setup {
    /// What it is called.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// Entries that the first owner submits.
    pub entries: u64,
    /// Entries that each later owner submits.
    pub later_entries: u64,
    /// Frames become durable one by one, at any time; else at once.
    pub syncs: bool,
    /// Reads and what they give travel; else they are answered at once.
    pub reads: bool,
    /// Storages are alike.
    pub alike: bool,
    /// No order of steps is left out: to check that leaving some out loses nothing.
    pub whole: bool,
    /// What else may happen.
    pub budget: Budget,
}

const NOTHING: Budget = Budget {
    takeovers: 0,
    changes: 0,
    substitutes: 0,
    trims: 0,
    wipes: 0,
    rots: 0,
    doubts: 0,
    limbos: 0,
    restarts: 0,
    losses: 0,
    strays: 0,
    retries: 0,
    repairs: 0,
};
const ONE: Budget = Budget { takeovers: 1, ..NOTHING };
const TWO: Budget = Budget { takeovers: 2, ..NOTHING };

/// One entry and no fault: what other setups are made from.
pub const PLAIN: Setup = Setup {
    name: "",
    what: "",
    entries: 1,
    later_entries: 0,
    syncs: false,
    reads: false,
    alike: true,
    whole: false,
    budget: NOTHING,
};

/// The worlds, in the order in which they are searched.
pub const WORLDS: &[Setup] = &[
    Setup {
        name: "W0",
        what: "one recoverer, 1 entry, every sync",
        syncs: true,
        budget: ONE,
        ..PLAIN
    },
    Setup { name: "W1", what: "one recoverer, 3 entries", entries: 3, budget: ONE, ..PLAIN },
    Setup { name: "W2", what: "two recoverers, 2 entries", entries: 2, budget: TWO, ..PLAIN },
    Setup {
        name: "W3",
        what: "one recoverer, one ensemble change, 2 entries",
        entries: 2,
        budget: Budget { changes: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W4",
        what: "two recoverers, one ensemble change, 1 entry",
        budget: Budget { changes: 1, ..TWO },
        ..PLAIN
    },
    Setup {
        name: "W5",
        what: "one recoverer, a disk wiped, 3 entries",
        entries: 3,
        budget: Budget { wipes: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W6",
        what: "one recoverer, 1 entry, a message lost and one that comes again",
        budget: Budget { losses: 1, strays: 1, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W6r",
        what: "one recoverer, 1 entry, a message lost, reads travel",
        reads: true,
        alike: false,
        budget: Budget { losses: 1, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W7",
        what: "one recoverer, a trim, 2 entries",
        entries: 2,
        budget: Budget { trims: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W8",
        what: "one recoverer, a tail lost, two copies from peers, 2 entries",
        entries: 2,
        budget: Budget { doubts: 1, repairs: 2, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W8b",
        what: "one recoverer, a ledger forgotten, two copies from peers, 2 entries",
        entries: 2,
        budget: Budget { limbos: 1, repairs: 2, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W8c",
        what: "one recoverer, a disk wiped, two copies to another, 2 entries",
        entries: 2,
        budget: Budget { wipes: 1, repairs: 2, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "W9",
        what: "three epochs, 1 entry each",
        later_entries: 1,
        budget: TWO,
        ..PLAIN
    },
    Setup {
        name: "X1",
        what: "one recoverer, an entry rots, 2 entries",
        entries: 2,
        alike: false,
        budget: Budget { rots: 1, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "X2",
        what: "two recoverers, a substitute for one, 1 entry",
        budget: Budget { substitutes: 1, ..TWO },
        ..PLAIN
    },
    Setup {
        name: "X3",
        what: "one recoverer, a trim, a power loss after facts were moved, 1 entry",
        budget: Budget { trims: 1, restarts: 1, retries: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "X4",
        what: "one recoverer, two ensemble changes, 1 entry",
        budget: Budget { changes: 2, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "X5",
        what: "two epochs, 1 entry each, and a trim",
        later_entries: 1,
        budget: Budget { trims: 1, ..ONE },
        ..PLAIN
    },
    Setup {
        name: "X6",
        what: "no recoverer, a message lost, 2 entries",
        entries: 2,
        budget: Budget { losses: 1, ..NOTHING },
        ..PLAIN
    },
    Setup {
        name: "X7",
        what: "one recoverer, 2 entries, no order left out",
        entries: 2,
        whole: true,
        budget: ONE,
        ..PLAIN
    },
    Setup {
        name: "X8",
        what: "one recoverer, one ensemble change, 1 entry, no order left out",
        whole: true,
        budget: Budget { changes: 1, ..ONE },
        ..PLAIN
    },
];

/// Where everything may happen, for random walks.
pub const FULL: Setup = Setup {
    name: "full",
    what: "two recoverers, everything may happen, 3 entries",
    entries: 3,
    later_entries: 2,
    syncs: true,
    reads: true,
    alike: false,
    whole: false,
    budget: Budget {
        takeovers: 2,
        changes: 2,
        substitutes: 1,
        trims: 2,
        wipes: 1,
        restarts: 2,
        losses: 2,
        strays: 1,
        retries: 3,
        repairs: 3,
        ..NOTHING
    },
};

/// A planted bug, and the world in which it must be found.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its number in the design's table.
    pub name: &'static str,
    /// What switches it on.
    pub bug: &'static str,
    /// The rule that it breaks.
    pub what: &'static str,
    /// Where it is looked for.
    pub world: &'static str,
}

const fn planted(
    name: &'static str,
    bug: &'static str,
    world: &'static str,
    what: &'static str,
) -> Planted {
    Planted { name, bug, what, world }
}

/// The planted bugs. Not among them: `PB-L10`, which only delays (a member that lacks what is pending says so at the
/// next entry and gets it), and `PB-L13`, which only lengthens recoveries: a commit point that goes back cuts nothing.
pub const PLANTED: &[Planted] = &[
    planted("M1", "PB-L15", "W1", "one fenced member is enough"),
    planted("M2", "PB-L23", "W3", "acks of a member that leaves count"),
    planted("M3", "PB-L24", "W1", "tails are read before the fence"),
    planted("M4", "PB-L25", "X2", "a substitute is in the register before the close"),
    planted("M5", "PB-L14", "W5", "a blank disk answers for the old one"),
    planted("M6", "PB-L17", "X1", "a ledger ends where it cannot be read"),
    planted("M7", "PB-L18", "W8", "a copy from a peer makes a replica certain"),
    planted("M8", "PB-L19", "X3", "opens and fences go with their file"),
    planted("M9", "PB-L20", "W8", "a replica in doubt takes appends"),
    planted("M10", "PB-L21", "W8b", "a ledger that was lost was never there"),
    planted("M11", "PB-L22", "X4", "the tail of an older run is told"),
    planted("L2", "PB-L2", "W1", "one ack is enough"),
    planted("L3", "PB-L3", "W1", "one member's ack counts twice"),
    planted("L4", "PB-L4", "W1", "a fence refuses nothing"),
    planted("L5", "PB-L5", "W8", "a member in doubt vouches"),
    planted("L6", "PB-L6", "W0", "a fence is not written"),
    planted("L9", "PB-L9", "W3", "a recovery begins at entry 0"),
    planted("L11", "PB-L11", "W2", "whoever comes may close"),
    planted("L12", "PB-L12", "X6", "an append that leaves a hole is taken"),
    planted("L16", "PB-L16", "X5", "a trim does not raise the floor"),
];

/// The world of that name.
pub fn setup(name: &str) -> Option<&'static Setup> {
    WORLDS.iter().find(|setup| setup.name == name)
}
