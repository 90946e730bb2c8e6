//! Frame headers: everything of a frame but an entry's payload.

use super::{Fields, Flaw};
use crate::frame::{EntryFrame, Frame, LedgerState};
use bytes::{BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId};

const ENTRY: u8 = 1;
const REPAIR: u8 = 2;
const FENCE: u8 = 3;
const STATE: u8 = 4;
const FLOOR: u8 = 5;
const TRIM: u8 = 6;
const LOSS: u8 = 7;
const START: u8 = 8;

/// More than any frame header without operation headers, its origin and slot included.
const FRONT_BOUND: usize = 128;

const EXEMPT: u8 = 1;
const HAS_LAC: u8 = 2;

const CERTAIN: u8 = 1;
const HAS_INCARNATION: u8 = 2;
const HAS_TAIL: u8 = 4;
const STATE_HAS_LAC: u8 = 8;
const HAS_FENCE: u8 = 16;

const MALFORMED: Flaw = Flaw::Broken("a frame header is malformed");

/// Where a relocated frame stood first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub seq: u64,
    pub index: u32,
}

/// The first frame of a mount: what was found, decided once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub mount_seq: u64,
    /// Random; names this mount in each of its batches.
    pub nonce: u64,
    /// The mount before; 0 for the first.
    pub prev_nonce: u64,
    /// The last batch of the log before this mount that counts in place.
    pub last_valid_seq: u64,
    /// File and offset behind it: what lies there is discarded.
    pub cut_file: u64,
    pub cut_offset: u64,
}

/// What a slot of a batch holds.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A frame of the storage's user. Read back, an entry's payload is empty.
    Frame(Frame),
    /// The engine's own.
    Start(Start),
}

impl Record {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Frame(Frame::Entry(_)) => ENTRY,
            Self::Frame(Frame::Repair { .. }) => REPAIR,
            Self::Frame(Frame::Fence { .. }) => FENCE,
            Self::Frame(Frame::State(_)) => STATE,
            Self::Frame(Frame::Floor { .. }) => FLOOR,
            Self::Frame(Frame::Trim { .. }) => TRIM,
            Self::Frame(Frame::Loss { .. }) => LOSS,
            Self::Start(_) => START,
        }
    }

    /// What it adds to a batch, in bytes, or a little more.
    pub(in crate::engine) fn len_bound(&self) -> usize {
        let payload: usize = self.payload().iter().map(Bytes::len).sum();
        let headers = match self {
            Self::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) => entry.headers.len(),
            _ => 0,
        };
        FRONT_BOUND + headers + payload
    }

    pub(super) fn payload(&self) -> &[Bytes] {
        match self {
            Self::Frame(Frame::Entry(entry) | Frame::Repair { entry, .. }) => &entry.payload,
            _ => &[],
        }
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Frame(Frame::Entry(entry)) => put_entry(entry, out),
            Self::Frame(Frame::Repair { by, entry }) => {
                out.put_u64_le(by.0);
                put_entry(entry, out);
            }
            Self::Frame(Frame::Fence { ledger, by }) => {
                put_ledger(*ledger, out);
                out.put_u64_le(by.0);
            }
            Self::Frame(Frame::State(state)) => put_state(state, out),
            Self::Frame(Frame::Floor { container, epoch }) => {
                out.put_u32_le(container.0);
                out.put_u64_le(epoch.0);
            }
            Self::Frame(Frame::Trim { container, keep_from }) => {
                out.put_u32_le(container.0);
                put_address(*keep_from, out);
            }
            Self::Frame(Frame::Loss { ledger, from }) => {
                put_ledger(*ledger, out);
                out.put_u64_le(from.0);
            }
            Self::Start(start) => {
                out.put_u64_le(start.mount_seq);
                out.put_u64_le(start.nonce);
                out.put_u64_le(start.prev_nonce);
                out.put_u64_le(start.last_valid_seq);
                out.put_u64_le(start.cut_file);
                out.put_u64_le(start.cut_offset);
            }
        }
    }

    /// The record of `kind` whose header is `front`.
    pub(super) fn take(kind: u8, front: &Bytes) -> Result<Self, Flaw> {
        let mut fields = Fields(front);
        let record = take(kind, front, &mut fields).ok_or(MALFORMED)?;
        let rest_is_headers = matches!(kind, ENTRY | REPAIR);
        if rest_is_headers || fields.0.is_empty() { Ok(record) } else { Err(MALFORMED) }
    }
}

fn take(kind: u8, front: &Bytes, fields: &mut Fields<'_>) -> Option<Record> {
    let frame = match kind {
        ENTRY => Frame::Entry(take_entry(front, fields)?),
        REPAIR => {
            let by = Epoch(fields.u64()?);
            Frame::Repair { by, entry: take_entry(front, fields)? }
        }
        FENCE => Frame::Fence { ledger: take_ledger(fields)?, by: Epoch(fields.u64()?) },
        STATE => Frame::State(take_state(fields)?),
        FLOOR => {
            Frame::Floor { container: ContainerId(fields.u32()?), epoch: Epoch(fields.u64()?) }
        }
        TRIM => {
            Frame::Trim { container: ContainerId(fields.u32()?), keep_from: take_address(fields)? }
        }
        LOSS => Frame::Loss { ledger: take_ledger(fields)?, from: EntryId(fields.u64()?) },
        START => return take_start(fields).map(Record::Start),
        _ => return None,
    };
    Some(Record::Frame(frame))
}

fn put_ledger(ledger: LedgerId, out: &mut BytesMut) {
    out.put_u32_le(ledger.container.0);
    out.put_u64_le(ledger.epoch.0);
}

fn take_ledger(fields: &mut Fields<'_>) -> Option<LedgerId> {
    Some(LedgerId { container: ContainerId(fields.u32()?), epoch: Epoch(fields.u64()?) })
}

fn put_address(address: Address, out: &mut BytesMut) {
    out.put_u64_le(address.epoch.0);
    out.put_u64_le(address.entry.0);
}

fn take_address(fields: &mut Fields<'_>) -> Option<Address> {
    Some(Address::new(Epoch(fields.u64()?), EntryId(fields.u64()?)))
}

fn put_entry(entry: &EntryFrame, out: &mut BytesMut) {
    put_ledger(entry.ledger, out);
    out.put_u64_le(entry.base.0);
    out.put_u64_le(entry.entry.0);
    out.put_u64_le(entry.lac.map_or(0, |lac| lac.0));
    put_address(entry.keep_from, out);
    let exempt = if entry.exempt { EXEMPT } else { 0 };
    out.put_u8(exempt | if entry.lac.is_some() { HAS_LAC } else { 0 });
    out.put_slice(&entry.headers);
}

fn take_entry(front: &Bytes, fields: &mut Fields<'_>) -> Option<EntryFrame> {
    let ledger = take_ledger(fields)?;
    let (base, entry) = (EntryId(fields.u64()?), EntryId(fields.u64()?));
    let lac = EntryId(fields.u64()?);
    let keep_from = take_address(fields)?;
    let flags = fields.u8()?;
    if flags & !(EXEMPT | HAS_LAC) != 0 {
        return None;
    }
    let lac = (flags & HAS_LAC != 0).then_some(lac);
    let headers = front.slice(front.len() - fields.0.len()..);
    let exempt = flags & EXEMPT != 0;
    Some(EntryFrame { ledger, base, entry, lac, keep_from, headers, payload: Vec::new(), exempt })
}

fn put_state(state: &LedgerState, out: &mut BytesMut) {
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    put_ledger(state.ledger, out);
    out.put_u8(
        flag(state.certain, CERTAIN)
            | flag(state.incarnation.is_some(), HAS_INCARNATION)
            | flag(state.tail.is_some(), HAS_TAIL)
            | flag(state.lac.is_some(), STATE_HAS_LAC)
            | flag(state.fenced_by.is_some(), HAS_FENCE),
    );
    out.put_u64_le(state.incarnation.unwrap_or_default().0);
    out.put_u64_le(state.base.0);
    out.put_u64_le(state.tail.unwrap_or_default().0);
    out.put_u64_le(state.lac.unwrap_or_default().0);
    put_address(state.keep_from, out);
    out.put_u64_le(state.fenced_by.unwrap_or_default().0);
}

fn take_state(fields: &mut Fields<'_>) -> Option<LedgerState> {
    let ledger = take_ledger(fields)?;
    let flags = fields.u8()?;
    if flags & !(CERTAIN | HAS_INCARNATION | HAS_TAIL | STATE_HAS_LAC | HAS_FENCE) != 0 {
        return None;
    }
    let has = |flag: u8| flags & flag != 0;
    let incarnation = Incarnation(fields.u64()?);
    let base = EntryId(fields.u64()?);
    let (tail, lac) = (EntryId(fields.u64()?), EntryId(fields.u64()?));
    let keep_from = take_address(fields)?;
    let fenced_by = Epoch(fields.u64()?);
    Some(LedgerState {
        ledger,
        incarnation: has(HAS_INCARNATION).then_some(incarnation),
        base,
        tail: has(HAS_TAIL).then_some(tail),
        lac: has(STATE_HAS_LAC).then_some(lac),
        keep_from,
        fenced_by: has(HAS_FENCE).then_some(fenced_by),
        certain: has(CERTAIN),
    })
}

fn take_start(fields: &mut Fields<'_>) -> Option<Start> {
    Some(Start {
        mount_seq: fields.u64()?,
        nonce: fields.u64()?,
        prev_nonce: fields.u64()?,
        last_valid_seq: fields.u64()?,
        cut_file: fields.u64()?,
        cut_offset: fields.u64()?,
    })
}
