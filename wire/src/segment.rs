//! Pravega's segment-store protocol: every command as a type, and the way between a command and its bytes.
//!
//! A frame is `type:i32 length:i32 body[length]`, big-endian; [`frame`] finds frames in a stream, [`Command::decode`]
//! reads one, [`Encoder`] writes them. Data are never copied: a decoded blob is a slice of what was received, and an
//! encoded one leaves as its own chunk.
//!
//! The table of commands below is the whole format: a field's type says how it is laid out, `= default` marks an
//! optional tail that older peers leave out, `=> Codec` names a layout that is not the type's usual one.
//!
//! Not here: what commands mean. Source: design notes on Pravega's protocol, wire version 17.

mod encoder;
mod field;
pub mod frame;
#[cfg(test)]
mod golden;

pub use encoder::Encoder;
pub use field::{Fault, Payload};

use bytes::Bytes;
use field::{Body, Codec, Plain, Rest, WholeEvent};
use frame::{FRAME_HEADER_BYTES, Frame};
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thiserror::Error;

/// The newest protocol version spoken here.
pub const VERSION_HIGH: i32 = 17;
/// The oldest protocol version spoken here.
pub const VERSION_LOW: i32 = 5;
/// No value: an absent attribute, a writer without events, "whatever version the key has".
pub const NULL: i64 = i64::MIN;
/// Table key version: must not exist, or does not exist.
pub const NOT_EXISTS: i64 = -1;
/// Error code of [`ErrorMessage`] and [`AuthTokenCheckFailed`]: not said.
pub const CODE_UNSPECIFIED: i32 = -1;
/// Error code of [`ErrorMessage`]: an argument cannot be accepted.
pub const CODE_ILLEGAL_ARGUMENT: i32 = 0;

/// Why a body is not the command that its type names.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// No command has that type.
    #[error("unknown command type {code}")]
    UnknownType {
        /// The type field.
        code: i32,
    },
    /// A field cannot be read.
    #[error("{command}.{field}: {fault}")]
    Field {
        /// The command's name.
        command: &'static str,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// Who may send a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client.
    Request,
    /// From the server.
    Reply,
    /// From either.
    Both,
    /// Only inside another command.
    Nested,
    /// From a client, on the admin port.
    Admin,
}

/// A key, and the version that it has or must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The key itself.
    pub key: Bytes,
    /// The version, [`NULL`] for "whatever", [`NOT_EXISTS`] for "none".
    pub version: i64,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    /// Key and version.
    pub key: TableKey,
    /// The value, empty if the key does not exist.
    pub value: Bytes,
}

/// A change of a segment attribute that rides on [`MergeSegments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeUpdate {
    /// Which attribute.
    pub attribute_id: u128,
    /// 1: replace; 4: replace if the value is `old_value`.
    pub kind: i8,
    /// The value to set.
    pub new_value: i64,
    /// The value that must be there, if the kind asks for one.
    pub old_value: i64,
}

/// One source of [`SegmentsBatchMerged`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedSource {
    /// The source's name.
    pub source: SegmentName,
    /// The target's length behind it, in bytes.
    pub new_target_write_offset: i64,
}

/// One chunk of [`StorageChunksListed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageChunk {
    /// Length that the metadata know, in bytes.
    pub length_in_metadata: i64,
    /// Length in storage, in bytes.
    pub length_in_storage: i64,
    /// Offset of its first byte in the segment.
    pub start_offset: i64,
    /// Its name in storage.
    pub chunk_name: String,
    /// Storage has it.
    pub exists_in_storage: bool,
}

/// What a field means: one vocabulary for all commands, as one name never means two things.
macro_rules! about {
    (request_id) => {
        "Echoed in the reply, bit for bit. Not unique."
    };
    (segment) => {
        "The segment's full name, echoed byte for byte."
    };
    (token) => {
        "Delegation token, empty without authentication."
    };
    (trace) => {
        "Stack trace of the server, normally empty."
    };
    (writer_id) => {
        "The writer."
    };
    (data) => {
        "Bytes, verbatim."
    };
    (event) => {
        "One event as it is stored: its 8 header bytes, then its content."
    };
    (event_number) => {
        "The event number."
    };
    (last_event_number) => {
        "The writer's last event number, `NULL` for none."
    };
    (previous_event_number) => {
        "The number acknowledged before, `NULL` for none."
    };
    (expected_offset) => {
        "The length that the segment must have, in bytes; -1 for any."
    };
    (offset) => {
        "An offset in the segment in bytes, or -1."
    };
    (suggested_length) => {
        "Most bytes wanted."
    };
    (suggested_count) => {
        "About how many items are wanted."
    };
    (entries) => {
        "Keys with values."
    };
    (keys) => {
        "Keys."
    };
    (table_segment_offset) => {
        "The length that the table must have, in bytes; -1 for any."
    };
    (continuation_token) => {
        "Where to go on, opaque; empty at the start."
    };
    (source) => {
        "The segment merged into the other."
    };
    (attribute_id) => {
        "Which attribute."
    };
    (rollover_size_bytes) => {
        "Wanted size of chunks in storage, in bytes; 0 for the default."
    };
    (scale_type) => {
        "0: none, 1: KB/s, 2: events/s."
    };
    (target_rate) => {
        "The rate aimed at, in the unit of the scale type."
    };
    (start_offset) => {
        "The first offset that is still there, in bytes."
    };
    (error_code) => {
        "-1: unspecified; else what the command says about it."
    };
    (new_target_write_offset) => {
        "The target's length after the merge, in bytes."
    };
    (key_length) => {
        "Length of every key in bytes; 0: keys of any length."
    };
    (high) => {
        "Newest version spoken."
    };
    (low) => {
        "Oldest version spoken."
    };
    ($other:ident) => {
        concat!("The protocol's field `", stringify!($other), "`.")
    };
}

macro_rules! codec {
    () => {
        Plain
    };
    ($codec:ident) => {
        $codec
    };
}

macro_rules! take {
    ($body:ident, $codec:ty, $ty:ty) => {
        <$codec as Codec<$ty>>::take(&mut $body)
    };
    ($body:ident, $codec:ty, $ty:ty, $default:expr) => {
        if $body.len() < <$codec as Codec<$ty>>::BYTES_MIN {
            Ok($default)
        } else {
            <$codec as Codec<$ty>>::take(&mut $body)
        }
    };
}

macro_rules! commands {
    ($(
        $(#[$doc:meta])*
        $name:ident = $code:literal $direction:ident {
            $($field:ident: $ty:ty $(= $default:expr)? $(=> $codec:ident)?,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                $(#[doc = about!($field)] pub $field: $ty,)*
            }

            impl From<$name> for Command {
                fn from(command: $name) -> Self {
                    Self::$name(command)
                }
            }

            #[allow(unused_variables, unused_mut, reason = "commands without fields")]
            impl $name {
                fn body_bytes(&self) -> usize {
                    0 $(+ <codec!($($codec)?) as Codec<$ty>>::bytes(&self.$field))*
                }

                fn put(&self, out: &mut Encoder) {
                    $(<codec!($($codec)?) as Codec<$ty>>::put(&self.$field, out);)*
                }

                fn take(mut body: Body) -> Result<Self, DecodeError> {
                    $(
                        let $field = take!(body, codec!($($codec)?), $ty $(, $default)?).map_err(
                            |fault| DecodeError::Field {
                                command: stringify!($name),
                                field: stringify!($field),
                                fault,
                            },
                        )?;
                    )*
                    Ok(Self { $($field),* })
                }
            }
        )*

        /// Everything that may cross a connection to a segment store.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Command {
            $($(#[$doc])* $name($name),)*
        }

        impl Command {
            /// The command's name in the protocol.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// The type field of its frame.
            pub fn code(&self) -> i32 {
                match self {
                    $(Self::$name(_) => $code,)*
                }
            }

            /// Who may send it.
            pub fn direction(&self) -> Direction {
                match self {
                    $(Self::$name(_) => Direction::$direction,)*
                }
            }

            /// Length of its body in bytes.
            pub fn body_bytes(&self) -> usize {
                match self {
                    $(Self::$name(command) => command.body_bytes(),)*
                }
            }

            fn put(&self, out: &mut Encoder) {
                match self {
                    $(Self::$name(command) => command.put(out),)*
                }
            }

            /// Reads the command that `frame` holds. Data are slices of the frame. Bytes behind the last known field
            /// are ignored, as newer peers add fields there. Allocates no more than a small multiple of the frame.
            pub fn decode(frame: Frame) -> Result<Self, DecodeError> {
                let body = Body::new(frame.body);
                match frame.code {
                    $($code => $name::take(body).map(Self::$name),)*
                    code => Err(DecodeError::UnknownType { code }),
                }
            }
        }

        /// One command of each kind, for tests.
        #[cfg(test)]
        fn samples(source: &mut field::Source) -> Vec<Command> {
            vec![$($name {
                $($field: <codec!($($codec)?) as Codec<$ty>>::sample(source),)*
            }.into(),)*]
        }

        /// True for a type that some command has.
        fn is_known(code: i32) -> bool {
            matches!(code, $($code)|*)
        }
    };
}

impl Command {
    /// Length of its frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes()
    }
}

commands! {
    /// The first frame of either side: the versions it speaks.
    Hello = -127 Both { high: i32, low: i32, }
    /// "Are you there": echoed once each.
    KeepAlive = 100 Both {}
    /// Bytes to ignore.
    Padding = -1 Request { data: Bytes => Rest, }
    /// The beginning of an append that its block had no room for.
    PartialEvent = -2 Nested { data: Bytes => Rest, }
    /// One event, as clients frame it for event streams.
    Event = 0 Nested { data: Bytes => Rest, }

    /// Announces appends of a writer to a segment on this connection.
    SetupAppend = 1 Request {
        request_id: i64, writer_id: WriterId, segment: SegmentName, token: String,
    }
    /// Answers [`SetupAppend`]: everything up to the last event number is stored.
    AppendSetup = 2 Reply {
        request_id: i64, segment: SegmentName, writer_id: WriterId, last_event_number: i64,
    }
    /// The first part of a block of appends.
    AppendBlock = 3 Request { writer_id: WriterId, data: Bytes => Rest, }
    /// The end of a block, or a whole one.
    AppendBlockEnd = 4 Request {
        writer_id: WriterId, size_of_whole_events: i32, data: Bytes, num_events: i32,
        last_event_number: i64, request_id: i64 = -1,
    }
    /// One event, to be stored only at the expected offset.
    ConditionalAppend = 5 Request {
        writer_id: WriterId, event_number: i64, expected_offset: i64, event: Bytes => WholeEvent,
        request_id: i64 = -1,
    }
    /// Raw bytes, to be stored only at the expected offset.
    ConditionalBlockEnd = 89 Request {
        writer_id: WriterId, event_number: i64, expected_offset: i64, data: Bytes, request_id: i64,
    }
    /// Everything of the writer up to the event number is stored.
    DataAppended = 7 Reply {
        writer_id: WriterId, event_number: i64, previous_event_number: i64, request_id: i64,
        current_segment_write_offset: i64,
    }
    /// The segment had another length than expected: nothing was stored.
    ConditionalCheckFailed = 8 Reply { writer_id: WriterId, event_number: i64, request_id: i64, }
    /// The writer's number does not follow the last stored one. The connection ends behind it.
    InvalidEventNumber = 55 Reply {
        writer_id: WriterId, request_id: i64, trace: String, event_number: i64,
    }

    /// Reads, or waits for, bytes at an offset.
    ReadSegment = 9 Request {
        segment: SegmentName, offset: i64, suggested_length: i32, token: String,
        request_id: i64 = -1,
    }
    /// Bytes from exactly the offset asked for.
    SegmentRead = 10 Reply {
        segment: SegmentName, offset: i64, at_tail: bool, end_of_segment: bool, data: Payload,
        request_id: i64,
    }
    /// Asks for length, start and state.
    GetStreamSegmentInfo = 11 Request { request_id: i64, segment: SegmentName, token: String, }
    /// Length, start and state; the time is in milliseconds since 1970.
    StreamSegmentInfo = 12 Reply {
        request_id: i64, segment: SegmentName, exists: bool, is_sealed: bool, is_deleted: bool,
        last_modified: i64, write_offset: i64, start_offset: i64,
    }
    /// Asks for one attribute.
    GetSegmentAttribute = 34 Request {
        request_id: i64, segment: SegmentName, attribute_id: u128, token: String,
    }
    /// An attribute's value, `NULL` for none.
    SegmentAttribute = 35 Reply { request_id: i64, value: i64, }
    /// Sets an attribute if it has the expected value.
    UpdateSegmentAttribute = 36 Request {
        request_id: i64, segment: SegmentName, attribute_id: u128, new_value: i64,
        expected_value: i64, token: String,
    }
    /// Whether an attribute was set.
    SegmentAttributeUpdated = 37 Reply { request_id: i64, success: bool, }
    /// Asks for an event boundary at or behind an offset.
    LocateOffset = 41 Request {
        request_id: i64, segment: SegmentName, target_offset: i64, token: String,
    }
    /// An event boundary.
    OffsetLocated = 42 Reply { request_id: i64, segment: SegmentName, offset: i64, }

    /// Creates a stream segment.
    CreateSegment = 20 Request {
        request_id: i64, segment: SegmentName, target_rate: i32, scale_type: i8, token: String,
        rollover_size_bytes: i64 = 0,
    }
    /// The segment exists now.
    SegmentCreated = 21 Reply { request_id: i64, segment: SegmentName, }
    /// Creates the segment of a large event beside its parent.
    CreateTransientSegment = 40 Request {
        request_id: i64, writer_id: WriterId, parent_segment: SegmentName, token: String,
    }
    /// Ends appends for good.
    SealSegment = 28 Request { request_id: i64, segment: SegmentName, token: String, }
    /// The segment is sealed.
    SegmentSealed = 29 Reply { request_id: i64, segment: SegmentName, }
    /// Deletes a segment.
    DeleteSegment = 30 Request { request_id: i64, segment: SegmentName, token: String, }
    /// The segment is gone.
    SegmentDeleted = 31 Reply { request_id: i64, segment: SegmentName, }
    /// Changes a segment's scaling policy.
    UpdateSegmentPolicy = 32 Request {
        request_id: i64, segment: SegmentName, target_rate: i32, scale_type: i8, token: String,
    }
    /// The policy is changed.
    SegmentPolicyUpdated = 33 Reply { request_id: i64, segment: SegmentName, }
    /// Drops everything below an offset.
    TruncateSegment = 38 Request {
        request_id: i64, segment: SegmentName, truncation_offset: i64, token: String,
    }
    /// The segment is truncated.
    SegmentTruncated = 39 Reply { request_id: i64, segment: SegmentName, }
    /// Appends a whole segment to another and deletes it.
    MergeSegments = 58 Request {
        request_id: i64, target: SegmentName, source: SegmentName, token: String,
        updates: Vec<AttributeUpdate> = Vec::new(),
    }
    /// The source is part of the target.
    SegmentsMerged = 59 Reply {
        request_id: i64, target: SegmentName, source: SegmentName, new_target_write_offset: i64,
    }
    /// Merges several segments, in order.
    MergeSegmentsBatch = 90 Request {
        request_id: i64, target: SegmentName, sources: Vec<SegmentName>, token: String,
    }
    /// The sources are parts of the target.
    SegmentsBatchMerged = 91 Reply {
        request_id: i64, target: SegmentName, merged: Vec<MergedSource>,
    }

    /// Creates a table.
    CreateTableSegment = 70 Request {
        request_id: i64, segment: SegmentName, token: String, sorted_deprecated: bool = false,
        key_length: i32 = 0, rollover_size_bytes: i64 = 0,
    }
    /// Deletes a table.
    DeleteTableSegment = 71 Request {
        request_id: i64, segment: SegmentName, must_be_empty: bool, token: String,
    }
    /// Asks for a table's size.
    GetTableSegmentInfo = 68 Request { request_id: i64, segment: SegmentName, token: String, }
    /// A table's size.
    TableSegmentInfo = 69 Reply {
        request_id: i64, segment: SegmentName, start_offset: i64, length: i64, entry_count: i64,
        key_length: i32,
    }
    /// Writes entries, all or none.
    UpdateTableEntries = 74 Request {
        request_id: i64, segment: SegmentName, token: String, entries: Vec<TableEntry>,
        table_segment_offset: i64 = -1,
    }
    /// One version for each entry, in their order.
    TableEntriesUpdated = 75 Reply { request_id: i64, versions: Vec<i64>, }
    /// Removes keys, all or none.
    RemoveTableKeys = 76 Request {
        request_id: i64, segment: SegmentName, token: String, keys: Vec<TableKey>,
        table_segment_offset: i64 = -1,
    }
    /// The keys are gone.
    TableKeysRemoved = 77 Reply { request_id: i64, segment: SegmentName, }
    /// Asks for the values of keys.
    ReadTable = 78 Request {
        request_id: i64, segment: SegmentName, token: String, keys: Vec<TableKey>,
    }
    /// One entry for each key, in their order.
    TableRead = 79 Reply { request_id: i64, segment: SegmentName, entries: Vec<TableEntry>, }
    /// Asks for the next keys.
    ReadTableKeys = 83 Request {
        request_id: i64, segment: SegmentName, token: String, suggested_count: i32,
        continuation_token: Bytes = Bytes::new(), prefix: Bytes = Bytes::new(),
        from_key: Bytes = Bytes::new(), to_key: Bytes = Bytes::new(),
    }
    /// Keys and where to go on.
    TableKeysRead = 84 Reply {
        request_id: i64, segment: SegmentName, keys: Vec<TableKey>, continuation_token: Bytes,
    }
    /// Asks for the next entries.
    ReadTableEntries = 85 Request {
        request_id: i64, segment: SegmentName, token: String, suggested_count: i32,
        continuation_token: Bytes = Bytes::new(), prefix: Bytes = Bytes::new(),
        from_key: Bytes = Bytes::new(), to_key: Bytes = Bytes::new(),
    }
    /// Entries and where to go on.
    TableEntriesRead = 86 Reply {
        request_id: i64, segment: SegmentName, entries: Vec<TableEntry>, continuation_token: Bytes,
    }
    /// Asks for what changed since a position.
    ReadTableEntriesDelta = 88 Request {
        request_id: i64, segment: SegmentName, token: String, from_position: i64,
        suggested_count: i32,
    }
    /// What changed, and the position behind it.
    TableEntriesDeltaRead = 87 Reply {
        request_id: i64, segment: SegmentName, entries: Vec<TableEntry>, should_clear: bool,
        reached_end: bool, last_position: i64,
    }

    /// Another node has the segment.
    WrongHost = 50 Reply {
        request_id: i64, segment: SegmentName, correct_host: String, trace: String,
    }
    /// The segment takes no appends any more; `offset` is the event number or the read's offset, else -1.
    SegmentIsSealed = 51 Reply {
        request_id: i64, segment: SegmentName, trace: String, offset: i64,
    }
    /// The segment exists already.
    SegmentAlreadyExists = 52 Reply { request_id: i64, segment: SegmentName, trace: String, }
    /// The segment does not exist.
    NoSuchSegment = 53 Reply {
        request_id: i64, segment: SegmentName, trace: String, offset: i64,
    }
    /// The offset lies below the segment's start, or a table's length is not the expected one.
    SegmentIsTruncated = 56 Reply {
        request_id: i64, segment: SegmentName, start_offset: i64, trace: String, offset: i64,
    }
    /// The segment, or the server, does not do that.
    OperationUnsupported = 57 Reply { request_id: i64, operation_name: String, trace: String, }
    /// The token does not allow that: 0 checked and refused, 1 expired.
    AuthTokenCheckFailed = 60 Reply { request_id: i64, trace: String, error_code: i32, }
    /// The request cannot be accepted: 0 an illegal argument.
    ErrorMessage = 61 Reply {
        request_id: i64, segment: SegmentName, message: String, error_code: i32,
    }
    /// The table has entries.
    TableSegmentNotEmpty = 80 Reply { request_id: i64, segment: SegmentName, trace: String, }
    /// A key that must have a version does not exist.
    TableKeyDoesNotExist = 81 Reply { request_id: i64, segment: SegmentName, trace: String, }
    /// A key has another version than it must have.
    TableKeyBadVersion = 82 Reply { request_id: i64, segment: SegmentName, trace: String, }

    /// Moves a container's data to long-term storage.
    FlushToStorage = -3 Admin { container_id: i32, token: String, request_id: i64, }
    /// The container's data are there.
    StorageFlushed = -4 Reply { request_id: i64, }
    /// Asks for a segment's chunks.
    ListStorageChunks = -5 Admin { segment: SegmentName, token: String, request_id: i64, }
    /// A segment's chunks.
    StorageChunksListed = -6 Reply { request_id: i64, chunks: Vec<StorageChunk>, }
}
