//! Machine and shell.
//!
//! *If it decides, it is a machine; if it waits, it is a shell.* A machine has no async, no locks, no clock, no
//! type parameters and no logging, so a small world of machines can be searched exhaustively.

use crate::clock::Clock;
use std::future::Future;
use std::sync::Arc;
use thalweg_types::time::Instant;

/// A pure state machine.
pub trait Machine {
    /// What can happen to it: a closed set.
    type Input;
    /// What it wants done: a closed set.
    type Effect;

    /// Takes one step. Total: never fails, never waits, never looks at the world. A message may be refused, never
    /// asserted. Effects are appended in the order in which the shell must start them.
    fn step(&mut self, now: Instant, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// When it wants to be stepped even if nothing happens.
    fn deadline(&self) -> Option<Instant>;

    /// Asserts every invariant in the module's header.
    fn check(&self);
}

/// The only thing that touches the world on a machine's behalf.
pub trait Shell<M: Machine>: Send {
    /// Waits for the next input, a tick at `deadline` included. `None`: shut down.
    fn next(&mut self, deadline: Option<Instant>) -> impl Future<Output = Option<M::Input>> + Send;

    /// Starts an effect. Never waits: completions come back through `next`.
    fn perform(&mut self, effect: M::Effect);
}

/// The event loop of a machine and its shell. Ends when the shell does.
pub async fn drive<M, S>(mut machine: M, mut shell: S, clock: Arc<dyn Clock>)
where
    M: Machine,
    S: Shell<M>,
{
    let mut effects = Vec::new();
    while let Some(input) = shell.next(machine.deadline()).await {
        machine.step(clock.now(), input, &mut effects);
        if cfg!(debug_assertions) {
            machine.check();
        }
        for effect in effects.drain(..) {
            shell.perform(effect);
        }
    }
}
