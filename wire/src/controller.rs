//! The controller's native protocol: every RPC of the gRPC interface as one request and one response enum.
//!
//! A message is a [`Record`] whose kind says request or response and whose address is the request number that the
//! client chose; the response repeats it. Responses may come in any order. The gRPC service of the server maps onto
//! the same enums, so there is one meaning of every RPC. A connection of this protocol starts with the record magic,
//! an HTTP/2 connection with `PRI `: one port can serve both.
//!
//! Not here: what the RPCs do (the controller), and how numbers map to gRPC (the server).

mod message;
#[cfg(test)]
mod tests;

pub use message::*;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use thalweg_types::codec::{self, DecodeError};
use thalweg_types::id::SegmentId;
use thalweg_types::limits::RECORD_BYTES_MAX;
use thalweg_types::record::Record;
use thiserror::Error;

/// Version of the message bodies.
pub const VERSION: u16 = 1;
/// Record kind of a request.
pub const KIND_REQUEST: u16 = 0x0301;
/// Record kind of a response.
pub const KIND_RESPONSE: u16 = 0x0302;

/// What a client asks. On the wire: the position in this list never changes, new requests go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Makes a scope. Answered by [`Response::CreateScope`], and so on for the others.
    CreateScope {
        /// Its name.
        scope: String,
    },
    /// Removes an empty scope.
    DeleteScope {
        /// Its name.
        scope: String,
    },
    /// Removes a scope and everything in it. Answered by [`Response::DeleteScope`].
    DeleteScopeRecursive {
        /// Its name.
        scope: String,
    },
    /// Asks whether a scope exists. Answered by [`Response::Exists`].
    CheckScopeExists {
        /// Its name.
        scope: String,
    },
    /// One page of all scopes.
    ListScopes {
        /// `""` at first, then the token of the page before.
        token: String,
    },
    /// Makes a stream.
    CreateStream(StreamConfig),
    /// Replaces a stream's whole configuration.
    UpdateStream(StreamConfig),
    /// Moves a stream's head to a cut. Answered by [`Response::UpdateStream`].
    TruncateStream(CutOfStream),
    /// Ends a stream. Answered by [`Response::UpdateStream`].
    SealStream(StreamName),
    /// Removes a sealed stream.
    DeleteStream(StreamName),
    /// Asks whether a stream exists. Answered by [`Response::Exists`].
    CheckStreamExists(StreamName),
    /// A stream's configuration.
    GetStreamConfiguration(StreamName),
    /// One page of a scope's streams.
    ListStreams {
        /// The scope.
        scope: String,
        /// `""` at first, then the token of the page before.
        token: String,
    },
    /// One page of a scope's streams that carry a tag. Answered by [`Response::ListStreams`].
    ListStreamsForTag {
        /// The scope.
        scope: String,
        /// The whole tag.
        tag: String,
        /// `""` at first, then the token of the page before.
        token: String,
    },
    /// The segments that take events now. Answered by [`Response::Segments`].
    GetCurrentSegments(StreamName),
    /// The segments of one epoch. Answered by [`Response::Segments`].
    GetEpochSegments {
        /// The stream.
        stream: StreamName,
        /// Which epoch, from 0.
        epoch: i32,
    },
    /// The stream's head.
    GetHead {
        /// The stream.
        stream: StreamName,
        /// Milliseconds; has no influence.
        timestamp: i64,
    },
    /// What follows a segment.
    GetSuccessors {
        /// The stream.
        stream: StreamName,
        /// The segment.
        segment: SegmentId,
    },
    /// The segments between two cuts.
    GetSegmentsBetween {
        /// The stream.
        stream: StreamName,
        /// Where to begin; empty is the head.
        from: BTreeMap<SegmentId, i64>,
        /// Where to end; empty is the tail.
        to: BTreeMap<SegmentId, i64>,
    },
    /// Replaces segments by others.
    Scale {
        /// The stream.
        stream: StreamName,
        /// The segments to end.
        sealed: Vec<SegmentId>,
        /// The new segments' key ranges: together exactly those of the ended ones.
        ranges: Vec<(f64, f64)>,
    },
    /// How far the scale that ended an epoch has come.
    CheckScale {
        /// The stream.
        stream: StreamName,
        /// The epoch that [`ScaleAnswer`] gave.
        epoch: i32,
    },
    /// Which node serves a segment.
    GetUri {
        /// The stream; need not exist.
        stream: StreamName,
        /// The segment; need not exist.
        segment: SegmentId,
    },
    /// Asks whether a segment takes events. Answered by [`Response::Valid`].
    IsSegmentValid {
        /// The stream.
        stream: StreamName,
        /// The segment.
        segment: SegmentId,
    },
    /// Asks whether a cut covers the key space once. Answered by [`Response::Valid`].
    IsStreamCutValid(CutOfStream),
    /// Begins a transaction.
    CreateTransaction {
        /// The stream.
        stream: StreamName,
        /// Milliseconds without a ping after which it is aborted.
        lease_ms: i64,
    },
    /// Keeps a transaction alive.
    PingTransaction {
        /// The stream.
        stream: StreamName,
        /// The transaction.
        txn: TxnId,
        /// Milliseconds from now.
        lease_ms: i64,
    },
    /// Decides a transaction. Answered by [`Response::EndTransaction`].
    CommitTransaction {
        /// The stream.
        stream: StreamName,
        /// The transaction.
        txn: TxnId,
        /// Who commits; may be empty.
        writer: String,
        /// The writer's time of the commit, if it has one.
        timestamp: Option<i64>,
    },
    /// Gives a transaction up. Answered by [`Response::EndTransaction`].
    AbortTransaction {
        /// The stream.
        stream: StreamName,
        /// The transaction.
        txn: TxnId,
    },
    /// A transaction's state.
    CheckTransactionState {
        /// The stream.
        stream: StreamName,
        /// The transaction.
        txn: TxnId,
    },
    /// The transactions that have ended, newest first.
    ListCompletedTransactions(StreamName),
    /// A token for the segment store.
    GetDelegationToken {
        /// For which stream.
        stream: StreamName,
        /// For what.
        access: AccessOperation,
    },
    /// A writer's time at a position.
    NoteTimestamp {
        /// The writer.
        writer: String,
        /// Its position.
        position: CutOfStream,
        /// Its time.
        timestamp: i64,
    },
    /// A writer leaves.
    RemoveWriter {
        /// The writer.
        writer: String,
        /// The stream.
        stream: StreamName,
    },
    /// Makes a reader group.
    CreateReaderGroup(ReaderGroupConfig),
    /// Replaces a reader group's configuration.
    UpdateReaderGroup(ReaderGroupConfig),
    /// A reader group's configuration.
    GetReaderGroupConfig {
        /// The scope.
        scope: String,
        /// The group.
        group: String,
    },
    /// Removes a reader group.
    DeleteReaderGroup {
        /// The scope.
        scope: String,
        /// The group.
        group: String,
        /// The id it was given, as UUID text.
        id: String,
    },
    /// The reader groups that hold a stream's data.
    ListSubscribers(StreamName),
    /// How far a subscriber has consumed.
    UpdateSubscriberCut {
        /// `scope/group`.
        subscriber: String,
        /// The group's generation.
        generation: i64,
        /// The group's id, as UUID text.
        group_id: String,
        /// Everything before it is consumed.
        cut: CutOfStream,
    },
    /// Makes a key-value table.
    CreateKeyValueTable(KeyValueTableConfig),
    /// The segments of a key-value table. Answered by [`Response::Segments`].
    GetKeyValueTableSegments(TableName),
    /// A key-value table's configuration.
    GetKeyValueTableConfig(TableName),
    /// One page of a scope's key-value tables.
    ListKeyValueTables {
        /// The scope.
        scope: String,
        /// `""` at first, then the token of the page before.
        token: String,
    },
    /// Removes a key-value table.
    DeleteKeyValueTable(TableName),
    /// Where the controllers are.
    GetControllers,
    /// Whether the store takes appends now. Answered by [`Response::AppendsHeld`].
    AreAppendsHeld,
}

/// What the controller answers. On the wire: the position in this list never changes, new ones go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// See [`Request::CreateScope`].
    CreateScope(CreateScopeStatus),
    /// See [`Request::DeleteScope`].
    DeleteScope(DeleteScopeStatus),
    /// Whether it exists.
    Exists(bool),
    /// A page of scopes; an empty one is the last.
    ListScopes {
        /// Names.
        scopes: Vec<String>,
        /// For the next page.
        token: String,
    },
    /// See [`Request::CreateStream`].
    CreateStream(CreateStreamStatus),
    /// See [`Request::UpdateStream`].
    UpdateStream(UpdateStreamStatus),
    /// See [`Request::DeleteStream`].
    DeleteStream(DeleteStreamStatus),
    /// See [`Request::GetStreamConfiguration`].
    StreamConfiguration(StreamConfig),
    /// A page of streams; an empty one is the last.
    ListStreams {
        /// Whether the scope exists.
        status: ListStatus,
        /// Names, those of internal streams too.
        streams: Vec<StreamName>,
        /// For the next page.
        token: String,
    },
    /// Segments sorted by key range; none for a sealed stream.
    Segments {
        /// The segments.
        segments: Vec<SegmentRange>,
        /// Exactly empty without authorisation.
        token: String,
    },
    /// Where a stream begins.
    Head(Vec<(SegmentId, i64)>),
    /// See [`Request::GetSuccessors`]. None: the segment is open, or the stream ended with it.
    Successors(Vec<Successor>),
    /// See [`Request::GetSegmentsBetween`].
    SegmentsBetween(Vec<SegmentId>),
    /// See [`Request::Scale`].
    Scale(ScaleAnswer),
    /// See [`Request::CheckScale`].
    CheckScale(ScaleState),
    /// See [`Request::GetUri`].
    Uri(NodeUri),
    /// Whether it is valid.
    Valid(bool),
    /// See [`Request::CreateTransaction`].
    CreateTransaction {
        /// Its id: the epoch stands in the upper half of the high bits.
        txn: TxnId,
        /// The segments to write to, by the name of the transaction's segment next to each.
        segments: Vec<SegmentRange>,
    },
    /// See [`Request::PingTransaction`].
    PingTransaction(PingStatus),
    /// See [`Request::CommitTransaction`].
    EndTransaction(TxnStatus),
    /// See [`Request::CheckTransactionState`].
    TransactionState(TxnState),
    /// Ended transactions, newest first; true means committed.
    CompletedTransactions(Vec<(TxnId, bool)>),
    /// Exactly empty without authorisation.
    DelegationToken(String),
    /// See [`Request::NoteTimestamp`].
    NoteTimestamp(NoteTimestampStatus),
    /// See [`Request::RemoveWriter`].
    RemoveWriter(RemoveWriterStatus),
    /// See [`Request::CreateReaderGroup`].
    CreateReaderGroup {
        /// How it ended.
        status: CreateReaderGroupStatus,
        /// What is stored.
        config: Option<ReaderGroupConfig>,
    },
    /// See [`Request::UpdateReaderGroup`].
    UpdateReaderGroup {
        /// How it ended.
        status: UpdateReaderGroupStatus,
        /// The group's generation.
        generation: i64,
    },
    /// What is stored; `None`: there is no such group.
    ReaderGroupConfig(Option<ReaderGroupConfig>),
    /// See [`Request::DeleteReaderGroup`].
    DeleteReaderGroup(DeleteReaderGroupStatus),
    /// `scope/group` of each; `None`: there is no such stream.
    Subscribers(Option<Vec<String>>),
    /// See [`Request::UpdateSubscriberCut`].
    UpdateSubscriberCut(UpdateSubscriberStatus),
    /// See [`Request::CreateKeyValueTable`].
    CreateKeyValueTable(CreateTableStatus),
    /// What is stored; `None`: there is no such table.
    KeyValueTableConfig(Option<KeyValueTableConfig>),
    /// A page of tables; an empty one is the last.
    ListKeyValueTables {
        /// Whether the scope exists.
        status: ListStatus,
        /// Their names.
        tables: Vec<TableName>,
        /// For the next page.
        token: String,
    },
    /// See [`Request::DeleteKeyValueTable`].
    DeleteKeyValueTable(DeleteTableStatus),
    /// Every controller of the cluster.
    Controllers(Vec<NodeUri>),
    /// Why appends wait for now (a full disk); none if they do not.
    AppendsHeld(Option<String>),
}

/// Why an RPC has no answer: the codes are gRPC's.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("{code}: {message}")]
pub struct RpcError {
    /// What kind of failure: clients decide by it whether to ask again.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl RpcError {
    /// An error of that code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The gRPC codes that the controller uses. On the wire: never reordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Anything else. Clients ask again.
    Unknown,
    /// The request can never be right. Clients do not ask again.
    InvalidArgument,
    /// It took too long; the outcome is unknown.
    DeadlineExceeded,
    /// The thing does not exist.
    NotFound,
    /// The thing exists.
    AlreadyExists,
    /// Not allowed.
    PermissionDenied,
    /// Too much of something.
    ResourceExhausted,
    /// The thing's state forbids it.
    FailedPrecondition,
    /// There is no such RPC.
    Unimplemented,
    /// A defect, or a state that forbids it. Clients ask again.
    Internal,
    /// Try again soon.
    Unavailable,
    /// Credentials are missing or wrong.
    Unauthenticated,
}

impl Code {
    /// gRPC's number.
    pub fn number(self) -> i32 {
        match self {
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a message cannot be sent or understood.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MessageError {
    /// The body exceeds [`RECORD_BYTES_MAX`].
    #[error("message of {length} bytes exceeds the limit of {RECORD_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Neither a request nor a response was expected with that kind.
    #[error("unexpected record kind {found:#06x}, want {wanted:#06x}")]
    Kind {
        /// The record's kind.
        found: u16,
        /// The kind that may stand here.
        wanted: u16,
    },
    /// A version that this program does not know.
    #[error("message version {found} is not {VERSION}")]
    Version {
        /// The record's version.
        found: u16,
    },
    /// The body is not a message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Request `number` as bytes to send.
pub fn encode_request(number: u64, request: &Request) -> Result<Bytes, MessageError> {
    frame(KIND_REQUEST, number, request)
}

/// The answer to request `number` as bytes to send.
pub fn encode_response(
    number: u64,
    response: &Result<Response, RpcError>,
) -> Result<Bytes, MessageError> {
    frame(KIND_RESPONSE, number, response)
}

/// The request in `record`; its number is the record's address.
pub fn decode_request(record: &Record) -> Result<Request, MessageError> {
    body(KIND_REQUEST, record)
}

/// The answer in `record`; the request's number is the record's address.
pub fn decode_response(record: &Record) -> Result<Result<Response, RpcError>, MessageError> {
    body(KIND_RESPONSE, record)
}

fn frame<T: Serialize>(kind: u16, address: u64, message: &T) -> Result<Bytes, MessageError> {
    let body = codec::encode(message);
    if body.len() > RECORD_BYTES_MAX {
        return Err(MessageError::TooLong { length: body.len() });
    }
    Ok(Record { version: VERSION, kind, address, body: body.into() }.encode())
}

fn body<T: serde::de::DeserializeOwned>(kind: u16, record: &Record) -> Result<T, MessageError> {
    if record.kind != kind {
        return Err(MessageError::Kind { found: record.kind, wanted: kind });
    }
    if record.version != VERSION {
        return Err(MessageError::Version { found: record.version });
    }
    Ok(codec::decode(&record.body, RECORD_BYTES_MAX)?)
}
