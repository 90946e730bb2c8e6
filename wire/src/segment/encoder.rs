//! Commands as bytes, without copying what is large.

use super::Command;
use super::frame::FRAME_BYTES_MAX;
use bytes::{BufMut as _, Bytes, BytesMut};

/// Data up to this many bytes are copied behind the fields before them: a copy is cheaper than another chunk.
const COPY_BYTES_MAX: usize = 2048;

/// A queue of encoded frames, as chunks for one vectored write. Field bytes share chunks; large data are chunks of
/// their own, never copied.
#[derive(Debug, Default)]
pub struct Encoder {
    chunks: Vec<Bytes>,
    /// What will become the next chunk.
    open: BytesMut,
    bytes: usize,
}

impl Encoder {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the frame of `command`.
    ///
    /// Panics in debug builds if the frame exceeds [`FRAME_BYTES_MAX`]: whoever makes commands bounds their data.
    pub fn push(&mut self, command: &Command) {
        let body_bytes = command.body_bytes();
        debug_assert!(command.frame_bytes() <= FRAME_BYTES_MAX, "{} is too long", command.name());
        let before = self.bytes;
        self.put(&command.code().to_be_bytes());
        self.put(&i32::try_from(body_bytes).unwrap_or(i32::MAX).to_be_bytes());
        command.put(self);
        debug_assert_eq!(self.bytes - before, command.frame_bytes(), "{}", command.name());
    }

    /// How many bytes are queued.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True if nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes everything out, one chunk behind the other.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.close();
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
        self.bytes += bytes.len();
    }

    pub(super) fn put_data(&mut self, data: &Bytes) {
        if data.len() <= COPY_BYTES_MAX {
            return self.put(data);
        }
        self.close();
        self.bytes += data.len();
        self.chunks.push(data.clone());
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(self.open.split().freeze());
        }
    }
}

/// The frame of one command in one piece, for tests and for those who send little.
impl From<&Command> for Bytes {
    fn from(command: &Command) -> Self {
        let mut out = Encoder::new();
        out.push(command);
        let mut chunks = out.take();
        if chunks.len() == 1 { chunks.swap_remove(0) } else { chunks.concat().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AppendBlock, KeepAlive};
    use super::*;
    use thalweg_types::id::WriterId;

    #[test]
    fn large_data_leave_as_the_very_bytes_that_came() {
        let data = Bytes::from(vec![7; COPY_BYTES_MAX + 1]);
        let mut out = Encoder::new();
        out.push(&KeepAlive {}.into());
        out.push(&AppendBlock { writer_id: WriterId(1), data: data.clone() }.into());
        out.push(&KeepAlive {}.into());
        assert_eq!(out.bytes(), 8 + 8 + 16 + data.len() + 8);
        let chunks = out.take();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [32, data.len(), 8]);
        assert_eq!(chunks[1].as_ptr(), data.as_ptr());
        assert!(out.is_empty() && out.take().is_empty());
    }
}
