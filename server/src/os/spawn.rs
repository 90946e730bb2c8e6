//! Actors as tasks of tokio.

use std::panic::{self, AssertUnwindSafe};
use thalweg_actor::BoxFuture;
use thalweg_actor::spawn::{Spawn, Task};
use tokio::runtime::Handle;

/// Spawns on the runtime that was current when this was made.
pub(crate) struct Runtime {
    handle: Handle,
}

impl Runtime {
    /// To be called inside a runtime.
    pub(crate) fn current() -> Self {
        Self { handle: Handle::current() }
    }
}

impl Spawn for Runtime {
    fn spawn(&self, name: &'static str, actor: BoxFuture<'static, ()>) -> Task {
        let task = self.handle.spawn(watched(name, actor)).abort_handle();
        Task::new(move || task.abort())
    }
}

/// An actor that panics has met a bug, and what it held may be half changed. The process ends rather than going on
/// without it: what was acknowledged is durable, and a restart finds it. (The panic's message has been printed.)
async fn watched(name: &'static str, mut actor: BoxFuture<'static, ()>) {
    let outcome = std::future::poll_fn(|context| {
        match panic::catch_unwind(AssertUnwindSafe(|| actor.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_panic) => std::task::Poll::Ready(Err(())),
        }
    })
    .await;
    if outcome.is_err() {
        tracing::error!(
            actor = name,
            "stopped by a bug: the process ends to protect what is stored"
        );
        std::process::exit(i32::from(crate::exit::BUG));
    }
}
