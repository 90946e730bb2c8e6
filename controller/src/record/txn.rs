//! Transactions: those under way, and what became of the others.

use super::{Name, SegmentRecord};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A transaction's id, as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TxnKey {
    /// In its upper half the epoch whose segments the transaction repeats.
    pub high: i64,
    /// Never negative, never reused on this cluster.
    pub low: i64,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnPhase {
    /// Its segments are being made; nobody knows its id.
    Creating,
    /// It takes events, until the deadline.
    Open {
        /// Log time in milliseconds.
        deadline_ms: u64,
    },
    /// It is decided: its events will be in the stream.
    Committing {
        /// Commits of one epoch are merged in this order.
        order: u64,
    },
    /// It is given up: its segments are being removed.
    Aborting,
}

/// A transaction under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TxnRecord {
    /// The id of the stream's incarnation.
    pub stream: u64,
    /// The upper half of its id.
    pub high: i64,
    /// The segments it was begun on: each has one of the transaction, of the same name with a suffix.
    pub parents: Vec<SegmentRecord>,
    /// Where it stands.
    pub phase: TxnPhase,
    /// What its lease was when it was begun, in milliseconds.
    pub lease_ms: u64,
    /// Log time of its beginning, in milliseconds.
    pub begun_ms: u64,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedTxn {
    /// Its id.
    pub key: TxnKey,
    /// It was committed; otherwise aborted.
    pub committed: bool,
    /// Log time of its end, in milliseconds.
    pub ended_ms: u64,
}

/// The transactions of one stream. What became of them outlives the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TxnsRecord {
    /// Those under way by the lower half of their ids.
    pub live: BTreeMap<i64, TxnRecord>,
    /// Those that ended, oldest first.
    pub ended: VecDeque<EndedTxn>,
    /// The stream will be sealed as soon as nothing is committing any more: nothing new begins.
    pub seals: bool,
}

/// What changes transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnCommand {
    /// Records a transaction; its segments are made next.
    Begin {
        /// The stream.
        name: Name,
        /// Milliseconds without a ping that its client asks for.
        lease_ms: u64,
    },
    /// Its segments exist.
    Opened {
        /// The stream.
        name: Name,
        /// The lower half of its id.
        low: i64,
    },
    /// The lease runs anew.
    Ping {
        /// The stream.
        name: Name,
        /// Which.
        key: TxnKey,
        /// Milliseconds from now.
        lease_ms: u64,
    },
    /// Decides that its events will be in the stream.
    Commit {
        /// The stream.
        name: Name,
        /// Which.
        key: TxnKey,
    },
    /// Gives it up.
    Abort {
        /// The stream.
        name: Name,
        /// Which.
        key: TxnKey,
    },
    /// Gives it up if its deadline has passed.
    Expire {
        /// The stream.
        name: Name,
        /// The lower half of its id.
        low: i64,
    },
    /// Its segments are gone.
    Aborted {
        /// The stream.
        name: Name,
        /// The lower half of its id.
        low: i64,
    },
    /// Begins to merge what is committing, the lowest epoch first.
    BeginCommit {
        /// The stream.
        name: Name,
    },
    /// A segment to merge into takes nothing any more, or is gone: somebody sealed or removed it at the store. What
    /// is not merged yet goes into segments that are made for it.
    Reroute {
        /// The stream.
        name: Name,
        /// The workflow.
        workflow: u64,
    },
}
