//! The words of Thalweg: ids, names, key ranges, stream cuts, limits, record framing.
//!
//! No async, no input or output, and nothing of the other crates: every crate may name what is here.

pub mod codec;
pub mod hash;
pub mod id;
pub mod limits;
pub mod name;
pub mod record;
pub mod stream;
pub mod time;
