//! Frames: messages into chunks of bytes, and out of a byte stream.

use super::fields::{self, HEADERS_SLOT_BYTES};
use super::message::{EntryFrame, Message, Reply, Request};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thalweg_types::id::{EntryId, LedgerId};
use thalweg_types::limits::ENTRY_BYTES_MAX;
use thiserror::Error;

/// Bytes in front of every message's fields: magic, kind, a byte of zero, channel, length of the fields, length of the
/// content, checksum of what stands before it and of the fields.
pub const HEADER_BYTES: usize = 20;
/// A message's fields, in bytes.
pub const FIELDS_BYTES_MAX: usize = 1024;
/// A message's content, in bytes: an entry, or the headers of many with a slot for each.
pub const CONTENT_BYTES_MAX: usize = ENTRY_BYTES_MAX + 64 * 1024;

const MAGIC: [u8; 2] = [0x7A, 0x4C];
const SUM_AT: usize = 16;
/// Room made for the fields of several messages.
const FIELDS_RESERVE_BYTES: usize = 4096;

/// Why a stream holds no message where one must start. The stream is of no further use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// That is no header of this protocol.
    #[error("no frame of the ledger protocol")]
    Magic,
    /// No message has that kind, or it must not have that content.
    #[error("unknown message kind {kind:#04x}")]
    Kind {
        /// The kind field.
        kind: u8,
    },
    /// A length field exceeds its limit.
    #[error("a message of kind {kind:#04x} with {fields} bytes of fields and {content} of content")]
    TooLong {
        /// The kind field.
        kind: u8,
        /// Length of the fields.
        fields: u32,
        /// Length of the content.
        content: u32,
    },
    /// Header and fields do not match their checksum.
    #[error("a message of kind {kind:#04x} does not match its checksum")]
    Sum {
        /// The kind field.
        kind: u8,
    },
    /// The content does not match its checksum.
    #[error("the content of entry {entry} of ledger {ledger} does not match its checksum")]
    ContentSum {
        /// Which ledger.
        ledger: LedgerId,
        /// Which entry.
        entry: EntryId,
    },
    /// The fields are no message of that kind.
    #[error("a message with malformed fields")]
    Malformed,
}

/// A message that exceeds [`CONTENT_BYTES_MAX`], and so cannot be sent.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("content of {length} bytes exceeds the limit of {CONTENT_BYTES_MAX}")]
pub struct TooLong {
    /// Its length in bytes.
    pub length: usize,
}

/// The checksums of an entry's content, so that they are computed once for all its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentSums {
    headers: u32,
    payload: u32,
}

impl ContentSums {
    /// Those of `entry`.
    pub fn of(entry: &EntryFrame) -> Self {
        let payload = entry.payload.iter().fold(0, |sum, chunk| crc32c::crc32c_append(sum, chunk));
        Self { headers: crc32c::crc32c(&entry.headers), payload }
    }
}

/// Messages on their way out, as chunks that can be written one behind the other.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Headers and fields behind the last chunk.
    fields: BytesMut,
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Outgoing {
    /// Adds `message` behind the others.
    pub fn push(&mut self, message: Message) -> Result<(), TooLong> {
        let sums = match &message {
            Message::Request { request: Request::Append(entry), .. }
            | Message::Request { request: Request::Repair { entry, .. }, .. }
            | Message::Reply { reply: Reply::Have(entry), .. } => ContentSums::of(entry),
            _ => ContentSums { headers: 0, payload: 0 },
        };
        self.push_summed(message, sums)
    }

    /// The same, with the checksums of the message's content, if it is an entry.
    pub fn push_summed(&mut self, message: Message, sums: ContentSums) -> Result<(), TooLong> {
        let length = content_len(&message);
        let content = u32::try_from(length).unwrap_or(u32::MAX);
        if length > CONTENT_BYTES_MAX {
            return Err(TooLong { length });
        }
        if self.fields.capacity() - self.fields.len() < FIELDS_BYTES_MAX / 4 {
            self.fields.reserve(FIELDS_RESERVE_BYTES);
        }
        let begin = self.fields.len();
        self.fields.put_slice(&MAGIC);
        self.fields.put_u8(fields::kind(&message));
        self.fields.put_u8(0);
        self.fields.put_u32_le(fields::channel(&message));
        self.fields.put_u64_le(0); // Filled in below.
        self.fields.put_u32_le(0);
        let slots = slots(&message);
        let sums = match &slots {
            Some(slots) => (slots_sum(slots, &message), 0),
            None => (sums.headers, sums.payload),
        };
        fields::put(&message, sums, &mut self.fields);
        let frame = &mut self.fields[begin..];
        let fields_len = u32::try_from(frame.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        frame[8..12].copy_from_slice(&fields_len.to_le_bytes());
        frame[12..SUM_AT].copy_from_slice(&content.to_le_bytes());
        let sum = sum(frame);
        frame[SUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        self.bytes += self.fields.len() - begin + length;
        self.fields.extend_from_slice(&slots.unwrap_or_default());
        self.push_content(message);
        Ok(())
    }

    fn push_content(&mut self, message: Message) {
        match message {
            Message::Request { request: Request::Append(entry), .. }
            | Message::Request { request: Request::Repair { entry, .. }, .. }
            | Message::Reply { reply: Reply::Have(entry), .. } => {
                self.push_chunk(entry.headers);
                entry.payload.into_iter().for_each(|chunk| self.push_chunk(chunk));
            }
            Message::Reply { reply: Reply::Headers { entries, .. }, .. } => {
                for entry in entries {
                    self.push_chunk(entry.headers);
                }
            }
            _ => {}
        }
    }

    /// Small pieces are cheaper to copy than to hand to the system one by one.
    fn push_chunk(&mut self, chunk: Bytes) {
        if chunk.len() <= COPY_BYTES_MAX {
            self.fields.extend_from_slice(&chunk);
            return;
        }
        if !self.fields.is_empty() {
            self.chunks.push(self.fields.split().freeze());
        }
        self.chunks.push(chunk);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All chunks in order; nothing waits afterwards.
    pub fn take(&mut self) -> Vec<Bytes> {
        if !self.fields.is_empty() {
            self.chunks.push(self.fields.split().freeze());
        }
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }
}

/// Pieces of content up to this many bytes are copied next to the fields.
const COPY_BYTES_MAX: usize = 256;

fn content_len(message: &Message) -> usize {
    match message {
        Message::Request { request: Request::Append(entry), .. }
        | Message::Request { request: Request::Repair { entry, .. }, .. }
        | Message::Reply { reply: Reply::Have(entry), .. } => entry.content_len(),
        Message::Reply { reply: Reply::Headers { entries, .. }, .. } => {
            entries.iter().map(|entry| HEADERS_SLOT_BYTES + entry.headers.len()).sum()
        }
        _ => 0,
    }
}

fn slots(message: &Message) -> Option<BytesMut> {
    let Message::Reply { reply: Reply::Headers { entries, .. }, .. } = message else { return None };
    let mut slots = BytesMut::with_capacity(entries.len() * HEADERS_SLOT_BYTES);
    fields::put_slots(entries, &mut slots);
    Some(slots)
}

fn slots_sum(slots: &[u8], message: &Message) -> u32 {
    let Message::Reply { reply: Reply::Headers { entries, .. }, .. } = message else { return 0 };
    let headers = entries.iter().map(|entry| &entry.headers);
    headers.fold(crc32c::crc32c(slots), |sum, chunk| crc32c::crc32c_append(sum, chunk))
}

/// The checksum of a frame's header and fields.
fn sum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..SUM_AT]), &frame[HEADER_BYTES..])
}

/// A header that was judged.
struct Header {
    kind: u8,
    channel: u32,
    fields: usize,
    content: usize,
    sum: u32,
}

/// The header that `bytes` start with; `None` if it is not all there. Judges what is there as soon as it is there.
fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    if !bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) {
        return Err(FrameError::Magic);
    }
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (kind, zero) = (header[2], header[3]);
    let (fields, content) = (number(8), number(12));
    let may_have = if fields::has_content(kind) { CONTENT_BYTES_MAX } else { 0 };
    if !fields::is_known(kind) || zero != 0 {
        return Err(FrameError::Kind { kind });
    }
    if fields as usize > FIELDS_BYTES_MAX || content as usize > may_have {
        return Err(FrameError::TooLong { kind, fields, content });
    }
    let (channel, sum) = (number(4), number(SUM_AT));
    Ok(Some(Header { kind, channel, fields: fields as usize, content: content as usize, sum }))
}

/// The same, its fields checked; `None` if they are not all there.
fn checked(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(header) = header(bytes)? else { return Ok(None) };
    let front = HEADER_BYTES + header.fields;
    if bytes.len() < front {
        return Ok(None);
    }
    if sum(&bytes[..front]) != header.sum {
        return Err(FrameError::Sum { kind: header.kind });
    }
    Ok(Some(header))
}

/// Takes the next whole message out of `stream`, `None` if it has not arrived yet. Contents are slices, not copies.
pub fn next(stream: &mut BytesMut) -> Result<Option<Message>, FrameError> {
    let Some(header) = checked(stream)? else { return Ok(None) };
    let front = HEADER_BYTES + header.fields;
    if stream.len() < front + header.content {
        return Ok(None);
    }
    if header.content == 0 {
        let message =
            fields::read(header.kind, header.channel, &stream[HEADER_BYTES..front], Bytes::new())?;
        stream.advance(front);
        return Ok(Some(message));
    }
    let mut frame = stream.split_to(front + header.content).freeze();
    let front = frame.split_to(front);
    fields::read(header.kind, header.channel, &front[HEADER_BYTES..], frame).map(Some)
}

/// How many bytes of the message that `stream` starts with have not arrived, as far as that is known and believed: at
/// least 1. 0 if a whole message is there, or none that can be read.
pub fn missing(stream: &[u8]) -> usize {
    let known = match checked(stream) {
        Ok(Some(header)) => HEADER_BYTES + header.fields + header.content,
        Ok(None) => match header(stream) {
            Ok(Some(header)) => HEADER_BYTES + header.fields,
            _ => HEADER_BYTES,
        },
        Err(_) => 0,
    };
    known.saturating_sub(stream.len())
}
