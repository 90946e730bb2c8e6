//! What the controller asks of the segment store.

use crate::record::Step;
use bytes::Bytes;
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_types::name::SegmentName;
use thiserror::Error;

/// Says which workflow step sends a command, so that a container can answer `Stale` to one that comes late: the highest
/// term wins, and per stream the last workflow and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The leader's term; 1 while there is one voter.
    pub term: u64,
    /// The stream's id: another incarnation of the same name has another.
    pub stream: u64,
    /// The workflow.
    pub workflow: u64,
    /// Its step.
    pub step: Step,
}

/// What kind of segment to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Of a stream.
    Stream {
        /// Size of its chunks in bytes; 0 leaves it to the store.
        rollover_size_bytes: i64,
    },
    /// Of a key-value table with keys of one length.
    Table {
        /// The length of every key in bytes.
        key_bytes: u32,
    },
}

/// What the store knows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Bytes below are gone.
    pub start: i64,
    /// Where the next byte goes.
    pub length: i64,
    /// True if it takes no more.
    pub sealed: bool,
}

/// Why a command on a segment did not do what it should.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SegmentError {
    /// There is no such segment: positively known, not merely out of reach.
    #[error("segment {name} does not exist")]
    NotFound {
        /// Which.
        name: SegmentName,
    },
    /// The offset lies behind the segment's end.
    #[error("segment {name} ends at {length}")]
    BeyondEnd {
        /// Which.
        name: SegmentName,
        /// Its length in bytes.
        length: i64,
    },
    /// The segment takes no more.
    #[error("segment {name} is sealed")]
    Sealed {
        /// Which.
        name: SegmentName,
    },
    /// Nothing is known of the outcome: ask again.
    #[error("segment {name} is out of reach: {reason}")]
    Unavailable {
        /// Which.
        name: SegmentName,
        /// Why.
        reason: Arc<str>,
    },
}

/// The segment store as the controller's drivers use it. Every command is idempotent: a driver may be cut off and send
/// it again, and an answer says that the effect is durable. A call may wait until the segment's container runs.
pub trait Segments: Send + Sync {
    /// Makes an empty segment. `Ok` too if it exists.
    fn create<'a>(
        &'a self,
        fence: Fence,
        name: &'a SegmentName,
        kind: SegmentKind,
    ) -> BoxFuture<'a, Result<(), SegmentError>>;

    /// Ends a segment and answers its final length in bytes. `Ok` too if it has ended.
    fn seal<'a>(
        &'a self,
        fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<i64, SegmentError>>;

    /// Moves a segment's start to `offset`, unless it lies there or behind already.
    fn truncate<'a>(
        &'a self,
        fence: Fence,
        name: &'a SegmentName,
        offset: i64,
    ) -> BoxFuture<'a, Result<(), SegmentError>>;

    /// Removes a segment. `Ok` too if it does not exist.
    fn delete<'a>(
        &'a self,
        fence: Fence,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>>;

    /// Appends a sealed segment of the same container to `target`, in one step, and removes it. `Ok` too if it was
    /// merged into `target` before. [`SegmentError::NotFound`] says which of the two does not exist.
    fn merge<'a>(
        &'a self,
        fence: Fence,
        target: &'a SegmentName,
        source: &'a SegmentName,
    ) -> BoxFuture<'a, Result<(), SegmentError>>;

    /// Up to `len` bytes at `offset`, fewer at the segment's end. Nothing is waited for there.
    fn read<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        len: usize,
    ) -> BoxFuture<'a, Result<Bytes, SegmentError>>;

    /// Appends `data` if the segment ends at `offset`, and says whether it did. Sent again after an unknown outcome it
    /// is refused if it was stored.
    fn append_at<'a>(
        &'a self,
        name: &'a SegmentName,
        offset: i64,
        data: Bytes,
    ) -> BoxFuture<'a, Result<bool, SegmentError>>;

    /// What the store knows of a segment.
    fn info<'a>(
        &'a self,
        name: &'a SegmentName,
    ) -> BoxFuture<'a, Result<SegmentInfo, SegmentError>>;

    /// Why appends wait for now (a full disk), if they do.
    fn held(&self) -> Option<Arc<str>>;
}
