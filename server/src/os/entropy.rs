//! Randomness of the system.

use rand_pcg::Pcg64Mcg;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};
use thalweg_actor::entropy::Entropy;

/// Draws from a generator that was seeded once with 128 bits of `/dev/urandom`: nothing here guards a secret.
pub(crate) struct SystemEntropy {
    generator: Mutex<Pcg64Mcg>,
}

impl SystemEntropy {
    /// Reads the seed.
    pub(crate) fn open() -> io::Result<Self> {
        let mut seed = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Self { generator: Mutex::new(Pcg64Mcg::new(u128::from_ne_bytes(seed))) })
    }
}

impl Entropy for SystemEntropy {
    fn draw(&self) -> u128 {
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(generator.next_u64()) << 64) | u128::from(generator.next_u64())
    }

    fn stream(&self, _concern: &str) -> Pcg64Mcg {
        Pcg64Mcg::new(self.draw())
    }
}

use rand_pcg::rand_core::RngCore as _;
