//! The conformance suite of the seams: what every implementation of [`Disk`](crate::disk::Disk) and
//! [`Network`](crate::network::Network) must do while nothing fails.
//!
//! It runs against the simulated seams (`sim`, scenario `seams`) and against the operating system's (a test of
//! `server`). Each check panics with a sentence that names the broken promise.
//!
//! Deliberately not here: what survives a crash. Only the simulated disk can lose power; `sim` tests that.

mod disk;
mod network;

pub use disk::check_disk;
pub use network::check_network;
