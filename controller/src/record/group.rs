//! Reader groups: what they were made with, and how far they have consumed.

use super::{Cut, Name};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a reader group is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupConfigRecord {
    /// How often readers look for news, in milliseconds; not judged.
    pub refresh_ms: i64,
    /// How often a checkpoint is made, in milliseconds; not judged.
    pub checkpoint_interval_ms: i64,
    /// Checkpoints under way at once, not 0.
    pub max_outstanding_checkpoints: i32,
    /// 0 does not hold data, 1 until told, 2 by itself.
    pub retention: i32,
    /// Where to begin, in the order given; an empty cut is the head.
    pub starts: Vec<(Name, Cut)>,
    /// Where to end, in the order given; an empty cut is never.
    pub ends: Vec<(Name, Cut)>,
}

/// A reader group. Its stream is an ordinary one and has a record of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// A UUID: tells incarnations of one name apart.
    pub id: u128,
    /// Counts updates from 0.
    pub generation: i64,
    /// What it was made with, or last updated to.
    pub config: GroupConfigRecord,
    /// Everything before these cuts is consumed; only of streams that the group is a subscriber of.
    pub consumed: BTreeMap<Name, Cut>,
}

impl GroupRecord {
    /// True if the group holds the data of `stream` until it has consumed it.
    pub fn subscribes(&self, stream: &Name) -> bool {
        self.config.retention != 0 && self.config.starts.iter().any(|(name, _)| name == stream)
    }
}

/// What changes reader groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupCommand {
    /// Makes a group and begins its stream; nothing happens if the group exists.
    Create {
        /// Its name.
        name: Name,
        /// Its UUID.
        id: u128,
        /// What it is made with.
        config: GroupConfigRecord,
    },
    /// Replaces the configuration.
    Update {
        /// Its name.
        name: Name,
        /// The UUID that must be stored.
        id: u128,
        /// The generation that must be stored.
        generation: i64,
        /// The new configuration.
        config: GroupConfigRecord,
    },
    /// Removes the group and begins to remove its stream.
    Delete {
        /// Its name.
        name: Name,
        /// The UUID that must be stored.
        id: u128,
    },
    /// Says how far the group has consumed a stream.
    Consume {
        /// The group's name.
        name: Name,
        /// The UUID that must be stored.
        id: u128,
        /// The generation that must be stored.
        generation: i64,
        /// The stream.
        stream: Name,
        /// Everything before it is consumed.
        cut: Cut,
    },
}
