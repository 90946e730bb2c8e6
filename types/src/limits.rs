//! Every limit that more than one crate must agree on. Units are in the names.

/// Segment containers of a node or cluster; fixed when a data folder is created.
pub const CONTAINERS: u32 = 32;
/// One ledger entry, headers and payload, in bytes.
pub const ENTRY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a container aims at for one entry, in bytes; a larger operation travels alone.
pub const ENTRY_BYTES_TARGET: usize = 1024 * 1024;
/// Un-acknowledged append bytes of one connection; beyond it the socket is not read.
pub const CONNECTION_IN_FLIGHT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Un-acknowledged append bytes of one container.
pub const CONTAINER_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Held reads of one connection.
pub const HELD_READS_MAX: usize = 4096;
/// Bytes queued towards one client; beyond it the connection is closed.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One read's data, in bytes.
pub const READ_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A table key, in bytes.
pub const TABLE_KEY_BYTES_MAX: usize = 8192;
/// A table value, in bytes.
pub const TABLE_VALUE_BYTES_MAX: usize = 1024 * 1024 - 8192;
/// One batch of table entries as it stands in the log, in bytes.
pub const TABLE_BATCH_BYTES_MAX: usize = 15 * 1024 * 1024;
/// A control message or metadata record, in bytes.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Scope, stream and table names, in characters.
pub const NAME_CHARS_MAX: usize = 255;

const _: () = assert!(ENTRY_BYTES_TARGET < ENTRY_BYTES_MAX);
const _: () = assert!(TABLE_BATCH_BYTES_MAX < ENTRY_BYTES_MAX);
