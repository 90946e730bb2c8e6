//! The ledger protocol between owners and replicas.

mod message;

pub use message::{EntryFrame, EntryHeaders, Refusal, Reply, Request, RunFacts};
