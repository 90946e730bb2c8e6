//! Where events wait for a task that takes them when it likes.

use crate::links::{LinkEvent, Sink};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_types::id::ReplicaId;
use tokio::sync::Notify;

/// A queue of events, and who is told that there are some.
#[derive(Default)]
pub(super) struct Mailbox {
    events: Mutex<VecDeque<(ReplicaId, LinkEvent)>>,
    news: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(ReplicaId, LinkEvent)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that has come; waits until something has. Dropping the future loses nothing.
    pub(super) async fn take(self: &Arc<Self>) -> VecDeque<(ReplicaId, LinkEvent)> {
        loop {
            let news = self.news.notified();
            let events = std::mem::take(&mut *self.lock());
            if !events.is_empty() {
                return events;
            }
            news.await;
        }
    }
}

impl Sink for Mailbox {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        self.lock().push_back((from, event));
        self.news.notify_one();
    }
}
