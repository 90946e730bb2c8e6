//! The scenarios of the list of hazards as named tests: each holds, and each fails with every bug that it names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use thalweg_actor::planted::start_run;
use thalweg_log::testing::bookkeeper::{SCENARIOS, Scenario, scenario};

fn outcome(scenario: &Scenario, bug: Option<&str>) -> Result<(), String> {
    start_run(bug, None);
    let outcome = catch_unwind(AssertUnwindSafe(scenario.play));
    start_run(None, None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let fixed = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Err(text.or_else(fixed).expect("a panic says something"))
    })
}

/// The scenario holds, and does not with its bugs.
fn prove(name: &str) {
    let scenario = scenario(name).expect("the name is in the table");
    assert_eq!(outcome(scenario, None), Ok(()), "{name}");
    for (bug, judgement) in scenario.bugs {
        let found = outcome(scenario, Some(bug));
        let found = found.expect_err(&format!("{name} does not find {bug}"));
        assert!(found.contains(judgement), "{name} finds {bug}, but says: {found}");
    }
}

#[test]
fn every_hazard_has_a_scenario_and_every_scenario_a_bug() {
    let names: Vec<String> = SCENARIOS.iter().map(|scenario| scenario.name.to_owned()).collect();
    let expected: Vec<String> = (1..=25).map(|number| format!("B{number}")).collect();
    assert_eq!(names, expected);
    assert!(SCENARIOS.iter().all(|scenario| !scenario.bugs.is_empty()));
}

#[test]
fn b01_an_append_behind_the_fence_is_refused() {
    prove("B1");
}

#[test]
fn b02_recovery_begins_with_the_last_fragment() {
    prove("B2");
}

#[test]
fn b03_a_fence_outlives_restarts_and_files() {
    prove("B3");
}

#[test]
fn b04_a_replica_that_lost_an_entry_proves_no_end() {
    prove("B4");
}

#[test]
fn b05_a_blank_or_damaged_storage_denies_nothing() {
    prove("B5");
}

#[test]
fn b06_an_unreadable_entry_is_no_end_of_the_log() {
    prove("B6");
}

#[test]
fn b07_a_recovery_goes_on_without_one_that_hangs() {
    prove("B7");
}

#[test]
fn b08_of_two_recoveries_one_closes() {
    prove("B8");
}

#[test]
fn b09_a_stopped_writer_commits_nothing() {
    prove("B9");
}

#[test]
fn b10_a_member_that_leaves_does_not_count() {
    prove("B10");
}

#[test]
fn b11_a_late_change_does_not_turn_the_ensemble_back() {
    prove("B11");
}

#[test]
fn b12_an_append_to_a_deleted_ledger_is_refused() {
    prove("B12");
}

#[test]
fn b13_a_stale_owner_cannot_change_the_register() {
    prove("B13");
}

#[test]
fn b14_a_freed_file_takes_no_live_entry_along() {
    prove("B14");
}

#[test]
fn b15_damage_in_the_middle_is_no_end_and_a_torn_end_is() {
    prove("B15");
}

#[test]
fn b16_one_old_superblock_is_not_believed() {
    prove("B16");
}

#[test]
fn b17_a_rotten_entry_is_read_elsewhere() {
    prove("B17");
}

#[test]
fn b18_an_answer_counts_once() {
    prove("B18");
}

#[test]
fn b19_an_idle_owners_last_entry_is_kept() {
    prove("B19");
}

#[test]
fn b20_an_open_ledger_denies_nothing() {
    prove("B20");
}

#[test]
fn b21_too_few_replicas_are_no_end_of_the_log() {
    prove("B21");
}

#[test]
fn b22_a_ledger_has_one_successor() {
    prove("B22");
}

#[test]
fn b23_a_recovery_cut_short_is_done_again() {
    prove("B23");
}

#[test]
fn b24_a_copy_is_done_when_it_can_be_read() {
    prove("B24");
}

#[test]
fn b25_a_blank_disk_takes_no_append() {
    prove("B25");
}
