//! Writes past the page cache: memory aligned as the device wants it.

use bytes::Bytes;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Offset, length and memory of a direct write are multiples of this many bytes.
pub(super) const ALIGN: usize = 4096;

/// True if a write may go past the page cache.
pub(super) fn is_aligned(offset: u64, len: usize) -> bool {
    len > 0 && len.is_multiple_of(ALIGN) && offset.is_multiple_of(ALIGN as u64)
}

/// Memory whose first byte is aligned. It is touched, and so resident, only as far as it has been used.
pub(super) struct Aligned {
    memory: Vec<u8>,
    /// Where the aligned part starts.
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` zeros; `len` is a multiple of [`ALIGN`].
    pub(super) fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        assert!(start <= ALIGN, "the address of bytes can be aligned");
        Self { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// Writes `chunks` one behind the other through this memory, a part at a time.
    pub(super) fn write(
        &mut self,
        file: impl AsFd + Copy,
        mut offset: u64,
        chunks: &[Bytes],
    ) -> Result<(), Errno> {
        let len = self.len;
        let mut filled = 0;
        for chunk in chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let count = rest.len().min(len - filled);
                self.bytes()[filled..filled + count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                filled += count;
                if filled == len {
                    self.write_as_is(file, offset, filled)?;
                    offset += filled as u64;
                    filled = 0;
                }
            }
        }
        self.write_as_is(file, offset, filled)
    }

    /// Writes the first `count` bytes as they are.
    pub(super) fn write_as_is(
        &mut self,
        file: impl AsFd + Copy,
        offset: u64,
        count: usize,
    ) -> Result<(), Errno> {
        let mut done = 0;
        while done < count {
            let bytes = &self.bytes()[done..count];
            match rustix::io::pwrite(file, bytes, offset + done as u64) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
