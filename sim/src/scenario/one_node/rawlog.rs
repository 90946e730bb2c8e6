//! What is known of one segment that clients use by the wire's own commands, and the rules that it must follow.

use crate::report::Outcome;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_types::name::SegmentName;

/// A writer of the segment and the number of its record.
pub(super) type RecordId = (u16, u32);

/// Magic, writer, number, length of the filler.
const HEADER: usize = 4 + 2 + 4 + 2;
const MAGIC: u32 = 0x5eed_0001;
/// A byte of the image that nobody has read.
const UNREAD: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    len: u16,
    acked: bool,
    refused: bool,
    /// Where it must stand if it is there.
    expected: Option<i64>,
    /// The first and the last record of the merge that it belongs to.
    merge: Option<(u32, u32)>,
}

/// What was known at some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    length: i64,
    sealed: Option<i64>,
}

/// A segment's history.
pub(super) struct RawLog {
    /// Its name.
    pub(super) name: SegmentName,
    writers: Vec<Vec<Sent>>,
    image: Vec<u16>,
    /// A length that somebody has been told.
    pub(super) length: i64,
    /// A start that truncation was acknowledged for.
    pub(super) start: i64,
    /// The furthest start that was ever asked for.
    pub(super) start_asked: i64,
    below: BTreeSet<RecordId>,
    /// Sealing was asked for.
    pub(super) may_be_sealed: bool,
    /// Its length as of an acknowledged seal.
    pub(super) sealed: Option<i64>,
    /// Removal was asked for.
    pub(super) may_be_gone: bool,
}

fn record((writer, number): RecordId, len: u16) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + usize::from(len));
    bytes.put_u32(MAGIC);
    bytes.put_u16(writer);
    bytes.put_u32(number);
    bytes.put_u16(len);
    let mut state = u64::from(number) << 20 ^ u64::from(writer);
    bytes.extend((0..len).map(|_| {
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9);
        state.to_le_bytes()[5]
    }));
    bytes.freeze()
}

/// The record that `bytes` begin with, and its length with the header.
fn claim(bytes: &[u8]) -> Option<(RecordId, usize)> {
    let header = bytes.first_chunk::<HEADER>()?;
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    (word(0) == MAGIC).then(|| ((half(4), word(6)), HEADER + usize::from(half(10))))
}

impl RawLog {
    /// A segment of which nothing is known.
    pub(super) fn new(name: SegmentName) -> Self {
        Self {
            name,
            writers: Vec::new(),
            image: Vec::new(),
            length: 0,
            start: 0,
            start_asked: 0,
            below: BTreeSet::new(),
            may_be_sealed: false,
            sealed: None,
            may_be_gone: false,
        }
    }

    /// A new writer.
    pub(super) fn add_writer(&mut self) -> u16 {
        self.writers.push(Vec::new());
        u16::try_from(self.writers.len() - 1).expect("few writers")
    }

    fn sent(&mut self, id: RecordId) -> Option<&mut Sent> {
        self.writers.get_mut(usize::from(id.0))?.get_mut(id.1 as usize)
    }

    /// How many records a writer has.
    pub(super) fn count(&self, writer: u16) -> i64 {
        i64::try_from(self.writers[usize::from(writer)].len()).expect("few records")
    }

    /// The writer's next record.
    pub(super) fn compose(&mut self, writer: u16, len: u16, expected: Option<i64>) -> Bytes {
        let records = &mut self.writers[usize::from(writer)];
        records.push(Sent { len, expected, ..Sent::default() });
        let number = u32::try_from(records.len() - 1).expect("few records");
        record((writer, number), len)
    }

    /// Marks the writer's records from `first` on as one merge.
    pub(super) fn merges(&mut self, writer: u16, first: u32) {
        let records = &mut self.writers[usize::from(writer)];
        let last = u32::try_from(records.len() - 1).expect("few records");
        for sent in &mut records[first as usize..] {
            sent.merge = Some((first, last));
        }
    }

    /// The bytes of a record that was composed before.
    pub(super) fn again(&self, writer: u16, number: i64) -> Bytes {
        let number = u32::try_from(number).expect("a number of ours");
        record((writer, number), self.writers[usize::from(writer)][number as usize].len)
    }

    /// Everything of the writer up to `upto` is durable.
    pub(super) fn acked(&mut self, writer: u16, upto: i64) {
        let count = usize::try_from(upto + 1).unwrap_or(0);
        let records = &mut self.writers[usize::from(writer)];
        for sent in records.iter_mut().take(count).rev().take_while(|sent| !sent.acked) {
            sent.acked = !sent.refused;
        }
    }

    /// The writer's last record is certainly not stored.
    pub(super) fn refused(&mut self, writer: u16) {
        if let Some(sent) = self.writers[usize::from(writer)].last_mut() {
            sent.refused = true;
        }
    }

    /// The number of the last record that the writer knows to be durable, -1 for none.
    pub(super) fn acked_upto(&self, writer: u16) -> i64 {
        let last = self.writers[usize::from(writer)].iter().rposition(|sent| sent.acked);
        last.map_or(-1, |last| i64::try_from(last).expect("few records"))
    }

    /// A handshake names the last stored number, -1 for none; `floor` was known before it began.
    pub(super) fn handshake(&mut self, writer: u16, floor: i64, last: i64, out: &mut Outcome) {
        if last < floor || last >= self.count(writer) {
            let what = format!("{} writer {writer}: told {last}", self.name);
            out.violate("I6", format!("{what}, {floor} was acknowledged"));
        }
    }

    /// What is known before a question is sent.
    pub(super) fn known(&self) -> Known {
        Known { length: self.length, sealed: self.sealed }
    }

    /// Somebody is told a length; `before` was known when the question was sent.
    pub(super) fn told_length(&mut self, before: Known, length: i64, out: &mut Outcome) {
        let name = &self.name;
        if length < before.length {
            let what = format!("{name}: the length goes back to {length} from {}", before.length);
            out.violate("I4", what);
        }
        if let Some(sealed) = before.sealed.filter(|sealed| *sealed != length) {
            out.violate("I8", format!("{name}: sealed at {sealed}, is now {length} long"));
        }
        self.length = self.length.max(length);
    }

    /// Somebody reads `data`; `start` was acknowledged as the segment's start before the question was sent.
    pub(super) fn saw(&mut self, start: i64, offset: i64, data: &[u8], out: &mut Outcome) {
        if offset < start && !data.is_empty() {
            out.violate("I10", format!("{}: {offset} is read, it begins at {start}", self.name));
        }
        let from = usize::try_from(offset).unwrap_or(0);
        let end = from + data.len();
        if self.image.len() < end {
            self.image.resize(end, UNREAD);
        }
        for (at, (known, byte)) in self.image[from..end].iter_mut().zip(data).enumerate() {
            if *known != UNREAD && *known != u16::from(*byte) {
                let place = from + at;
                out.violate("I4", format!("{}: offset {place} had another byte", self.name));
                return;
            }
            *known = u16::from(*byte);
        }
        self.length = self.length.max(i64::try_from(end).unwrap_or(i64::MAX));
    }

    /// The beginnings of records that are known without a gap from 0, each with the records in front of it.
    pub(super) fn boundaries(&self) -> Vec<(i64, Vec<RecordId>)> {
        let known: Vec<u8> = self.image.iter().map_while(|byte| u8::try_from(*byte).ok()).collect();
        let (mut at, mut before, mut found) = (0, Vec::new(), Vec::new());
        while let Some((id, len)) = claim(&known[at..])
            && at + len <= known.len()
        {
            at += len;
            before.push(id);
            found.push((i64::try_from(at).expect("short"), before.clone()));
        }
        found
    }

    /// The segment is about to be cut off in front of `start`, behind those records.
    pub(super) fn truncating(&mut self, start: i64, records: Vec<RecordId>) {
        self.start_asked = self.start_asked.max(start);
        self.below.extend(records);
    }

    /// A read is refused because the segment begins at `start`.
    pub(super) fn told_start(&self, start: i64, out: &mut Outcome) {
        if start > self.start_asked {
            let asked = self.start_asked;
            out.violate("I10", format!("{}: begins at {start}, {asked} was asked", self.name));
        }
    }

    /// Judges the segment's whole content from `start` on.
    pub(super) fn judge(&mut self, start: i64, content: &[u8], out: &mut Outcome) {
        let name = self.name.clone();
        let (mut at, mut found) = (0, BTreeMap::new());
        let mut last: BTreeMap<u16, u32> = BTreeMap::new();
        while at < content.len() {
            let place = start + i64::try_from(at).expect("short");
            let claimed = claim(&content[at..]);
            let Some((id, len)) = claimed else {
                return out.violate("I3", format!("{name} offset {place}: nobody wrote this"));
            };
            let Some(sent) = self.sent(id).copied() else {
                return out.violate("I3", format!("{name} offset {place}: {id:?} was never sent"));
            };
            if content.get(at..at + len) != Some(&record(id, sent.len)) {
                return out.violate("I3", format!("{name} offset {place}: {id:?} has other bytes"));
            }
            if sent.refused {
                out.violate("I3", format!("{name} offset {place}: {id:?} was refused"));
            }
            if sent.expected.is_some_and(|expected| expected != place) {
                let what = format!("{name}: {id:?} was to stand at {:?}", sent.expected);
                out.violate("I11", format!("{what} or nowhere, and stands at {place}"));
            }
            if found.insert(id, place).is_some() {
                out.violate("I2", format!("{name} offset {place}: {id:?} stands there once more"));
            } else if last.insert(id.0, id.1).is_some_and(|before| before > id.1) {
                out.violate("I5", format!("{name} offset {place}: {id:?} comes too late"));
            }
            at += len;
        }
        self.judge_missing(&found, out);
    }

    fn judge_missing(&self, found: &BTreeMap<RecordId, i64>, out: &mut Outcome) {
        for (writer, records) in (0..).zip(&self.writers) {
            for (number, sent) in (0..).zip(records) {
                let id = (writer, number);
                let is_there = found.contains_key(&id);
                if is_there || self.below.contains(&id) {
                    continue;
                }
                if sent.acked {
                    out.violate("I1", format!("{}: {id:?} was acknowledged", self.name));
                }
                if let Some((first, last)) = sent.merge
                    && (first..=last).any(|number| found.contains_key(&(writer, number)))
                {
                    out.violate("I9", format!("{}: a part of a merge, {id:?} is not", self.name));
                }
            }
        }
    }
}
