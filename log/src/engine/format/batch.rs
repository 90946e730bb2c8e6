//! Batches: header, table of frames, and how they are put together and taken apart.

use super::frame::{Origin, Record};
use super::{BLOCK, Fields, Flaw};
use bytes::{BufMut as _, Bytes, BytesMut};
use crc32c::{crc32c, crc32c_append};
use thalweg_actor::planted;
use thalweg_types::id::StorageUuid;

const MAGIC: u64 = u64::from_le_bytes(*b"THALWEGB");
const FIXED: usize = 80;
const SLOT: usize = 20;
const CRC_FROM: usize = 12;
const RELOCATED: u8 = 0x80;
const ORIGIN: usize = 12;
const FRAMES_MAX: u32 = 1 << 20;
/// What is read of a batch at first: enough for the headers of most.
pub(crate) const BATCH_PROBE: usize = 4 * BLOCK;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Where a batch lies, down to the use of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub storage: StorageUuid,
    pub incarnation: u64,
    pub file: u64,
    pub offset: u64,
}

/// What binds a batch to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub nonce: u64,
    pub seq: u64,
    pub prev_crc: u32,
    /// Every batch up to this one is known to be durable.
    pub durable_upto: u64,
}

/// A batch that is ready to be written.
pub(crate) struct Encoded {
    /// What to write, one behind the other.
    pub chunks: Vec<Bytes>,
    /// The sum of their lengths: a multiple of [`BLOCK`].
    pub len: u64,
    /// The batch's own checksum, for the next one's chain.
    pub crc: u32,
}

/// More than a batch needs besides its frames, padding included.
pub(crate) const BATCH_OVERHEAD: u64 = (FIXED + BLOCK) as u64;

fn seed(place: &Place, nonce: u64, seq: u64) -> u32 {
    if planted!("PB-D3") || planted!("PB-D7") {
        return 0;
    }
    let mut bytes = [0_u8; 56];
    bytes[..16].copy_from_slice(&place.storage.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&place.incarnation.to_le_bytes());
    bytes[24..32].copy_from_slice(&place.file.to_le_bytes());
    bytes[32..40].copy_from_slice(&place.offset.to_le_bytes());
    bytes[40..48].copy_from_slice(&nonce.to_le_bytes());
    bytes[48..].copy_from_slice(&seq.to_le_bytes());
    crc32c(&bytes)
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("no part of a frame reaches 4 GiB")
}

/// Lays `records` out as one batch. Payloads are not copied.
pub(crate) fn encode(
    place: &Place,
    chain: &Chain,
    records: &[(Option<Origin>, Record)],
) -> Encoded {
    let table = FIXED + SLOT * records.len();
    let mut front = BytesMut::with_capacity(table + 128 * records.len());
    front.resize(table, 0);
    let mut chunks = vec![Bytes::new()];
    let mut payloads = 0_u64;
    for (at, (origin, record)) in records.iter().enumerate() {
        let begin = front.len();
        if let Some(origin) = origin {
            front.put_u64_le(origin.seq);
            front.put_u32_le(origin.index);
        }
        record.put(&mut front);
        let (mut payload_len, mut payload_crc) = (0, 0);
        for chunk in record.payload().iter().filter(|chunk| !chunk.is_empty()) {
            payload_len += chunk.len();
            payload_crc = crc32c_append(payload_crc, chunk);
            chunks.push(chunk.clone());
        }
        payloads += payload_len as u64;
        let front_crc = crc32c(&front[begin..]);
        let front_len = small(front.len() - begin);
        let mut slot = &mut front[FIXED + SLOT * at..FIXED + SLOT * (at + 1)];
        slot.put_u32_le(u32::from(record.kind() | if origin.is_some() { RELOCATED } else { 0 }));
        slot.put_u32_le(front_len);
        slot.put_u32_le(small(payload_len));
        slot.put_u32_le(front_crc);
        slot.put_u32_le(payload_crc);
    }
    let fronts = small(front.len() - table);
    let crc =
        put_fixed(&mut front[..table], place, chain, (small(records.len()), fronts, payloads));
    let used = front.len() as u64 + payloads;
    let len = used.next_multiple_of(BLOCK as u64);
    chunks[0] = front.freeze();
    if len > used {
        let pad = usize::try_from(len - used).expect("less than a block");
        chunks.push(Bytes::from_static(&ZEROS[..pad]));
    }
    Encoded { chunks, len, crc }
}

fn put_fixed(head: &mut [u8], place: &Place, chain: &Chain, sizes: (u32, u32, u64)) -> u32 {
    let (frames, fronts, payloads) = sizes;
    let mut out = &mut head[..FIXED];
    out.put_u64_le(MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(frames);
    out.put_u64_le(place.incarnation);
    out.put_u64_le(place.file);
    out.put_u64_le(place.offset);
    out.put_u64_le(chain.nonce);
    out.put_u64_le(chain.seq);
    out.put_u32_le(chain.prev_crc);
    out.put_u32_le(fronts);
    out.put_u64_le(chain.durable_upto);
    out.put_u64_le(payloads);
    let crc = crc32c_append(seed(place, chain.nonce, chain.seq), &head[CRC_FROM..]);
    head[8..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A batch header whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub chain: Chain,
    pub crc: u32,
    /// Where each frame lies within the batch.
    pub slots: Vec<Slot>,
    /// Length of everything in front of the payloads.
    pub front_len: usize,
    /// Length of the whole batch with its padding.
    pub len: u64,
}

/// One frame's place in its batch, in bytes from the batch's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    kind: u8,
    pub front_at: usize,
    pub front_len: usize,
    pub payload_at: u64,
    pub payload_len: usize,
    front_crc: u32,
    payload_crc: u32,
}

struct Fixed {
    crc: u32,
    frames: u32,
    incarnation: u64,
    file: u64,
    offset: u64,
    chain: Chain,
    fronts: u32,
    payloads: u64,
}

fn fixed(bytes: &[u8]) -> Option<Fixed> {
    let mut fields = Fields(bytes);
    if fields.u64()? != MAGIC {
        return None;
    }
    let (crc, frames) = (fields.u32()?, fields.u32()?);
    let (incarnation, file, offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (nonce, seq, prev_crc) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let (fronts, durable_upto, payloads) = (fields.u32()?, fields.u64()?, fields.u64()?);
    let chain = Chain { nonce, seq, prev_crc, durable_upto };
    Some(Fixed { crc, frames, incarnation, file, offset, chain, fronts, payloads })
}

impl Header {
    /// How many bytes of a batch must be at hand before its header can be checked, if `begin` may be its begin.
    pub(crate) fn needs(begin: &[u8]) -> Option<usize> {
        let fixed = fixed(begin)?;
        (fixed.frames <= FRAMES_MAX).then(|| FIXED + SLOT * fixed.frames as usize)
    }

    /// Which use of a file the batch that `begin` may be the begin of claims to belong to.
    pub(crate) fn incarnation(begin: &[u8]) -> Option<u64> {
        fixed(begin).map(|fixed| fixed.incarnation)
    }

    /// True if `begin` claims to be the begin of a batch at `place`.
    pub(crate) fn may_begin(begin: &[u8], place: &Place) -> bool {
        fixed(begin).is_some_and(|fixed| {
            (fixed.incarnation, fixed.file, fixed.offset)
                == (place.incarnation, place.file, place.offset)
        })
    }

    /// The header of the batch at `place`, verified with its table of frames.
    pub(crate) fn decode(bytes: &[u8], place: &Place) -> Result<Self, Flaw> {
        let fixed = fixed(bytes).ok_or(Flaw::Absent)?;
        let needed = Self::needs(bytes).ok_or(Flaw::Broken("the batch header is malformed"))?;
        let head = bytes.get(..needed).ok_or(Flaw::Broken("the batch header is cut off"))?;
        let here = (place.incarnation, place.file, place.offset);
        if !(planted!("PB-D3") || planted!("PB-D7"))
            && (fixed.incarnation, fixed.file, fixed.offset) != here
        {
            return Err(Flaw::Absent);
        }
        let crc = crc32c_append(seed(place, fixed.chain.nonce, fixed.chain.seq), &head[CRC_FROM..]);
        if crc != fixed.crc {
            return Err(Flaw::Broken("the batch header's checksum is wrong"));
        }
        let (slots, front_len, end) = slots(&head[FIXED..], needed);
        if front_len - needed != fixed.fronts as usize || end - front_len as u64 != fixed.payloads {
            return Err(Flaw::Broken("the batch header's lengths do not add up"));
        }
        let len = end.next_multiple_of(BLOCK as u64);
        Ok(Self { chain: fixed.chain, crc, slots, front_len, len })
    }

    /// The record in slot `at`. `front` begins where the batch does and holds at least [`Header::front_len`] bytes.
    pub(crate) fn record(
        &self,
        at: usize,
        front: &Bytes,
    ) -> Result<(Option<Origin>, Record), Flaw> {
        let slot = self.slots.get(at).ok_or(Flaw::Broken("the batch has no such frame"))?;
        let end = slot.front_at + slot.front_len;
        if front.len() < end {
            return Err(Flaw::Broken("a frame header is cut off"));
        }
        let mut header = front.slice(slot.front_at..end);
        if crc32c(&header) != slot.front_crc {
            return Err(Flaw::Broken("a frame header's checksum is wrong"));
        }
        let mut origin = None;
        if slot.kind & RELOCATED != 0 {
            if header.len() < ORIGIN {
                return Err(Flaw::Broken("a frame header is malformed"));
            }
            let first = header.split_to(ORIGIN);
            let mut fields = Fields(&first);
            let parts = fields.u64().zip(fields.u32());
            origin = parts.map(|(seq, index)| Origin { seq, index });
        }
        Ok((origin, Record::take(slot.kind & !RELOCATED, &header)?))
    }
}

/// The table, the end of the frame headers, and the end of the payloads.
fn slots(table: &[u8], front: usize) -> (Vec<Slot>, usize, u64) {
    let mut found = Vec::with_capacity(table.len() / SLOT);
    let mut front_at = front;
    let mut payload_at = 0;
    let mut fields = Fields(table);
    while let (Some(kind), Some(front_len), Some(payload_len), Some(front_crc), Some(payload_crc)) =
        (fields.u32(), fields.u32(), fields.u32(), fields.u32(), fields.u32())
    {
        let (front_len, payload_len) = (front_len as usize, payload_len as usize);
        let kind = u8::try_from(kind).unwrap_or(0);
        let slot =
            Slot { kind, front_at, front_len, payload_at, payload_len, front_crc, payload_crc };
        found.push(slot);
        front_at += front_len;
        payload_at += payload_len as u64;
    }
    for slot in &mut found {
        slot.payload_at += front_at as u64;
    }
    (found, front_at, payload_at + front_at as u64)
}

/// True if `payload` is what was written to `slot`.
pub(crate) fn payload_is_sound(slot: &Slot, payload: &[u8]) -> bool {
    payload.len() == slot.payload_len && crc32c(payload) == slot.payload_crc
}
