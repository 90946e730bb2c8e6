//! One process: wires disk, log, controller, containers and listeners to an environment.
//!
//! The parts start in the order in which they need one another: the disk log, the controller's log on it, the
//! controller, which keeps the containers' registers, the containers' logs, the containers. What serves clients comes
//! last, and is the caller's to open: no port answers before everything has recovered.
//!
//! Invariants
//! 1. There is one wiring: production and simulation differ in their environment alone.
//! 2. When any part has ended the node has ended: [`Node::ended`] says why, and nothing is acknowledged any more.
//!
//! Not here: ports, gRPC and HTTP (the server), faults (the simulator).

mod config;
mod error;
mod node;
mod segments;

pub use config::Config;
pub use error::{Ended, StartError};
pub use node::{Node, StartReport};
