//! The world as one actor sees it.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::entropy::Entropy;
use crate::network::Network;
use crate::spawn::Spawn;
use std::sync::Arc;

/// The four seams and the executor, passed to every actor. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Byte streams to other processes.
    pub network: Arc<dyn Network>,
    /// The node's data folder.
    pub disk: Arc<dyn Disk>,
    /// The node's clock.
    pub clock: Arc<dyn Clock>,
    /// The node's source of randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where actors run.
    pub spawn: Arc<dyn Spawn>,
}
