//! What an actor is, and the only things it may touch.
//!
//! A *machine* decides and a *shell* waits. Everything a shell may wait for stands behind [`Env`]: network, disk,
//! clock, entropy, and the spawning of more actors. The real seams live in `server/src/os`, the simulated ones in
//! `sim/src/world`; no other crate can reach the operating system or the simulator.

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod env;
pub mod explore;
pub mod machine;
pub mod network;
pub mod planted;
pub mod spawn;
pub mod testing;

use std::future::Future;
use std::pin::Pin;

/// A boxed future: seams are object-safe, and a box per batched call costs nothing that can be measured.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
