//! The walk along the batches of one mount after the other.

use super::{Flaw, Found, Front, Reader, Scanned, Start, StartError, io_error};
use crate::engine::files::{FIRST_BATCH, LogFile, in_use_name};
use crate::engine::format::{BLOCK, Header, Origin, Record, payload_is_sound};
use crate::engine::index::Spot;
use crate::frame::Frame;
use std::sync::Arc;
use thalweg_actor::{planted, probe};

/// A batch and where it lies.
struct At {
    file: u64,
    offset: u64,
    front: Front,
}

/// Where the walk stands in one mount.
struct Position<'a> {
    logs: &'a [Arc<LogFile>],
    at: usize,
    offset: u64,
    nonce: Option<u64>,
    expected: Option<u64>,
    prev_crc: Option<u32>,
    until: Option<&'a Start>,
    /// The newest batch: not applied before another one, or its own bytes, prove it.
    pending: Option<At>,
    durable: u64,
}

impl Position<'_> {
    fn log(&self) -> &Arc<LogFile> {
        &self.logs[self.at]
    }

    /// True behind the last batch that counts, as a later START has it.
    fn is_behind_cut(&self) -> bool {
        let seq = self.expected.unwrap_or_default();
        self.until.is_some_and(|start| {
            let here = (self.log().number(), self.offset);
            here >= (start.cut_file, start.cut_offset) || seq > start.last_valid_seq
        })
    }

    fn continues(&self, header: &Header) -> bool {
        if planted!("PB-D7") {
            return true;
        }
        self.nonce.is_none_or(|nonce| header.chain.nonce == nonce)
            && self.expected.is_none_or(|seq| header.chain.seq == seq)
            && self.prev_crc.is_none_or(|crc| header.chain.prev_crc == crc)
    }

    /// True for a batch that proves that something in front of it is missing.
    fn is_later(&self, header: &Header) -> bool {
        self.nonce.is_none_or(|nonce| header.chain.nonce == nonce)
            && self.expected.is_none_or(|seq| header.chain.seq > seq)
            && self.until.is_none_or(|start| header.chain.seq <= start.last_valid_seq)
    }
}

pub(super) struct Walk<'f> {
    folder: &'f str,
    clean: u64,
    /// Mounts that ended in the middle of their START.
    torn: Vec<u64>,
    out: Scanned,
}

impl<'f> Walk<'f> {
    /// A walk that goes on where `out` ends.
    pub(super) fn new(folder: &'f str, clean: u64, torn: Vec<u64>, out: Scanned) -> Self {
        Self { folder, clean, torn, out }
    }

    pub(super) fn finish(self) -> Scanned {
        self.out
    }

    /// Takes in one mount: the files `logs`, the first of which begins with `start` unless the START has been freed.
    /// `until` is the START of the next mount.
    pub(super) async fn mount(
        &mut self,
        logs: &[Arc<LogFile>],
        start: Option<&Start>,
        until: Option<&Start>,
    ) -> Result<(), StartError> {
        let mut position = Position {
            logs,
            at: 0,
            offset: FIRST_BATCH,
            nonce: start.map(|start| start.nonce),
            expected: None,
            prev_crc: None,
            until,
            pending: None,
            durable: 0,
        };
        if position.is_behind_cut() {
            return Ok(());
        }
        if let Some(until) = until {
            self.same_mount(&mut position, until).await?;
        }
        while !position.is_behind_cut() {
            if !self.advance(&mut position).await? {
                break;
            }
        }
        self.end(position, start).await
    }

    /// Refuses a log in which the START of a mount between `position` and `until` cannot be found.
    async fn same_mount(
        &self,
        position: &mut Position<'_>,
        until: &Start,
    ) -> Result<(), StartError> {
        if *position.nonce.get_or_insert(until.prev_nonce) == until.prev_nonce {
            return Ok(());
        }
        let mut guilty = position.log().number();
        for log in &position.logs[1..] {
            let found = self.batch(&mut Reader::new(log), FIRST_BATCH).await?;
            guilty = log.number();
            if !matches!(found, Ok(Found::Batch(front)) if position.continues(&front.header)) {
                break;
            }
        }
        Err(self.refuse(guilty, FIRST_BATCH, "the record that begins a mount cannot be read"))
    }

    fn refuse(&self, file: u64, offset: u64, what: &str) -> StartError {
        let (folder, file, what) = (self.folder.to_owned(), in_use_name(file), what.to_owned());
        StartError::Damaged { folder, file, offset, what }
    }

    /// The batch at `offset`. The inner error is what a failed read said.
    async fn batch(
        &self,
        reader: &mut Reader<'_>,
        offset: u64,
    ) -> Result<Result<Found, String>, StartError> {
        Ok(reader.batch(offset).await.map_err(|error| format!("it cannot be read: {error}")))
    }

    /// Takes in the next batch, or steps over damage; false at the end.
    async fn advance(&mut self, position: &mut Position<'_>) -> Result<bool, StartError> {
        let logs = position.logs;
        let mut reader = Reader::new(&logs[position.at]);
        loop {
            let flaw = match self.batch(&mut reader, position.offset).await? {
                Ok(Found::Batch(front)) if position.continues(&front.header) => {
                    self.accept(position, front);
                    if position.is_behind_cut() {
                        return Ok(false);
                    }
                    continue;
                }
                Ok(Found::Batch(_)) => Ok(Flaw::Absent),
                Ok(Found::Nothing(flaw)) => Ok(flaw),
                Err(error) => Err(error),
            };
            return self.turn_or_judge(position, flaw).await;
        }
    }

    /// At a position without the expected batch: goes on in the next file, or finds out why it is missing.
    async fn turn_or_judge(
        &mut self,
        position: &mut Position<'_>,
        flaw: Result<Flaw, String>,
    ) -> Result<bool, StartError> {
        // What the next file should begin with and does not: a file in use is never left empty.
        let mut headless = None;
        if let Some(log) = position.logs.get(position.at + 1) {
            match self.batch(&mut Reader::new(log), FIRST_BATCH).await? {
                Ok(Found::Batch(front)) => {
                    if position.expected.is_some() && position.continues(&front.header) {
                        position.at += 1;
                        position.offset = FIRST_BATCH;
                        self.accept(position, front);
                        return Ok(true);
                    }
                }
                Ok(Found::Nothing(flaw)) => headless = Some((log.number(), flaw.to_string())),
                Err(error) => headless = Some((log.number(), error)),
            }
        }
        if planted!("PB-D1") {
            return Ok(false);
        }
        let what = match &flaw {
            Ok(flaw) => flaw.to_string(),
            Err(error) => error.clone(),
        };
        if position.until.is_none() && self.clean > 0 && position.expected == Some(self.clean + 1) {
            // The mount ended here on purpose, so there is nothing to look for.
            return Ok(false);
        }
        if let Some((at, offset, front)) = self.later(position).await? {
            let lost = front.header.chain.seq - position.expected.unwrap_or_default();
            match headless.filter(|_| flaw == Ok(Flaw::Absent)) {
                Some((file, what)) if at > position.at => {
                    self.flush(position);
                    let expected = position.expected.unwrap_or_default();
                    self.note(file, FIRST_BATCH, expected + lost - 1, &what);
                    if lost > 1 {
                        self.damage(position, &format!("{} batches are missing", lost - 1));
                    }
                }
                _ => self.damage(position, &what),
            }
            // What is missing counts, so that the next start finds it missing again.
            self.out.last_seq = front.header.chain.seq - 1;
            (self.out.cut_file, self.out.cut_offset) = (position.logs[at].number(), offset);
            (position.at, position.offset, position.prev_crc) = (at, offset, None);
            self.accept(position, front);
            return Ok(true);
        }
        let expected = position.expected.unwrap_or_default();
        let acked = position.durable >= expected.max(1) || self.clean >= expected.max(1);
        if position.until.is_some() || acked || flaw.is_err() {
            self.damage(position, &what);
            self.out.last_seq = expected.max(self.clean).max(position.durable);
            self.out.cut_file = position.log().number();
            self.out.cut_offset = position.offset + BLOCK as u64;
            self.out.max_seq = self.out.max_seq.max(self.out.last_seq) + (1 << 20);
        } else if flaw != Ok(Flaw::Absent) {
            probe!("engine: torn tail cut");
        }
        Ok(false)
    }

    /// The first batch of this mount behind `position`.
    async fn later(
        &self,
        position: &Position<'_>,
    ) -> Result<Option<(usize, u64, Front)>, StartError> {
        for at in position.at..position.logs.len() {
            let log = &position.logs[at];
            let here = if at == position.at { position.offset + BLOCK as u64 } else { FIRST_BATCH };
            let mut reader = Reader::new(log);
            let wanted = |header: &Header| {
                let nonce = header.chain.nonce;
                let stranger = position.nonce.is_some_and(|own| nonce != own);
                let in_vain = self.torn.contains(&nonce);
                position.is_later(header) || (stranger && !in_vain && at > position.at)
            };
            let found = reader.search(here, wanted).await;
            let name = in_use_name(log.number());
            let found = found.map_err(io_error(self.folder, &name, "search it"))?;
            if let Some((offset, front)) = found {
                if !position.is_later(&front.header) && position.until.is_none() {
                    let what = "the record that begins the last mount cannot be read";
                    return Err(self.refuse(log.number(), FIRST_BATCH, what));
                }
                if position.is_later(&front.header) {
                    return Ok(Some((at, offset, front)));
                }
            }
        }
        Ok(None)
    }

    fn accept(&mut self, position: &mut Position<'_>, front: Front) {
        self.flush(position);
        let header = front.header.clone();
        position.durable = position.durable.max(header.chain.durable_upto);
        position.nonce = Some(header.chain.nonce);
        position.expected = Some(header.chain.seq + 1);
        position.prev_crc = Some(header.crc);
        self.out.max_seq = self.out.max_seq.max(header.chain.seq);
        let (file, offset) = (position.log().number(), position.offset);
        position.pending = Some(At { file, offset, front });
        position.offset += header.len;
    }

    /// Applies the pending batch: something behind it proves that it was written whole.
    fn flush(&mut self, position: &mut Position<'_>) {
        if let Some(at) = position.pending.take() {
            self.take_in(at);
        }
    }

    /// Applies the batch at `at`.
    fn take_in(&mut self, At { file, offset, front }: At) {
        let header = &front.header;
        self.out.nonce = header.chain.nonce;
        self.out.last_seq = header.chain.seq;
        self.out.last_crc = header.crc;
        (self.out.cut_file, self.out.cut_offset) = (file, offset + header.len);
        let mut in_start = false;
        for at in 0..header.slots.len() {
            match header.record(at, &front.bytes) {
                Ok((_, Record::Start(_))) => in_start = true,
                Ok((origin, Record::Frame(frame))) => {
                    if origin.is_none() || in_start {
                        self.out.facts.apply(&frame, file);
                    }
                    let number = u32::try_from(at).expect("bounded by the table");
                    let bytes = header.slots[at].front_len + header.slots[at].payload_len;
                    if let Frame::Entry(entry) | Frame::Repair { entry, .. } = frame {
                        let here = Spot { file, offset, slot: number };
                        self.out.index.insert(entry.ledger, entry.entry, here, bytes as u64);
                    }
                }
                Err(flaw) => {
                    let what = format!("{flaw} (frame {at} of batch {})", header.chain.seq);
                    self.note(file, offset, header.chain.seq, &what);
                }
            }
        }
    }

    fn damage(&mut self, position: &mut Position<'_>, what: &str) {
        self.flush(position);
        let (file, offset) = (position.log().number(), position.offset);
        self.note(file, offset, position.expected.unwrap_or_default(), what);
    }

    fn note(&mut self, file: u64, offset: u64, seq: u64, what: &str) {
        probe!("engine: damage found");
        let name = in_use_name(file);
        self.out.damages.push(format!("{}/{name} at offset {offset}: {what}", self.folder));
        self.out.damaged.insert(file);
        self.out.facts.doubt_all();
        self.out.limbo_from = Some(self.out.limbo_from.map_or(seq, |from| from.min(seq)));
    }

    /// Takes in all batches of `logs` that can be read, and decides nothing: there may be more, older or torn ones
    /// among them, so whatever they state is in doubt. The newest of the `last` files is to be written again.
    pub(super) async fn salvage(&mut self, logs: &[Arc<LogFile>], last: bool) {
        let mut newest: Option<(u64, At, &Arc<LogFile>)> = None;
        for log in logs {
            let (file, mut reader) = (log.number(), Reader::new(log));
            let mut offset = FIRST_BATCH;
            while offset < log.header.size {
                match reader.batch(offset).await {
                    Ok(Found::Batch(front)) => {
                        let len = front.header.len;
                        let seq = front.header.chain.seq;
                        self.out.max_seq = self.out.max_seq.max(seq);
                        if newest.as_ref().is_none_or(|(known, ..)| seq > *known) {
                            newest = Some((seq, At { file, offset, front: front.clone() }, log));
                        }
                        self.take_in(At { file, offset, front });
                        offset += len;
                        continue;
                    }
                    Ok(Found::Nothing(Flaw::Absent)) => {
                        let anything = |_: &Header| true;
                        if let Ok(found) = reader.search(offset + BLOCK as u64, anything).await {
                            let Some((next, _)) = found else { break };
                            offset = next;
                            continue;
                        }
                    }
                    Ok(Found::Nothing(flaw)) => self.note(file, offset, 0, &flaw.to_string()),
                    Err(error) => self.note(file, offset, 0, &format!("unreadable: {error}")),
                }
                offset += BLOCK as u64;
            }
        }
        if let Some((_, at, log)) = newest.filter(|_| last) {
            // Its bytes may be in the operating system's memory only.
            self.out.again = whole(log, &at).await.ok().flatten().unwrap_or_default();
        }
        self.out.facts.doubt_all();
    }

    /// Notes damage of a whole file.
    pub(super) fn note_file(&mut self, file: u64, what: &str) {
        self.note(file, 0, 0, what);
    }

    /// Decides on the newest batch of the mount.
    async fn end(
        &mut self,
        mut position: Position<'_>,
        start: Option<&Start>,
    ) -> Result<(), StartError> {
        let Some(pending) = &position.pending else {
            if let Some(start) = start
                && position.until.is_none()
                && position.expected.is_none()
            {
                self.before(start);
            }
            return Ok(());
        };
        let seq = pending.front.header.chain.seq;
        if position.until.is_some() || seq <= position.durable || seq <= self.clean {
            self.flush(&mut position);
            return Ok(());
        }
        let log = position.log().clone();
        let records = whole(&log, pending).await;
        let name = in_use_name(log.number());
        match records.map_err(io_error(self.folder, &name, "read it"))? {
            Some(records) => {
                self.out.again = records;
                probe!("engine: last batch written again");
            }
            None => probe!("engine: torn tail cut"),
        }
        if let Some(start) = start
            && pending.front.header.chain.nonce == start.nonce
            && pending.offset == FIRST_BATCH
            && position.at == 0
        {
            self.before(start);
        }
        Ok(())
    }

    /// Stands where `start` stood: nothing of its mount counts in place.
    fn before(&mut self, start: &Start) {
        self.out.nonce = start.prev_nonce;
        self.out.last_seq = start.last_valid_seq;
        (self.out.cut_file, self.out.cut_offset) = (start.cut_file, start.cut_offset);
    }
}

/// All frames of the batch at `at` with their payloads, if every one of them is sound.
async fn whole(log: &LogFile, at: &At) -> std::io::Result<Option<Vec<(Option<Origin>, Record)>>> {
    let header = &at.front.header;
    let len = usize::try_from(header.len).expect("a batch fits into memory");
    let bytes = log.file.read_at(at.offset, len).await?;
    let mut records = Vec::new();
    for slot_at in 0..header.slots.len() {
        let slot = header.slots[slot_at];
        let Ok((origin, mut record)) = header.record(slot_at, &bytes) else { return Ok(None) };
        let begin = usize::try_from(slot.payload_at).expect("a batch fits into memory");
        let end = begin + slot.payload_len;
        let Some(payload) = bytes.get(begin..end) else { return Ok(None) };
        let sound = payload_is_sound(&slot, payload);
        if !sound && !planted!("PB-D2") {
            return Ok(None);
        }
        let index = u32::try_from(slot_at).expect("bounded by the table");
        let origin = origin.unwrap_or(Origin { seq: header.chain.seq, index });
        match &mut record {
            Record::Start(_) => continue,
            Record::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) => {
                entry.payload = vec![bytes.slice(begin..end)];
            }
            Record::Frame(_) => {}
        }
        records.push((Some(origin), record));
    }
    Ok(Some(records))
}

/// True if the START batch at the head of `log` is whole, or anything of its mount in `logs` proves that it was.
pub(super) async fn start_counts(
    log: &LogFile,
    rest: &[Arc<LogFile>],
    start: &Start,
) -> std::io::Result<bool> {
    let Found::Batch(front) = Reader::new(log).batch(FIRST_BATCH).await? else { return Ok(false) };
    let seq = front.header.chain.seq;
    let next = FIRST_BATCH + front.header.len;
    let at = At { file: log.number(), offset: FIRST_BATCH, front };
    if whole(log, &at).await?.is_some() {
        return Ok(true);
    }
    let wanted = |header: &Header| header.chain.nonce == start.nonce && header.chain.seq > seq;
    if Reader::new(log).search(next, wanted).await?.is_some() {
        return Ok(true);
    }
    for log in rest {
        if Reader::new(log).search(FIRST_BATCH, wanted).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
