//! Events as they stand in a segment, and how they are found in what reads bring.
//!
//! ```text
//! type:i32 = 0   length:i32   content[length]      big-endian
//! ```
//! A read may begin and end anywhere inside an event but the first one, which begins at an event's start.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

/// Bytes in front of every event's content.
pub const EVENT_HEADER_BYTES: usize = 8;

/// Appends `content` as one event. The content's length must fit an `i32`.
pub fn put_event(out: &mut BytesMut, content: &[u8]) {
    out.put_i32(0);
    out.put_i32(i32::try_from(content.len()).expect("events are bounded before they get here"));
    out.put_slice(content);
}

/// What stands where an event should.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no event starts here: type {kind}, length {length}")]
pub struct NotAnEvent {
    /// The type field.
    pub kind: i32,
    /// The length field.
    pub length: i32,
}

/// Finds events in consecutive pieces of a segment. Contents are slices of the pieces; only an event that lies across
/// two of them is copied.
#[derive(Debug, Default)]
pub struct EventBuffer {
    /// The beginning of an event whose rest is not here yet.
    carry: BytesMut,
    /// What has arrived and is not looked at.
    chunk: Bytes,
}

impl EventBuffer {
    /// Bytes that have arrived and are not part of a delivered event.
    pub fn len(&self) -> usize {
        self.carry.len() + self.chunk.len()
    }

    /// True if every byte that arrived was part of a delivered event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the next piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = piece;
        } else {
            self.carry.extend_from_slice(&self.chunk);
            self.chunk = piece;
        }
    }

    /// The content of the next whole event, `None` if it is not whole yet.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, NotAnEvent> {
        if self.carry.is_empty() {
            if let Some(length) = event_bytes(&self.chunk)?
                && self.chunk.len() >= length
            {
                let mut event = self.chunk.split_to(length);
                event.advance(EVENT_HEADER_BYTES);
                return Ok(Some(event));
            }
        } else {
            self.fill_carry(EVENT_HEADER_BYTES);
            if let Some(length) = event_bytes(&self.carry)? {
                self.fill_carry(length);
                if self.carry.len() >= length {
                    let mut event = self.carry.split_to(length).freeze();
                    event.advance(EVENT_HEADER_BYTES);
                    return Ok(Some(event));
                }
            }
        }
        // Because: an event that is waiting for its rest must not hold the whole received chunk in memory.
        let rest = std::mem::take(&mut self.chunk);
        self.carry.extend_from_slice(&rest);
        Ok(None)
    }

    /// Moves bytes from the chunk until `wanted` are carried, or all that there are.
    fn fill_carry(&mut self, wanted: usize) {
        let take = wanted.saturating_sub(self.carry.len()).min(self.chunk.len());
        self.carry.extend_from_slice(&self.chunk.split_to(take));
    }
}

/// Length of the event that `bytes` start with, header included; `None` if its header is not whole.
fn event_bytes(bytes: &[u8]) -> Result<Option<usize>, NotAnEvent> {
    let Some(header) = bytes.first_chunk::<EVENT_HEADER_BYTES>() else { return Ok(None) };
    let kind = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let length = i32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    match usize::try_from(length) {
        Ok(content) if kind == 0 => Ok(Some(EVENT_HEADER_BYTES + content)),
        _ => Err(NotAnEvent { kind, length }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_are_found_however_reads_cut_them(
            events in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in proptest::collection::vec(1_usize..30, 1..40),
        ) {
            let mut bytes = BytesMut::new();
            for event in &events {
                put_event(&mut bytes, event);
            }
            let mut bytes = bytes.freeze();
            let (mut found, mut buffer) = (Vec::new(), EventBuffer::default());
            for cut in cuts.iter().cycle() {
                if bytes.is_empty() {
                    break;
                }
                buffer.push(bytes.split_to((*cut).min(bytes.len())));
                if cut % 3 != 0 {
                    while let Some(event) = buffer.next_event().unwrap() {
                        found.push(event.to_vec());
                    }
                }
            }
            while let Some(event) = buffer.next_event().unwrap() {
                found.push(event.to_vec());
            }
            prop_assert_eq!(found, events);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn an_event_inside_one_read_is_not_copied() {
        let mut bytes = BytesMut::new();
        put_event(&mut bytes, b"hello");
        let bytes = bytes.freeze();
        let mut buffer = EventBuffer::default();
        buffer.push(bytes.clone());
        let event = buffer.next_event().unwrap().unwrap();
        assert_eq!(event.as_ptr(), bytes[EVENT_HEADER_BYTES..].as_ptr());
    }

    #[test]
    fn other_bytes_are_not_taken_for_an_event() {
        for (kind, length) in [(1, 5), (0, -1), (-2, 3)] {
            let mut bytes = BytesMut::new();
            bytes.put_i32(kind);
            bytes.put_i32(length);
            let mut buffer = EventBuffer::default();
            buffer.push(bytes.freeze());
            assert_eq!(buffer.next_event(), Err(NotAnEvent { kind, length }));
        }
    }
}
