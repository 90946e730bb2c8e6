//! Keeps appends from overtaking the open that begins their connection.

use crate::message::Request;
use std::sync::atomic::{AtomicBool, Ordering};
use thalweg_actor::probe;

/// Of one attachment. Shut when made, and by every new connection.
#[derive(Default)]
pub(super) struct Gate {
    open: AtomicBool,
}

impl Gate {
    /// There is a new connection.
    pub(super) fn shut(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// True if `request` may be sent on this connection.
    pub(super) fn admits(&self, request: &Request) -> bool {
        if matches!(request, Request::Append(_) | Request::Committed { .. }) {
            let open = self.open.load(Ordering::Acquire);
            if !open {
                probe!("links: append before its connection was heard of");
            }
            return open;
        }
        self.open.store(true, Ordering::Release);
        true
    }
}
