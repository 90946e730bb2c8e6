//! Reading entries back: verified, or UNKNOWN.

use super::core::{Core, Placed};
use super::files::in_use_name;
use super::format::{Record, payload_is_sound};
use super::index::Spot;
use super::scan::{Found, Front, Reader};
use crate::frame::{EntryFrame, Frame};
use crate::ledger::ReadError;
use crate::storage::StoredEntry;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{Address, EntryId, LedgerId};

/// How much of batches' headers is kept at hand, in bytes.
const FRONTS: usize = 2 * 1024 * 1024;
/// Where one answer of headers ends, in bytes.
const HEADERS: usize = 1024 * 1024;

/// The headers of the batches that were read last.
#[derive(Default)]
pub(super) struct Fronts {
    /// The one that was used last stands last.
    kept: VecDeque<(Spot, Front)>,
    bytes: usize,
}

impl Fronts {
    fn get(&mut self, key: Spot) -> Option<Front> {
        let at = self.kept.iter().rposition(|(at, _)| *at == key)?;
        let found = self.kept.remove(at)?;
        let front = found.1.clone();
        self.kept.push_back(found);
        Some(front)
    }

    fn put(&mut self, key: Spot, front: Front) {
        self.bytes += front.bytes.len();
        self.kept.push_back((key, front));
        while self.bytes > FRONTS
            && self.kept.len() > 1
            && let Some((_, gone)) = self.kept.pop_front()
        {
            self.bytes -= gone.bytes.len();
        }
    }
}

/// Where an entry is now.
enum Place {
    Disk(Spot, u32, Arc<super::files::LogFile>),
    Memory(EntryFrame),
    Beyond,
}

fn entry_of(record: &Record, ledger: LedgerId, entry: EntryId) -> Option<&EntryFrame> {
    match record {
        Record::Frame(Frame::Entry(found) | Frame::Repair { entry: found, .. })
            if (found.ledger, found.entry) == (ledger, entry) =>
        {
            Some(found)
        }
        _ => None,
    }
}

fn payload_len(entry: &EntryFrame) -> usize {
    entry.payload.iter().map(Bytes::len).sum()
}

impl Core {
    fn unknown(ledger: LedgerId, entry: EntryId, reason: String) -> ReadError {
        probe!("engine: entry unknown");
        let address = Address::new(ledger.epoch, entry);
        ReadError::Unknown { address, reason: Arc::from(reason) }
    }

    fn locate(&self, ledger: LedgerId, entry: EntryId) -> Result<Place, ReadError> {
        let state = self.lock();
        if state.facts.first_kept(ledger).is_none_or(|first| entry < first) {
            return Err(ReadError::Trimmed { address: Address::new(ledger.epoch, entry) });
        }
        if let Some((spot, run)) = state.index.find(ledger, entry) {
            let log = state.logs.get(&spot.file).cloned();
            let log = log.expect("a file with live entries is in use");
            return Ok(Place::Disk(spot, run, log));
        }
        let flight = state.flight.iter().map(|(_, record): &Placed| record);
        let mut staged = flight.chain(state.queue.iter().map(|(_, record)| record));
        if let Some(found) = staged.find_map(|r| entry_of(r, ledger, entry)) {
            return Ok(Place::Memory(found.clone()));
        }
        let is_beyond = state.index.last(ledger).is_none_or(|last| entry > last)
            && state.facts.tail(ledger).is_none_or(|tail| entry > tail);
        if is_beyond {
            return Ok(Place::Beyond);
        }
        let what = format!("entry {entry} of {ledger} is not in the log of {}", self.folder);
        Err(Self::unknown(ledger, entry, what))
    }

    async fn front(&self, spot: Spot, log: &super::files::LogFile) -> Result<Front, String> {
        let key = Spot { slot: 0, ..spot };
        {
            let mut fronts = self.fronts.lock().expect("no holder of the cache panics");
            if let Some(front) = fronts.get(key) {
                return Ok(front);
            }
        }
        let found = Reader::sparing(log).batch(spot.offset).await;
        let front = match found {
            Ok(Found::Batch(front)) => front,
            Ok(Found::Nothing(flaw)) => return Err(flaw.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let mut fronts = self.fronts.lock().expect("no holder of the cache panics");
        fronts.put(key, front.clone());
        Ok(front)
    }

    /// Reads `what` of the entry at `spot`; if that fails and the entry has moved meanwhile, the caller tries again.
    fn failed(
        &self,
        ledger: LedgerId,
        entry: EntryId,
        spot: Spot,
        what: &str,
    ) -> Result<(), ReadError> {
        let moved = match self.locate(ledger, entry)? {
            Place::Disk(now, ..) => now != spot,
            _ => true,
        };
        if moved {
            return Ok(());
        }
        let (name, offset) = (in_use_name(spot.file), spot.offset);
        let at = format!("{}/{name} in the batch at offset {offset}", self.folder);
        Err(Self::unknown(ledger, entry, format!("{at}: {what}")))
    }

    /// See [`crate::storage::Storage::headers`].
    pub(super) async fn headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
    ) -> Result<Vec<StoredEntry>, ReadError> {
        let (mut found, mut bytes, mut at) = (Vec::new(), 0, from);
        while found.len() < max && bytes < HEADERS {
            let before = found.len();
            match self.some_headers(ledger, at, max - before, &mut found).await {
                Ok(()) if found.len() == before => break,
                Ok(()) => {}
                Err(_) if before > 0 => break,
                Err(error) => return Err(error),
            }
            bytes += found[before..].iter().map(|entry| entry.headers.len()).sum::<usize>();
            at = EntryId(from.0 + found.len() as u64);
        }
        Ok(found)
    }

    async fn some_headers(
        &self,
        ledger: LedgerId,
        from: EntryId,
        max: usize,
        found: &mut Vec<StoredEntry>,
    ) -> Result<(), ReadError> {
        loop {
            let (spot, run, log) = match self.locate(ledger, from)? {
                Place::Disk(spot, run, log) => (spot, run, log),
                Place::Memory(entry) => {
                    let (headers, payload_len) = (entry.headers.clone(), payload_len(&entry));
                    found.push(StoredEntry { entry: from, headers, payload_len });
                    return Ok(());
                }
                Place::Beyond => return Ok(()),
            };
            let front = match self.front(spot, &log).await {
                Ok(front) => front,
                Err(what) => {
                    self.failed(ledger, from, spot, &what)?;
                    continue;
                }
            };
            let begin = found.len();
            for skip in 0..(run as usize).min(max) {
                let entry = EntryId(from.0 + skip as u64);
                let number = spot.slot as usize + skip;
                match header_at(&front, number, ledger, entry) {
                    Ok(header) => found.push(header),
                    Err(_) if found.len() > begin => return Ok(()),
                    Err(what) => {
                        self.failed(ledger, from, spot, &what)?;
                        break;
                    }
                }
            }
            if found.len() > begin {
                return Ok(());
            }
        }
    }

    /// See [`crate::storage::Storage::payload`].
    pub(super) async fn payload(
        &self,
        ledger: LedgerId,
        entry: EntryId,
    ) -> Result<Bytes, ReadError> {
        loop {
            let (spot, log) = match self.locate(ledger, entry)? {
                Place::Disk(spot, _, log) => (spot, log),
                Place::Memory(entry) => return Ok(joined(&entry.payload)),
                Place::Beyond => {
                    let what = format!("entry {entry} of {ledger} is not in the log");
                    return Err(Self::unknown(ledger, entry, what));
                }
            };
            match self.payload_at(spot, &log, ledger, entry).await {
                Ok(payload) => return Ok(payload),
                Err(what) => self.failed(ledger, entry, spot, &what)?,
            }
        }
    }

    async fn payload_at(
        &self,
        spot: Spot,
        log: &super::files::LogFile,
        ledger: LedgerId,
        entry: EntryId,
    ) -> Result<Bytes, String> {
        let front = self.front(spot, log).await?;
        let number = spot.slot as usize;
        header_at(&front, number, ledger, entry)?;
        let frame = front.header.slots[number];
        let at = spot.offset + frame.payload_at;
        let read = log.file.read_at(at, frame.payload_len).await;
        let payload = read.map_err(|error| format!("it cannot be read: {error}"))?;
        if payload_is_sound(&frame, &payload) || planted!("PB-B17") || planted!("PB-D11") {
            Ok(payload)
        } else {
            Err(format!("the payload's checksum is wrong (offset {at} of the file)"))
        }
    }
}

fn header_at(
    front: &Front,
    slot: usize,
    ledger: LedgerId,
    entry: EntryId,
) -> Result<StoredEntry, String> {
    let (_, record) = front.header.record(slot, &front.bytes).map_err(|flaw| flaw.to_string())?;
    let found = match (entry_of(&record, ledger, entry), &record) {
        (Some(found), _) => found,
        (None, Record::Frame(Frame::Entry(found))) if planted!("PB-D3") => found,
        (None, _) => return Err("another frame lies there".to_owned()),
    };
    let payload_len = front.header.slots[slot].payload_len;
    Ok(StoredEntry { entry, headers: found.headers.clone(), payload_len })
}

fn joined(chunks: &[Bytes]) -> Bytes {
    if let [only] = chunks {
        return only.clone();
    }
    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        all.extend_from_slice(chunk);
    }
    all.freeze()
}
