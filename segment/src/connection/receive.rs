//! The incoming direction: bytes become frames, and data stay where they arrived.

use bytes::BytesMut;
use std::io;
use thalweg_actor::network::ByteReader;
use thalweg_wire::segment::frame::{self, Frame, FrameError};
use thiserror::Error;

/// Room for one read of a quiet connection, in bytes.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Room for one read of a busy one, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Why no further frame comes.
#[derive(Debug, Error)]
pub(super) enum ReceiveError {
    /// The peer is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What it sent is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Frames from a byte stream. Bodies are slices of the buffers into which the stream was read; a buffer grows with
/// what arrives, not with what a header announces, and a quiet connection keeps a small one.
pub(super) struct Receive {
    reader: Box<dyn ByteReader>,
    buffer: BytesMut,
    chunk_bytes: usize,
}

impl Receive {
    pub(super) fn new(reader: Box<dyn ByteReader>) -> Self {
        Self { reader, buffer: BytesMut::new(), chunk_bytes: CHUNK_BYTES_MIN }
    }

    /// The next frame; `None` when the peer has ended its direction, be it within a frame. Dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        loop {
            if let Some(frame) = frame::next(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.make_room();
            let room = self.buffer.capacity() - self.buffer.len();
            let arrived = self.reader.read(&mut self.buffer).await?;
            if arrived == 0 {
                return Ok(None);
            }
            self.adapt(arrived, room);
        }
    }

    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > self.chunk_bytes {
            self.buffer = BytesMut::new();
        }
        let missing = frame::missing(&self.buffer);
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < missing.min(self.chunk_bytes) || spare < CHUNK_BYTES_MIN / 4 {
            let known = self.buffer.len().max(self.chunk_bytes);
            self.buffer.reserve(missing.min(known).max(self.chunk_bytes));
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
