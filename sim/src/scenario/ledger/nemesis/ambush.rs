//! Ambushes: faults that strike together, at a takeover, because chance brings them together too rarely.

use super::{Kind, Nemesis, Node, World, host_of, in_ms, name, name_of};
use crate::scenario::ledger::history::id;
use crate::world::executor;
use thalweg_log::register::LedgerStage;
use thalweg_types::id::ReplicaId;

/// What owners have done when they are at work again.
const CALM_OPERATIONS: u64 = 40;

/// Whom an ambush is for.
struct Aim {
    container: usize,
    /// The nodes of the open ledger's last fragment, in any order.
    first: usize,
    second: usize,
    third: usize,
    /// Where its owner is.
    old: String,
    /// The seat that shall take over, and where it is.
    new: usize,
    new_host: String,
}

impl Nemesis {
    /// Strikes a container whose ledger is open on three nodes that serve, if there is one.
    pub(super) async fn ambush(&mut self, world: &mut World, kind: Kind) -> bool {
        if kind == Kind::Doubt {
            self.calm(world).await;
        }
        let Some(aim) = self.aim(world) else { return false };
        let first = aim.first;
        match kind {
            Kind::Ambush => self.lose_one_of_two(world, &aim).await,
            Kind::Forget => self.forget(world, &aim).await,
            _ => self.doubt(world, &aim).await,
        }
        world.nodes[first].restart_at = world.nodes[first].restart_at.map(|_| 0);
        self.tend(world).await;
        true
    }

    /// Lets everybody work undisturbed for a moment: in the noise of other faults an ambush meets nobody at work.
    async fn calm(&mut self, world: &mut World) {
        self.cuts.clear();
        self.network.heal();
        world.cast.register.heal();
        for node in &mut world.nodes {
            node.resume_at = node.resume_at.map(|_| 0);
        }
        for seat in &mut world.seats {
            seat.resume_at = seat.resume_at.map(|_| 0);
        }
        let before = world.cast.stage.operations();
        for _ in 0..40 {
            self.tend(world).await;
            executor::sleep(self.rng.millis(5, 25)).await;
            if world.cast.stage.operations() > before + CALM_OPERATIONS {
                break;
            }
        }
    }

    fn aim(&mut self, world: &World) -> Option<Aim> {
        let stage = &world.cast.stage;
        let container = self.rng.index(stage.containers());
        let log = world.cast.register.get(id(container))?;
        let ledger = log.ledgers.last().filter(|ledger| ledger.stage == LedgerStage::Open)?;
        let members = ledger.last_fragment().ensemble.iter();
        let is_member = |node: &Node, member: &ReplicaId| {
            node.process().is_some_and(|process| process.replica == *member)
        };
        let place = |member| world.nodes.iter().position(|node| is_member(node, member));
        let mut members: Vec<usize> = members.filter_map(place).collect();
        self.rng.shuffle(&mut members);
        // Of those whose data may suffer, if there are any.
        members.sort_by_key(|at| !self.budget.allows(*at));
        let [first, second, third] = members[..] else { return None };
        let new = self.rng.index(world.seats.len());
        let old = host_of(world, stage.want(container).seat);
        let new_host = host_of(world, new);
        Some(Aim { container, first, second, third, old, new, new_host })
    }

    /// Nobody but `old`, if that is spared, reaches the node.
    fn seclude(&mut self, world: &World, at: usize, spared: Option<&str>, until: u64) {
        let node = name_of(world, at);
        let mut others = Self::hosts(world);
        others.retain(|host| *host != node && spared != Some(host.as_str()));
        self.cut_between(&[node], &others, (true, true), until);
    }

    fn part(&mut self, world: &World, at: usize, host: &str, until: u64) {
        let node = name_of(world, at);
        if node != host {
            self.cut_between(&[node], &[host.to_owned()], (true, true), until);
        }
    }

    /// Entries that two of three members have, one of which is struck while the other is out of reach.
    async fn lose_one_of_two(&mut self, world: &mut World, aim: &Aim) {
        let until = self.lasting().min(in_ms(150));
        self.part(world, aim.third, &aim.old, until);
        executor::sleep(self.rng.millis(3, 120)).await;
        self.hurt_somehow(world, aim.first).await;
        let until = self.lasting();
        self.seclude(world, aim.second, None, until);
        world.cast.stage.hand_to(aim.container, aim.new);
    }

    /// A fence that two of three have heard of, one of which starts again, while the old owner goes on with it and
    /// with the third.
    async fn forget(&mut self, world: &mut World, aim: &Aim) {
        let until = in_ms(self.rng.range(300, 2_000));
        self.seclude(world, aim.second, Some(&aim.old), until);
        self.part(world, aim.third, &aim.old, until);
        world.cast.register.cut(&aim.old);
        self.register_until = self.register_until.max(until);
        world.cast.stage.hand_to(aim.container, aim.new);
        executor::sleep(self.rng.millis(20, 200)).await;
        let power = self.rng.percent(50);
        if aim.new_host != name_of(world, aim.first) {
            self.stop(world, aim.first, power).await;
        }
    }

    /// Entries that two of three members have, or only one, where they are no more the newest on its disk and rot;
    /// the other is out of reach. Whoever takes over meets one that cannot vouch, and one that vouches for less.
    async fn doubt(&mut self, world: &mut World, aim: &Aim) {
        let Aim { container, first, second, third, .. } = *aim;
        // Somebody takes over who reaches the other two, and the register, as the old owner does not: it would put
        // others in the place of those that it does not reach.
        let far = [aim.old.clone(), name_of(world, second)];
        let fit = |at: &usize| !far.contains(&host_of(world, *at));
        let new = (0..world.seats.len()).find(fit).unwrap_or(aim.new);
        let until = in_ms(self.rng.range(300, 600));
        world.cast.register.cut(&aim.old);
        self.register_until = self.register_until.max(until);
        let alone = self.rng.percent(30);
        let begun = executor::now();
        self.part(world, third, &aim.old, until);
        if alone {
            self.part(world, second, &aim.old, until);
        }
        executor::sleep(self.rng.millis(3, 80)).await;
        self.part(world, first, &aim.old, until);
        let ended = executor::now();
        executor::sleep(self.rng.millis(60, 160)).await;
        if !self.budget.allows(first) || world.nodes[first].is_doomed {
            return;
        }
        self.stop(world, first, false).await;
        let cast = world.cast.clone();
        self.budget.spend(first, &cast);
        let node = &mut world.nodes[first];
        node.is_tainted = true;
        let heads = self.rng.percent(60);
        let rotten = node.host.disk.rot_synced(begun..ended, heads);
        cast.stage.count("writes rotten", rotten as u64);
        if !alone {
            let until = self.lasting().max(in_ms(300));
            self.seclude(world, second, None, until);
        }
        cast.stage.hand_to(container, new);
    }

    /// Ends a node's process, and perhaps costs it data.
    async fn hurt_somehow(&mut self, world: &mut World, at: usize) {
        let kind = self.rng.pick(&[Kind::Power, Kind::Kill, Kind::Wipe, Kind::Rot, Kind::RollBack]);
        let hurt = matches!(kind, Kind::Wipe | Kind::Rot | Kind::RollBack);
        let done = hurt && self.strike_data(world, at, kind).await;
        if done {
            world.cast.stage.count(name(kind), 1);
        } else if world.nodes[at].process.is_some() {
            self.stop(world, at, kind == Kind::Power).await;
        }
    }
}
