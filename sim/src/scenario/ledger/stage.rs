//! What everybody in the play shares: the history, the phase, and who shall own which container.

use super::history::History;
use crate::world::executor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::select;
use tokio::sync::watch;

/// How far the play has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Owners work, the nemesis strikes.
    Open,
    /// Nothing fails any more: owners show that they get on, and read everything back.
    Settling,
    /// Everything lives again: what is appended now stays until it has been looked at.
    Judging,
    /// Nobody does anything.
    Over,
}

/// Who shall own a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// The number of the seat.
    pub(super) seat: usize,
    /// Rises with every takeover that is wanted, also by the same seat.
    pub(super) round: u64,
}

/// How owners of a run behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Entries that an owner has in flight at most.
    pub(super) in_flight: u64,
    /// Entries that it appends at once, at most.
    pub(super) burst: u64,
    /// Longest pause between two things that it does, in microseconds.
    pub(super) pause_us: u64,
    /// How often it moves `keep_from`, in percent of what it does.
    pub(super) trim_percent: u32,
    /// How often it stops when somebody else is wanted, instead of going on until it is told.
    pub(super) polite_percent: u32,
    /// How often it appends while it still replays.
    pub(super) hasty_percent: u32,
}

/// What owners must have had done by the end.
pub(super) const OPERATIONS_MIN: u64 = 1_000;

/// A place in the play. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stage {
    history: Arc<Mutex<History>>,
    phase: Arc<watch::Sender<Phase>>,
    wants: Arc<watch::Sender<Vec<Want>>>,
    /// Of each container, the last round in which its owner has done all that it should.
    done: Arc<watch::Sender<Vec<u64>>>,
    /// How owners behave.
    pub(super) style: Style,
}

impl Stage {
    /// Before anything has happened.
    pub(super) fn new(containers: usize, style: Style) -> Self {
        Self {
            history: Arc::new(Mutex::new(History::new(containers))),
            phase: Arc::new(watch::Sender::new(Phase::Open)),
            wants: Arc::new(watch::Sender::new(vec![Want { seat: 0, round: 0 }; containers])),
            done: Arc::new(watch::Sender::new(vec![0; containers])),
            style,
        }
    }

    /// The history itself, for those who are no owners.
    pub(super) fn history(&self) -> &Arc<Mutex<History>> {
        &self.history
    }

    /// Looks at the history.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        look(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds to a figure.
    pub(super) fn count(&self, name: &'static str, by: u64) {
        self.with(|history| history.out.add(name, by));
    }

    /// A figure.
    pub(super) fn counted(&self, name: &str) -> u64 {
        self.with(|history| history.out.counts.get(name).copied().unwrap_or(0))
    }

    /// What owners have had done.
    pub(super) fn operations(&self) -> u64 {
        let kinds = ["appends committed", "reads", "trims", "takeovers"];
        kinds.iter().map(|kind| self.counted(kind)).sum()
    }

    /// True when owners have had done what they must by the end.
    pub(super) fn has_enough(&self) -> bool {
        self.operations() >= OPERATIONS_MIN
    }

    /// True when more would only take time.
    pub(super) fn has_plenty(&self) -> bool {
        self.operations() >= 4 * OPERATIONS_MIN
    }

    /// Begins a phase.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The present phase.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// How many containers there are.
    pub(super) fn containers(&self) -> usize {
        self.wants.borrow().len()
    }

    /// Who shall own `container`.
    pub(super) fn want(&self, container: usize) -> Want {
        self.wants.borrow()[container]
    }

    /// Wants `seat` to take `container` over. Returns the round.
    pub(super) fn hand_to(&self, container: usize, seat: usize) -> u64 {
        let mut round = 0;
        self.wants.send_modify(|wants| {
            let want = &mut wants[container];
            *want = Want { seat, round: want.round + 1 };
            round = want.round;
        });
        round
    }

    /// Waits until `seat` shall own `container` in another round than `last`.
    pub(super) async fn wanted(&self, container: usize, seat: usize, last: u64) -> Want {
        let mut wants = self.wants.subscribe();
        let is_mine = |want: Want| want.seat == seat && want.round > last;
        let found = wants.wait_for(|wants| is_mine(wants[container])).await;
        let want = found.map(|wants| wants[container]).ok();
        match want {
            Some(want) => want,
            None => std::future::pending().await,
        }
    }

    /// Waits; cut short when somebody else shall own the container.
    pub(super) async fn pause(&self, container: usize, want: Want, by: Duration) {
        if self.want(container) != want {
            return executor::sleep(by).await;
        }
        let mut wants = self.wants.subscribe();
        select! {
            biased;
            _ = wants.wait_for(|wants| wants[container] != want) => {}
            () = executor::sleep(by) => {}
        }
    }

    /// The owner of `round` has opened, replayed, and committed something.
    pub(super) fn has_done(&self, container: usize, round: u64) {
        self.done.send_modify(|done| done[container] = done[container].max(round));
    }

    /// Waits until every container has come as far as `rounds`. Names those that have not within `limit`.
    pub(super) async fn all_done(&self, rounds: &[u64], limit: Duration) -> Vec<usize> {
        let mut done = self.done.subscribe();
        let is_done = |done: &Vec<u64>| done.iter().zip(rounds).all(|(done, round)| done >= round);
        if executor::timeout(limit, done.wait_for(is_done)).await.is_some() {
            return Vec::new();
        }
        let done = self.done.borrow();
        (0..rounds.len()).filter(|container| done[*container] < rounds[*container]).collect()
    }
}
