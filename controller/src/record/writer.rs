//! Marks: how far a writer says it is, and when.

use super::{Cut, Name};
use serde::{Deserialize, Serialize};

/// The last mark of one writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRecord {
    /// The writer's time, in a unit of its own; never goes back while the writer stays.
    pub time: i64,
    /// Its position; never goes back either. The first one is not judged, so it need not be a cut.
    pub position: Cut,
    /// The writer has left: its next mark is a first one.
    pub left: bool,
}

/// What changes marks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriterCommand {
    /// A writer says how far it is.
    Mark {
        /// The stream.
        name: Name,
        /// The writer.
        writer: String,
        /// Its time.
        time: i64,
        /// Its position.
        position: Cut,
    },
    /// A writer leaves.
    Leave {
        /// The stream.
        name: Name,
        /// The writer.
        writer: String,
    },
}
