//! The few calls of madsim that the simulator uses: a runtime from a seed, nodes that can be killed, tasks, time.
//!
//! Nothing else of madsim is used, so that another executor could take its place.

use madsim::runtime::{Handle, NodeHandle, Runtime};
use madsim::time::{Sleep, TimeHandle};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::spawn::Task;

/// Runs `world` to its end on a fresh executor: every random choice of the scheduler follows from `seed`.
pub(crate) fn run<F: Future>(seed: u64, world: F) -> F::Output {
    const { assert!(cfg!(madsim), "the simulator needs madsim's executor") };
    Runtime::with_seed_and_config(seed, madsim::Config::default()).block_on(world)
}

/// Simulated nanoseconds since the start of the run.
pub(crate) fn now() -> u64 {
    u64::try_from(TimeHandle::current().elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Completes `by` later.
pub(crate) fn sleep(by: Duration) -> Timer {
    let time = TimeHandle::current();
    let deadline = time.now_instant() + by;
    let mut inner = Box::pin(time.sleep(by));
    // A fresh sleep lasts at least 1 ms; a reset one does not.
    inner.as_mut().reset(deadline);
    Timer { inner, armed: None }
}

/// Completes when the run has lasted `at` nanoseconds.
pub(crate) fn sleep_until(at: u64) -> Timer {
    sleep(Duration::from_nanos(at.saturating_sub(now())))
}

/// A sleep that arms the executor's timer once per task, however often it is polled.
pub(crate) struct Timer {
    inner: Pin<Box<Sleep>>,
    armed: Option<Waker>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.inner.is_elapsed() {
            return Poll::Ready(());
        }
        if self.armed.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.armed = Some(context.waker().clone());
        self.inner.as_mut().poll(context)
    }
}

/// What `wanted` returns, or `None` when it takes longer than `at_most`.
pub(crate) async fn timeout<T>(at_most: Duration, wanted: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = wanted => Some(value),
        () = sleep(at_most) => None,
    }
}

/// A group of tasks that die together: one process of one host.
pub(crate) struct Process {
    node: NodeHandle,
}

impl Process {
    /// A process without tasks. Must be called inside of a run.
    pub(crate) fn start(name: &str) -> Self {
        Self { node: Handle::current().create_node().name(name).build() }
    }

    /// Runs `actor` until it ends or the process is killed.
    pub(crate) fn spawn(&self, actor: BoxFuture<'static, ()>) -> Task {
        let handle = self.node.spawn(actor).abort_handle();
        Task::new(move || handle.abort())
    }

    /// Lets no task run until [`Process::resume`]: what comes meanwhile waits for it.
    pub(crate) fn pause(&self) {
        Handle::current().pause(self.node.id());
    }

    /// Goes on after a pause.
    pub(crate) fn resume(&self) {
        Handle::current().resume(self.node.id());
    }

    /// Ends every task at once: none is polled again. Their futures have been dropped when this returns.
    pub(crate) async fn kill(&self) {
        // The executor would drop waiting tasks while it holds a lock of its own.
        self.resume();
        Handle::current().kill(self.node.id());
        // The executor drops the dead tasks when it meets them in its queue.
        sleep(Duration::from_nanos(1)).await;
    }
}
