//! Each planted bug of the engine makes a test fail that passes without it.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use thalweg_actor::planted::start_run;

/// A test, and what it is expected to complain about.
type Finder = (fn(), &'static str);

/// A bug, and who finds it.
const BUGS: [(&str, Finder); 10] = [
    // Acknowledged before it is written.
    ("PB-L1", (crash::a_stop_at_any_step_loses_nothing_acknowledged_and_shows_nothing_by_halves, "lost")),
    // Every bad checksum is a torn end.
    (
        "PB-D1",
        (
            damage::a_stale_sector_of_a_recycled_file_never_shows_wrong_data_nor_a_shorter_log,
            "left == right",
        ),
    ),
    // A torn end is whole.
    ("PB-D2", (crash::a_stop_at_any_step_loses_nothing_acknowledged_and_shows_nothing_by_halves, "c1e1:0")),
    // Nothing says where a batch or a frame belongs.
    (
        "PB-D3",
        (
            damage::a_misdirected_batch_under_a_running_engine_never_shows_wrong_data,
            "left == right",
        ),
    ),
    // A failed sync is ignored.
    ("PB-D4", (crash::a_failed_sync_stops_the_engine_and_loses_nothing_acknowledged, "lost")),
    // A renaming is not synced.
    ("PB-D5", (trimmed_files_are_recycled_and_facts_outlive_them, "left == right")),
    // A file that is used again looks as it did.
    ("PB-D7", (crash::a_stop_at_any_step_loses_nothing_acknowledged_and_shows_nothing_by_halves, "c2e1 has ")),
    // A full disk is not noticed.
    (
        "PB-D8",
        (
            full::a_full_disk_holds_appends_lets_exempt_entries_and_facts_pass_and_goes_on_afterwards,
            "Unknown",
        ),
    ),
    // A buffer is filled again before it is written.
    (
        "PB-D10",
        (
            what_is_durable_is_found_again_after_a_power_loss_and_after_a_clean_stop,
            "left == right",
        ),
    ),
    // What a start has read is not synced.
    ("PB-D12", (crash::a_stop_at_any_step_of_the_start_after_it_loses_nothing_either, "of the start")),
];

#[test]
fn every_planted_bug_is_found() {
    for (bug, (test, complaint)) in BUGS {
        start_run(Some(bug), None);
        let outcome = catch_unwind(AssertUnwindSafe(test));
        start_run(None, None);
        let Err(panic) = outcome else { panic!("{bug} was not found") };
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned());
        assert!(text.contains(complaint), "{bug}: {text}");
    }
}
