//! The one way in which control messages and metadata records become bytes.
//!
//! bincode 1.3.3, fixed-width little-endian integers, an explicit limit, no trailing bytes.

use bincode::Options as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why bytes are not a value of the expected type.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("malformed record: {reason}")]
pub struct DecodeError {
    /// What the decoder met.
    pub reason: String,
}

/// The bytes of `value`.
///
/// Panics only if `value` holds something that bincode cannot express, which is a bug.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .serialize(value)
        .expect("wire structs hold only what bincode can express")
}

/// The value that `bytes` hold. Never allocates more than `limit` bytes, never panics.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(limit as u64)
        .reject_trailing_bytes()
        .deserialize(bytes)
        .map_err(|error| DecodeError { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let value = (7_u64, "name".to_owned(), vec![1_u8, 2, 3]);
        assert_eq!(decode::<(u64, String, Vec<u8>)>(&encode(&value), 1024), Ok(value));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let bytes = encode(&u64::MAX);
        assert!(decode::<Vec<u8>>(&bytes, 1024).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(decode::<u8>(&[1, 2], 16).is_err());
    }
}
