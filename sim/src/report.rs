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

/// What a run has shown, as it goes from one process to another: a line per fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The seed.
    pub(crate) seed: u64,
    /// Broken invariants, each with what shows it.
    pub(crate) violations: Vec<(String, String)>,
    /// Everything that is wrong, for people.
    pub(crate) complaints: Vec<String>,
    /// What was done and what went wrong.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Probes reached, with counts.
    pub(crate) probes: BTreeMap<String, u64>,
    /// Simulated nanoseconds.
    pub(crate) simulated: u64,
}

/// Ends a summary: without it something is missing.
const LAST_LINE: &str = "end";

impl Summary {
    /// What `run` has shown.
    pub(crate) fn of(run: &Run) -> Self {
        let owned = |counts: &Counts| counts.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let violations = run.outcome.violations.iter();
        let violations = violations.map(|v| (v.invariant.to_owned(), line(&v.what)));
        Self {
            seed: run.seed,
            violations: violations.collect(),
            complaints: run.complaints().iter().map(|complaint| line(complaint)).collect(),
            counts: owned(&run.outcome.counts),
            probes: owned(&run.probes),
            simulated: run.simulated,
        }
    }

    /// A run that could not be followed to its end.
    pub(crate) fn broken(seed: u64, why: &str) -> Self {
        Self { seed, complaints: vec![format!("stuck: {why}")], ..Self::default() }
    }

    /// As lines.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!("simulated\t{}\t", self.simulated)];
        lines.extend(self.violations.iter().map(|(rule, what)| format!("broke\t{rule}\t{what}")));
        lines.extend(self.complaints.iter().map(|complaint| format!("wrong\t{complaint}\t")));
        lines.extend(self.counts.iter().map(|(name, count)| format!("count\t{name}\t{count}")));
        lines.extend(self.probes.iter().map(|(name, count)| format!("probe\t{name}\t{count}")));
        lines.push(LAST_LINE.to_owned());
        lines.join("\n")
    }

    /// From lines; `None` if any is missing.
    pub(crate) fn parse(seed: u64, text: &str) -> Option<Self> {
        let mut all = Self { seed, ..Self::default() };
        for line in text.lines() {
            if line == LAST_LINE {
                return Some(all);
            }
            let mut parts = line.splitn(3, '\t');
            let (kind, name, rest) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
            match kind {
                "simulated" => all.simulated = name.parse().ok()?,
                "broke" => all.violations.push((name, rest.to_owned())),
                "wrong" => all.complaints.push(name),
                "count" => drop(all.counts.insert(name, rest.parse().ok()?)),
                "probe" => drop(all.probes.insert(name, rest.parse().ok()?)),
                _ => return None,
            }
        }
        None
    }
}

/// Text without what would break a line.
fn line(text: &str) -> String {
    text.replace(['\t', '\n'], " ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_comes_back_from_its_lines_and_a_cut_one_does_not() {
        let mut outcome = Outcome::default();
        outcome.violate("I1", "lost\tand\nfound");
        outcome.stuck = Some("no end".to_owned());
        outcome.add("events", 7);
        outcome.floors = vec![("events", 8)];
        let probes = BTreeMap::from([("a: b", 2)]);
        let run = Run { seed: 3, outcome, panic: None, probes, trace: (1, 2), simulated: 4 };
        let summary = Summary::of(&run);
        assert_eq!(summary.complaints.len(), 3);
        let text = summary.text();
        assert_eq!(Summary::parse(3, &text), Some(summary));
        assert_eq!(Summary::parse(3, &text[..text.len() - 1]), None);
    }
}
