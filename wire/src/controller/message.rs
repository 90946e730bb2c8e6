//! What the controller's requests and responses carry: plain values, nothing judged.
//!
//! On the wire: fields and variants are never reordered or removed; new ones go to the end with a new version.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thalweg_types::id::SegmentId;

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the gRPC numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}

status!(
    /// How a scope's creation ended.
    CreateScopeStatus {
        /// Made.
        Success,
        /// Not made.
        Failure,
        /// It was there.
        ScopeExists,
        /// No scope can have that name.
        InvalidScopeName,
    }
);
status!(
    /// How a scope's removal ended.
    DeleteScopeStatus {
        /// Gone.
        Success,
        /// Not removed.
        Failure,
        /// It was not there.
        ScopeNotFound,
        /// Something is in it.
        ScopeNotEmpty,
    }
);
status!(
    /// How a stream's creation ended.
    CreateStreamStatus {
        /// Made.
        Success,
        /// Not made.
        Failure,
        /// It was there; the configuration is not compared.
        StreamExists,
        /// There is no such scope.
        ScopeNotFound,
        /// No stream can have that name.
        InvalidStreamName,
    }
);
status!(
    /// How an update, truncation or seal ended.
    UpdateStreamStatus {
        /// Done.
        Success,
        /// Not done.
        Failure,
        /// There is no such stream, or no such scope.
        StreamNotFound,
        /// Never sent; real controllers do not either.
        ScopeNotFound,
        /// The stream has ended.
        StreamSealed,
    }
);
status!(
    /// How a stream's removal ended.
    DeleteStreamStatus {
        /// Gone.
        Success,
        /// Not removed.
        Failure,
        /// It was not there.
        StreamNotFound,
        /// It must be sealed first.
        StreamNotSealed,
    }
);
status!(
    /// Whether a list is one.
    ListStatus {
        /// It is.
        Success,
        /// It could not be made.
        Failure,
        /// There is no such scope.
        ScopeNotFound,
    }
);
status!(
    /// How the beginning of a scale ended.
    ScaleStatus {
        /// It runs.
        Started,
        /// Refused.
        Failure,
        /// The segments are not current, or too few would be left.
        PreconditionFailed,
    }
);
status!(
    /// How far a scale is.
    ScaleState {
        /// Not done, or not begun.
        InProgress,
        /// Done.
        Success,
        /// There is no such epoch or stream.
        InvalidInput,
        /// Never sent.
        InternalError,
    }
);
status!(
    /// Answer to a ping.
    PingStatus {
        /// The lease runs anew.
        Ok,
        /// Nothing happened.
        LeaseTooLarge,
        /// The transaction is too old.
        MaxExecutionTimeExceeded,
        /// Never sent.
        ScaleGraceTimeExceeded,
        /// Never sent.
        Disconnected,
        /// Committing or committed.
        Committed,
        /// Aborting or aborted.
        Aborted,
        /// Not known.
        Unknown,
    }
);
status!(
    /// How a commit or abort ended.
    TxnStatus {
        /// Decided.
        Success,
        /// Not possible.
        Failure,
        /// There is no such stream.
        StreamNotFound,
        /// There is no such transaction, or it ended the other way.
        TransactionNotFound,
    }
);
status!(
    /// A transaction's state.
    TxnState {
        /// Not known.
        Unknown,
        /// Takes events.
        Open,
        /// Decided; its events are on their way.
        Committing,
        /// Its events are in the stream.
        Committed,
        /// Given up.
        Aborting,
        /// Gone.
        Aborted,
    }
);
status!(
    /// How a writer's time was taken.
    NoteTimestampStatus {
        /// Taken.
        Success,
        /// It goes back.
        InvalidTime,
        /// The position goes back.
        InvalidPosition,
        /// Not taken.
        InternalError,
    }
);
status!(
    /// How a writer's leaving ended.
    RemoveWriterStatus {
        /// It has left.
        Success,
        /// It was never seen.
        UnknownWriter,
        /// There is no such stream.
        StreamDoesNotExist,
        /// Refused.
        InternalError,
    }
);
status!(
    /// How a reader group's creation ended.
    CreateReaderGroupStatus {
        /// It is there.
        Success,
        /// Not made.
        Failure,
        /// There is no such scope.
        ScopeNotFound,
        /// No group can have that name.
        InvalidName,
    }
);
status!(
    /// How a reader group's update ended.
    UpdateReaderGroupStatus {
        /// Replaced.
        Success,
        /// Not replaced.
        Failure,
        /// There is no such group.
        GroupNotFound,
        /// Another id or generation is stored.
        InvalidConfig,
    }
);
status!(
    /// How a reader group's removal ended.
    DeleteReaderGroupStatus {
        /// Gone.
        Success,
        /// Not removed.
        Failure,
        /// There is no such group, or it has another id.
        GroupNotFound,
    }
);
status!(
    /// How a subscriber's cut was taken.
    UpdateSubscriberStatus {
        /// Stored.
        Success,
        /// Not stored.
        Failure,
        /// There is no such stream.
        StreamNotFound,
        /// The stream has no such subscriber.
        SubscriberNotFound,
        /// It does not cover the key space, or goes back.
        CutNotValid,
        /// The group has another generation.
        GenerationMismatch,
    }
);
status!(
    /// How a key-value table's creation ended.
    CreateTableStatus {
        /// Made.
        Success,
        /// Not made.
        Failure,
        /// It was there; the configuration is not compared.
        TableExists,
        /// There is no such scope.
        ScopeNotFound,
        /// No table can have that name.
        InvalidName,
    }
);
status!(
    /// How a key-value table's removal ended.
    DeleteTableStatus {
        /// Gone.
        Success,
        /// Not removed.
        Failure,
        /// There is no such table.
        TableNotFound,
    }
);
status!(
    /// What a token is for.
    AccessOperation {
        /// Not said: read and write.
        Unspecified,
        /// No token wanted.
        None,
        /// Whatever is allowed.
        Any,
        /// Read.
        Read,
        /// Write.
        Write,
        /// Both.
        ReadWrite,
    }
);
status!(
    /// By what a stream scales.
    ScaleType {
        /// Not by itself.
        Fixed,
        /// By kilobytes per second.
        KilobytesPerSecond,
        /// By events per second.
        EventsPerSecond,
    }
);
status!(
    /// By what a stream is truncated.
    RetentionType {
        /// Age, in milliseconds.
        Time,
        /// Size, in bytes.
        Size,
    }
);

/// A stream's full name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamName {
    /// Its scope.
    pub scope: String,
    /// Its name in the scope.
    pub stream: String,
}

impl StreamName {
    /// The stream `stream` of `scope`.
    pub fn new(scope: impl Into<String>, stream: impl Into<String>) -> Self {
        Self { scope: scope.into(), stream: stream.into() }
    }
}

/// A key-value table's full name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// Its scope.
    pub scope: String,
    /// Its name in the scope.
    pub table: String,
}

/// How many segments a stream has, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingPolicy {
    /// By what.
    pub kind: ScaleType,
    /// Kilobytes or events per second and segment; not judged.
    pub target_rate: i32,
    /// Parts of a split; not judged.
    pub scale_factor: i32,
    /// The least number of segments.
    pub min_segments: i32,
}

impl ScalingPolicy {
    /// Always `segments` segments.
    pub fn fixed(segments: i32) -> Self {
        Self { kind: ScaleType::Fixed, target_rate: 0, scale_factor: 0, min_segments: segments }
    }
}

/// When a stream's oldest data goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// By what.
    pub kind: RetentionType,
    /// Keep at least that much: milliseconds or bytes; not judged.
    pub param: i64,
    /// Keep at most that much; not judged.
    pub max: i64,
}

/// What a stream is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamConfig {
    /// Which stream.
    pub stream: StreamName,
    /// Must be there when a stream is made.
    pub scaling: Option<ScalingPolicy>,
    /// `None`: keep everything.
    pub retention: Option<RetentionPolicy>,
    /// Sorted, each once, when the controller answers.
    pub tags: Vec<String>,
    /// How long a silent writer holds the watermark, in milliseconds; not judged.
    pub timestamp_aggregation_timeout_ms: i64,
    /// Size of a segment's chunks in bytes; 0 leaves it to the store.
    pub rollover_size_bytes: i64,
}

impl StreamConfig {
    /// `stream` with `segments` segments and nothing special.
    pub fn fixed(stream: StreamName, segments: i32) -> Self {
        Self {
            stream,
            scaling: Some(ScalingPolicy::fixed(segments)),
            retention: None,
            tags: Vec::new(),
            timestamp_aggregation_timeout_ms: 0,
            rollover_size_bytes: 0,
        }
    }
}

/// A position in a stream: an offset in each segment that covers the key space.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CutOfStream {
    /// Which stream.
    pub stream: StreamName,
    /// Offsets; -1 is a segment's end.
    pub cut: BTreeMap<SegmentId, i64>,
}

/// A segment and its part of the key space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentRange {
    /// Whose.
    pub stream: StreamName,
    /// Which.
    pub segment: SegmentId,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// A segment that follows another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Successor {
    /// The segment.
    pub range: SegmentRange,
    /// All segments that it follows, ascending: the one asked for is among them.
    pub predecessors: Vec<SegmentId>,
}

/// How a scale began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleAnswer {
    /// Whether it did.
    pub status: ScaleStatus,
    /// The epoch that it ends; 0 if it did not begin.
    pub epoch: i32,
    /// The new segments.
    pub segments: Vec<SegmentRange>,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeUri {
    /// Host name or address, IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A transaction's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TxnId {
    /// The epoch above, a counter below.
    pub high: i64,
    /// Never negative.
    pub low: i64,
}

/// What a reader group is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderGroupConfig {
    /// Its scope.
    pub scope: String,
    /// Its name.
    pub group: String,
    /// How often readers look for news, in milliseconds; not judged.
    pub refresh_ms: i64,
    /// How often a checkpoint is made, in milliseconds; not judged.
    pub checkpoint_interval_ms: i64,
    /// Checkpoints under way at once.
    pub max_outstanding_checkpoints: i32,
    /// 0 does not hold data, 1 until told, 2 by itself.
    pub retention: i32,
    /// Counts updates.
    pub generation: i64,
    /// UUID text.
    pub id: String,
    /// Where to begin, a stream each; an empty cut is the head.
    pub starts: Vec<CutOfStream>,
    /// Where to end, a stream each; an empty cut is never.
    pub ends: Vec<CutOfStream>,
    /// Asked for, not kept.
    pub rollover_size_bytes: i64,
}

/// What a key-value table is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValueTableConfig {
    /// Which table.
    pub table: TableName,
    /// How many segments.
    pub partitions: i32,
    /// Length of a primary key in bytes.
    pub primary_key_bytes: i32,
    /// Length of a secondary key in bytes.
    pub secondary_key_bytes: i32,
    /// Asked for, not kept.
    pub rollover_size_bytes: i64,
}
