//! Planted bugs, probes and buggify: how the tester's own power is measured.
//!
//! * [`planted!`](crate::planted!) is true in a run that has switched that one bug on: the line behind it breaks one
//!   rule. A simulation that does not find it is not strong enough.
//! * [`probe!`](crate::probe!) marks a rare branch that the swarm must reach.
//! * [`buggify!`](crate::buggify!) perturbs a shell (a short wait, a small limit): a site is active in a quarter of the
//!   runs and then fires on a quarter of its calls. Machines are perturbed through inputs only.
//!
//! All three compile to nothing without the feature `planted`, which only the simulator switches on. They are the one
//! permitted ambient state: one simulation is one thread, so it is thread-local.

/// True while the planted bug of that name is switched on: `if planted!("PB-L1") { … }`.
#[macro_export]
macro_rules! planted {
    ($bug:literal) => {
        $crate::planted::is_on($bug)
    };
}

/// Records that a rare branch was reached: `probe!("engine: torn tail cut")`.
#[macro_export]
macro_rules! probe {
    ($site:literal) => {
        $crate::planted::reached($site)
    };
}

/// True now and then in simulation, never in production: `if buggify!("engine: tiny batch") { … }`.
#[macro_export]
macro_rules! buggify {
    ($site:literal) => {
        $crate::planted::fires($site)
    };
}

#[cfg(feature = "planted")]
mod on {
    use rand_core::{RngCore as _, SeedableRng as _};
    use rand_pcg::Pcg64Mcg;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    struct State {
        bug: Option<String>,
        reached: BTreeMap<&'static str, u64>,
        active: BTreeMap<&'static str, bool>,
        coin: Option<Pcg64Mcg>,
    }

    thread_local! {
        static STATE: RefCell<State> = const {
            RefCell::new(State { bug: None, reached: BTreeMap::new(), active: BTreeMap::new(), coin: None })
        };
    }

    /// Starts a run: `bug` is on, `seed` decides where [`buggify!`](crate::buggify!) fires (`None`: nowhere).
    pub fn start_run(bug: Option<&str>, seed: Option<u64>) {
        STATE.with_borrow_mut(|state| {
            *state = State {
                bug: bug.map(str::to_owned),
                reached: BTreeMap::new(),
                active: BTreeMap::new(),
                coin: seed.map(Pcg64Mcg::seed_from_u64),
            };
        });
    }

    /// The probes reached since the run started, with counts.
    pub fn probes() -> BTreeMap<&'static str, u64> {
        STATE.with_borrow(|state| state.reached.clone())
    }

    /// See [`planted!`](crate::planted!).
    pub fn is_on(bug: &str) -> bool {
        STATE.with_borrow(|state| state.bug.as_deref() == Some(bug))
    }

    /// See [`probe!`](crate::probe!).
    pub fn reached(site: &'static str) {
        STATE.with_borrow_mut(|state| *state.reached.entry(site).or_default() += 1);
    }

    /// See [`buggify!`](crate::buggify!).
    pub fn fires(site: &'static str) -> bool {
        STATE.with_borrow_mut(|state| {
            let Some(coin) = &mut state.coin else { return false };
            let active = *state.active.entry(site).or_insert_with(|| coin.next_u32() % 4 == 0);
            active && coin.next_u32() % 4 == 0
        })
    }
}

#[cfg(feature = "planted")]
pub use on::{fires, is_on, probes, reached, start_run};

#[cfg(not(feature = "planted"))]
mod off {
    /// Always false: nothing is planted in this build.
    #[inline]
    pub const fn is_on(_bug: &str) -> bool {
        false
    }

    /// Does nothing in this build.
    #[inline]
    pub const fn reached(_site: &str) {}

    /// Always false in this build.
    #[inline]
    pub const fn fires(_site: &str) -> bool {
        false
    }
}

#[cfg(not(feature = "planted"))]
pub use off::{fires, is_on, reached};
