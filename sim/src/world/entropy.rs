//! The simulated entropy: salted by process and by concern.

use super::rng::{Rng, Salt};
use rand_pcg::Pcg64Mcg;
use std::sync::{Mutex, PoisonError};
use thalweg_actor::entropy::Entropy;

/// The entropy of one process.
pub(crate) struct SimEntropy {
    salt: Salt,
    draws: Mutex<Rng>,
}

impl SimEntropy {
    /// All randomness below `salt`.
    pub(crate) fn new(salt: Salt) -> Self {
        Self { salt, draws: Mutex::new(salt.of("draws").rng()) }
    }
}

impl Entropy for SimEntropy {
    fn draw(&self) -> u128 {
        self.draws.lock().unwrap_or_else(PoisonError::into_inner).wide()
    }

    fn stream(&self, concern: &str) -> Pcg64Mcg {
        self.salt.of("stream").of(concern).stream()
    }
}
