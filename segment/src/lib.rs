//! Segment containers on a ledger, tables, read index, and the connection handler.

pub mod connection;
pub mod place;
pub mod request;
pub mod table;
