//! Input in pieces: lines, or chunks of a size.

use bytes::{Bytes, BytesMut};
use std::io;

/// Input of which slices are taken without copying them.
pub(crate) struct Pieces<R> {
    input: R,
    buffer: BytesMut,
    ended: bool,
}

impl<R: io::Read> Pieces<R> {
    const READ_BYTES: usize = 1024 * 1024;

    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: BytesMut::new(), ended: false }
    }

    /// The next line with its terminator; the last one may have none. `None`: the input has ended.
    pub(crate) fn line(&mut self) -> io::Result<Option<Bytes>> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffer.split_to(looked + at + 1).freeze()));
            }
            looked = self.buffer.len();
            if self.ended || self.fill()? == 0 {
                return Ok(self.rest());
            }
        }
    }

    /// The next `bytes` bytes, fewer at the end. `None`: the input has ended.
    pub(crate) fn chunk(&mut self, bytes: usize) -> io::Result<Option<Bytes>> {
        while self.buffer.len() < bytes && !self.ended {
            self.fill()?;
        }
        if self.buffer.len() <= bytes {
            return Ok(self.rest());
        }
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }

    fn rest(&mut self) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let before = self.buffer.len();
        self.buffer.resize(before + Self::READ_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        self.ended = matches!(read, Ok(0));
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut next: impl FnMut() -> Option<Bytes>) -> Vec<Bytes> {
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn lines_and_chunks_are_the_input_whatever_it_is() {
        for pattern in 0..1_u32 << 11 {
            let length = pattern.checked_ilog2().unwrap_or(0);
            let byte = |at| if pattern >> at & 1 == 1 { b'\n' } else { b'a' };
            let input: Vec<u8> = (0..length).map(byte).collect();
            let mut pieces = Pieces::new(&input[..]);
            let lines = all(|| pieces.line().unwrap());
            assert_eq!(lines.concat(), input);
            assert!(lines.iter().all(|line| !line[..line.len() - 1].contains(&b'\n')));
            for size in 1..5 {
                let mut pieces = Pieces::new(&input[..]);
                let chunks = all(|| pieces.chunk(size).unwrap());
                assert_eq!(chunks.concat(), input);
                assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() == size));
            }
        }
    }
}
