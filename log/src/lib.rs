//! The replicated ledger: disk log engine, replica, writer, recovery.
//!
//! `log` knows entries, ledgers and containers' registers; it does not know what a stream or a segment is.

pub mod engine;
pub mod frame;
pub mod ledger;
pub mod links;
pub mod local;
pub mod message;
pub mod metadata;
pub mod mounts;
pub mod placement;
pub mod quorum;
pub mod recovery;
pub mod register;
pub mod repair;
pub mod replica;
pub mod replicated;
pub mod service;
pub mod storage;
pub mod testing;
pub mod writer;
