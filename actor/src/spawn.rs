//! Where actors run.

use crate::BoxFuture;

/// Starts actors. Under simulation they die with their node.
pub trait Spawn: Send + Sync {
    /// Runs `actor` until it ends. `name` is for people who look at a running process.
    fn spawn(&self, name: &'static str, actor: BoxFuture<'static, ()>) -> Task;
}

/// A running actor. Dropping this lets it run on.
pub struct Task {
    abort: Box<dyn Fn() + Send + Sync>,
}

impl Task {
    /// A task that `abort` ends at its next await.
    pub fn new(abort: impl Fn() + Send + Sync + 'static) -> Self {
        Self { abort: Box::new(abort) }
    }

    /// Ends the actor at its next await; harmless when it has ended.
    pub fn abort(&self) {
        (self.abort)();
    }
}
