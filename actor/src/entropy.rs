//! The entropy seam.

use rand_pcg::Pcg64Mcg;

/// A node's source of randomness: the operating system's, or the simulation's seed.
pub trait Entropy: Send + Sync {
    /// 128 fresh random bits.
    fn draw(&self) -> u128;

    /// A generator of its own for one concern. Under simulation the same `concern` gets the same numbers however
    /// many draws other concerns make.
    fn stream(&self, concern: &str) -> Pcg64Mcg;
}
