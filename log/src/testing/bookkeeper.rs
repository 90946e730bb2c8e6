//! What `BookKeeper` and its users have lost data by, or could have, as scripts on the real machines and the real
//! engine.
//!
//! Each script states what is given, what happens, and what must hold; and each names planted bugs with which it fails,
//! so that it is known to be able to. Most play in a small world ([`small`](super::small)) from which nothing is left
//! out; those about files play on engines over disks in memory.
//!
//! Where this protocol lacks the mechanism (coverage sets per entry, rollover of ledgers, a journal beside the log),
//! the script takes the nearest thing that could go wrong here, and says so.

mod cluster;
mod ensemble;
mod fencing;
mod files;
mod play;
mod reads;
mod recovery;
mod site;

/// One script.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its number in the list of hazards.
    pub name: &'static str,
    /// What it is about.
    pub what: &'static str,
    /// Plays it. An error says which rule was broken; so does a panic, where a machine asserts it.
    pub play: fn() -> Result<(), String>,
    /// With each of these bugs switched on it must fail, and say this.
    pub bugs: &'static [(&'static str, &'static str)],
}

macro_rules! scenarios {
    ($($name:literal $play:path, $what:literal, $bugs:expr;)*) => {
        /// All of them.
        pub const SCENARIOS: &[Scenario] =
            &[$(Scenario { name: $name, what: $what, play: $play, bugs: &$bugs }),*];
    };
}

scenarios! {
    "B1" fencing::b01, "an append that arrives behind the recoverer's question",
        [("PB-L24", "L7"), ("PB-L4", "L6")];
    "B2" recovery::b02, "recovery of an empty second fragment",
        [("PB-L9", "closing 0..1 of a fragment from 1 on")];
    "B3" fencing::b03, "a fence and a restart",
        [("PB-L6", "L6"), ("PB-L19", "L6: a fence went with its file")];
    "B4" recovery::b04, "a replica that lost an acked entry",
        [("PB-L5", "L7"), ("PB-L18", "L16")];
    "B5" fencing::b05, "a blank disk, and a storage that lost a ledger's beginning",
        [("PB-L14", "L7"), ("PB-L21", "L11")];
    "B6" reads::b06, "an entry that the log can no longer read",
        [("PB-D1", "I1"), ("PB-L8", "I1")];
    "B7" recovery::b07, "a replica that hangs during a recovery",
        [("PB-B7", "I16: it waits for one that hangs"), ("PB-B7r", "I16: it waits for a read")];
    "B8" recovery::b08, "two recoveries and an ensemble change",
        [("PB-L11", "ledger.epoch == self.epoch")];
    "B9" fencing::b09, "acks behind the news that the ledger is lost",
        [("PB-B9", "L1: committed by a writer that has stopped")];
    "B10" ensemble::b10, "an entry acked by a member that is being replaced",
        [("PB-L23", "L4")];
    "B11" ensemble::b11, "an ensemble change that comes again behind the next",
        [("PB-B11", "L4")];
    "B12" fencing::b12, "an append to a ledger that was deleted",
        [("PB-L16", "L17")];
    "B13" ensemble::b13, "an old owner's change of the register",
        [("PB-B13", "L9")];
    "B14" files::b14, "a file that is freed with a live entry in it",
        [("PB-D9", "a file with live entries is in use")];
    "B15" files::b15, "damage in the middle of the log, and a torn end",
        [("PB-D1", "L11")];
    "B16" files::b16, "a superblock of which one old copy is whole",
        [("PB-B16", "L18: mounted from a single old copy")];
    "B17" reads::b17, "a checksum that does not match, in a row of reads",
        [("PB-B17", "I3")];
    "B18" reads::b18, "an answer that comes again",
        [("PB-B18", "L9")];
    "B19" reads::b19, "an owner that falls idle behind its last entry",
        [("PB-B19", "L10"), ("PB-L15", "L7")];
    "B20" reads::b20, "a read beyond what is there, of an open ledger",
        [("PB-B20", "L11")];
    "B21" recovery::b21, "as many dead as may be, and one more",
        [("PB-L15", "L7")];
    "B22" ensemble::b22, "a close that comes again behind the next ledger",
        [("PB-B22", "is_sorted_by")];
    "B23" recovery::b23, "a ledger whose recoverer died",
        [("PB-B23", "L7")];
    "B24" reads::b24, "a copy for an entry that is held and cannot be read",
        [("PB-B24", "B24: called copied")];
    "B25" reads::b25, "appends to blank disks that are taken for the old ones",
        [("PB-B25", "L1: appended to disks that know no ledger")];
}

/// The scenario of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}
