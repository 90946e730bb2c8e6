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
