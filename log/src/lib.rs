//! The replicated ledger: disk log engine, replica, writer, recovery.
//!
//! `log` knows entries, ledgers and containers' registers; it does not know what a stream or a segment is.

pub mod engine;
pub mod frame;
pub mod ledger;
pub mod metadata;
pub mod quorum;
pub mod register;
pub mod storage;
pub mod testing;
