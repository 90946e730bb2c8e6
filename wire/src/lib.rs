//! What crosses a socket: Pravega's segment-store protocol and our own messages.

pub mod controller;
pub mod ledger;
pub mod segment;
pub mod watermark;
