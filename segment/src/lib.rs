//! Segment containers on a ledger, tables, read index, and the connection handler.

pub mod cache;
pub mod connection;
pub mod container;
pub mod place;
pub mod request;
pub mod store;
pub mod table;
pub mod testing;
