//! Pure functions between Pravega's messages and the native ones. Nothing is judged here but what has no meaning at
//! all: an unknown policy type.

pub(super) mod request;
pub(super) mod response;
