use super::*;
use thalweg_types::id::{NodeId, StorageUuid};

fn replica(number: u64) -> ReplicaId {
    ReplicaId { node: NodeId(number), storage: StorageUuid(u128::from(number)) }
}

/// A watch over three replicas, and a clock in microseconds.
struct Scene {
    watch: Watch,
    now: u64,
    sent: u64,
}

impl Scene {
    fn new() -> Self {
        Self { watch: Watch::new(&[replica(1), replica(2), replica(3)]), now: 1_000_000, sent: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.watch.step(Instant(self.now * 1000), input, &mut effects);
        self.watch.check();
        effects
    }

    fn send(&mut self) {
        self.sent += 1;
        let (end, committed_end) = (EntryId(self.sent), EntryId(0));
        assert_eq!(self.step(Input::Sent { end, committed_end }), []);
    }

    fn ack(&mut self, from: u64) {
        let (replica, end) = (replica(from), EntryId(self.sent));
        assert_eq!(self.step(Input::Acked { replica, end }), []);
    }

    /// Entries that take everybody but `silent` this long.
    fn traffic(&mut self, entries: u64, micros: u64, silent: &[u64]) {
        for _ in 0..entries {
            self.send();
            self.now += micros;
            for from in 1..=3 {
                if !silent.contains(&from) {
                    self.ack(from);
                }
            }
        }
    }

    /// Looks whenever the watch wants to for `millis`; everything that it wanted.
    fn look(&mut self, millis: u64) -> Vec<Effect> {
        let end = self.now + millis * 1000;
        let mut all = Vec::new();
        while let Some(at) = self.watch.deadline().filter(|at| at.0 <= end * 1000) {
            self.now = self.now.max(at.0 / 1000);
            all.extend(self.step(Input::Look));
        }
        self.now = end;
        all
    }

    fn replaced(&mut self, millis: u64) -> Vec<u64> {
        let node = |effect: Effect| match effect {
            Effect::Replace { replica } => Some(replica.node.0),
            _ => None,
        };
        self.look(millis).into_iter().filter_map(node).collect()
    }
}

#[test]
fn a_member_that_is_silent_while_others_ack_is_replaced() {
    let mut scene = Scene::new();
    scene.traffic(200, 1000, &[]);
    scene.send();
    scene.ack(1);
    scene.ack(2);
    assert_eq!(scene.replaced(49), [0; 0]);
    assert_eq!(scene.replaced(40), [3]);
    assert_eq!(scene.replaced(5000), [0; 0], "asked for once, until it is refused or done");
    let again = Instant(scene.now * 1000).after(ASK_AGAIN);
    scene.step(Input::Refused { again });
    assert_eq!(scene.replaced(900), [0; 0]);
    assert_eq!(scene.replaced(1200), [3]);
}

#[test]
fn patience_follows_what_the_others_take() {
    let mut scene = Scene::new();
    scene.traffic(200, 20_000, &[]);
    scene.send();
    scene.ack(1);
    scene.ack(2);
    assert_eq!(scene.replaced(155), [0; 0], "eight times 20 ms");
    assert_eq!(scene.replaced(40), [3]);
    // A member's own slowness is no excuse.
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.send();
        scene.now += 500;
        scene.ack(1);
        scene.ack(2);
        scene.now += 40_000;
        scene.ack(3);
    }
    scene.send();
    scene.ack(1);
    scene.ack(2);
    assert_eq!(scene.replaced(90), [3]);
}

#[test]
fn an_owner_that_was_suspended_replaces_nobody() {
    let mut scene = Scene::new();
    scene.traffic(20, 1000, &[]);
    scene.send();
    // Ten seconds later it finds everything that has come meanwhile still unread, and looks first.
    scene.now += 10_000_000;
    assert_eq!(scene.step(Input::Look), []);
    for from in 1..=3 {
        scene.ack(from);
    }
    assert_eq!(scene.replaced(1000), [0; 0]);
}

#[test]
fn while_several_are_slow_nobody_is_replaced_for_some_seconds() {
    let mut scene = Scene::new();
    scene.traffic(20, 1000, &[]);
    scene.send();
    scene.ack(1);
    assert_eq!(scene.replaced(4900), [0; 0]);
    assert_eq!(scene.replaced(1500), [2], "one of them");
    // The other one not before the outcome is known.
    scene.step(Input::Proposed);
    assert_eq!(scene.replaced(2000), [0; 0]);
    scene.step(Input::Joined { replica: replica(4) });
    scene.step(Input::Left { replica: replica(2) });
    scene.ack(4);
    scene.step(Input::Changed);
    assert_eq!(scene.replaced(600), [3]);
}

#[test]
fn progress_is_no_silence_however_slow() {
    let mut scene = Scene::new();
    for _ in 0..10 {
        scene.send();
    }
    scene.ack(1);
    scene.ack(2);
    for end in 1..=9 {
        assert_eq!(scene.replaced(45), [0; 0]);
        let (replica, end) = (replica(3), EntryId(end));
        scene.step(Input::Acked { replica, end });
    }
    assert_eq!(scene.replaced(45), [0; 0]);
    assert_eq!(scene.replaced(45), [3]);
}

#[test]
fn whoever_is_unfit_or_full_goes_at_the_next_look() {
    let mut scene = Scene::new();
    scene.step(Input::Unfit { replica: replica(2) });
    assert_eq!(scene.replaced(10), [2]);
    let mut scene = Scene::new();
    scene.step(Input::Full { replica: replica(1), full: true });
    assert_eq!(scene.replaced(10), [1]);
    // While nobody can take its place it is asked whether it has room.
    let again = Instant(scene.now * 1000).after(Duration::from_secs(3600));
    scene.step(Input::Refused { again });
    let asked = scene.look(10_000);
    assert!(asked.iter().all(|effect| *effect == Effect::Retry { replica: replica(1) }));
    assert!((5..=20).contains(&asked.len()), "{}", asked.len());
}

#[test]
fn a_silent_member_is_addressed_now_and_then() {
    let mut scene = Scene::new();
    scene.send();
    scene.ack(1);
    scene.ack(2);
    let effects = scene.look(10_000);
    let nudge = Effect::Nudge { replica: replica(3) };
    let nudges = effects.iter().filter(|effect| **effect == nudge).count();
    assert!((5..=20).contains(&nudges), "{nudges}");
}

#[test]
fn a_commit_point_that_no_entry_carries_is_told_once() {
    let mut scene = Scene::new();
    scene.traffic(1, 1000, &[]);
    let end = EntryId(1);
    scene.step(Input::Committed { end });
    assert_eq!(scene.look(1000), [Effect::Tell { end }]);
    assert_eq!(scene.watch.deadline(), None, "and then it sleeps");
    // One that the next entry carries is not.
    scene.step(Input::Sent { end: EntryId(2), committed_end: end });
    scene.now += 100;
    for from in 1..=3 {
        scene.step(Input::Acked { replica: replica(from), end: EntryId(2) });
    }
    assert_eq!(scene.look(1000), []);
}

#[test]
fn one_change_a_second() {
    let mut budget = Budget::default();
    let at = |millis: u64| Instant(5_000_000_000 + millis * 1_000_000);
    assert_eq!(budget.take(at(0)), Ok(()));
    assert_eq!(budget.take(at(999)), Err(at(1000)));
    assert_eq!(budget.take(at(1000)), Ok(()));
}
