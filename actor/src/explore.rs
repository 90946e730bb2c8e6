//! The explorer: searches a small world of machines exhaustively, or walks through a large one at random.
//!
//! A world is a value: it lists what can happen next, and takes one such action. The search visits every reachable
//! state once; it knows a state again by a fingerprint of 64 bits (with ten million states two of them share one with a
//! probability of some three in a million). It goes breadth first, so that a counterexample is a shortest one; when the
//! frontier is full it goes depth first until there is room again, so memory stays bounded and the search complete.
//!
//! Invariants of a search
//! 1. Each state is expanded at most once, and a search that says `completed` has expanded every one.
//! 2. The trace of a violation, applied to the start, violates again.
//!
//! Deliberately not here: which actions commute, and which states are equal (the fingerprint of the world decides), and
//! time.

mod digest;
mod visited;

pub use digest::{Digest, Mixer, mix};

use rand_core::{RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use visited::Visited;

/// A closed world: machines, what is between them, and oracles.
pub trait World: Clone {
    /// What can happen.
    type Action: Copy + fmt::Debug;

    /// Adds everything that can happen now, in an order that depends on the state alone.
    fn actions(&self, actions: &mut Vec<Self::Action>);

    /// Lets `action`, one of [`World::actions`], happen. An error, or a panic, is a violation of an invariant.
    fn apply(&mut self, action: Self::Action) -> Result<(), String>;

    /// Judges a state in which nothing can happen any more.
    fn settled(&self) -> Result<(), String>;

    /// Equal for states that need no telling apart, and different for all others.
    fn fingerprint(&self) -> u64;
}

/// What a search may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// States that are visited before it gives up. 22 to 46 bytes are kept for each.
    pub states: usize,
    /// States that wait to be expanded before it goes depth first. Each is a whole world.
    pub frontier: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { states: u32::MAX as usize, frontier: 100_000 }
    }
}

/// How far a search has come, or where it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Different states met.
    pub states: usize,
    /// Actions applied.
    pub actions: u64,
    /// States in which nothing can happen any more.
    pub ends: u64,
    /// Actions from the start to the state met last.
    pub depth: u32,
    /// States that wait to be expanded.
    pub frontier: usize,
    /// It went breadth first all the way: a counterexample is a shortest one.
    pub breadth_first: bool,
}

/// A broken invariant, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<A> {
    /// What is broken.
    pub what: String,
    /// Every action from the start; the last one breaks it, or leads to where nothing can happen.
    pub trace: Vec<A>,
}

/// How a search ended.
#[derive(Clone, Debug)]
pub struct Outcome<A> {
    /// What it has seen.
    pub progress: Progress,
    /// Every reachable state was expanded.
    pub completed: bool,
    /// What it found, at which it stopped.
    pub violation: Option<Violation<A>>,
}

/// A state that waits to be expanded.
struct Node<W> {
    world: W,
    number: u32,
    depth: u32,
}

/// How each state was reached first.
#[derive(Default)]
struct History {
    parents: Vec<u32>,
    actions: Vec<u16>,
}

impl History {
    fn add(&mut self, parent: u32, action: usize) -> u32 {
        let number = u32::try_from(self.parents.len()).expect("limits keep states below 2^32");
        self.parents.push(parent);
        self.actions.push(u16::try_from(action).expect("a state has few actions"));
        number
    }

    fn trace<W: World>(&self, start: &W, last: u32, action: Option<W::Action>) -> Vec<W::Action> {
        let (mut places, mut at) = (Vec::new(), last);
        while at != 0 {
            places.push(usize::from(self.actions[at as usize]));
            at = self.parents[at as usize];
        }
        let (mut world, mut trace, mut choices) = (start.clone(), Vec::new(), Vec::new());
        for place in places.into_iter().rev() {
            choices.clear();
            world.actions(&mut choices);
            trace.push(choices[place]);
            world.apply(choices[place]).expect("it was applied before without a violation");
        }
        trace.extend(action);
        trace
    }
}

/// Visits every state that can be reached from `start`, or stops at a violation or a limit. `watch` hears of the
/// progress every 2^16 states, and stops the search by answering false.
pub fn search<W: World>(
    start: &W,
    limits: Limits,
    watch: &mut dyn FnMut(&Progress) -> bool,
) -> Outcome<W::Action> {
    let mut progress = Progress { states: 1, breadth_first: true, ..Progress::default() };
    let (mut visited, mut history) = (Visited::default(), History::default());
    visited.insert(start.fingerprint());
    history.add(0, 0);
    let mut frontier = VecDeque::from([Node { world: start.clone(), number: 0, depth: 0 }]);
    let mut choices = Vec::new();
    let ended = |progress: Progress, violation: Option<Violation<W::Action>>, completed| Outcome {
        progress,
        completed,
        violation,
    };
    loop {
        let full = frontier.len() > limits.frontier;
        progress.breadth_first &= !full;
        let next = if full { frontier.pop_back() } else { frontier.pop_front() };
        let Some(node) = next else { return ended(progress, None, true) };
        choices.clear();
        node.world.actions(&mut choices);
        if choices.is_empty() {
            progress.ends += 1;
            if let Err(what) = node.world.settled() {
                let trace = history.trace(start, node.number, None);
                return ended(progress, Some(Violation { what, trace }), false);
            }
        }
        for (place, action) in choices.iter().enumerate() {
            progress.actions += 1;
            let mut world = node.world.clone();
            if let Err(what) = guarded(&mut world, *action) {
                let trace = history.trace(start, node.number, Some(*action));
                return ended(progress, Some(Violation { what, trace }), false);
            }
            if !visited.insert(world.fingerprint()) {
                continue;
            }
            let depth = node.depth + 1;
            frontier.push_back(Node { world, number: history.add(node.number, place), depth });
            progress.states += 1;
            progress.depth = progress.depth.max(depth);
            progress.frontier = frontier.len();
            let told = progress.states.is_multiple_of(1 << 16) && !watch(&progress);
            if told || progress.states >= limits.states {
                return ended(progress, None, false);
            }
        }
    }
}

/// How random walks ended.
#[derive(Clone, Debug)]
pub struct Walked<A> {
    /// Actions applied.
    pub actions: u64,
    /// Walks begun, each at the start.
    pub walks: u64,
    /// Actions of the longest walk.
    pub depth: usize,
    /// What they found, at which they stopped.
    pub violation: Option<Violation<A>>,
}

/// Walks at random from `start` until nothing can happen or `depth_max` actions have, again and again, until `actions`
/// have been applied in all. `seed` decides everything.
pub fn walk<W: World>(start: &W, seed: u64, actions: u64, depth_max: usize) -> Walked<W::Action> {
    let mut coin = Pcg64Mcg::seed_from_u64(seed);
    let mut walked = Walked { actions: 0, walks: 0, depth: 0, violation: None };
    let (mut choices, mut trace) = (Vec::new(), Vec::new());
    while walked.actions < actions {
        walked.walks += 1;
        trace.clear();
        let mut world = start.clone();
        while trace.len() < depth_max && walked.actions < actions {
            choices.clear();
            world.actions(&mut choices);
            let outcome = if choices.is_empty() {
                world.settled()
            } else {
                let at = coin.next_u64() % choices.len() as u64;
                let action = choices[usize::try_from(at).expect("smaller than a length")];
                walked.actions += 1;
                trace.push(action);
                guarded(&mut world, action)
            };
            walked.depth = walked.depth.max(trace.len());
            if let Err(what) = outcome {
                walked.violation = Some(Violation { what, trace });
                return walked;
            }
            if choices.is_empty() {
                break;
            }
        }
    }
    walked
}

/// Applies an action; a machine's failed assertion is a violation like any other.
fn guarded<W: World>(world: &mut W, action: W::Action) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| world.apply(action))) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("an assertion failed: {}", text.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests;
