//! A watermark as it stands in the mark segment of a stream: an event as Java clients read it, in the form of Pravega's
//! versioned serializer (version 0, one revision, numbers big-endian).
//!
//! Source: the mark segment that Pravega 0.13.0 wrote for a stream of two segments.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thalweg_types::id::SegmentId;
use thiserror::Error;

/// Bytes in front of every event: its type and its length.
const EVENT_HEADER: usize = 8;
/// Bytes in front of every object: format, version, number of revisions, revision, its length.
const OBJECT_HEADER: usize = 8;
/// Bytes of a segment with its key range.
const SEGMENT_BYTES: usize = 24;
/// The largest counts that take one and two bytes.
const SHORT_COUNT: usize = 0x3f;
const LONG_COUNT: usize = 0x3fff;

/// One segment of a watermark's cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CutPoint {
    /// Which segment.
    pub segment: SegmentId,
    /// Its key range.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Bytes of it that lie before the cut.
    pub offset: i64,
}

/// Everything before the cut is of a time not later than `upper`, and nothing behind it, of a writer that counts, is
/// of a time before `lower`. Times are in the writers' own unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// The least time that a writer has noted.
    pub lower: i64,
    /// The greatest.
    pub upper: i64,
    /// In order of segments.
    pub cut: Vec<CutPoint>,
}

/// Bytes that are no watermark.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("not a watermark: {what}")]
pub struct NotAWatermark {
    what: &'static str,
}

fn flaw(what: &'static str) -> NotAWatermark {
    NotAWatermark { what }
}

fn put_object(bytes: &mut BytesMut, len: usize) {
    bytes.put_slice(&[0, 0, 1, 0]);
    bytes.put_u32(u32::try_from(len).expect("a cut has a bounded number of segments"));
}

fn count_bytes(count: usize) -> usize {
    if count <= SHORT_COUNT {
        1
    } else if count <= LONG_COUNT {
        2
    } else {
        4
    }
}

/// The two highest bits say how many bytes it takes.
fn put_count(bytes: &mut BytesMut, count: usize) {
    let value = u32::try_from(count).expect("a cut has a bounded number of segments");
    let len = count_bytes(count);
    let mark = match len {
        1 => 0,
        2 => 0x4000,
        _ => 0x8000_0000,
    };
    bytes.put_slice(&(value | mark).to_be_bytes()[4 - len..]);
}

fn take_object(bytes: &mut Bytes) -> Result<Bytes, NotAWatermark> {
    if bytes.len() < OBJECT_HEADER || bytes[..4] != [0, 0, 1, 0] {
        return Err(flaw("another version, or none"));
    }
    bytes.advance(4);
    let len = bytes.get_u32() as usize;
    if bytes.len() < len {
        return Err(flaw("it ends too early"));
    }
    Ok(bytes.split_to(len))
}

fn take_count(bytes: &mut Bytes) -> Result<usize, NotAWatermark> {
    let first = *bytes.first().ok_or(flaw("it ends too early"))?;
    let len = match first >> 6 {
        0 => 1,
        1 => 2,
        _ => 4,
    };
    if bytes.len() < len {
        return Err(flaw("it ends too early"));
    }
    Ok(match len {
        1 => usize::from(bytes.get_u8()),
        2 => usize::from(bytes.get_u16() & 0x3fff),
        _ => (bytes.get_u32() & 0x3fff_ffff) as usize,
    })
}

impl Watermark {
    /// The event, with its header.
    pub fn encode(&self) -> Bytes {
        let points = self.cut.len() * (OBJECT_HEADER + SEGMENT_BYTES + 8);
        let body = 16 + count_bytes(self.cut.len()) + points;
        let mut bytes = BytesMut::with_capacity(EVENT_HEADER + OBJECT_HEADER + body);
        bytes.put_u32(0);
        let len = u32::try_from(OBJECT_HEADER + body);
        bytes.put_u32(len.expect("a cut has a bounded number of segments"));
        put_object(&mut bytes, body);
        bytes.put_i64(self.lower);
        bytes.put_i64(self.upper);
        put_count(&mut bytes, self.cut.len());
        for point in &self.cut {
            put_object(&mut bytes, SEGMENT_BYTES);
            bytes.put_i64(point.segment.0);
            bytes.put_f64(point.low);
            bytes.put_f64(point.high);
            bytes.put_i64(point.offset);
        }
        bytes.freeze()
    }

    /// The first watermark of `bytes`, which begin with an event's header, and how many bytes it takes. `None` if they
    /// end within it.
    pub fn decode(bytes: &Bytes) -> Result<Option<(Self, usize)>, NotAWatermark> {
        let mut rest = bytes.clone();
        if rest.len() < EVENT_HEADER {
            return Ok(None);
        }
        if rest.get_u32() != 0 {
            return Err(flaw("no event"));
        }
        let len = rest.get_u32() as usize;
        if rest.len() < len {
            return Ok(None);
        }
        let mut event = rest.split_to(len);
        let mut body = take_object(&mut event)?;
        if body.len() < 16 {
            return Err(flaw("it ends too early"));
        }
        let (lower, upper) = (body.get_i64(), body.get_i64());
        let mut cut = Vec::new();
        for _ in 0..take_count(&mut body)? {
            cut.push(take_point(&mut body)?);
        }
        Ok(Some((Self { lower, upper, cut }, EVENT_HEADER + len)))
    }
}

fn take_point(body: &mut Bytes) -> Result<CutPoint, NotAWatermark> {
    let mut segment = take_object(body)?;
    if segment.len() < SEGMENT_BYTES || body.len() < 8 {
        return Err(flaw("it ends too early"));
    }
    let id = SegmentId(segment.get_i64());
    let (low, high) = (segment.get_f64(), segment.get_f64());
    Ok(CutPoint { segment: id, low, high, offset: body.get_i64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Bytes {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte =
            |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect::<Vec<_>>().into()
    }

    #[test]
    fn it_is_what_pravega_writes() {
        let theirs = hex("00000000 00000069 0000010000000061 000000000000283c 0000000000003b92 02
             0000010000000018 0000000000000000 0000000000000000 3fe0000000000000 00000000000014dc
             0000010000000018 0000000000000001 3fe0000000000000 3ff0000000000000 0000000000001f4a");
        let point = |segment, low, high, offset| CutPoint {
            segment: SegmentId(segment),
            low,
            high,
            offset,
        };
        let cut = vec![point(0, 0.0, 0.5, 0x14dc), point(1, 0.5, 1.0, 0x1f4a)];
        let ours = Watermark { lower: 10_300, upper: 15_250, cut };
        assert_eq!(ours.encode(), theirs);
        assert_eq!(Watermark::decode(&theirs), Ok(Some((ours, theirs.len()))));
        assert_eq!(Watermark::decode(&theirs.slice(..theirs.len() - 1)), Ok(None));
    }

    #[test]
    fn a_count_takes_as_few_bytes_as_it_may() {
        for (count, form) in [(0x3f, "3f"), (0x40, "4040"), (0x3fff, "7fff"), (0x4000, "80004000")]
        {
            let mut bytes = BytesMut::new();
            put_count(&mut bytes, count);
            assert_eq!(bytes, hex(form));
            assert_eq!(take_count(&mut bytes.freeze()), Ok(count));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            times in any::<(i64, i64)>(),
            cut in proptest::collection::vec((any::<i64>(), 0.0..1.0, 0.0..1.0, any::<i64>()), 0..200),
        ) {
            let point = |(segment, low, high, offset)| {
                CutPoint { segment: SegmentId(segment), low, high, offset }
            };
            let cut = cut.into_iter().map(point).collect();
            let written = Watermark { lower: times.0, upper: times.1, cut };
            let bytes = written.encode();
            prop_assert_eq!(Watermark::decode(&bytes), Ok(Some((written, bytes.len()))));
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Watermark::decode(&bytes.into());
        }
    }
}
