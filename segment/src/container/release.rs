//! What happens when entries are committed: readers see more, and answers become facts.

use crate::container::frame::Pending;
use crate::container::{Container, Effect, Effects, Load};
use thalweg_types::id::EntryId;

impl Container {
    /// Everything up to `upto` is committed.
    pub(super) fn committed(&mut self, upto: EntryId, effects: &mut Effects) {
        let mut last = None;
        while self.in_flight.front().is_some_and(|frame| frame.entry <= upto) {
            let Some(frame) = self.in_flight.pop_front() else { break };
            last = Some(frame.entry);
            for advance in frame.advances {
                // The segment may have ended since; then its tail has too.
                if let Some(tail) = self.tails.get_mut(&advance.segment) {
                    tail.visible = Some(advance.to);
                    self.wake(advance.segment, effects);
                }
            }
            self.release_part(frame.pending, effects);
        }
        // One acknowledgement for each writer and commit, whatever was committed together.
        self.writers.send_acks(effects);
        if let Some(entry) = last {
            self.snapshot_committed(entry, effects);
        }
    }

    /// Answers that wait for nothing more.
    pub(super) fn release(&mut self, pending: Vec<Pending>, effects: &mut Effects) {
        self.release_part(pending, effects);
        self.writers.send_acks(effects);
    }

    fn release_part(&mut self, pending: Vec<Pending>, effects: &mut Effects) {
        for pending in pending {
            match pending {
                Pending::Reply { replies, command } => {
                    self.writers.send_acks(effects);
                    effects.push(Effect::Reply { replies, command });
                }
                Pending::Close { replies, reason } => {
                    self.writers.send_acks(effects);
                    effects.push(Effect::Close { replies, reason });
                }
                Pending::Ack { session, number, request_id, length, bytes, events } => {
                    self.acknowledged.add(bytes, events);
                    self.writers.acknowledge(session, number, request_id, length, bytes);
                }
                Pending::Refuse { session, refusal, number, request_id, bytes } => {
                    let replies =
                        self.writers.refuse(session, refusal, number, request_id, effects);
                    effects.push(Effect::Settle { replies, bytes });
                }
                Pending::Settle { replies, bytes } => {
                    effects.push(Effect::Settle { replies, bytes });
                }
                Pending::Compact { segment, plan } => {
                    effects.push(Effect::LoadRows { segment, plan });
                }
                Pending::Load { replies, reply, places } => {
                    effects.push(Effect::Load(Load { replies, reply, places }));
                }
            }
        }
    }
}
