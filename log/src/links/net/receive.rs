//! The incoming direction: bytes become messages, and contents stay where they arrived.

use super::counters::{LinkCounters, count};
use bytes::BytesMut;
use std::io;
use std::sync::atomic::Ordering;
use thalweg_actor::network::ByteReader;
use thalweg_wire::ledger::{self, FrameError, Message};
use thiserror::Error;

/// Room for one read of a quiet connection, in bytes.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Room for one read of a busy one, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Why no further message comes.
#[derive(Debug, Error)]
pub(super) enum ReceiveError {
    /// The connection is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer has ended its direction.
    #[error("the peer has closed the connection")]
    Ended,
}

impl ReceiveError {
    pub(super) fn count(&self, counters: &LinkCounters) {
        if let Self::Frame(error) = self {
            count(&counters.bad_frames);
            if let FrameError::ContentSum { .. } = error {
                count(&counters.bad_contents);
            }
        }
    }
}

/// Messages from a byte stream. A quiet connection keeps a small buffer, so that a short entry does not hold a large
/// one in memory for as long as it waits for the disk.
pub(super) struct Receive {
    reader: Box<dyn ByteReader>,
    buffer: BytesMut,
    chunk_bytes: usize,
}

impl Receive {
    pub(super) fn new(reader: Box<dyn ByteReader>) -> Self {
        Self { reader, buffer: BytesMut::new(), chunk_bytes: CHUNK_BYTES_MIN }
    }

    /// The next message that has arrived whole.
    pub(super) fn take(&mut self) -> Result<Option<Message>, ReceiveError> {
        Ok(ledger::next(&mut self.buffer)?)
    }

    /// Waits for more bytes. Dropping the future loses nothing.
    pub(super) async fn read(&mut self, counters: &LinkCounters) -> Result<(), ReceiveError> {
        self.make_room();
        let room = self.buffer.capacity() - self.buffer.len();
        let arrived = self.reader.read(&mut self.buffer).await?;
        if arrived == 0 {
            return Err(ReceiveError::Ended);
        }
        counters.bytes_read.fetch_add(arrived as u64, Ordering::Relaxed);
        self.adapt(arrived, room);
        Ok(())
    }

    /// Waits for the next message. Dropping the future loses nothing.
    pub(super) async fn next(&mut self, counters: &LinkCounters) -> Result<Message, ReceiveError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.read(counters).await?;
        }
    }

    /// Room for what is known to come. The length of a message is believed once its checksum has been seen to be right.
    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > self.chunk_bytes {
            self.buffer = BytesMut::new();
        }
        let missing = ledger::missing(&self.buffer);
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < missing || spare < CHUNK_BYTES_MIN / 4 {
            self.buffer.reserve(missing.max(self.chunk_bytes));
        }
    }

    /// A full read asks for larger ones, a nearly empty one for smaller ones.
    fn adapt(&mut self, arrived: usize, room: usize) {
        if arrived >= room {
            self.chunk_bytes = (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX);
        } else if arrived < self.chunk_bytes / 8 {
            self.chunk_bytes = (self.chunk_bytes / 2).max(CHUNK_BYTES_MIN);
        }
    }
}
