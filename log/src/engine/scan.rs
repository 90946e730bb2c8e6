//! The start-up scan: what of the log counts, what is torn, what is damaged.
//!
//! It reads the headers of all batches in order, and payloads only of the last one if nothing proves it durable.
//! A mount begins its own file with a START, which states up to where the mount before it counts; so for all mounts
//! but the last there is nothing to decide. Of the last one, the first bad position is *torn* if and only if nothing
//! valid of the same mount follows, no batch says it is durable, and the read returned bytes. Everything else is
//! damage: it is stepped over, and every ledger that it may have touched is in doubt.
//!
//! Deliberately not here: writing anything. The verdict becomes durable with the START of the new mount.
//! Source: the design notes on the storage engine of a log node, start-up.

mod salvage;
mod walk;

pub(super) use salvage::{Doubt, FileFlaw, scan_doubtful};

use super::error::{StartError, io_error};
use super::facts::Facts;
use super::files::{FIRST_BATCH, LogFile, in_use_name};
use super::format::{BATCH_PROBE, BLOCK, Flaw, Header, Origin, Place, Record, Start};
use super::index::Index;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use thalweg_actor::probe;

/// What the scan found.
#[derive(Default)]
pub(super) struct Scanned {
    pub facts: Facts,
    pub index: Index,
    /// The mount that wrote the last batch; 0 if there is none.
    pub nonce: u64,
    /// The last batch that counts in place.
    pub last_seq: u64,
    pub last_crc: u32,
    /// Behind which file and offset nothing counts.
    pub cut_file: u64,
    pub cut_offset: u64,
    /// The highest batch number that was ever seen, torn ones included.
    pub max_seq: u64,
    /// The frames of the last batch, if it must be written again before it counts.
    pub again: Vec<(Option<Origin>, Record)>,
    /// The first batch that damage may have touched.
    pub limbo_from: Option<u64>,
    /// Each damage, for people.
    pub damages: Vec<String>,
    /// The files with damage.
    pub damaged: BTreeSet<u64>,
    /// Part of the log was read without a verdict on what is missing.
    pub salvaged: bool,
    /// Nothing that was found says that nothing else was there.
    pub all_doubtful: bool,
}

impl Scanned {
    /// Without what was trimmed.
    fn trimmed(mut self) -> Self {
        for (container, keep_from) in self.facts.recovered(false).keep_from {
            self.index.trim(container, keep_from);
        }
        self
    }

    /// With doubt about everything.
    fn doubtful(mut self) -> Self {
        self.facts.doubt_all();
        self.limbo_from.get_or_insert(0);
        (self.salvaged, self.all_doubtful) = (true, true);
        self
    }

    /// The number of the START batch of mount `mount_seq`. Behind damage it is larger than any batch that may have
    /// been there: no mount writes 2^40 of them.
    pub(super) fn start_seq(&self, mount_seq: u64) -> u64 {
        let next = self.max_seq.max(self.last_seq) + 2;
        if self.salvaged { next.max(mount_seq << 40) } else { next }
    }
}

/// Reads batches of one file through a window: small ones in bulk, large ones by their headers.
pub(super) struct Reader<'a> {
    pub log: &'a LogFile,
    begin: u64,
    window: Bytes,
    ahead: usize,
}

/// A batch that was read: its header, and everything in front of its payloads.
#[derive(Clone)]
pub(super) struct Front {
    pub header: Arc<Header>,
    pub bytes: Bytes,
}

/// What a position holds.
pub(super) enum Found {
    Batch(Front),
    Nothing(Flaw),
}

const AHEAD: usize = 1024 * 1024;
const SEARCH: usize = 4 * 1024 * 1024;

impl<'a> Reader<'a> {
    pub(super) fn new(log: &'a LogFile) -> Self {
        Self { log, begin: 0, window: Bytes::new(), ahead: BATCH_PROBE }
    }

    /// Reads no more than what it is asked for.
    pub(super) fn sparing(log: &'a LogFile) -> Self {
        Self { ahead: 0, ..Self::new(log) }
    }

    /// The bytes at `offset`, fewer than `len` only at the end of the file.
    async fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = self.begin + self.window.len() as u64;
        if offset < self.begin || offset + len as u64 > end {
            let left = self.log.header.size.saturating_sub(offset);
            let len = len.max(self.ahead).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.window = self.log.file.read_at(offset, len).await?;
            self.begin = offset;
        }
        let from = usize::try_from(offset - self.begin).expect("within the window");
        Ok(self.window.slice(from..self.window.len().min(from + len)))
    }

    /// The batch at `offset`, if there is one.
    pub(super) async fn batch(&mut self, offset: u64) -> io::Result<Found> {
        let mut bytes = self.bytes(offset, BLOCK).await?;
        let Some(needed) = Header::needs(&bytes) else { return Ok(Found::Nothing(Flaw::Absent)) };
        if needed as u64 > self.log.header.size - offset {
            return Ok(Found::Nothing(Flaw::Broken("the batch header reaches beyond the file")));
        }
        if needed > bytes.len() {
            bytes = self.bytes(offset, needed).await?;
        }
        let header = match Header::decode(&bytes, &place(self.log, offset)) {
            Ok(header) => header,
            Err(flaw) => return Ok(Found::Nothing(flaw)),
        };
        if offset + header.len > self.log.header.size {
            return Ok(Found::Nothing(Flaw::Broken("the batch reaches beyond the file")));
        }
        if header.front_len > bytes.len() {
            bytes = self.bytes(offset, header.front_len).await?;
        }
        // Where payloads take most of the space they are stepped over.
        let front = header.front_len.next_multiple_of(BLOCK);
        self.ahead = if header.len < 8 * front as u64 { AHEAD } else { front };
        let bytes = bytes.slice(..bytes.len().min(header.front_len));
        Ok(Found::Batch(Front { header: Arc::new(header), bytes }))
    }

    /// The first batch behind `offset` that `wanted` accepts.
    pub(super) async fn search(
        &mut self,
        mut offset: u64,
        wanted: impl Fn(&Header) -> bool,
    ) -> io::Result<Option<(u64, Front)>> {
        let step = BLOCK;
        while offset < self.log.header.size {
            let left = usize::try_from(self.log.header.size - offset).unwrap_or(SEARCH);
            let bytes = self.log.file.read_at(offset, left.min(SEARCH)).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            for at in (0..bytes.len()).step_by(step) {
                let here = offset + at as u64;
                if !Header::may_begin(&bytes[at..], &place(self.log, here)) {
                    continue;
                }
                match self.batch(here).await? {
                    Found::Batch(front) if wanted(&front.header) => return Ok(Some((here, front))),
                    _ => {}
                }
            }
            offset += bytes.len().next_multiple_of(step) as u64;
        }
        Ok(None)
    }
}

/// The place of a batch in `log`.
pub(super) fn place(log: &LogFile, offset: u64) -> Place {
    let header = &log.header;
    Place { storage: header.storage, incarnation: header.incarnation, file: header.number, offset }
}

/// The START at the head of `log`, if it begins a mount.
async fn start_of(folder: &str, log: &LogFile) -> Result<Option<Start>, StartError> {
    let mut reader = Reader::new(log);
    let name = in_use_name(log.number());
    let found = reader.batch(FIRST_BATCH).await.map_err(io_error(folder, &name, "read it"))?;
    let Found::Batch(front) = found else { return Ok(None) };
    match front.header.record(0, &front.bytes) {
        Ok((_, Record::Start(start))) => Ok(Some(start)),
        _ => Ok(None),
    }
}

/// Scans `logs`, the files in use in order. `clean` is the last batch if the engine stopped cleanly, else 0.
pub(super) async fn scan(
    folder: &str,
    logs: &[Arc<LogFile>],
    clean: u64,
) -> Result<Scanned, StartError> {
    strict(folder, logs, clean, Scanned::default()).await.map(Scanned::trimmed)
}

/// Scans `logs`, which go on behind `out`.
async fn strict(
    folder: &str,
    logs: &[Arc<LogFile>],
    clean: u64,
    out: Scanned,
) -> Result<Scanned, StartError> {
    let mut starts = Vec::with_capacity(logs.len());
    for log in logs {
        starts.push(start_of(folder, log).await?);
    }
    let mut torn = Vec::new();
    while let Some(at) = (0..logs.len()).rev().find(|at| starts[*at].is_some()) {
        let Some(start) = &starts[at] else { break };
        let name = in_use_name(logs[at].number());
        let counts = walk::start_counts(&logs[at], &logs[at + 1..], start).await;
        if counts.map_err(io_error(folder, &name, "read it"))? {
            break;
        }
        // The mount before this one ended in the middle of its first batch: it has answered nobody.
        probe!("engine: torn start cut");
        torn.push(start.nonce);
        starts[at] = None;
    }
    let mut walk = walk::Walk::new(folder, clean, torn, out);
    let mut from = 0;
    while from < logs.len() {
        let next = (from + 1..logs.len()).find(|at| starts[*at].is_some());
        let mount = &logs[from..next.unwrap_or(logs.len())];
        let own = starts[from].as_ref();
        let until = next.and_then(|at| starts[at].as_ref());
        walk.mount(mount, own, until).await?;
        from = next.unwrap_or(logs.len());
    }
    Ok(walk.finish())
}
