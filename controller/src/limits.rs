//! The controller's own limits. Units are in the names.

/// Segments of one epoch, and parts of one scale.
pub const SEGMENTS_MAX: u32 = 16_384;
/// Epochs of one stream: beyond it no scale begins.
pub const EPOCHS_MAX: usize = 65_536;
/// Tags of one stream.
pub const TAGS_MAX: usize = 127;
/// A tag, in characters.
pub const TAG_CHARS_MAX: usize = 255;
/// Names on one page of a list.
pub const PAGE_NAMES_MAX: usize = 1000;
/// Commands waiting to be proposed; beyond it callers wait.
pub const PROPOSALS_MAX: usize = 1024;
/// Segment commands of one workflow that are under way at once.
pub const SEGMENT_COMMANDS_MAX: usize = 64;
/// Command bytes behind a snapshot after which the next one is taken.
pub const SNAPSHOT_AFTER_BYTES: usize = 4 * 1024 * 1024;
/// Commands behind a snapshot after which the next one is taken.
pub const SNAPSHOT_AFTER_COMMANDS: usize = 20_000;
/// Requests of one native connection that are under way at once; beyond it the connection is not read.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Room that is offered to one read of a native connection, in bytes.
pub const REQUEST_READ_BYTES: usize = 8192;
/// Writers of one stream whose marks are kept. Beyond it those that left are forgotten, then new ones are refused.
pub const WRITERS_MAX: usize = 16_384;
/// Watermarks of one stream that are kept at least; never more than twice as many.
pub const WATERMARKS_MIN: usize = 8_192;
/// Bytes of watermarks that are read at once.
pub const WATERMARKS_READ_BYTES: usize = 256 * 1024;
/// Transactions of one stream that are under way at once.
pub const TXNS_LIVE_MAX: usize = 16_384;
/// Transactions that are merged by one workflow.
pub const TXN_BATCH_MAX: usize = 64;
/// Ended transactions of one stream whose outcome is remembered.
pub const ENDED_TXNS_MAX: usize = 4096;
/// How long an outcome is remembered, in milliseconds.
pub const ENDED_TXN_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Ended transactions that are listed.
pub const ENDED_TXNS_LISTED_MAX: usize = 500;
/// The shortest lease that a transaction can begin with, in milliseconds.
pub const TXN_LEASE_MS_MIN: u64 = 10_000;
/// The longest lease of a transaction, in milliseconds.
pub const TXN_LEASE_MS_MAX: u64 = 600_000;
/// How long a transaction can be kept alive, in milliseconds.
pub const TXN_LIFE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Streams of one reader group.
pub const GROUP_STREAMS_MAX: usize = 4096;
/// A reader group's name, in characters: its stream's name is longer.
pub const GROUP_NAME_CHARS_MAX: usize = 250;
/// A key-value table's name, in characters.
pub const TABLE_NAME_CHARS_MAX: usize = 249;
/// Both keys of a key-value table together, in bytes: what a table segment takes.
pub const TABLE_KEY_BYTES_MAX: u32 = 256;
/// Size of the chunks of a reader group's stream, in bytes.
pub const GROUP_STREAM_ROLLOVER_BYTES: i64 = 4 * 1024 * 1024;
