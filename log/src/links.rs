//! How an owner, a recoverer or a repair reaches replicas: ordered, pipelined, and as unreliable as a network is.
//!
//! One attachment is one asker's view of one replica of one container. Many attachments share a connection per pair of
//! nodes and [`Lane`]; an attachment neither sees the others nor waits for them.
//!
//! The contract, for every attachment:
//! 1. Requests arrive in the order in which they were sent, or not at all. So do replies.
//! 2. What is sent before [`LinkEvent::Connected`], or after [`LinkEvent::Lost`], may vanish. Nothing is sent twice.
//!    Appends vanish until something else has been sent: whoever sends them may not have heard yet that the connection
//!    is a new one, and one that reaches a replica before its open would be refused for good.
//! 3. A connection that is lost is sought again, with growing pauses, until the attachment is dropped.
//! 4. Only the named storage answers: a node where another one is mounted is the same as silence, with a reason.
//!
//! Deliberately not here: what requests mean, and what silence means (the machines and their shells).

mod direct;
mod gate;
pub mod net;

pub use direct::{DirectLinks, Fault};

use crate::message::{Reply, Request};
use std::sync::Arc;
use thalweg_types::id::{ContainerId, ReplicaId};
pub use thalweg_wire::ledger::Lane;

/// What happens on an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// There is a connection, the first or a new one. Replies to what was sent earlier will not come any more.
    Connected {
        /// How many times the storage has been mounted. A smaller number than before: it was rolled back.
        mount_seq: u64,
    },
    /// The replica answers.
    Reply(Reply),
    /// The connection is gone, or could not be made; it is being sought.
    Lost {
        /// Why, for people.
        reason: Arc<str>,
    },
}

/// Where the events of an attachment go. Called from the connection's task: MUST NOT block.
pub trait Sink: Send + Sync {
    /// Something has happened on the attachment to `from`.
    fn event(&self, from: ReplicaId, event: LinkEvent);
}

/// One attachment. Dropping it ends it: no event comes afterwards, but for one that is being delivered just then.
pub trait Link: Send + Sync {
    /// Sends `request` behind all earlier ones. Never waits: what is in flight is the caller's to bound.
    fn send(&self, request: Request);
}

/// The way to all replicas.
pub trait Links: Send + Sync {
    /// Attaches to the replica of `container` on `replica`. [`LinkEvent::Connected`] follows, when there is a
    /// connection.
    fn attach(
        &self,
        container: ContainerId,
        replica: ReplicaId,
        lane: Lane,
        sink: Arc<dyn Sink>,
    ) -> Box<dyn Link>;
}
