//! Why an engine does not start.

use std::io;
use thalweg_types::id::StorageUuid;
use thiserror::Error;

/// Why a storage cannot be mounted. Nothing has been deleted or cut when one of these is returned.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no log in the folder, but there is something else.
    #[error(
        "{folder} holds no log but it is not empty: it has `{name}`. Choose an empty folder, or move that file away"
    )]
    Foreign {
        /// The data folder.
        folder: String,
        /// The first name that does not belong to a log.
        name: String,
    },
    /// Fewer than two copies of the superblock agree.
    #[error(
        "{folder}: fewer than two copies of the superblock agree ({copies}). \
         Put the files back from a backup; nothing has been changed"
    )]
    Superblock {
        /// The data folder.
        folder: String,
        /// What each copy is like.
        copies: String,
    },
    /// A file of another format version.
    #[error(
        "{folder}/{file} is of format version {found}, this build knows version {known}: use the build that wrote it"
    )]
    Version {
        /// The data folder.
        folder: String,
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The version of this build.
        known: u32,
    },
    /// A file that belongs to another storage.
    #[error(
        "{folder}/{file} belongs to storage {found}, not to {expected}: move it out of the folder"
    )]
    OtherStorage {
        /// The data folder.
        folder: String,
        /// The file.
        file: String,
        /// Whose it is.
        found: StorageUuid,
        /// Whose it should be.
        expected: StorageUuid,
    },
    /// The storage belongs to another cluster or node.
    #[error("{folder} belongs to {found}, not to {expected}: check the data folder's path")]
    OtherOwner {
        /// The data folder.
        folder: String,
        /// What the superblock says.
        found: String,
        /// What was configured.
        expected: String,
    },
    /// A file of the log is not there.
    #[error(
        "{folder}/{file} is missing, and with it a part of the log. \
         Put it back from where it was moved or from a backup; nothing has been changed"
    )]
    Missing {
        /// The data folder.
        folder: String,
        /// The file.
        file: String,
    },
    /// Damage that cannot be put down to single ledgers.
    #[error(
        "{folder}/{file} is damaged at offset {offset}: {what}. \
         Put the file back from a backup; nothing has been changed"
    )]
    Damaged {
        /// The data folder.
        folder: String,
        /// The file.
        file: String,
        /// Where, in bytes.
        offset: u64,
        /// What was found there.
        what: String,
    },
    /// There is no room for the first file of this mount.
    #[error("{folder}: the disk is full, starting needs {need} bytes more. Free some space")]
    Full {
        /// The data folder.
        folder: String,
        /// How much, in bytes.
        need: u64,
    },
    /// The operating system failed a call.
    #[error("{folder}/{file}: cannot {action}: {error}")]
    Io {
        /// The data folder.
        folder: String,
        /// The file, or nothing for the folder itself.
        file: String,
        /// What was attempted.
        action: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// Turns an I/O error into one that names the file.
pub(super) fn io_error(
    folder: &str,
    file: &str,
    action: &'static str,
) -> impl FnOnce(io::Error) -> StartError {
    let (folder, file) = (folder.to_owned(), file.to_owned());
    move |error| StartError::Io { folder, file, action, error }
}
