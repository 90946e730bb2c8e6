//! Seeds without planted bugs: every one must be clean, and none may idle.

use super::arguments::{self, Arguments};
use super::child;
use super::say;
use crate::report::Summary;
use crate::scenario::{self, Scenario};
use std::collections::BTreeMap;

const SEEDS_DEFAULT: u64 = 20;
const REGRESSIONS: &str = include_str!("../../regressions.txt");

/// The clock of the person who waits; the simulated world never sees it.
#[expect(clippy::disallowed_methods, reason = "wall time of the harness, outside of every run")]
pub(super) fn wall() -> std::time::Instant {
    std::time::Instant::now()
}

/// What many runs have shown together.
#[derive(Default)]
struct Totals {
    counts: BTreeMap<String, u64>,
    probes: BTreeMap<String, u64>,
    simulated: u64,
    bad: Vec<u64>,
}

impl Totals {
    fn add(&mut self, run: &Summary) {
        for (name, count) in &run.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for site in run.probes.keys() {
            *self.probes.entry(site.clone()).or_default() += 1;
        }
        self.simulated += run.simulated;
    }

    /// What many seeds should have shown together and have not.
    fn shortfalls(&self, scenario: &Scenario, seeds: usize) -> Vec<String> {
        if seeds < SEEDS_MANY {
            return Vec::new();
        }
        let shown = |name: &str| self.counts.get(name).or(self.probes.get(name)).copied();
        let all = scenario.together.iter().map(|(name, floor)| (name, shown(name), floor));
        let short = all.filter(|(_, shown, floor)| shown.unwrap_or(0) < **floor);
        short
            .map(|(name, shown, floor)| format!("{name} {} < {floor}", shown.unwrap_or(0)))
            .collect()
    }
}

/// Seeds from which on a swarm must show what its scenario promises.
const SEEDS_MANY: usize = 100;

fn complain(run: &Summary, name: &str) -> bool {
    let complaints = &run.complaints;
    if complaints.is_empty() {
        return false;
    }
    eprintln!("seed {}: cargo sim run --scenario {name} --seed {}", run.seed, run.seed);
    for complaint in complaints.iter().take(8) {
        eprintln!("    {complaint}");
    }
    if complaints.len() > 8 {
        eprintln!("    … and {} more", complaints.len() - 8);
    }
    true
}

fn list(figures: &BTreeMap<String, u64>) -> String {
    let figures: Vec<String> =
        figures.iter().map(|(name, count)| format!("{name} {count}")).collect();
    figures.join(", ")
}

/// One seed.
pub(super) fn one(arguments: &Arguments) -> bool {
    let Arguments { scenario, start, bug, trace, report, .. } = arguments;
    let run = scenario::run(scenario, *start, bug.as_deref(), *trace);
    if *report {
        child::report(&run);
        return run.complaints().is_empty();
    }
    let summary = Summary::of(&run);
    let bad = complain(&summary, scenario.name);
    if !*trace {
        say(&format!("counts: {}", list(&summary.counts)));
        say(&format!("probes: {}", list(&summary.probes)));
    }
    let (hash, lines) = run.trace;
    say(&format!(
        "seed {start}: {}, trace {hash:016x} of {lines} lines",
        if bad { "FAILED" } else { "ok" }
    ));
    !bad
}

/// Many seeds.
pub(super) fn many(arguments: &Arguments) -> bool {
    let seeds = arguments.seeds.unwrap_or(SEEDS_DEFAULT);
    let all: Vec<u64> = (arguments.start..arguments.start + seeds).collect();
    sweep(arguments.scenario, &all)
}

fn sweep(scenario: &Scenario, seeds: &[u64]) -> bool {
    let started = wall();
    let mut totals = Totals::default();
    for (done, run) in child::runs(scenario, None, seeds.iter().copied()).enumerate() {
        totals.add(&run);
        if complain(&run, scenario.name) {
            totals.bad.push(run.seed);
        }
        if (done + 1) % 10 == 0 {
            let bad = totals.bad.len();
            eprintln!("{}/{} seeds, {bad} bad, {:.1?}", done + 1, seeds.len(), started.elapsed());
        }
    }
    let short = totals.shortfalls(scenario, seeds.len());
    say(&format!("totals: {}", list(&totals.counts)));
    say(&format!("probes reached (in so many seeds): {}", list(&totals.probes)));
    if !totals.bad.is_empty() {
        say(&format!("bad seeds: {:?}", totals.bad));
    }
    say(&format!(
        "{}: {} of {} seeds clean, {} probes, {} simulated s in {:.1} s",
        scenario.name,
        seeds.len() - totals.bad.len(),
        seeds.len(),
        totals.probes.len(),
        totals.simulated / 1_000_000_000,
        started.elapsed().as_secs_f64(),
    ));
    for short in &short {
        say(&format!("too little for so many seeds: {short}"));
    }
    totals.bad.is_empty() && short.is_empty()
}

/// The recorded seeds: once red, now green for ever.
pub(super) fn regressions() -> bool {
    let lines = REGRESSIONS.lines().map(str::trim);
    let mut good = true;
    let mut count = 0;
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let parsed = words.next().zip(words.next().and_then(|seed| seed.parse::<u64>().ok()));
        let Some((name, seed)) = parsed else {
            eprintln!("regressions.txt: not `scenario seed`: {line}");
            return false;
        };
        match arguments::find(name) {
            Ok(scenario) => {
                let runs = child::runs(scenario, None, std::iter::once(seed));
                good &= runs.fold(true, |good, run| good & !complain(&run, name));
            }
            Err(message) => {
                eprintln!("regressions.txt: {message}");
                return false;
            }
        }
        count += 1;
    }
    say(&format!("{count} recorded seeds: {}", if good { "all clean" } else { "FAILED" }));
    good
}
