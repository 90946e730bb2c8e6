use super::*;
use std::collections::BTreeSet;

/// Walkers that each count to `top`; `trap` is what the sum must not be.
#[derive(Clone)]
struct Walkers {
    at: Vec<u8>,
    top: u8,
    trap: Option<u32>,
    alike: bool,
    trap_panics: bool,
}

impl Walkers {
    fn new(walkers: usize, top: u8) -> Self {
        Self { at: vec![0; walkers], top, trap: None, alike: false, trap_panics: false }
    }

    fn sum(&self) -> u32 {
        self.at.iter().map(|at| u32::from(*at)).sum()
    }
}

impl World for Walkers {
    type Action = usize;

    fn actions(&self, actions: &mut Vec<usize>) {
        actions.extend((0..self.at.len()).filter(|walker| self.at[*walker] < self.top));
    }

    fn apply(&mut self, action: usize) -> Result<(), String> {
        self.at[action] += 1;
        let trapped = self.trap == Some(self.sum());
        assert!(!(trapped && self.trap_panics), "trapped");
        if trapped { Err("trapped".to_owned()) } else { Ok(()) }
    }

    fn settled(&self) -> Result<(), String> {
        let top = u32::from(self.top) * u32::try_from(self.at.len()).unwrap();
        if self.sum() == top { Ok(()) } else { Err("ended early".to_owned()) }
    }

    fn fingerprint(&self) -> u64 {
        let mut digest = Digest::<4>::default();
        digest.all(&self.top);
        for (walker, at) in self.at.iter().enumerate() {
            digest.of(walker, &("at", at));
        }
        digest.finish(self.alike)
    }
}

fn explore(world: &Walkers, limits: Limits) -> Outcome<usize> {
    search(world, limits, &mut |_| true)
}

#[test]
fn every_state_is_visited_once() {
    let outcome = explore(&Walkers::new(3, 9), Limits::default());
    assert!(outcome.completed && outcome.violation.is_none());
    let Progress { states, depth, ends, breadth_first, .. } = outcome.progress;
    assert_eq!((states, depth, ends, breadth_first), (1000, 27, 1, true));
}

#[test]
fn a_full_frontier_changes_the_order_and_not_the_states() {
    let outcome = explore(&Walkers::new(3, 9), Limits { frontier: 3, ..Limits::default() });
    assert!(outcome.completed && !outcome.progress.breadth_first);
    assert_eq!(outcome.progress.states, 1000);
}

#[test]
fn states_that_differ_in_names_alone_are_one() {
    let alike = Walkers { alike: true, ..Walkers::new(3, 9) };
    // Multisets of three out of ten numbers.
    assert_eq!(explore(&alike, Limits::default()).progress.states, 220);
}

#[test]
fn a_violation_comes_with_a_shortest_trace_that_leads_to_it() {
    for trap_panics in [false, true] {
        let world = Walkers { trap: Some(5), trap_panics, ..Walkers::new(2, 4) };
        let violation = explore(&world, Limits::default()).violation.unwrap();
        assert!(violation.what.ends_with("trapped"), "{}", violation.what);
        assert_eq!(violation.trace.len(), 5);
        let (last, before) = violation.trace.split_last().unwrap();
        let mut again = world.clone();
        for action in before {
            again.apply(*action).unwrap();
        }
        assert!(guarded(&mut again, *last).is_err());
    }
}

#[test]
fn an_end_that_is_none_is_a_violation() {
    /// Stops one short of the top.
    #[derive(Clone)]
    struct Lazy(Walkers);
    impl World for Lazy {
        type Action = usize;
        fn actions(&self, actions: &mut Vec<usize>) {
            if self.0.sum() < 7 {
                self.0.actions(actions);
            }
        }
        fn apply(&mut self, action: usize) -> Result<(), String> {
            self.0.apply(action)
        }
        fn settled(&self) -> Result<(), String> {
            self.0.settled()
        }
        fn fingerprint(&self) -> u64 {
            self.0.fingerprint()
        }
    }
    let start = Lazy(Walkers::new(2, 4));
    let violation = search(&start, Limits::default(), &mut |_| true).violation.unwrap();
    assert_eq!((violation.what.as_str(), violation.trace.len()), ("ended early", 7));
    assert!(walk(&start, 1, 1000, 100).violation.is_some());
}

#[test]
fn a_limit_ends_a_search_that_is_not_complete() {
    let outcome = explore(&Walkers::new(3, 9), Limits { states: 50, ..Limits::default() });
    assert!(!outcome.completed && outcome.violation.is_none());
    assert_eq!(outcome.progress.states, 50);
    let large = Walkers::new(4, 30);
    let told = search(&large, Limits::default(), &mut |_| false);
    assert!(!told.completed && told.progress.states == 1 << 16);
}

#[test]
fn a_walk_is_decided_by_its_seed_and_finds_what_is_everywhere() {
    let world = Walkers { trap: Some(5), ..Walkers::new(3, 9) };
    let first = walk(&world, 7, 1000, 100).violation.unwrap();
    assert_eq!(walk(&world, 7, 1000, 100).violation.unwrap(), first);
    assert_eq!(first.trace.len(), 5);
    let clean = walk(&Walkers::new(3, 9), 7, 1000, 100);
    assert!(clean.violation.is_none());
    assert_eq!((clean.actions, clean.walks, clean.depth), (1000, 38, 27));
    assert_eq!(walk(&Walkers::new(3, 9), 7, 100, 10).depth, 10);
}

#[test]
fn fingerprints_of_many_small_values_differ() {
    let values = (0..100_u64).flat_map(|a| (0..100_u64).map(move |b| (a, b, b == a)));
    let all: BTreeSet<u64> = values.map(|value| mix(&value)).collect();
    assert_eq!(all.len(), 10_000);
    let (mut one, mut other) = (Digest::<2>::default(), Digest::<2>::default());
    for (digest, parts) in [(&mut one, [0, 1]), (&mut other, [1, 0])] {
        digest.of(parts[0], &"a");
        digest.of(parts[1], &"b");
        digest.of(parts[0], &"c");
    }
    assert_ne!(one.clone().finish(false), other.clone().finish(false));
    assert_eq!(one.clone().finish(true), other.finish(true));
    let mut third = Digest::<2>::default();
    third.of(0, &"a");
    third.of(1, &"b");
    third.of(1, &"c");
    assert_ne!(third.finish(true), one.finish(true));
}
