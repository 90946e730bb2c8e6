//! The fields of each message: which, in which order, and how wide. Numbers are little-endian.

use super::frame::FrameError;
use super::message::{
    Accept, Attach, Connect, DetachReason, EntryFrame, EntryHeaders, Lane, Message, Refusal,
    RefuseReason, Reply, Request, RunFacts,
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{
    Address, ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, ReplicaId, StorageUuid,
};

pub(super) const CONNECT: u8 = 0x01;
const ACCEPT: u8 = 0x02;
pub(super) const REFUSE: u8 = 0x03;
const ATTACH: u8 = 0x04;
const ATTACHED: u8 = 0x05;
const DETACH: u8 = 0x06;
const DETACHED: u8 = 0x07;
const PING: u8 = 0x08;
const PONG: u8 = 0x09;

const OPEN: u8 = 0x20;
const APPEND: u8 = 0x21;
const FENCE: u8 = 0x22;
const REPAIR: u8 = 0x23;
const READ: u8 = 0x24;
const READ_HEADERS: u8 = 0x25;
const TRIM: u8 = 0x26;
const COMMITTED: u8 = 0x27;
const HELLO: u8 = 0x28;

const OPENED: u8 = 0x40;
const ACK: u8 = 0x41;
const FENCED: u8 = 0x42;
const FENCE_DONE: u8 = 0x43;
const REPAIRED: u8 = 0x44;
const OUT_OF_ORDER: u8 = 0x45;
const REFUSED: u8 = 0x46;
const HAVE: u8 = 0x47;
const HEADERS: u8 = 0x48;
const NEVER_HAD: u8 = 0x49;
const UNKNOWN: u8 = 0x4A;
const GREETING: u8 = 0x4B;

const EXEMPT: u8 = 1;
const HAS_LAC: u8 = 2;

const CERTAIN: u8 = 1;
const HAS_RUN: u8 = 2;
const HAS_FENCE: u8 = 4;

/// Bytes per entry in front of the headers in [`Reply::Headers`].
pub(super) const HEADERS_SLOT_BYTES: usize = 8;

/// True if such a message has content behind its fields.
pub(super) fn has_content(kind: u8) -> bool {
    matches!(kind, APPEND | REPAIR | HAVE | HEADERS)
}

pub(super) fn is_known(kind: u8) -> bool {
    matches!(kind, CONNECT..=PONG | OPEN..=HELLO | OPENED..=GREETING)
}

pub(super) fn kind(message: &Message) -> u8 {
    match message {
        Message::Connect(_) => CONNECT,
        Message::Accept(_) => ACCEPT,
        Message::Refuse { .. } => REFUSE,
        Message::Attach(_) => ATTACH,
        Message::Attached { .. } => ATTACHED,
        Message::Detach { .. } => DETACH,
        Message::Detached { .. } => DETACHED,
        Message::Ping { .. } => PING,
        Message::Pong { .. } => PONG,
        Message::Request { request, .. } => match request {
            Request::Open { .. } => OPEN,
            Request::Append(_) => APPEND,
            Request::Fence { .. } => FENCE,
            Request::Repair { .. } => REPAIR,
            Request::Read { .. } => READ,
            Request::Headers { .. } => READ_HEADERS,
            Request::Trim { .. } => TRIM,
            Request::Committed { .. } => COMMITTED,
            Request::Hello { .. } => HELLO,
        },
        Message::Reply { reply, .. } => match reply {
            Reply::Opened { .. } => OPENED,
            Reply::Ack { .. } => ACK,
            Reply::Fenced { .. } => FENCED,
            Reply::FenceDone { .. } => FENCE_DONE,
            Reply::Repaired { .. } => REPAIRED,
            Reply::OutOfOrder { .. } => OUT_OF_ORDER,
            Reply::Refused { .. } => REFUSED,
            Reply::Have(_) => HAVE,
            Reply::Headers { .. } => HEADERS,
            Reply::NeverHad { .. } => NEVER_HAD,
            Reply::Unknown { .. } => UNKNOWN,
            Reply::Greeting { .. } => GREETING,
        },
    }
}

/// The channel in the header; 0 where there is none.
pub(super) fn channel(message: &Message) -> u32 {
    match message {
        Message::Attach(Attach { channel, .. })
        | Message::Attached { channel, .. }
        | Message::Detach { channel }
        | Message::Detached { channel, .. }
        | Message::Request { channel, .. }
        | Message::Reply { channel, .. } => *channel,
        _ => 0,
    }
}

/// Checksums of a message's content: of an entry's headers and payload, or of everything in [`Reply::Headers`].
pub(super) type Sums = (u32, u32);

/// Writes the fields of `message`, but for its content.
pub(super) fn put(message: &Message, sums: Sums, out: &mut BytesMut) {
    match message {
        Message::Connect(connect) => {
            out.put_u16_le(connect.level_min);
            out.put_u16_le(connect.level_max);
            out.put_u128_le(connect.cluster);
            out.put_u64_le(connect.from.0);
            out.put_u64_le(connect.incarnation.0);
            out.put_u64_le(connect.to.0);
            out.put_u8(match connect.lane {
                Lane::Data => 0,
                Lane::Urgent => 1,
                Lane::Repair => 2,
            });
        }
        Message::Accept(accept) => {
            out.put_u16_le(accept.level);
            out.put_u128_le(accept.cluster);
            out.put_u64_le(accept.node.0);
            out.put_u64_le(accept.incarnation.0);
        }
        Message::Refuse { level_min, level_max, why } => {
            out.put_u16_le(*level_min);
            out.put_u16_le(*level_max);
            out.put_u8(match why {
                RefuseReason::Level => 0,
                RefuseReason::Cluster => 1,
                RefuseReason::Node => 2,
                RefuseReason::Busy => 3,
            });
        }
        Message::Attach(attach) => {
            out.put_u32_le(attach.container.0);
            out.put_u64_le(attach.replica.node.0);
            out.put_u128_le(attach.replica.storage.0);
        }
        Message::Attached { mount_seq, .. } => out.put_u64_le(*mount_seq),
        Message::Detach { .. } => {}
        Message::Detached { why, .. } => out.put_u8(match why {
            DetachReason::NotMounted => 0,
            DetachReason::Stopped => 1,
            DetachReason::TooMany => 2,
        }),
        Message::Ping { number } | Message::Pong { number } => out.put_u64_le(*number),
        Message::Request { request, .. } => put_request(request, sums, out),
        Message::Reply { reply, .. } => put_reply(reply, sums, out),
    }
}

fn put_request(request: &Request, sums: Sums, out: &mut BytesMut) {
    match request {
        Request::Open { ledger, base, incarnation, committed_end } => {
            put_ledger(*ledger, out);
            out.put_u64_le(base.0);
            out.put_u64_le(incarnation.0);
            out.put_u64_le(committed_end.0);
        }
        Request::Append(entry) => put_entry(entry, sums, out),
        Request::Fence { ledger, by } => {
            put_ledger(*ledger, out);
            out.put_u64_le(by.0);
        }
        Request::Repair { by, entry } => {
            out.put_u64_le(by.0);
            put_entry(entry, sums, out);
        }
        Request::Read { ledger, entry } => put_place(*ledger, *entry, out),
        Request::Headers { ledger, from, entries_max, bytes_max } => {
            put_place(*ledger, *from, out);
            out.put_u32_le(*entries_max);
            out.put_u32_le(*bytes_max);
        }
        Request::Trim { keep_from } => put_address(*keep_from, out),
        Request::Committed { ledger, end } => put_place(*ledger, *end, out),
        Request::Hello { ledger } => put_ledger(*ledger, out),
    }
}

fn put_reply(reply: &Reply, sums: Sums, out: &mut BytesMut) {
    match reply {
        Reply::Opened { ledger, base, end }
        | Reply::Ack { ledger, base, end }
        | Reply::OutOfOrder { ledger, base, end } => {
            put_place(*ledger, *base, out);
            out.put_u64_le(end.0);
        }
        Reply::Fenced { ledger, by } => {
            put_ledger(*ledger, out);
            out.put_u64_le(by.0);
        }
        Reply::FenceDone { ledger, by, run } => {
            put_ledger(*ledger, out);
            out.put_u64_le(by.0);
            put_run(run, out);
            out.put_u8(if run.certain { CERTAIN } else { 0 });
        }
        Reply::Repaired { ledger, entry } | Reply::Unknown { ledger, entry } => {
            put_place(*ledger, *entry, out);
        }
        Reply::Refused { ledger, why } => {
            put_ledger(*ledger, out);
            out.put_u8(match why {
                Refusal::UnknownLedger => 0,
                Refusal::Limbo => 1,
                Refusal::Full => 2,
            });
        }
        Reply::Have(entry) => put_entry(entry, sums, out),
        Reply::Headers { ledger, from, entries } => {
            put_place(*ledger, *from, out);
            // Bounded by the length of the content, which was checked.
            out.put_u32_le(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            out.put_u32_le(sums.0);
        }
        Reply::NeverHad { ledger, entry, end } => {
            put_place(*ledger, *entry, out);
            out.put_u64_le(end.0);
        }
        Reply::Greeting { ledger, run, fenced_by } => {
            put_ledger(*ledger, out);
            let none = EntryId(0);
            let absent = RunFacts { base: none, end: none, committed_end: none, certain: false };
            let present = run.unwrap_or(absent);
            put_run(&present, out);
            out.put_u64_le(fenced_by.unwrap_or_default().0);
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            let run = flag(run.is_some(), HAS_RUN) | flag(present.certain, CERTAIN);
            out.put_u8(run | flag(fenced_by.is_some(), HAS_FENCE));
        }
    }
}

fn put_ledger(ledger: LedgerId, out: &mut BytesMut) {
    out.put_u32_le(ledger.container.0);
    out.put_u64_le(ledger.epoch.0);
}

fn put_place(ledger: LedgerId, entry: EntryId, out: &mut BytesMut) {
    put_ledger(ledger, out);
    out.put_u64_le(entry.0);
}

fn put_address(address: Address, out: &mut BytesMut) {
    out.put_u64_le(address.epoch.0);
    out.put_u64_le(address.entry.0);
}

fn put_run(run: &RunFacts, out: &mut BytesMut) {
    out.put_u64_le(run.base.0);
    out.put_u64_le(run.end.0);
    out.put_u64_le(run.committed_end.0);
}

fn put_entry(entry: &EntryFrame, (headers, payload): Sums, out: &mut BytesMut) {
    put_place(entry.ledger, entry.base, out);
    out.put_u64_le(entry.entry.0);
    out.put_u64_le(entry.lac.unwrap_or_default().0);
    put_address(entry.keep_from, out);
    let lac = if entry.lac.is_some() { HAS_LAC } else { 0 };
    out.put_u8(lac | if entry.exempt { EXEMPT } else { 0 });
    // Bounded by the length of the content, which was checked.
    out.put_u32_le(u32::try_from(entry.headers.len()).unwrap_or(u32::MAX));
    out.put_u32_le(headers);
    out.put_u32_le(payload);
}

/// Fields as they are read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&mut self) -> Result<u8, FrameError> {
        self.0.try_get_u8().map_err(|_| FrameError::Malformed)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.0.try_get_u16_le().map_err(|_| FrameError::Malformed)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.0.try_get_u32_le().map_err(|_| FrameError::Malformed)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.0.try_get_u64_le().map_err(|_| FrameError::Malformed)
    }

    fn u128(&mut self) -> Result<u128, FrameError> {
        self.0.try_get_u128_le().map_err(|_| FrameError::Malformed)
    }

    /// A byte of flags, of which none but `known` may be set.
    fn flags(&mut self, known: u8) -> Result<u8, FrameError> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(FrameError::Malformed) }
    }

    fn entry(&mut self) -> Result<EntryId, FrameError> {
        self.u64().map(EntryId)
    }

    fn epoch(&mut self) -> Result<Epoch, FrameError> {
        self.u64().map(Epoch)
    }

    fn ledger(&mut self) -> Result<LedgerId, FrameError> {
        Ok(LedgerId { container: ContainerId(self.u32()?), epoch: self.epoch()? })
    }

    fn address(&mut self) -> Result<Address, FrameError> {
        Ok(Address::new(self.epoch()?, self.entry()?))
    }

    fn run(&mut self) -> Result<RunFacts, FrameError> {
        let (base, end, committed_end) = (self.entry()?, self.entry()?, self.entry()?);
        Ok(RunFacts { base, end, committed_end, certain: false })
    }

    /// The entry whose content is `content`; checks it.
    fn content_entry(&mut self, mut content: Bytes) -> Result<EntryFrame, FrameError> {
        let (ledger, base, entry) = (self.ledger()?, self.entry()?, self.entry()?);
        let lac = self.entry()?;
        let keep_from = self.address()?;
        let flags = self.flags(EXEMPT | HAS_LAC)?;
        let headers_len = self.u32()? as usize;
        let (headers_sum, payload_sum) = (self.u32()?, self.u32()?);
        if headers_len > content.len() {
            return Err(FrameError::Malformed);
        }
        let headers = content.split_to(headers_len);
        if crc32c::crc32c(&headers) != headers_sum || crc32c::crc32c(&content) != payload_sum {
            return Err(FrameError::ContentSum { ledger, entry });
        }
        let lac = (flags & HAS_LAC != 0).then_some(lac);
        let payload = if content.is_empty() { Vec::new() } else { vec![content] };
        let exempt = flags & EXEMPT != 0;
        Ok(EntryFrame { ledger, base, entry, lac, keep_from, headers, payload, exempt })
    }

    /// The message has no more fields.
    fn end<T>(&self, value: T) -> Result<T, FrameError> {
        if self.0.is_empty() { Ok(value) } else { Err(FrameError::Malformed) }
    }
}

/// The message of `kind` on `channel` with these fields and that content.
pub(super) fn read(
    kind: u8,
    channel: u32,
    fields: &[u8],
    content: Bytes,
) -> Result<Message, FrameError> {
    let mut from = Fields(fields);
    let message = match kind {
        // A later level may have added fields: the peer does not know yet that they are not understood.
        CONNECT => return read_connect(&mut from).map(Message::Connect),
        REFUSE => return read_refuse(&mut from),
        ACCEPT => Message::Accept(Accept {
            level: from.u16()?,
            cluster: from.u128()?,
            node: NodeId(from.u64()?),
            incarnation: Incarnation(from.u64()?),
        }),
        ATTACH => {
            let container = ContainerId(from.u32()?);
            let node = NodeId(from.u64()?);
            let replica = ReplicaId { node, storage: StorageUuid(from.u128()?) };
            Message::Attach(Attach { channel, container, replica })
        }
        ATTACHED => Message::Attached { channel, mount_seq: from.u64()? },
        DETACH => Message::Detach { channel },
        DETACHED => {
            let why = match from.u8()? {
                0 => DetachReason::NotMounted,
                1 => DetachReason::Stopped,
                2 => DetachReason::TooMany,
                _ => return Err(FrameError::Malformed),
            };
            Message::Detached { channel, why }
        }
        PING => Message::Ping { number: from.u64()? },
        PONG => Message::Pong { number: from.u64()? },
        OPEN..=HELLO => {
            Message::Request { channel, request: read_request(kind, &mut from, content)? }
        }
        _ => Message::Reply { channel, reply: read_reply(kind, &mut from, content)? },
    };
    from.end(message)
}

fn read_connect(from: &mut Fields<'_>) -> Result<Connect, FrameError> {
    Ok(Connect {
        level_min: from.u16()?,
        level_max: from.u16()?,
        cluster: from.u128()?,
        from: NodeId(from.u64()?),
        incarnation: Incarnation(from.u64()?),
        to: NodeId(from.u64()?),
        lane: match from.u8()? {
            0 => Lane::Data,
            1 => Lane::Urgent,
            2 => Lane::Repair,
            _ => return Err(FrameError::Malformed),
        },
    })
}

fn read_refuse(from: &mut Fields<'_>) -> Result<Message, FrameError> {
    let (level_min, level_max) = (from.u16()?, from.u16()?);
    let why = match from.u8()? {
        0 => RefuseReason::Level,
        1 => RefuseReason::Cluster,
        2 => RefuseReason::Node,
        3 => RefuseReason::Busy,
        _ => return Err(FrameError::Malformed),
    };
    Ok(Message::Refuse { level_min, level_max, why })
}

fn read_request(kind: u8, from: &mut Fields<'_>, content: Bytes) -> Result<Request, FrameError> {
    Ok(match kind {
        OPEN => Request::Open {
            ledger: from.ledger()?,
            base: from.entry()?,
            incarnation: Incarnation(from.u64()?),
            committed_end: from.entry()?,
        },
        APPEND => Request::Append(from.content_entry(content)?),
        FENCE => Request::Fence { ledger: from.ledger()?, by: from.epoch()? },
        REPAIR => Request::Repair { by: from.epoch()?, entry: from.content_entry(content)? },
        READ => Request::Read { ledger: from.ledger()?, entry: from.entry()? },
        READ_HEADERS => Request::Headers {
            ledger: from.ledger()?,
            from: from.entry()?,
            entries_max: from.u32()?,
            bytes_max: from.u32()?,
        },
        TRIM => Request::Trim { keep_from: from.address()? },
        COMMITTED => Request::Committed { ledger: from.ledger()?, end: from.entry()? },
        HELLO => Request::Hello { ledger: from.ledger()? },
        _ => return Err(FrameError::Malformed),
    })
}

fn read_reply(kind: u8, from: &mut Fields<'_>, content: Bytes) -> Result<Reply, FrameError> {
    Ok(match kind {
        OPENED => Reply::Opened { ledger: from.ledger()?, base: from.entry()?, end: from.entry()? },
        ACK => Reply::Ack { ledger: from.ledger()?, base: from.entry()?, end: from.entry()? },
        FENCED => Reply::Fenced { ledger: from.ledger()?, by: from.epoch()? },
        FENCE_DONE => {
            let (ledger, by, run) = (from.ledger()?, from.epoch()?, from.run()?);
            let certain = from.flags(CERTAIN)? & CERTAIN != 0;
            Reply::FenceDone { ledger, by, run: RunFacts { certain, ..run } }
        }
        REPAIRED => Reply::Repaired { ledger: from.ledger()?, entry: from.entry()? },
        OUT_OF_ORDER => {
            Reply::OutOfOrder { ledger: from.ledger()?, base: from.entry()?, end: from.entry()? }
        }
        REFUSED => {
            let ledger = from.ledger()?;
            let why = match from.u8()? {
                0 => Refusal::UnknownLedger,
                1 => Refusal::Limbo,
                2 => Refusal::Full,
                _ => return Err(FrameError::Malformed),
            };
            Reply::Refused { ledger, why }
        }
        HAVE => Reply::Have(from.content_entry(content)?),
        HEADERS => {
            let (ledger, first) = (from.ledger()?, from.entry()?);
            let (count, sum) = (from.u32()?, from.u32()?);
            if crc32c::crc32c(&content) != sum {
                return Err(FrameError::ContentSum { ledger, entry: first });
            }
            Reply::Headers { ledger, from: first, entries: split_headers(count, content)? }
        }
        NEVER_HAD => {
            Reply::NeverHad { ledger: from.ledger()?, entry: from.entry()?, end: from.entry()? }
        }
        UNKNOWN => Reply::Unknown { ledger: from.ledger()?, entry: from.entry()? },
        GREETING => {
            let (ledger, run, fence) = (from.ledger()?, from.run()?, from.epoch()?);
            let flags = from.flags(CERTAIN | HAS_RUN | HAS_FENCE)?;
            let run = RunFacts { certain: flags & CERTAIN != 0, ..run };
            let run = (flags & HAS_RUN != 0).then_some(run);
            let fenced_by = (flags & HAS_FENCE != 0).then_some(fence);
            Reply::Greeting { ledger, run, fenced_by }
        }
        _ => return Err(FrameError::Malformed),
    })
}

/// The content of [`Reply::Headers`]: a slot per entry, then the headers one behind the other.
pub(super) fn put_slots(entries: &[EntryHeaders], out: &mut BytesMut) {
    for entry in entries {
        // Bounded by the length of the content and of entries, which were checked.
        out.put_u32_le(u32::try_from(entry.headers.len()).unwrap_or(u32::MAX));
        out.put_u32_le(u32::try_from(entry.payload_len).unwrap_or(u32::MAX));
    }
}

fn split_headers(count: u32, mut content: Bytes) -> Result<Vec<EntryHeaders>, FrameError> {
    let count = count as usize;
    let slots_len = count.checked_mul(HEADERS_SLOT_BYTES).ok_or(FrameError::Malformed)?;
    if count == 0 || slots_len > content.len() {
        return Err(FrameError::Malformed);
    }
    let slots = content.split_to(slots_len);
    let mut slots = Fields(&slots);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (headers_len, payload_len) = (slots.u32()? as usize, slots.u32()? as usize);
        if headers_len > content.len() {
            return Err(FrameError::Malformed);
        }
        entries.push(EntryHeaders { headers: content.split_to(headers_len), payload_len });
    }
    if content.is_empty() { Ok(entries) } else { Err(FrameError::Malformed) }
}
