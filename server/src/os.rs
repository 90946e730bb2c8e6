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
mod nodisk;
pub(crate) mod process;
pub(crate) mod spawn;
pub(crate) mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use thalweg_actor::disk::Disk;
use thalweg_actor::env::Env;

/// The world of a server that keeps its data in `disk`, with its ports claimed in `network`. To be called inside the
/// runtime.
pub(crate) fn env(network: Arc<tcp::Tcp>, disk: Arc<dyn Disk>) -> io::Result<Env> {
    Ok(Env {
        network,
        disk,
        clock: Arc::new(clock::SystemClock::default()),
        entropy: Arc::new(entropy::SystemEntropy::open()?),
        spawn: Arc::new(spawn::Runtime::current()),
    })
}

/// The world of a client. To be called inside the runtime.
pub(crate) fn client_env() -> io::Result<Env> {
    env(Arc::default(), Arc::new(nodisk::NoDisk))
}

/// The threads that everything but the disk runs on: as many as there are processors, and never just one, so that no
/// connection waits behind another's long computation.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.max(2))
        .thread_name("thalweg")
        .enable_io()
        .enable_time()
        .build()
}

/// Lets the process open as many files, and so connections, as the system allows it.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
