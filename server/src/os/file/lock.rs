//! One process per data folder.

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The file that a process locks, with its process id inside. Never removed: the lock counts, not the file.
pub(super) const NAME: &str = "thalweg.lock";

/// Why a data folder cannot be used.
#[derive(Debug, Error)]
pub(crate) enum FolderError {
    /// It cannot be made, opened or written.
    #[error(
        "the data folder {} is not usable: {error}. Give another one with --data-dir, or mend its permissions",
        path.display()
    )]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data folder {} is in use by another process{}. Stop that one, or give another folder with --data-dir",
        path.display(), by(owner)
    )]
    Locked {
        /// Which.
        path: PathBuf,
        /// The other's process id, as it noted it.
        owner: String,
    },
    /// Its threads do not start.
    #[error("the threads for the data folder {} do not start: {error}", path.display())]
    Threads {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn by(owner: &str) -> String {
    if owner.is_empty() { String::new() } else { format!(" (process {owner})") }
}

/// Makes the folder if need be, and locks it: its absolute path, the folder, the lock.
pub(super) fn claim(path: &Path) -> Result<(PathBuf, OwnedFd, OwnedFd), FolderError> {
    let unusable = |error| FolderError::Unusable { path: path.to_owned(), error };
    std::fs::create_dir_all(path).map_err(unusable)?;
    let path = path.canonicalize().map_err(unusable)?;
    let unusable = |error: Errno| FolderError::Unusable { path: path.clone(), error: error.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&path, flags, Mode::empty()).map_err(unusable)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o640);
    let lock = rustix::fs::openat(&directory, NAME, flags, mode).map_err(unusable)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(FolderError::Locked { owner: noted_owner(&lock), path });
        }
        Err(error) => return Err(unusable(error)),
    }
    note_owner(&lock).map_err(unusable)?;
    Ok((path, directory, lock))
}

fn note_owner(lock: &OwnedFd) -> Result<(), Errno> {
    let id = std::process::id().to_string();
    match rustix::fs::ftruncate(lock, 0).and_then(|()| rustix::io::pwrite(lock, id.as_bytes(), 0)) {
        // The note is for people: a full disk must still start, to be read and relieved.
        Ok(_) | Err(Errno::NOSPC | Errno::DQUOT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn noted_owner(lock: &OwnedFd) -> String {
    let mut text = [0; 20];
    let read = rustix::io::pread(lock, &mut text, 0).unwrap_or(0);
    let digits = text[..read].iter().take_while(|byte| byte.is_ascii_digit());
    digits.map(|byte| char::from(*byte)).collect()
}
