//! What the process says with its exit code. A command line that cannot be understood is clap's: 2.

use thiserror::Error;

/// The command could not do what was asked; the reason is on stderr.
pub(crate) const FAILED: u8 = 1;
/// A bug was met: the process ended to protect what is stored.
pub(crate) const BUG: u8 = 70;
/// The server lets appends wait (its disk is full): trying again later may help.
pub(crate) const HELD: u8 = 75;
/// The disk failed a sync or a write: the process ended, since nothing more may be acknowledged.
pub(crate) const DISK_FAILED: u8 = 74;

/// An error that wants an exit code of its own.
#[derive(Debug, Error)]
#[error("{text}")]
pub(crate) struct With {
    /// The exit code.
    pub(crate) code: u8,
    /// For people.
    pub(crate) text: String,
}
