//! Salted random streams: one per concern, each a function of the seed and its name alone.

use rand_core::{RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use std::time::Duration;

/// A seed and a path of names below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt(u64);

impl Salt {
    /// The root of a run.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x7468_616c_7765_6721))
    }

    /// The salt below this one with the given name.
    pub(crate) fn of(self, name: &str) -> Self {
        Self(name.bytes().fold(mix(self.0), |hash, byte| {
            mix(hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    /// The salt below this one with the given number.
    pub(crate) fn at(self, number: u64) -> Self {
        Self(mix(mix(self.0 ^ 0x6e75_6d62_6572) ^ number))
    }

    /// A generator.
    pub(crate) fn rng(self) -> Rng {
        Rng(Pcg64Mcg::seed_from_u64(self.0))
    }

    /// A generator of the type that the entropy seam hands out.
    pub(crate) fn stream(self) -> Pcg64Mcg {
        Pcg64Mcg::seed_from_u64(self.0)
    }
}

/// The finaliser of `SplitMix64`.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A generator with the draws that a simulation needs.
#[derive(Clone, Debug)]
pub(crate) struct Rng(Pcg64Mcg);

impl Rng {
    /// A number in `[0, below)`; 0 if `below` is 0.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        if below == 0 { 0 } else { self.0.next_u64() % below }
    }

    /// A number in `[low, high)`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// An index of a collection of `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("an index fits")
    }

    /// True `per_million` times in a million.
    pub(crate) fn per_million(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.per_million(percent * 10_000)
    }

    /// A duration in `[low, high)` microseconds.
    pub(crate) fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.range(low, high))
    }

    /// A duration in `[low, high)` milliseconds.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.range(low * 1_000, high * 1_000))
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// 64 bits.
    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 bits.
    pub(crate) fn wide(&mut self) -> u128 {
        (u128::from(self.0.next_u64()) << 64) | u128::from(self.0.next_u64())
    }

    /// A generator of its own, drawn from this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(Pcg64Mcg::seed_from_u64(self.word()))
    }

    /// Brings `items` into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}
