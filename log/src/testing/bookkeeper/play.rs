//! The stage of a script: a small world, and what a script says to it.

use crate::testing::small::{Action, SmallWorld};
pub(super) use crate::testing::small::{Budget, PLAIN, Setup};
use thalweg_actor::explore::World as _;
use thalweg_types::id::EntryId;

/// `Err` says which rule was broken.
pub(super) type Outcome = Result<(), String>;

/// The owner at the start.
pub(super) const OWNER: usize = 0;
/// Whoever takes over first.
pub(super) const SECOND: usize = 1;
/// Whoever takes over next.
pub(super) const THIRD: usize = 2;
/// The storages. The first ensemble is the first three.
pub(super) const R1: usize = 0;
pub(super) const R2: usize = 1;
pub(super) const R3: usize = 2;
pub(super) const R4: usize = 3;
/// What a script lets a process deal with in the end.
pub(super) const ALL: [usize; 5] = [R1, R2, R3, R4, 4];
/// More steps than any script takes.
const STEPS_MAX: usize = 1000;

/// `Err(text)` unless `holds`.
pub(super) fn ensure(holds: bool, text: &str) -> Outcome {
    if holds { Ok(()) } else { Err(text.to_owned()) }
}

/// A small world from which nothing is left out, and a script's words for its actions. A word that the world does not
/// know at that moment is an error: the script is wrong, or something happened that it does not expect.
pub(super) struct Play {
    world: SmallWorld,
}

impl Play {
    /// Curtain up: an owner whose ledger is open in the register; its opens are on their way.
    pub(super) fn new(setup: &Setup) -> Self {
        Self { world: SmallWorld::new(&Setup { whole: true, alike: false, ..*setup }) }
    }

    pub(super) fn world(&self) -> &SmallWorld {
        &self.world
    }

    pub(super) fn act(&mut self, action: Action) -> Outcome {
        ensure(self.world.can(action), &format!("the script: {action:?} cannot happen"))?;
        self.world.apply(action)
    }

    fn try_act(&mut self, action: Action) -> Result<bool, String> {
        let can = self.world.can(action);
        if can {
            self.world.apply(action)?;
        }
        Ok(can)
    }

    /// `host` submits its next entry.
    pub(super) fn submit(&mut self, host: usize) -> Outcome {
        self.act(Action::Submit { host })
    }

    /// The oldest request of `host` reaches `slot`.
    pub(super) fn arrive_one(&mut self, host: usize, slot: usize) -> Outcome {
        self.act(Action::Deliver { host, slot })
    }

    /// Every request of `host` to `slot` that is on its way arrives.
    pub(super) fn arrive(&mut self, host: usize, slot: usize) -> Outcome {
        for _ in 0..self.world.on_the_way(host, slot).0 {
            self.act(Action::Deliver { host, slot })?;
        }
        Ok(())
    }

    /// `host` hears the oldest reply of `slot`.
    pub(super) fn hear_one(&mut self, host: usize, slot: usize) -> Outcome {
        self.act(Action::Hear { host, slot })
    }

    /// `host` hears every reply of `slot`, if there are any.
    pub(super) fn hear(&mut self, host: usize, slot: usize) -> Outcome {
        for _ in 0..STEPS_MAX {
            if !self.try_act(Action::Hear { host, slot })? {
                return Ok(());
            }
        }
        Err("the script: replies for ever".to_owned())
    }

    /// What is on its way from `host` to each of `slots` arrives, and the answers too.
    pub(super) fn round(&mut self, host: usize, slots: &[usize]) -> Outcome {
        slots.iter().try_for_each(|slot| self.arrive(host, *slot))?;
        slots.iter().try_for_each(|slot| self.hear(host, *slot))
    }

    /// The register applies the oldest command of `host`, which hears of it.
    pub(super) fn answer(&mut self, host: usize) -> Outcome {
        self.act(Action::Apply { host })?;
        self.act(Action::Learn { host })
    }

    /// Everything between `host`, `slots` and the register happens, until it is quiet there.
    pub(super) fn proceed(&mut self, host: usize, slots: &[usize]) -> Outcome {
        for _ in 0..STEPS_MAX {
            let mut moved = false;
            for slot in slots.iter().copied() {
                moved |= self.try_act(Action::Deliver { host, slot })?;
                moved |= self.try_act(Action::Hear { host, slot })?;
            }
            moved |= self.try_act(Action::Apply { host })?;
            moved |= self.try_act(Action::Learn { host })?;
            if !moved {
                return Ok(());
            }
        }
        Err("the script: it never comes to rest".to_owned())
    }

    /// The same without the register.
    pub(super) fn proceed_without_register(&mut self, host: usize, slots: &[usize]) -> Outcome {
        while slots.iter().any(|slot| self.world.on_the_way(host, *slot) != (0, 0)) {
            self.round(host, slots)?;
        }
        Ok(())
    }

    /// `host` asks again whoever has not answered. (The world lets it do so only when nothing is on its way; this one
    /// hangs, which it cannot know.)
    pub(super) fn retry(&mut self, host: usize) -> Outcome {
        self.world.apply(Action::Retry { host })
    }

    /// Everything that can still happen without a fault happens.
    pub(super) fn finish(&mut self) -> Outcome {
        for _ in 0..3 {
            for host in 0..self.world.hosts() {
                self.proceed(host, &ALL)?;
            }
        }
        Ok(())
    }

    /// The first entry is committed: acked by `slots`, and its owner has heard of it.
    pub(super) fn commit(&mut self, host: usize, slots: &[usize]) -> Outcome {
        let before = self.world.committed(host);
        self.submit(host)?;
        self.round(host, slots)?;
        ensure(self.world.committed(host) == before + 1, "the script: it was not committed")
    }

    pub(super) fn take_over(&mut self) -> Outcome {
        self.act(Action::TakeOver)
    }

    pub(super) fn replace(&mut self, old: usize, new: usize) -> Outcome {
        self.act(Action::Replace { host: OWNER, old, new })
    }

    /// The ledger of `epoch` is closed and has `end` entries.
    pub(super) fn closed_at(&self, epoch: u64, end: u64) -> Outcome {
        let found = self.world.end_of(epoch);
        if end == 0 && found.is_none() && self.world.register().epoch.0 > epoch {
            // Closed empty it has left the register.
            let listed = self.world.register().ledgers.iter().any(|l| l.epoch.0 == epoch);
            return ensure(!listed, &format!("epoch {epoch} is not closed"));
        }
        ensure(found == Some(end), &format!("epoch {epoch} ends at {found:?}, not {end}"))
    }

    /// The ledger of `epoch` is not closed yet.
    pub(super) fn waits(&self, epoch: u64) -> Outcome {
        let found = self.world.end_of(epoch);
        ensure(found.is_none(), &format!("epoch {epoch} was closed at {found:?}: truncated"))
    }

    /// On `count` storages the entry is durable and can be read.
    pub(super) fn copies(&self, epoch: u64, entry: u64, count: usize) -> Outcome {
        let holds = |slot: &&usize| self.world.holds(**slot, epoch, entry);
        let found = ALL.iter().filter(holds).count();
        ensure(found >= count, &format!("entry {entry} of epoch {epoch} has {found} copies"))
    }
}

/// The first entry.
pub(super) const E0: EntryId = EntryId(0);
