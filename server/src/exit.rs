//! What the process says with its exit code.

/// A command line that cannot be understood; clap uses it too.
pub(crate) const USAGE: i32 = 2;
/// The command could not do what was asked; the reason is on stderr.
pub(crate) const FAILED: i32 = 1;
/// A bug was met: the process ended to protect what is stored.
pub(crate) const BUG: i32 = 70;
/// The disk failed a sync or a write: the process ended, since nothing more may be acknowledged.
pub(crate) const DISK_FAILED: i32 = 74;
