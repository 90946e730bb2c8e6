//! The clock seam.

use crate::BoxFuture;
use thalweg_types::time::{Instant, WallTime};

/// One node's clock. Nodes' clocks share no origin, may drift apart, and wall time may jump.
pub trait Clock: Send + Sync {
    /// The monotonic time: never goes back within one process.
    fn now(&self) -> Instant;

    /// Completes at or after `at`. MUST NOT complete earlier.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// Milliseconds since the Unix epoch, as far as this node knows. MUST NOT be used for safety.
    fn wall(&self) -> WallTime;
}
