//! The real seams: what `Env` stands for outside the simulator.
//!
//! These files alone name the operating system on behalf of the crates below. Nothing here decides anything: a rule
//! that could be wrong belongs to a machine, where it can be searched.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the seams are where the clock, threads, files and sockets of the system are asked"
)]

pub(crate) mod clock;
pub(crate) mod entropy;
pub(crate) mod file;
pub(crate) mod spawn;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use thalweg_actor::env::Env;

/// The world as this process has it, with `disk` as its data folder. To be called inside the runtime.
pub(crate) fn env(disk: Arc<file::Folder>) -> io::Result<Env> {
    Ok(Env {
        network: Arc::new(tcp::Tcp::default()),
        disk,
        clock: Arc::new(clock::SystemClock::default()),
        entropy: Arc::new(entropy::SystemEntropy::open()?),
        spawn: Arc::new(spawn::Runtime::current()),
    })
}
