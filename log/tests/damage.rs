//! A sample of the damages to one replica of three: none loses or changes an acked byte, and planted bugs do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use thalweg_actor::planted::start_run;
use thalweg_log::testing::damage::{Damage, Kind, Store, Tally};

const BYTES: usize = 16 * 1024;

/// Every `step`th damage, and every stale and zeroed sector.
fn sample(store: &Store, step: usize) -> Vec<Damage> {
    let all = store.damages().into_iter().enumerate();
    let sectors = |kind| matches!(kind, Kind::Zero | Kind::Stale | Kind::Gone);
    let chosen = all.filter(|(at, damage)| at % step == 0 || sectors(damage.kind));
    chosen.map(|(_, damage)| damage).collect()
}

#[test]
fn no_damage_to_one_replica_of_three_loses_or_changes_what_was_acked() {
    start_run(None, None);
    for clean in [false, true] {
        let (store, mut tally) = (Store::write(BYTES, clean), Tally::default());
        for damage in sample(&store, 4999) {
            assert_eq!(store.judge(&damage, &mut tally), Ok(()), "clean: {clean}");
        }
        assert_eq!((tally.lost, tally.wrong), (0, 0));
        // All of it has happened; and no single damage makes a replica another one.
        let Tally { refused, noticed, unavailable, repaired, .. } = tally;
        assert!([noticed, unavailable, repaired].iter().all(|count| *count > 0), "{tally:?}");
        assert_eq!(refused, 0);
    }
}

#[test]
fn planted_bugs_are_found_by_damages() {
    start_run(None, None);
    let store = Store::write(BYTES, false);
    // Every bad checksum is a torn end; checksums of payloads are not looked at; copies that are held are not stored.
    for (bug, complaint) in [("PB-D1", "entries lost"), ("PB-B17", "wrong"), ("PB-B24", "repaired")]
    {
        let damages = sample(&store, 211);
        let finding = damages.iter().find_map(|damage| {
            start_run(Some(bug), None);
            let judged = || store.judge(damage, &mut Tally::default());
            let outcome = catch_unwind(AssertUnwindSafe(judged));
            start_run(None, None);
            outcome.ok()?.err().filter(|what| what.contains(complaint))
        });
        assert!(finding.is_some(), "{bug} was not found");
    }
}
