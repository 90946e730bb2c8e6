use super::*;
use thalweg_actor::explore::{Limits, Outcome, search, walk};
use thalweg_actor::planted::start_run;

fn explore(setup: &Setup, bug: Option<&str>) -> Outcome<Action> {
    start_run(bug, None);
    let outcome = search(&SmallWorld::new(setup), Limits::default(), &mut |_| true);
    start_run(None, None);
    outcome
}

#[test]
fn the_smallest_world_is_safe_and_searched_whole() {
    let outcome = explore(setup("W0").unwrap(), None);
    assert!(outcome.completed, "{:?}", outcome.violation);
    assert!(outcome.progress.states > 1000, "{:?}", outcome.progress);
}

#[test]
fn planted_bugs_are_found_in_small_worlds() {
    for name in ["M1", "M2", "M9", "M10"] {
        let planted = PLANTED.iter().find(|planted| planted.name == name).unwrap();
        let outcome = explore(setup(planted.world).unwrap(), Some(planted.bug));
        assert!(outcome.violation.is_some(), "{name} {}", planted.what);
    }
}

#[test]
fn every_planted_bug_has_a_world_and_every_world_a_name_of_its_own() {
    assert!(PLANTED.iter().all(|planted| setup(planted.world).is_some()));
    for world in WORLDS {
        assert_eq!(WORLDS.iter().filter(|other| other.name == world.name).count(), 1);
    }
}

#[test]
fn a_walk_through_the_full_world_is_safe() {
    start_run(None, None);
    let walked = walk(&SmallWorld::new(&FULL), 1, 10_000, 400);
    assert!(walked.violation.is_none(), "{:?}", walked.violation);
}

/// Storages that have been told the same are one state, whichever of them it is.
#[test]
fn which_of_like_storages_it_is_does_not_matter() {
    let start = SmallWorld::new(setup("W1").unwrap());
    let mut worlds: Vec<SmallWorld> = (0..3).map(|_| start.clone()).collect();
    for (slot, world) in worlds.iter_mut().enumerate() {
        world.apply(Action::Submit { host: 0 }).unwrap();
        world.apply(Action::Deliver { host: 0, slot }).unwrap();
    }
    assert_eq!(worlds[0].fingerprint(), worlds[1].fingerprint());
    assert_eq!(worlds[0].fingerprint(), worlds[2].fingerprint());
    worlds[1].apply(Action::Deliver { host: 0, slot: 1 }).unwrap();
    worlds[2].apply(Action::Deliver { host: 0, slot: 1 }).unwrap();
    assert_ne!(worlds[1].fingerprint(), worlds[2].fingerprint());
}
