//! What clients sent, what they were told, what anybody ever read: and the rules that this must follow.
//!
//! Everything is judged as it is observed; only what is missing waits for the final read.

use crate::report::Outcome;
use crate::world::trace::trace;
use bytes::{BufMut as _, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;

/// A writer of a stream and the number that it gave an event.
pub(super) type EventId = (u16, u32);

/// Header of an event: stream, writer, key, number, length.
const HEADER: usize = 2 + 2 + 2 + 4 + 4;

/// What a writer knows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing, or that nobody knows.
    Nothing,
    /// It is durable.
    Acked,
    /// It is certainly not stored.
    Refused,
    /// Nobody will ever know.
    InDoubt,
}

#[derive(Clone, Debug)]
struct Event {
    key: u16,
    len: u32,
    told: Told,
    place: Option<(SegmentId, i64)>,
    /// Truncation was asked for beyond it: it may be gone.
    may_be_gone: bool,
    /// Truncation beyond it was acknowledged: it must be gone.
    is_gone: bool,
}

/// What one stream has been through.
pub(super) struct StreamHistory {
    /// Its name.
    pub(super) name: ScopedStream,
    number: u16,
    writers: Vec<Vec<Event>>,
    places: BTreeMap<(SegmentId, i64), EventId>,
    /// Sealing was asked for.
    pub(super) may_be_sealed: bool,
}

/// Deliveries of one reader group, or of one reading from the head to the end.
pub(super) struct Deliveries {
    who: String,
    seen: BTreeSet<EventId>,
    last: BTreeMap<(u16, u16), (u32, SegmentId)>,
    /// Events that must not come: they were gone before the reading began.
    gone: BTreeSet<EventId>,
}

fn filler(id: EventId, len: u32) -> impl Iterator<Item = u8> {
    let mut state = (u64::from(id.0) << 32 | u64::from(id.1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len).map(move |_| {
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        state.to_le_bytes()[6]
    })
}

fn encode(stream: u16, id: EventId, key: u16, len: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + len as usize);
    bytes.put_u16(stream);
    bytes.put_u16(id.0);
    bytes.put_u16(key);
    bytes.put_u32(id.1);
    bytes.put_u32(len);
    bytes.extend(filler(id, len));
    bytes.freeze()
}

/// The stream and the event that `data` claims to be.
fn claim(data: &[u8]) -> Option<(u16, EventId)> {
    let header = data.first_chunk::<HEADER>()?;
    let number = u32::from_be_bytes([header[6], header[7], header[8], header[9]]);
    let writer = u16::from_be_bytes([header[2], header[3]]);
    Some((u16::from_be_bytes([header[0], header[1]]), (writer, number)))
}

impl StreamHistory {
    /// A stream of which nothing is known.
    pub(super) fn new(number: u16, name: ScopedStream) -> Self {
        let (writers, places) = (Vec::new(), BTreeMap::new());
        Self { name, number, writers, places, may_be_sealed: false }
    }

    /// A new writer.
    pub(super) fn add_writer(&mut self) -> u16 {
        self.writers.push(Vec::new());
        u16::try_from(self.writers.len() - 1).expect("few writers")
    }

    /// A writer is about to send an event with `len` bytes behind its header.
    pub(super) fn sends(&mut self, writer: u16, key: u16, len: u32) -> (EventId, Bytes) {
        let events = &mut self.writers[usize::from(writer)];
        let id = (writer, u32::try_from(events.len()).expect("few events"));
        events.push(Event {
            key,
            len,
            told: Told::Nothing,
            place: None,
            may_be_gone: false,
            is_gone: false,
        });
        (id, encode(self.number, id, key, len))
    }

    fn event(&mut self, id: EventId) -> Option<&mut Event> {
        self.writers.get_mut(usize::from(id.0))?.get_mut(id.1 as usize)
    }

    /// A writer was told how its event ended.
    pub(super) fn told(&mut self, id: EventId, told: Told) {
        trace!("stream {}: event {id:?} {told:?}", self.number);
        if let Some(event) = self.event(id) {
            event.told = told;
        }
    }

    /// Events that writers were told are durable.
    pub(super) fn acked(&self) -> u64 {
        let acked = self.writers.iter().flatten().filter(|event| event.told == Told::Acked);
        acked.count() as u64
    }

    /// Somebody reads `data` at a place. Returns whose it is, unless it is nobody's.
    fn observe(
        &mut self,
        (segment, offset): (SegmentId, i64),
        data: &Bytes,
        out: &mut Outcome,
    ) -> Option<EventId> {
        let name = self.name.clone();
        let at = format!("{name} segment {segment} offset {offset}");
        let Some((stream, id)) = claim(data) else {
            out.violate("I3", format!("{at}: {} bytes that nobody wrote", data.len()));
            return None;
        };
        let number = self.number;
        let Some(event) = self.event(id).filter(|_| stream == number) else {
            out.violate("I3", format!("{at}: event {id:?} of stream {stream} was never sent"));
            return None;
        };
        if *data != encode(stream, id, event.key, event.len) {
            out.violate("I3", format!("{at}: event {id:?} has other bytes than were sent"));
            return None;
        }
        if event.told == Told::Refused {
            out.violate("I3", format!("{at}: event {id:?} was refused and is there"));
        }
        match event.place {
            None => event.place = Some((segment, offset)),
            Some(place) if place == (segment, offset) => {}
            Some((other, there)) => {
                let what = format!("{at}: event {id:?} also stands in segment {other} at {there}");
                out.violate("I2", what);
            }
        }
        let first = *self.places.entry((segment, offset)).or_insert(id);
        if first != id {
            out.violate("I4", format!("{at}: was event {first:?}, is now event {id:?}"));
        }
        Some(id)
    }

    /// A reading begins.
    pub(super) fn deliveries(&self, who: impl Into<String>) -> Deliveries {
        let mut gone = BTreeSet::new();
        for (writer, events) in (0..).zip(&self.writers) {
            let numbers = (0..).zip(events).filter(|(_, event)| event.is_gone);
            gone.extend(numbers.map(|(number, _)| (writer, number)));
        }
        Deliveries { who: who.into(), seen: BTreeSet::new(), last: BTreeMap::new(), gone }
    }

    /// A reading has delivered an event.
    pub(super) fn delivered(
        &mut self,
        to: &mut Deliveries,
        place: (SegmentId, i64),
        data: &Bytes,
        out: &mut Outcome,
    ) {
        out.add("events read", 1);
        let Some(id) = self.observe(place, data, out) else { return };
        let Some(key) = self.event(id).map(|event| event.key) else { return };
        let who = format!("{} to {}", self.name, to.who);
        if !to.seen.insert(id) {
            out.violate("I13", format!("{who}: event {id:?} is delivered twice"));
            return;
        }
        if to.gone.contains(&id) {
            let what = format!("{who}: event {id:?} at {place:?} was truncated before");
            out.violate("I10", what);
        }
        let last = to.last.insert((id.0, key), (id.1, place.0));
        if let Some((before, segment)) = last.filter(|(before, _)| *before > id.1) {
            let rule = if segment == place.0 { "I5" } else { "I7" };
            let what = format!("{who}: event {id:?} of key {key} comes behind number {before}");
            out.violate(rule, what);
        }
    }

    /// The stream is about to be cut off behind what a reading has delivered.
    pub(super) fn truncating(&mut self, seen: &BTreeSet<EventId>) {
        for id in seen {
            if let Some(event) = self.event(*id) {
                event.may_be_gone = true;
            }
        }
    }

    /// The stream was cut off there.
    pub(super) fn truncated(&mut self, seen: &BTreeSet<EventId>) {
        for id in seen {
            if let Some(event) = self.event(*id) {
                event.is_gone = true;
            }
        }
    }

    /// Judges a reading of everything on a damaged disk that ended without any complaint.
    pub(super) fn judge_damaged(&self, found: &Deliveries, out: &mut Outcome) {
        for (writer, events) in (0..).zip(&self.writers) {
            for (number, event) in (0_u32..).zip(events) {
                let id = (writer, number);
                if event.told == Told::Acked && !event.may_be_gone && !found.seen.contains(&id) {
                    let name = &self.name;
                    let what =
                        format!("{name}: event {id:?} is silently missing on a damaged disk");
                    out.violate("I1", what);
                }
            }
        }
    }

    /// Judges what a reading of everything, with all faults healed, has not found.
    pub(super) fn judge(&self, found: &Deliveries, out: &mut Outcome) {
        for (writer, events) in (0..).zip(&self.writers) {
            // Of each key, the last acknowledged number: what was sent before it must be there too.
            let mut acked: BTreeMap<u16, u32> = BTreeMap::new();
            for (number, event) in (0..).zip(events) {
                if event.told == Told::Acked {
                    acked.insert(event.key, number);
                }
            }
            for (number, event) in (0_u32..).zip(events) {
                let id = (writer, number);
                if event.may_be_gone || found.seen.contains(&id) || event.told == Told::Refused {
                    continue;
                }
                let name = &self.name;
                let Event { told, key, place, .. } = event;
                if *told == Told::Acked {
                    let what = format!("{name}: event {id:?} of key {key} was acknowledged");
                    out.violate("I1", format!("{what} and is not there (once seen: {place:?})"));
                } else if let Some(place) = place {
                    out.violate("I4", format!("{name}: event {id:?} was read at {place:?}, once"));
                } else if *told == Told::Nothing
                    && acked.get(key).is_some_and(|last| *last > number)
                {
                    let what = format!("{name}: event {id:?} of key {key} is missing");
                    out.violate("I5", format!("{what}, a later one was acknowledged"));
                }
            }
        }
    }
}

impl Deliveries {
    /// What has been delivered.
    pub(super) fn seen(&self) -> &BTreeSet<EventId> {
        &self.seen
    }

    /// What the other reading has delivered and this one has not.
    pub(super) fn lacks<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a EventId> {
        other.seen.difference(&self.seen)
    }
}
