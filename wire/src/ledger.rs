//! The ledger protocol between the nodes of a cluster: owners, recoverers and repairs on one side, replicas on the
//! other.
//!
//! One connection per pair of nodes and lane carries many *channels*, each between one asker and one named replica of
//! one container. It begins with [`Message::Connect`] and [`Message::Accept`], which settle the feature level, the
//! cluster, and who is who; a channel begins with [`Message::Attach`] and [`Message::Attached`]. Requests and replies
//! follow in any mixture, each direction in order.
//!
//! A frame is a header, the message's fields, and for entries their content behind them. One checksum covers header
//! and fields; the content has its own, computed once where the entry enters the cluster. Contents are written from and
//! cut out of the buffers that they are in, never copied. The byte layout is that of `testdata/ledger.txt`.
//!
//! Deliberately not here: sockets, and what messages mean (`log`).

mod fields;
mod frame;
mod message;
#[cfg(test)]
mod tests;

pub use frame::{
    CONTENT_BYTES_MAX, ContentSums, FIELDS_BYTES_MAX, FrameError, HEADER_BYTES, Outgoing, TooLong,
    missing, next,
};
pub use message::{
    Accept, Attach, Connect, DetachReason, EntryFrame, EntryHeaders, LEVEL_MAX, LEVEL_MIN, Lane,
    Message, Refusal, RefuseReason, Reply, Request, RunFacts,
};
