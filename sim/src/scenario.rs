//! Scenarios: a world, a workload, a nemesis, and the oracles that judge what came of it.

mod ledger;
mod one_node;
mod seams;

use crate::report::{Outcome, Run};
use crate::world::rng::Salt;
use crate::world::{executor, trace};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use thalweg_actor::{BoxFuture, planted};

/// Simulated time after which a run is called stuck.
const TIME_MAX: Duration = Duration::from_secs(3_600);

/// A planted bug, and the oracles of which one must find it.
pub(crate) struct Bug {
    /// Its name: `PB-…`.
    pub(crate) id: &'static str,
    /// The invariants that it breaks.
    pub(crate) breaks: &'static [&'static str],
}

/// A named scenario.
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// One line about it.
    pub(crate) about: &'static str,
    /// Runs it with everything drawn from the salt.
    pub(crate) run: fn(Salt) -> BoxFuture<'static, Outcome>,
    /// The planted bugs that it must find.
    pub(crate) bugs: &'static [Bug],
    /// What a hundred seeds must at least show together, figures and probes.
    pub(crate) together: &'static [(&'static str, u64)],
}

/// All scenarios.
pub(crate) const ALL: &[Scenario] = &[seams::SCENARIO, ledger::SCENARIO, one_node::SCENARIO];

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the message of a panic instead of printing it.
pub(crate) fn capture_panics() {
    panic::set_hook(Box::new(|info| {
        LAST_PANIC.with_borrow_mut(|last| *last = Some(info.to_string().replace('\n', " ")));
    }));
}

/// Runs one seed of `scenario`, with `bug` switched on; `print` puts the trace on stdout.
pub(crate) fn run(scenario: &Scenario, seed: u64, bug: Option<&str>, print: bool) -> Run {
    let salt = Salt::new(seed).of(scenario.name);
    trace::start(print);
    planted::start_run(bug, Some(salt.of("buggify").rng().word()));
    LAST_PANIC.with_borrow_mut(|last| *last = None);
    let world = async {
        let outcome = executor::timeout(TIME_MAX, (scenario.run)(salt)).await;
        (outcome, executor::now())
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| executor::run(seed, world)));
    let probes = planted::probes();
    let (outcome, panic, simulated) = match result {
        Ok((Some(outcome), simulated)) => (outcome, None, simulated),
        Ok((None, simulated)) => {
            let stuck = Some(format!("the scenario takes longer than {TIME_MAX:?}"));
            (Outcome { stuck, ..Outcome::default() }, None, simulated)
        }
        Err(_) => {
            let message = LAST_PANIC.with_borrow_mut(Option::take);
            (Outcome::default(), Some(message.unwrap_or_else(|| "no message".into())), 0)
        }
    };
    Run { seed, outcome, panic, probes, trace: trace::summary(), simulated }
}
