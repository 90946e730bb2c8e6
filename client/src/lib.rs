//! The native async client: event writers, readers, reader groups, byte streams.
