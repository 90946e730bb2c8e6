//! Searches small worlds of the ledger's machines exhaustively, proves that planted bugs are found in them, and walks
//! through a large world at random. Exits with a failure if anything is not as it must be.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use thalweg_actor::explore::{Limits, Outcome, Violation, search, walk};
use thalweg_actor::planted::start_run;
use thalweg_log::testing::small::{
    Action, FULL, PLANTED, Planted, Setup, SmallWorld, WORLDS, setup,
};
use tokio::time::Instant;

const HELP: &str = "\
exhaust [--full] [WORLD …]    search these worlds (all), then the planted bugs and the walk if no world is named
exhaust bugs [BUG …]          the planted bugs alone
exhaust walk [ACTIONS [SEED]] the random walk alone
  --full       no limits";

/// States of one world before it is given up without `--full`: what fits the memory and the time of a run.
const STATES_MAX: usize = 40_000_000;
/// Actions of the random walk.
const WALK_ACTIONS: u64 = 50_000_000;
/// Actions of one walk; most end before.
const WALK_DEPTH_MAX: usize = 400;
const WALK_SEED: u64 = 1;

fn main() -> Result<(), String> {
    // A failed assertion is a finding like any other; it is printed with its trace.
    std::panic::set_hook(Box::new(|_| {}));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let full = args.iter().any(|arg| arg == "--full");
    let given: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--full").collect();
    let passed = match given.split_first() {
        None => {
            let safe = worlds(full, &[]);
            let found = bugs(full, &[]);
            safe & found & random(WALK_ACTIONS, WALK_SEED)
        }
        Some((&"bugs", names)) => bugs(full, names),
        Some((&"walk", rest)) => {
            let number =
                |at: usize, default| rest.get(at).map_or(Some(default), |w| w.parse().ok());
            match (number(0, WALK_ACTIONS), number(1, WALK_SEED)) {
                (Some(actions), Some(seed)) => random(actions, seed),
                _ => usage(),
            }
        }
        Some(_) if given.iter().all(|name| setup(name).is_some()) => worlds(full, &given),
        Some(_) => usage(),
    };
    if passed { Ok(()) } else { Err("not all is as it must be".to_owned()) }
}

fn usage() -> bool {
    println!("{HELP}");
    false
}

fn limits(full: bool) -> Limits {
    Limits { states: if full { u32::MAX as usize } else { STATES_MAX }, ..Limits::default() }
}

fn run(setup: &Setup, limits: Limits) -> Outcome<Action> {
    let begun = Instant::now();
    search(&SmallWorld::new(setup), limits, &mut |progress| {
        if progress.states.is_multiple_of(1 << 22) {
            let seconds = begun.elapsed().as_secs();
            println!(
                "     … {} states, {} waiting, {seconds} s",
                progress.states, progress.frontier
            );
        }
        true
    })
}

/// Searches every world; false if one has a violation or was not completed.
fn worlds(full: bool, only: &[&str]) -> bool {
    println!("{:<5} {:>11} {:>12} {:>6} {:>8}  world", "", "states", "actions", "depth", "seconds");
    let mut passed = true;
    let named = |setup: &&Setup| only.contains(&setup.name) || only.is_empty();
    for setup in WORLDS.iter().filter(named) {
        let begun = Instant::now();
        start_run(None, None);
        let outcome = run(setup, limits(full));
        let seconds = begun.elapsed().as_secs_f64();
        let progress = outcome.progress;
        let verdict = match (&outcome.violation, outcome.completed) {
            (Some(_), _) => "VIOLATION in",
            (None, true) => "safe:",
            (None, false) => "NOT COMPLETED:",
        };
        println!(
            "{:<5} {:>11} {:>12} {:>6} {seconds:>8.1}  {verdict} {}",
            setup.name, progress.states, progress.actions, progress.depth, setup.what
        );
        if let Some(violation) = &outcome.violation {
            show(violation);
        }
        passed &= outcome.completed;
    }
    passed
}

/// Switches each planted bug on in its world; false if one is not found.
fn bugs(full: bool, only: &[&str]) -> bool {
    println!(
        "{:<5} {:<7} {:<5} {:>10} {:>6} {:>8}  found",
        "", "bug", "world", "states", "depth", "seconds"
    );
    let mut passed = true;
    let named = |bug: &&Planted| only.is_empty() || only.contains(&bug.name);
    for Planted { name, bug, what, world } in PLANTED.iter().filter(named) {
        let setup = setup(world).expect("the table names worlds that exist");
        let begun = Instant::now();
        start_run(Some(bug), None);
        let outcome = run(setup, limits(full));
        start_run(None, None);
        let seconds = begun.elapsed().as_secs_f64();
        let states = outcome.progress.states;
        let found = outcome.violation.as_ref();
        let depth = found.map_or(0, |violation| violation.trace.len());
        let what_happened = found.map_or("NOT FOUND", |violation| violation.what.as_str());
        println!(
            "{name:<5} {bug:<7} {world:<5} {states:>10} {depth:>6} {seconds:>8.1}  {what}: {what_happened}"
        );
        passed &= found.is_some();
    }
    passed
}

/// Walks at random through the world in which everything may happen.
fn random(actions: u64, seed: u64) -> bool {
    let begun = Instant::now();
    start_run(None, None);
    let walked = walk(&SmallWorld::new(&FULL), seed, actions, WALK_DEPTH_MAX);
    let seconds = begun.elapsed().as_secs_f64();
    let (taken, walks, depth) = (walked.actions, walked.walks, walked.depth);
    println!(
        "walk  {taken} actions in {walks} walks, the longest of {depth}, {seconds:.1} s, seed {seed}: {}",
        FULL.what
    );
    if let Some(violation) = &walked.violation {
        show(violation);
    }
    walked.violation.is_none()
}

fn show(violation: &Violation<Action>) {
    println!("      {}", violation.what);
    for (number, action) in violation.trace.iter().enumerate() {
        println!("      {:>3} {action:?}", number + 1);
    }
}
