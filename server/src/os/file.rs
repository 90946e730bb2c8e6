//! The data folder behind the disk seam.
//!
//! Writes and syncs of a folder happen on one thread, in order: a sync never waits behind anything but the write it
//! is for. Reads that the page cache can answer happen at once on the caller's thread; others, and whatever may take
//! long, happen on a few more threads, so that no read waits behind a sync.
//!
//! Writes that are aligned to [`ALIGN`] bypass the page cache where the file system supports it: measured on ext4,
//! same latency, and half of the processor time from 1 MiB up. Reads see them, because the kernel drops what it had
//! cached of a range that is written so.
//!
//! After a sync has failed nothing is written to the folder any more: the system may have dropped the pages, and would
//! report success if asked again.

mod direct;
mod lock;
mod threads;

use crate::os::tcp::Rest;
use bytes::Bytes;
use direct::{ALIGN, Aligned};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use thalweg_actor::BoxFuture;
use thalweg_actor::disk::{Disk, File, Open, Space};
use threads::Threads;

pub(crate) use lock::FolderError;

/// Reads up to this many bytes are tried on the caller's thread first.
const INLINE_READ_BYTES_MAX: usize = 128 * 1024;
/// Zeros written at once when a file is allocated: the log's own writes get their turn in between.
const ZERO_BYTES: usize = 256 * 1024;
/// Chunks handed to the system at once.
const CHUNKS_MAX: usize = 1024;

/// A data folder that belongs to this process until it is dropped.
pub(crate) struct Folder {
    shared: Arc<Shared>,
    _lock: OwnedFd,
}

struct Shared {
    path: PathBuf,
    directory: OwnedFd,
    threads: Threads,
    /// Why nothing may be written any more.
    failed: Mutex<Option<String>>,
    syncs: AtomicU64,
    written_bytes: AtomicU64,
}

impl Folder {
    /// Makes the folder if it does not exist, and locks it against other processes.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let (path, directory, lock) = lock::claim(path)?;
        let threads =
            Threads::start().map_err(|error| FolderError::Threads { path: path.clone(), error })?;
        let (failed, syncs, written_bytes) = Default::default();
        let shared = Arc::new(Shared { path, directory, threads, failed, syncs, written_bytes });
        Ok(Self { shared, _lock: lock })
    }

    /// The absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Syncs of files that have succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Bytes that have been written, but for the zeros of new files.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Adds what was tried to an error, and gives every want of space one kind.
    fn explain(&self, what: &str, name: &str, error: Errno) -> io::Error {
        let plain = io::Error::from(error);
        let kind = match error {
            Errno::NOSPC | Errno::DQUOT => io::ErrorKind::StorageFull,
            _ => plain.kind(),
        };
        io::Error::new(kind, format!("cannot {what} {}: {plain}", self.path.join(name).display()))
    }

    fn check_not_failed(&self) -> io::Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())))
    }

    /// Notes a failed sync for good.
    fn fail(&self, error: io::Error) -> io::Error {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| error.to_string());
        error
    }

    fn open(self: &Arc<Self>, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let making = match how {
            Open::Existing => OFlags::empty(),
            Open::New => OFlags::CREATE | OFlags::EXCL,
            Open::Either => OFlags::CREATE,
        };
        let mode = Mode::from_raw_mode(0o640);
        let buffered = rustix::fs::openat(&self.directory, name, flags | making, mode)
            .map_err(|error| self.explain("open", name, error))?;
        // Not every file system can: then everything goes through the page cache.
        let direct = rustix::fs::openat(&self.directory, name, flags | OFlags::DIRECT, mode).ok();
        let folder = Arc::clone(self);
        let inner = FileInner { name: name.to_owned(), folder, buffered, direct };
        Ok(Arc::new(OsFile(Arc::new(inner))))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let explain = |error| self.explain("list", "", error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory).map_err(explain)? {
            let entry = entry.map_err(explain)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == lock::NAME || name == "." || name == ".." {
                continue;
            }
            let found = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(explain)?;
            if rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::fstatvfs(&self.directory)
            .map_err(|error| self.explain("ask for the space of", "", error))?;
        Ok(Space {
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

fn check_name(name: &str) -> io::Result<()> {
    let odd = name.is_empty() || name.contains(['/', '\0']) || name == "." || name == "..";
    if odd || name == lock::NAME {
        let text = format!("{name:?} cannot be the name of a file in a data folder");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

impl Disk for Folder {
    fn open<'a>(&'a self, name: &'a str, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.shared.threads.aside(move || shared.open(&name, how))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let (shared, from, to) = (Arc::clone(&self.shared), from.to_owned(), to.to_owned());
        self.shared.threads.aside(move || {
            check_name(&from)?;
            check_name(&to)?;
            rustix::fs::renameat(&shared.directory, &from, &shared.directory, &to)
                .map_err(|error| shared.explain("rename", &from, error))
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<()>> {
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.shared.threads.aside(move || {
            check_name(&name)?;
            rustix::fs::unlinkat(&shared.directory, &name, AtFlags::empty())
                .map_err(|error| shared.explain("remove", &name, error))
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        let shared = Arc::clone(&self.shared);
        self.shared.threads.aside(move || shared.list())
    }

    fn sync_dir(&self) -> BoxFuture<'_, io::Result<()>> {
        let shared = Arc::clone(&self.shared);
        self.shared.threads.aside(move || {
            shared.check_not_failed()?;
            rustix::fs::fsync(&shared.directory)
                .map_err(|error| shared.fail(shared.explain("sync the folder", "", error)))
        })
    }

    fn space(&self) -> BoxFuture<'_, io::Result<Space>> {
        let found = self.shared.space();
        Box::pin(async move { found })
    }

    fn describe(&self) -> String {
        self.shared.path.display().to_string()
    }
}

/// An open file, once through the page cache and, where that is possible, once past it.
struct FileInner {
    name: String,
    folder: Arc<Shared>,
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
}

struct OsFile(Arc<FileInner>);

impl FileInner {
    fn explain(&self, what: &str, error: Errno) -> io::Error {
        self.folder.explain(what, &self.name, error)
    }

    fn size(&self) -> io::Result<u64> {
        let found = rustix::fs::fstat(self.buffered.as_fd())
            .map_err(|error| self.explain("ask for the size of", error))?;
        Ok(u64::try_from(found.st_size).unwrap_or(0))
    }

    /// What the page cache has, if that is everything.
    fn read_cached(&self, offset: u64, len: usize) -> Option<Bytes> {
        if len > INLINE_READ_BYTES_MAX {
            return None;
        }
        let mut buffer = vec![0; len];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = ReadWriteFlags::NOWAIT;
        let read = rustix::io::preadv2(self.buffered.as_fd(), &mut slices, offset, flags);
        (read == Ok(len)).then(|| buffer.into())
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // A length that comes from damaged bytes must not cost memory.
        let left = usize::try_from(self.size()?.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = offset + buffer.len() as u64;
            let spare = rustix::buffer::spare_capacity(&mut buffer);
            match rustix::io::pread(self.buffered.as_fd(), spare, at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.explain(&format!("read at {at} of"), error)),
            }
        }
        buffer.truncate(len);
        Ok(buffer.into())
    }

    fn write(&self, offset: u64, chunks: &[Bytes], scratch: &mut Aligned) -> io::Result<()> {
        self.folder.check_not_failed()?;
        let len: usize = chunks.iter().map(Bytes::len).sum();
        self.folder.written_bytes.fetch_add(len as u64, Ordering::Relaxed);
        if let Some(direct) = &self.direct
            && direct::is_aligned(offset, len)
        {
            match scratch.write(direct, offset, chunks) {
                // Aligned to less than this device wants: the page cache takes anything.
                Err(Errno::INVAL) => {}
                done => return done.map_err(|error| self.explain(&written(offset), error)),
            }
        }
        self.write_buffered(offset, chunks)
    }

    fn write_buffered(&self, mut offset: u64, chunks: &[Bytes]) -> io::Result<()> {
        let mut rest = Rest::new(chunks);
        let mut slices = vec![IoSlice::new(&[]); chunks.len().min(CHUNKS_MAX)];
        while !rest.is_empty() {
            let filled = rest.fill(&mut slices);
            match rustix::io::pwritev(self.buffered.as_fd(), &slices[..filled], offset) {
                Ok(0) => return Err(self.explain(&written(offset), Errno::NOSPC)),
                Ok(count) => {
                    rest.advance(count);
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.explain(&written(offset), error)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.check_not_failed()?;
        rustix::fs::fdatasync(self.buffered.as_fd())
            .map_err(|error| self.folder.fail(self.explain("sync", error)))?;
        self.folder.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.folder.check_not_failed()?;
        rustix::fs::ftruncate(self.buffered.as_fd(), len)
            .map_err(|error| self.explain("set the length of", error))
    }

    /// Reserves first, so that a full disk is known at once and leaves nothing behind; then writes real zeros, since
    /// the first sync of a range that was only reserved would have to change the file system's own records.
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.folder.check_not_failed()?;
        let size = self.size()?;
        if size >= len {
            return Ok(());
        }
        let file = self.buffered.as_fd();
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, size, len - size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => {
                // What was reserved beyond the end goes back.
                self.set_len(size)?;
                return Err(self.explain("allocate", error));
            }
        }
        let mut zeros = Aligned::zeroed(ZERO_BYTES);
        let mut at = size;
        while at < len {
            let until = len.min((at / ALIGN as u64) * ALIGN as u64 + ZERO_BYTES as u64);
            let count = usize::try_from(until - at).expect("at most one block of zeros");
            self.write_zeros(at, count, &mut zeros)?;
            at = until;
        }
        // Zeros in the page cache would be written by the next sync, and whoever asks for that one waits for them.
        if self.direct.is_some() { Ok(()) } else { self.sync() }
    }

    fn write_zeros(&self, at: u64, count: usize, zeros: &mut Aligned) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && direct::is_aligned(at, count)
        {
            match zeros.write_as_is(direct, at, count) {
                Err(Errno::INVAL) => {}
                done => return done.map_err(|error| self.explain(&written(at), error)),
            }
        }
        self.write_buffered(at, &[Bytes::from(vec![0; count])])
    }
}

fn written(offset: u64) -> String {
    format!("write at {offset} of")
}

impl File for OsFile {
    fn size(&self) -> BoxFuture<'_, io::Result<u64>> {
        let found = self.0.size();
        Box::pin(async move { found })
    }

    fn read_at(&self, offset: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        if let Some(bytes) = self.0.read_cached(offset, len) {
            return Box::pin(async move { Ok(bytes) });
        }
        let file = Arc::clone(&self.0);
        self.0.folder.threads.aside(move || file.read(offset, len))
    }

    fn write_at(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        let file = Arc::clone(&self.0);
        self.0.folder.threads.in_order(move |scratch| file.write(offset, &chunks, scratch))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        let file = Arc::clone(&self.0);
        self.0.folder.threads.in_order(move |_scratch| file.sync())
    }

    fn write_and_sync(&self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        let file = Arc::clone(&self.0);
        self.0.folder.threads.in_order(move |scratch| {
            file.write(offset, &chunks, scratch)?;
            file.sync()
        })
    }

    fn allocate(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        let file = Arc::clone(&self.0);
        self.0.folder.threads.aside(move || file.allocate(len))
    }

    fn set_len(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        let file = Arc::clone(&self.0);
        self.0.folder.threads.in_order(move |_scratch| file.set_len(len))
    }
}
