//! Planted bugs: each must be found by the oracle that is meant to find it.
//!
//! A panic or a time-out is not a find, and neither is another oracle's complaint: both are listed apart.

use super::arguments::Arguments;
use super::child;
use super::say;
use super::swarm::wall;
use crate::report::Summary;
use crate::scenario::{Bug, Scenario};
use std::collections::BTreeSet;

const SEEDS_DEFAULT: u64 = 200;

#[derive(Default)]
struct Search {
    /// The first seed that the right oracle complained about, and how.
    found: Option<(u64, String)>,
    seeds: u64,
    /// Seeds with another complaint only.
    elsewhere: u64,
    /// Which oracles those were.
    others: BTreeSet<String>,
}

fn search(scenario: &Scenario, bug: &Bug, arguments: &Arguments) -> Search {
    let mut search = Search::default();
    let seeds = arguments.start..arguments.start + arguments.seeds.unwrap_or(SEEDS_DEFAULT);
    for run in child::runs(scenario, Some(bug.id), seeds) {
        search.seeds += 1;
        let right = run.violations.iter().find(|(rule, _)| bug.breaks.contains(&rule.as_str()));
        if let Some((rule, what)) = right {
            search.found = Some((run.seed, format!("{rule}: {what}")));
            return search;
        }
        let others = others(&run);
        search.elsewhere += u64::from(!others.is_empty());
        search.others.extend(others);
    }
    search
}

/// The first words of what is wrong with a run.
fn others(run: &Summary) -> Vec<String> {
    let complaints = run.complaints.iter().filter_map(|complaint| complaint.split(':').next());
    complaints.filter(|word| *word != "idle").map(str::to_owned).collect()
}

/// Every planted bug of the scenario, or one of them.
pub(super) fn all(arguments: &Arguments) -> bool {
    let scenario = arguments.scenario;
    let wanted = |bug: &&Bug| arguments.bug.as_deref().is_none_or(|only| only == bug.id);
    let bugs: Vec<&Bug> = scenario.bugs.iter().filter(wanted).collect();
    if bugs.is_empty() {
        eprintln!("{} plants no such bug", scenario.name);
        return false;
    }
    let started = wall();
    let mut found = Vec::new();
    say("| bug | found | first seed | invariant | seeds with other complaints |");
    say("|---|---|---|---|---|");
    for bug in &bugs {
        let before = wall();
        let search = search(scenario, bug, arguments);
        let others: Vec<&str> = search.others.iter().map(String::as_str).collect();
        let others = format!("{} {}", search.elsewhere, others.join(" "));
        match &search.found {
            Some((seed, what)) => {
                let invariant = what.split(':').next().unwrap_or("");
                say(&format!("| {} | yes | {seed} | {invariant} | {} |", bug.id, others.trim()));
                eprintln!("{}: seed {seed}, {:.1?}: {what}", bug.id, before.elapsed());
                found.push(*seed);
            }
            None => {
                say(&format!("| {} | NO in {} | | | {} |", bug.id, search.seeds, others.trim()));
            }
        }
    }
    let clean = same_seeds_are_clean(scenario, &found);
    say(&format!(
        "{}: {} of {} planted bugs found by the right oracle; the same seeds without a bug: {} in {:.1} s",
        scenario.name,
        found.len(),
        bugs.len(),
        if clean { "clean" } else { "NOT clean" },
        started.elapsed().as_secs_f64(),
    ));
    clean && found.len() == bugs.len()
}

fn same_seeds_are_clean(scenario: &Scenario, seeds: &[u64]) -> bool {
    let seeds: BTreeSet<u64> = seeds.iter().copied().collect();
    let mut clean = true;
    for Summary { seed, complaints, .. } in child::runs(scenario, None, seeds.into_iter()) {
        for complaint in &complaints {
            eprintln!("seed {seed} without a bug: {complaint}");
        }
        clean &= complaints.is_empty();
    }
    clean
}
