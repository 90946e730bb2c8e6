//! Frames in a byte stream.

use super::is_known;
use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

/// Bytes in front of every body.
pub const FRAME_HEADER_BYTES: usize = 8;
/// A whole frame, header included, in bytes.
pub const FRAME_BYTES_MAX: usize = 0x00FF_FFFF;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The command's type: a known one.
    pub code: i32,
    /// The command's fields.
    pub body: Bytes,
}

/// Why a stream holds no frame where one must start. The stream is of no further use.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// No command has that type.
    #[error("unknown command type {code}")]
    UnknownType {
        /// The type field.
        code: i32,
    },
    /// The length field is negative.
    #[error("a frame of type {code} with length {length}")]
    NegativeLength {
        /// The type field.
        code: i32,
        /// The length field.
        length: i32,
    },
    /// The frame exceeds [`FRAME_BYTES_MAX`].
    #[error(
        "a frame of type {code} with a body of {length} bytes exceeds {FRAME_BYTES_MAX} in all"
    )]
    TooLong {
        /// The type field.
        code: i32,
        /// The length field.
        length: i32,
    },
}

/// Type and body length of the frame that `bytes` start with; `None` if not even its header is there. Judges the
/// header as soon as it is there: a peer that sends garbage is found out by its first 8 bytes.
pub fn header(bytes: &[u8]) -> Result<Option<(i32, usize)>, FrameError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
    let code = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let length = i32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if !is_known(code) {
        return Err(FrameError::UnknownType { code });
    }
    let Ok(body_bytes) = usize::try_from(length) else {
        return Err(FrameError::NegativeLength { code, length });
    };
    if body_bytes > FRAME_BYTES_MAX - FRAME_HEADER_BYTES {
        return Err(FrameError::TooLong { code, length });
    }
    Ok(Some((code, body_bytes)))
}

/// Takes the next whole frame out of `stream`, `None` if it has not arrived yet. The body is a slice, not a copy.
/// After an error `stream` is untouched.
pub fn next(stream: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some((code, body_bytes)) = header(stream)? else { return Ok(None) };
    if stream.len() < FRAME_HEADER_BYTES + body_bytes {
        return Ok(None);
    }
    stream.advance(FRAME_HEADER_BYTES);
    Ok(Some(Frame { code, body: stream.split_to(body_bytes).freeze() }))
}

/// How many bytes of the frame that `stream` starts with have not arrived, as far as that is known: at least 1.
/// 0 if a whole frame is there, or none that can be read.
pub fn missing(stream: &[u8]) -> usize {
    match header(stream) {
        Ok(Some((_, body_bytes))) => (FRAME_HEADER_BYTES + body_bytes).saturating_sub(stream.len()),
        Ok(None) => FRAME_HEADER_BYTES - stream.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(code: i32, length: i32, rest: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&vec![7; rest]);
        bytes
    }

    #[test]
    fn a_frame_is_taken_when_its_last_byte_arrives() {
        let whole = stream(11, 5, 5);
        let mut arrived = BytesMut::new();
        for (i, byte) in whole.iter().enumerate() {
            assert_eq!(next(&mut arrived), Ok(None), "{i} bytes");
            assert!(missing(&arrived) > 0);
            arrived.extend_from_slice(&[*byte]);
        }
        assert_eq!(missing(&arrived), 0);
        let frame = next(&mut arrived).unwrap().unwrap();
        assert_eq!(frame, Frame { code: 11, body: Bytes::from_static(&[7; 5]) });
        assert!(arrived.is_empty());
    }

    #[test]
    fn a_bad_header_is_an_error_before_the_body_arrives() {
        let most = i32::try_from(FRAME_BYTES_MAX - FRAME_HEADER_BYTES).unwrap();
        assert_eq!(next(&mut stream(-1, most, 0)), Ok(None));
        let length = most + 1;
        assert_eq!(next(&mut stream(-1, length, 0)), Err(FrameError::TooLong { code: -1, length }));
        assert_eq!(
            next(&mut stream(4, -1, 9)),
            Err(FrameError::NegativeLength { code: 4, length: -1 })
        );
        for code in [6, 13, 22, 54, 72, 73, 99, 101, -7, -128, i32::MAX, i32::MIN] {
            assert_eq!(next(&mut stream(code, 0, 0)), Err(FrameError::UnknownType { code }));
        }
    }
}
