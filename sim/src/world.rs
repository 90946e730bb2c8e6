//! The simulated world: seams over madsim's executor, and hosts that can be killed or lose power.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod entropy;
pub(crate) mod executor;
pub(crate) mod host;
pub(crate) mod network;
pub(crate) mod rng;
pub(crate) mod trace;
