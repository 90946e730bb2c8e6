//! Plays the scenarios of the list of hazards, each as it is and with each of its planted bugs, and prints what found
//! what. Exits with a failure if a scenario does not hold, or a bug is not found.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use thalweg_actor::planted::start_run;
use thalweg_log::testing::bookkeeper::{SCENARIOS, Scenario};

fn main() -> Result<(), String> {
    // A failed assertion is a finding like any other.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<4} {:<8} {:<6} scenario: what the planted bug is found by", "", "bug", "found");
    let (mut held, mut planted, mut found) = (0, 0, 0);
    for scenario in SCENARIOS {
        let Scenario { name, what, bugs, .. } = scenario;
        match outcome(scenario, None) {
            Ok(()) => held += 1,
            Err(broken) => println!("{name:<4} {:<8} {:<6} {what}: {broken}", "", "BROKEN"),
        }
        for (bug, judgement) in *bugs {
            planted += 1;
            match outcome(scenario, Some(bug)) {
                Err(said) if said.contains(judgement) => {
                    found += 1;
                    println!("{name:<4} {bug:<8} {:<6} {what}: {said}", "yes");
                }
                Err(said) => println!("{name:<4} {bug:<8} {:<6} {what}: {said}", "OTHER"),
                Ok(()) => println!("{name:<4} {bug:<8} {:<6} {what}", "NO"),
            }
        }
    }
    let scenarios = SCENARIOS.len();
    println!("{held} of {scenarios} scenarios hold, {found} of {planted} planted bugs found");
    let passed = held == scenarios && found == planted;
    if passed { Ok(()) } else { Err("not all is as it must be".to_owned()) }
}

fn outcome(scenario: &Scenario, bug: Option<&str>) -> Result<(), String> {
    start_run(bug, None);
    let outcome = catch_unwind(AssertUnwindSafe(scenario.play));
    start_run(None, None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let fixed = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Err(text.or_else(fixed).unwrap_or_default())
    })
}
