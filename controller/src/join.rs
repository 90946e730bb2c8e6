//! Waiting for several futures at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use thalweg_actor::BoxFuture;

/// Runs all futures at once, first polled in their order, and answers in their order.
pub(crate) async fn join_all<T>(mut futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (future, slot) in futures.iter_mut().zip(&mut done).filter(|(_, s)| s.is_none()) {
            match Pin::new(future).poll(context) {
                Poll::Ready(value) => *slot = Some(value),
                Poll::Pending => waits = true,
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    done.into_iter().map(|slot| slot.expect("all are ready")).collect()
}
