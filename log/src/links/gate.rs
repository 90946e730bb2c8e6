//! Keeps appends from overtaking the open that begins their connection.

use crate::message::Request;
use std::sync::atomic::{AtomicBool, Ordering};

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
            return self.open.load(Ordering::Acquire);
        }
        if matches!(request, Request::Trim { .. }) {
            return true; // Says nothing about a ledger, so it shows nobody's awareness of the connection.
        }
        self.open.store(true, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_types::id::{Address, ContainerId, EntryId, Epoch, LedgerId};

    #[test]
    fn a_trim_passes_and_lets_no_append_pass_behind_it() {
        let ledger = LedgerId { container: ContainerId(1), epoch: Epoch(1) };
        let gate = Gate::default();
        assert!(gate.admits(&Request::Trim { keep_from: Address::default() }));
        let behind = Request::Committed { ledger, end: EntryId(1) };
        assert!(!gate.admits(&behind));
        assert!(gate.admits(&Request::Hello { ledger }));
        assert!(gate.admits(&behind));
    }
}
