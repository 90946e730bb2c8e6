//! Replicated ledgers on three to five storage nodes, under owners that take containers over from one another.
//!
//! Owners work while the nemesis strikes. Then the faults stop, but for nodes that stay dead: within a minute every
//! container has an owner that has replayed its log and commits. At last everything lives again, the logs are read
//! whole once more, and the storages themselves are looked into.

mod audit;
mod budget;
mod content;
mod finish;
mod history;
mod nemesis;
mod owner;
mod register;
mod site;
mod stage;
mod stranger;
mod wiring;

use super::{Bug, Scenario};
use crate::report::Outcome;
use crate::world::executor::{self, Process};
use crate::world::host::Host;
use crate::world::network::{NetworkCounts, SimNetwork};
use crate::world::rng::{Rng, Salt};
use nemesis::{Nemesis, World};
use register::SimRegister;
use site::{Cast, Node, Place, Seat};
use stage::{OPERATIONS_MIN, Phase, Stage, Style};
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_log::quorum::Quorum;
use wiring::Directory;

/// `ledger`.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "ledger",
    about: "replicated ledgers under owners that take over from one another, and every kind of fault",
    run,
    bugs: BUGS,
    together: &[
        ("ensemble changes", 40),
        ("ledgers closed", 500),
        ("members replaced by a recovery", 3),
        ("disks wiped", 50),
        ("disks rolled back", 4),
        ("starts with damage", 8),
        ("roll-backs judged", 4),
        ("owners paused", 100),
        ("owners killed", 100),
        ("syncs failed", 100),
        ("changes torn", 5),
        ("opens superseded", 100),
        ("replica: append refused by a fence", 20),
        ("recovery: copies go to a substitute", 3),
        ("doubts", 40),
        ("writes rotten", 40),
        ("traps sprung", 40),
        ("strangers turned away", 100),
    ],
};

/// The planted bugs that this scenario must find, each with the rules of which one must find it.
///
/// Not here: those that only the exhaustive search finds (`log/src/testing/small`), because each needs a storage in
/// doubt, or a change of members, in just one order with a takeover; or a machine's own assertion sees it first.
const BUGS: &[Bug] = &[
    Bug { id: "PB-L2", breaks: &["I1", "I15"] },
    Bug { id: "PB-L3", breaks: &["I1", "I15"] },
    Bug { id: "PB-L4", breaks: &["I1", "I12"] },
    Bug { id: "PB-L5", breaks: &["I1"] },
    Bug { id: "PB-L6", breaks: &["I12", "I1"] },
    Bug { id: "PB-L7", breaks: &["I12", "I1"] },
    Bug { id: "PB-L8", breaks: &["I1"] },
    Bug { id: "PB-L9", breaks: &["I16", "L8"] },
    Bug { id: "PB-L10", breaks: &["I1", "I15"] },
    Bug { id: "PB-L11", breaks: &["I1", "I15", "L8", "L12"] },
    Bug { id: "PB-L12", breaks: &["I4", "I1", "I15"] },
    Bug { id: "PB-L13", breaks: &["I4"] },
    Bug { id: "PB-L14", breaks: &["I1"] },
    Bug { id: "PB-L15", breaks: &["I1"] },
    Bug { id: "PB-L16", breaks: &["I1", "I12"] },
    Bug { id: "PB-L19", breaks: &["I1", "I12"] },
    Bug { id: "PB-L25", breaks: &["I1", "I15"] },
    Bug { id: "PB-L26", breaks: &["I1", "L18"] },
    // In the ledger: the next one is opened twice, and one that was never recovered counts as closed.
    Bug { id: "PB-B22", breaks: &["L8", "I3"] },
    Bug { id: "PB-B23", breaks: &["I1"] },
    Bug { id: "PB-D11", breaks: &["I15"] },
    Bug { id: "PB-D13", breaks: &["I1", "L18"] },
    // A new storage whose mount is noted late takes the place of one that was mounted since.
    Bug { id: "PB-D14", breaks: &["L18", "I1", "I15"] },
    Bug { id: "PB-V3", breaks: &["I16"] },
];

/// Every entry goes to so many replicas, and is committed on so many.
const QUORUM: Quorum = Quorum { write: 3, ack: 2 };
/// The cluster of all storages.
const CLUSTER: u128 = 0x0c1a_57e2;
/// The ack quorum.
const ACK: usize = QUORUM.ack as usize;

fn run(salt: Salt) -> BoxFuture<'static, Outcome> {
    Box::pin(play(salt))
}

fn style(rng: &mut Rng) -> Style {
    Style {
        in_flight: rng.pick(&[1, 4, 16, 64]),
        burst: rng.pick(&[1, 4, 12]),
        pause_us: rng.pick(&[5_000, 20_000, 60_000]),
        trim_percent: rng.pick(&[1, 4, 12]),
        polite_percent: rng.pick(&[0, 30, 80]),
        hasty_percent: rng.pick(&[0, 50]),
    }
}

fn world(cast: Cast, network: &SimNetwork, salt: Salt, rng: &mut Rng) -> World {
    let count = usize::try_from(rng.range(3, 6)).expect("few");
    let nodes = (0..count).map(|at| Node::new(at, network, salt)).collect();
    let seats = (0..usize::try_from(rng.range(2, 5)).expect("few")).map(|at| {
        let with_node = at > 0 && rng.percent(50);
        let place = if with_node { Place::Node(rng.index(count)) } else { Place::Apart };
        Seat::new(at, place, network, salt)
    });
    let stranger = Host::new("stranger", 1 << 20, network, salt);
    World { nodes, seats: seats.collect(), stranger, cast, processes: 0 }
}

/// Moves containers from seat to seat.
async fn direct(stage: Stage, seats: usize, mut rng: Rng) {
    let gap_ms = rng.pick(&[60, 300, 1_200]);
    while stage.phase() == Phase::Open {
        let container = rng.index(stage.containers());
        stage.hand_to(container, rng.index(seats));
        executor::sleep(rng.millis(1, gap_ms)).await;
    }
}

async fn play(salt: Salt) -> Outcome {
    let mut rng = salt.of("play").rng();
    let network = SimNetwork::new(salt);
    let containers = usize::try_from(rng.range(1, 4)).expect("few");
    let stage = Stage::new(containers, style(&mut rng));
    let register = SimRegister::new(stage.history(), rng.fork());
    let directory = Arc::new(Directory::default());
    let limits = wiring::limits(&mut rng);
    let cast = Cast { stage: stage.clone(), register, directory, limits };
    let mut world = world(cast, &network, salt, &mut rng);
    let mut nemesis = Nemesis::new(&world, &network, salt.of("nemesis").rng());
    for container in 0..containers {
        stage.hand_to(container, rng.index(world.seats.len()));
    }
    let director = Process::start("director");
    drop(director.spawn(Box::pin(direct(stage.clone(), world.seats.len(), rng.fork()))));
    let until = executor::now() + rng.range(2_500, 8_000) * 1_000_000;
    nemesis.strike(&mut world, until).await;
    let doomed = finish::doom(&world, &nemesis, &mut rng);
    stage.enter(Phase::Settling);
    nemesis.settle(&mut world, &doomed).await;
    finish::converge(&mut world, &mut nemesis, &mut rng).await;
    finish::judge(&mut world, &mut nemesis, &mut rng).await;
    conclude(&world, &network)
}

/// Takeovers, and replays, that there must have been by the end.
const TAKEOVERS_MIN: u64 = 6;

fn conclude(world: &World, network: &SimNetwork) -> Outcome {
    let stage = &world.cast.stage;
    let operations = stage.operations();
    let mut out = stage.with(|history| std::mem::take(&mut history.out));
    let NetworkCounts { connections, resets, cuts } = network.counts();
    for node in &world.nodes {
        let counts = node.host.disk.counts();
        out.add("power losses", counts.power_losses);
        out.add("changes torn", counts.torn);
        out.add("syncs", counts.syncs);
        out.add("syncs failed", counts.sync_errors);
        out.add("reads failed", counts.read_errors);
        out.add("writes failed", counts.write_errors);
        out.add("writes gone wrong", counts.silent);
        out.add("bytes rotten", counts.rotten);
    }
    out.add("connections", connections);
    out.add("connections reset", resets);
    out.add("links cut one way", cuts);
    out.add("operations", operations);
    out.floors = vec![
        ("operations", OPERATIONS_MIN),
        ("takeovers", TAKEOVERS_MIN),
        ("replays", TAKEOVERS_MIN),
        ("faults", 1),
        ("entries audited", 10),
    ];
    out
}
