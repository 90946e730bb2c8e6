//! What a run of one seed has shown.

use std::collections::BTreeMap;
use std::fmt;

/// A broken invariant.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which: `I1`, …
    pub(crate) invariant: &'static str,
    /// The event or the bytes that show it.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Named figures.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// What a scenario returns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Broken invariants.
    pub(crate) violations: Vec<Violation>,
    /// The scenario could not go on: a time-out, a refusal that nothing explains.
    pub(crate) stuck: Option<String>,
    /// What was done and what went wrong.
    pub(crate) counts: Counts,
    /// Figures that the run must reach.
    pub(crate) floors: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// Records a broken invariant.
    pub(crate) fn violate(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.violations.push(Violation { invariant, what: what.into() });
    }

    /// Adds to a figure.
    pub(crate) fn add(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_default() += by;
    }
}

/// A run of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The seed.
    pub(crate) seed: u64,
    /// What the scenario found.
    pub(crate) outcome: Outcome,
    /// The message of a panic.
    pub(crate) panic: Option<String>,
    /// Probes reached, with counts.
    pub(crate) probes: BTreeMap<&'static str, u64>,
    /// Hash and lines of the trace.
    pub(crate) trace: (u64, u64),
    /// Simulated nanoseconds.
    pub(crate) simulated: u64,
}

impl Run {
    /// The figures that were not reached.
    pub(crate) fn shortfalls(&self) -> Vec<String> {
        let counts = &self.outcome.counts;
        let reached = |name| counts.get(name).copied().unwrap_or(0);
        let short = self.outcome.floors.iter().filter(|(name, floor)| reached(*name) < *floor);
        short.map(|(name, floor)| format!("{name} {} < {floor}", reached(name))).collect()
    }

    /// What is wrong with the run; empty if nothing is.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.outcome.violations.iter().map(ToString::to_string).collect();
        all.extend(self.panic.iter().map(|panic| format!("panic: {panic}")));
        all.extend(self.outcome.stuck.iter().map(|stuck| format!("stuck: {stuck}")));
        all.extend(self.shortfalls().into_iter().map(|short| format!("idle: {short}")));
        all
    }
}
