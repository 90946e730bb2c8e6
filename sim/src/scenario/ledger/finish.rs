//! When the faults stop: whatever is left must get on within a minute, and lose nothing.

use super::audit::Audit;
use super::history::id;
use super::nemesis::{Nemesis, World};
use super::site::{Node, Place};
use super::stage::Phase;
use super::{ACK, QUORUM, TAKEOVERS_MIN};
use crate::world::executor;
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::time::Duration;
use thalweg_log::placement::Members as _;
use thalweg_log::register::{Fragment, LedgerStage};
use thalweg_types::id::{LedgerId, ReplicaId};

/// Longest time until everything gets on once nothing fails any more.
const CONVERGE_MAX: Duration = Duration::from_secs(60);

/// Longest time until every kept entry has its copies again.
const REPAIR_MAX: Duration = Duration::from_secs(120);

/// Which nodes stay dead: a quorum core is left. Mostly one that lives on can be done without; sometimes more die,
/// and it must be proven that nothing could be saved.
pub(super) fn doom(world: &World, nemesis: &Nemesis, rng: &mut Rng) -> Vec<usize> {
    let count = world.nodes.len();
    let tainted = world.nodes.iter().position(|node| node.is_tainted);
    let weak = nemesis.budget.node().or(tainted);
    if rng.percent(12) {
        let mut all: Vec<usize> = (0..count).collect();
        rng.shuffle(&mut all);
        all.truncate(if count > 3 { 2 } else { 1 });
        return all;
    }
    if rng.percent(40) {
        return Vec::new();
    }
    vec![weak.unwrap_or_else(|| rng.index(count))]
}

/// Seats that can be sat on.
fn seats(world: &World) -> Vec<usize> {
    let alive = |at: &usize| match world.seats[*at].place {
        Place::Apart => true,
        Place::Node(node) => !world.nodes[node].is_doomed,
    };
    (0..world.seats.len()).filter(alive).collect()
}

/// Hands every container to some seat and waits until its owner has opened it, replayed it and committed something.
pub(super) async fn converge(world: &mut World, nemesis: &mut Nemesis, rng: &mut Rng) {
    let stage = world.cast.stage.clone();
    let seats = seats(world);
    let rounds: Vec<u64> =
        (0..stage.containers()).map(|at| stage.hand_to(at, rng.pick(&seats))).collect();
    let until = executor::now() + u64::try_from(CONVERGE_MAX.as_nanos()).unwrap_or(u64::MAX);
    loop {
        nemesis.tend(world).await;
        let late = stage.all_done(&rounds, Duration::from_millis(250)).await;
        if late.is_empty() {
            stage.count("convergences", 1);
            return;
        }
        if executor::now() >= until {
            for container in late {
                judge_late(world, nemesis, container).await;
            }
            return;
        }
    }
}

/// Judges a container that does not get on: an excuse is that no good copy of something is within reach.
async fn judge_late(world: &World, nemesis: &Nemesis, container: usize) {
    let stage = &world.cast.stage;
    if let Some(excuse) = excuse(world, nemesis, container).await {
        let at = describe(world, container);
        trace!("container {container}: cannot get on: {excuse}; {at}");
        stage.count("containers beyond help", 1);
        return;
    }
    let at = describe(world, container);
    let what = format!("c{container} does not get on within {CONVERGE_MAX:?}: {at}");
    stage.with(|history| history.violate("I16", what));
}

/// Where a container stands, for people.
fn describe(world: &World, container: usize) -> String {
    let Some(log) = world.cast.register.get(id(container)) else {
        return "nobody ever owned it".into();
    };
    let place = |replica: &ReplicaId| {
        let node = &world.nodes[usize::try_from(replica.node.0 - 1).expect("few")];
        let serves = node.process.as_ref().is_some_and(|process| process.replica == *replica);
        format!("{}{}", replica.node, if serves { "" } else { "(gone)" })
    };
    let fragment = |fragment: &Fragment| {
        let places: Vec<String> = fragment.ensemble.iter().map(place).collect();
        format!(" from {} on {}", fragment.first, places.join(","))
    };
    let facts = |node: &Node, epoch| {
        let process = node.process()?;
        let run = process.facts(LedgerId { container: log.container, epoch })?;
        let certain = if run.certain { "" } else { "?" };
        Some(format!(", {} has {}..{}{certain}", node.id, run.base, run.end))
    };
    let ledgers = log.ledgers.iter().rev().take(3).map(|ledger| {
        let fragments: String = ledger.fragments.iter().map(fragment).collect();
        let facts: String =
            world.nodes.iter().filter_map(|node| facts(node, ledger.epoch)).collect();
        format!("; ledger {} {:?}{fragments}{facts}", ledger.epoch, ledger.stage)
    });
    let ledgers: String = ledgers.collect();
    format!("epoch {} kept from {}{ledgers}", log.epoch, log.keep_from)
}

/// Why a container cannot get on, if it cannot.
async fn excuse(world: &World, nemesis: &Nemesis, container: usize) -> Option<String> {
    let known = world.cast.directory.candidates().len();
    if known < usize::from(QUORUM.write) {
        return Some(format!("{known} nodes have ever served"));
    }
    let log = world.cast.register.get(id(container))?;
    let weak = nemesis.budget.node();
    let vouches = |at: usize| {
        let node = &world.nodes[at];
        let sound = !node.is_tainted && weak != Some(at);
        node.process.as_ref().filter(|_| sound).map(|process| process.replica)
    };
    let sound: Vec<_> = (0..world.nodes.len()).filter_map(vouches).collect();
    if let Some(last) = log.ledgers.last()
        && !matches!(last.stage, LedgerStage::Closed { .. })
    {
        let members = &last.last_fragment().ensemble;
        let vouching = members.iter().filter(|member| sound.contains(member)).count();
        let needed = QUORUM.recovery();
        if vouching < needed {
            return Some(format!("{vouching} of {needed} members vouch for the end"));
        }
    }
    if sound.len() < ACK {
        return Some(format!("{} nodes are left", sound.len()));
    }
    let mut audit = Audit::default();
    audit.container(world, container, 1).await;
    audit.gone.into_iter().next()
}

/// Everything lives again: what was ever announced must be there, in as many copies as was promised.
pub(super) async fn judge(world: &mut World, nemesis: &mut Nemesis, rng: &mut Rng) {
    let stage = world.cast.stage.clone();
    nemesis.settle(world, &[]).await;
    converge(world, nemesis, rng).await;
    work_off(world, nemesis, rng).await;
    stage.enter(Phase::Judging);
    converge(world, nemesis, rng).await;
    executor::sleep(Duration::from_millis(300)).await;
    stage.enter(Phase::Over);
    // What owners have begun comes to its end.
    executor::sleep(Duration::from_secs(2)).await;
    // Whatever has too few copies is repaired meanwhile.
    let until = executor::now() + u64::try_from(REPAIR_MAX.as_nanos()).unwrap_or(u64::MAX);
    let mut audit = Audit::of(world, ACK).await;
    while !audit.few.is_empty() && executor::now() < until {
        nemesis.tend(world).await;
        executor::sleep(Duration::from_secs(2)).await;
        stage.count("waits for repair", 1);
        audit = Audit::of(world, ACK).await;
    }
    let lost = world.cast.register.lost();
    stage.with(|history| {
        let serving = world.nodes.iter().filter_map(Node::process);
        for replica in serving.map(|process| process.replica).filter(|who| lost.contains(who)) {
            history.violate("L18", format!("{replica} serves, and is declared lost"));
        }
        for what in audit.wrong.iter().chain(&audit.few) {
            history.violate("I15", what.clone());
        }
        for what in &audit.unsound {
            history.violate("I3", what.clone());
        }
        history.out.add("entries audited", audit.entries);
        history.out.add("copies audited", audit.copies);
    });
}

/// Lets owners work, and take over from one another, where the nemesis has left them too little time.
async fn work_off(world: &mut World, nemesis: &mut Nemesis, rng: &mut Rng) {
    let stage = world.cast.stage.clone();
    for round in 0..2_000 {
        nemesis.tend(world).await;
        let taken = stage.counted("replays") >= TAKEOVERS_MIN;
        if stage.has_enough() && taken {
            return;
        }
        if !taken && round % 6 == 0 {
            let seats = seats(world);
            stage.hand_to(rng.index(stage.containers()), rng.pick(&seats));
        }
        executor::sleep(Duration::from_millis(50)).await;
    }
}
