//! What owners, recoverers and replicas say to each other about ledgers.
//!
//! Every message travels between one container's owner (or recoverer) and one named replica; the transport carries
//! the container and the full [`ReplicaId`](thalweg_types::id::ReplicaId), so no node answers for another's disk. The
//! messages themselves, and their form on a socket, are in [`thalweg_wire::ledger`].

pub use thalweg_wire::ledger::{EntryHeaders, Refusal, Reply, Request, RunFacts};

/// Whoever sent a request, as the replica's shell numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(pub u32);
