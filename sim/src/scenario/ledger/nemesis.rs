//! The nemesis: what goes wrong, when, and for how long.

mod ambush;

use super::budget::Budget;
use super::register::RegisterFaults;
use super::site::{CAPACITY, Cast, Node, Place, Seat, Start};
use super::stranger;
use crate::world::disk::{DiskFaults, Operation};
use crate::world::executor;
use crate::world::host::Host;
use crate::world::network::{NetworkFaults, SimNetwork};
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::time::Duration;
use thalweg_log::engine::StartError;

/// Longest time that a start may take, undisturbed.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest time that a start may take while disks are slow.
const START_HASTY: Duration = Duration::from_secs(4);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Power,
    Pause,
    OwnerKill,
    OwnerPause,
    Resets,
    OneWay,
    Cut,
    Isolate,
    Partition,
    Latency,
    RegisterCut,
    SyncError,
    WriteError,
    ReadError,
    Slow,
    Full,
    Wipe,
    Rot,
    Silent,
    RollBack,
    Clock,
    Ambush,
    Forget,
    Doubt,
    Trap,
    Stranger,
}

const ALL: [Kind; 27] = [
    Kind::Kill,
    Kind::Power,
    Kind::Pause,
    Kind::OwnerKill,
    Kind::OwnerPause,
    Kind::Resets,
    Kind::OneWay,
    Kind::Cut,
    Kind::Isolate,
    Kind::Partition,
    Kind::Latency,
    Kind::RegisterCut,
    Kind::SyncError,
    Kind::WriteError,
    Kind::ReadError,
    Kind::Slow,
    Kind::Full,
    Kind::Wipe,
    Kind::Rot,
    Kind::Silent,
    Kind::RollBack,
    Kind::Clock,
    Kind::Ambush,
    Kind::Forget,
    Kind::Doubt,
    Kind::Trap,
    Kind::Stranger,
];

/// No run has fewer kinds of faults.
const KINDS_MIN: usize = 4;

/// The machines.
pub(super) struct World {
    /// Storage nodes.
    pub(super) nodes: Vec<Node>,
    /// Where owners sit.
    pub(super) seats: Vec<Seat>,
    /// A machine that is none of the cluster's.
    pub(super) stranger: Host,
    /// What processes are started with.
    pub(super) cast: Cast,
    /// Numbers processes.
    pub(super) processes: u64,
}

/// A direction of a link that is cut, and until when.
struct CutLink {
    from: String,
    to: String,
    until: u64,
}

/// The nemesis.
pub(super) struct Nemesis {
    rng: Rng,
    kinds: Vec<Kind>,
    network: SimNetwork,
    network_faults: NetworkFaults,
    cuts: Vec<CutLink>,
    /// When hosts reach the register again, and the network is as fast as ever.
    register_until: u64,
    latency_until: u64,
    /// Something has struck.
    has_struck: bool,
    /// Nothing fails any more.
    is_over: bool,
    /// Longest time that anything lasts, in milliseconds.
    lasting_ms: u64,
    /// Who may lose data.
    pub(super) budget: Budget,
}

fn in_ms(ms: u64) -> u64 {
    executor::now() + ms * 1_000_000
}

impl Nemesis {
    /// Draws what may happen.
    pub(super) fn new(world: &World, network: &SimNetwork, mut rng: Rng) -> Self {
        let share = rng.pick(&[20, 40, 60, 90]);
        let mut kinds: Vec<Kind> = ALL.iter().copied().filter(|_| rng.percent(share)).collect();
        while kinds.len() < KINDS_MIN {
            kinds.push(rng.pick(&ALL));
        }
        let noisy = rng.percent(50);
        let network_faults = NetworkFaults {
            delay_us: rng.pick(&[(0, 1), (20, 200), (20, 200), (100, 5_000)]),
            window: rng.pick(&[(4_096, 8_192), (64 << 10, 1 << 20)]),
            reset_ppm: if noisy { rng.pick(&[50, 300, 2_000]) } else { 0 },
            accept_error_ppm: if noisy { 20_000 } else { 0 },
        };
        network.set_faults(network_faults);
        let mut some = || if rng.percent(50) { rng.pick(&[2, 10, 30]) } else { 0 };
        let faults = RegisterFaults {
            lost_requests_percent: some(),
            lost_replies_percent: some(),
            late_percent: some(),
            delay_us: rng.pick(&[(10, 100), (50, 500), (1_000, 20_000)]),
        };
        world.cast.register.set_faults(faults);
        trace!("nemesis: {kinds:?} {network_faults:?} {faults:?}");
        let lasting_ms = rng.pick(&[50, 400, 2_500]);
        Self {
            rng,
            kinds,
            network: network.clone(),
            network_faults,
            cuts: Vec::new(),
            register_until: 0,
            latency_until: 0,
            has_struck: false,
            is_over: false,
            lasting_ms,
            budget: Budget::default(),
        }
    }

    /// Strikes now and then until `until`.
    pub(super) async fn strike(&mut self, world: &mut World, until: u64) {
        let gap_ms = self.rng.pick(&[10, 40, 150]);
        while executor::now() < until {
            executor::sleep(self.rng.millis(1, gap_ms)).await;
            self.tend(world).await;
            if !self.kinds.is_empty() && self.rng.percent(60) {
                let kind = self.rng.pick(&self.kinds.clone());
                self.fault(world, kind).await;
            }
        }
        if self.rng.percent(40) {
            self.fault(world, Kind::Doubt).await;
        }
        // What was drawn may have found nothing to strike: a run without any fault would show nothing.
        while !self.has_struck {
            let kind = self.rng.pick(&ALL);
            self.fault(world, kind).await;
        }
    }

    fn lasting(&mut self) -> u64 {
        let ms = self.rng.range(1, self.lasting_ms);
        in_ms(if self.rng.percent(10) { ms * 3 } else { ms })
    }

    /// Ends what has lasted long enough, and starts again what is down.
    pub(super) async fn tend(&mut self, world: &mut World) {
        let now = executor::now();
        self.recount(world).await;
        for CutLink { from, to, .. } in self.cuts.extract_if(.., |cut| cut.until <= now) {
            self.network.mend(&from, &to);
        }
        if self.register_until <= now {
            world.cast.register.heal();
        }
        if self.latency_until <= now {
            self.network.set_faults(self.network_faults);
        }
        for at in 0..world.nodes.len() {
            let node = &mut world.nodes[at];
            if node.resume_at.is_some_and(|due| due <= now) {
                node.resume_at = None;
                node.host.resume();
            }
            if let Some(what) = node.gone_back() {
                world.cast.stage.with(|history| history.violate("I4", what));
            }
            if node.host.disk.has_sprung() {
                world.cast.stage.count("traps sprung", 1);
                let power = self.rng.percent(75);
                self.stop(world, at, power).await;
                continue;
            }
            if let Some(why) = node.failed() {
                trace!("{} ends by itself: {why}", node.host.name);
                world.cast.stage.count("nodes ended by a fault", 1);
                self.stop(world, at, false).await;
            }
            if world.nodes[at].restart_at.is_some_and(|due| due <= now) {
                self.start(world, at).await;
            }
        }
        for at in 0..world.seats.len() {
            self.tend_seat(world, at, now);
        }
    }

    /// Forgets a loss of which nothing is needed any more. A disk that was damaged may be in doubt about ledgers that
    /// it has never seen: it counts until somebody replaces it.
    async fn recount(&mut self, world: &mut World) {
        let Some(at) = self.budget.node().filter(|_| self.budget.is_over(&world.cast)) else {
            return;
        };
        if !world.nodes[at].is_tainted {
            self.budget.forget();
        } else if !self.is_over && !world.nodes[at].is_doomed && self.rng.percent(4) {
            self.stop(world, at, false).await;
            self.blank(world, at);
        }
    }

    fn tend_seat(&mut self, world: &mut World, at: usize, now: u64) {
        let World { nodes, seats, cast, processes, .. } = world;
        let seat = &mut seats[at];
        if seat.resume_at.is_some_and(|due| due <= now) {
            seat.resume_at = None;
            seat.host.resume();
        }
        if seat.is_taken || seat.restart_at.is_none_or(|due| due > now) {
            return;
        }
        let env = match seat.place {
            Place::Apart => None,
            Place::Node(node) => match nodes[node].env() {
                Some(env) => Some(env),
                None => return,
            },
        };
        seat.restart_at = None;
        *processes += 1;
        seat.take(env, cast, *processes, &mut self.rng.fork());
    }

    /// Ends the process of a node, and says when it is to be started again.
    async fn stop(&mut self, world: &mut World, at: usize, power: bool) {
        let node = &mut world.nodes[at];
        if power {
            node.cut_power(&world.cast.directory).await;
        } else {
            node.kill(&world.cast.directory).await;
        }
        node.restart_at = Some(if self.is_over { 0 } else { self.lasting() });
        for seat in &mut world.seats {
            if seat.place == Place::Node(at) {
                seat.is_taken = false;
                seat.restart_at = Some(0);
            }
        }
    }

    /// Lets a node's disk do what it may during a start. Returns how often it has failed so far.
    fn before_start(&mut self, world: &mut World, at: usize) -> u64 {
        let World { nodes, cast, .. } = world;
        let node = &mut nodes[at];
        node.restart_at = None;
        // A start takes what it cannot read for damage.
        if node.faults.read_eio_ppm > 0 && self.budget.allows(at) {
            self.budget.spend(at, cast);
            node.is_tainted = true;
        } else {
            node.faults.read_eio_ppm = 0;
        }
        node.host.disk.set_faults(node.faults);
        errors(node)
    }

    /// Starts a node that is down, if it comes up.
    async fn start(&mut self, world: &mut World, at: usize) {
        if world.nodes[at].is_doomed {
            return;
        }
        let before = self.before_start(world, at);
        let early = !self.is_over && self.kinds.contains(&Kind::Kill) && self.rng.percent(10);
        let trapped = !self.is_over && self.kinds.contains(&Kind::Trap) && self.rng.percent(40);
        if trapped {
            let first = self.rng.percent(60);
            let some = (Operation::Any, self.rng.below(60));
            let (operation, left) = if first { (Operation::First, 0) } else { some };
            world.nodes[at].host.disk.trap(operation, left, false);
        }
        let limit = match self.is_over {
            true => START_MAX,
            false if early => self.rng.millis(0, 30),
            false if trapped => self.rng.millis(5, 60),
            false => START_HASTY,
        };
        let cast = world.cast.clone();
        let node = &mut world.nodes[at];
        match node.start(&cast, limit).await {
            Start::Up(damages) => {
                trace!("{}: up, damages: {damages:?}", node.host.name);
                cast.stage.count("node starts", 1);
                if !damages.is_empty() {
                    cast.stage.count("starts with damage", 1);
                    if !node.is_tainted {
                        let what = format!("{}: damage where there is none: {damages:?}", node.id);
                        cast.stage.with(|history| history.violate("I1", what));
                    }
                }
                judge_identity(world, at);
                return self.budget.settled(at, &cast);
            }
            Start::Refused(error) => {
                let failed = errors(node) > before;
                node.kill(&cast.directory).await;
                self.refused(world, at, &error, failed);
            }
            Start::Unfinished => {
                cast.stage.count("starts cut short", 1);
                if self.is_over {
                    let what = format!("{} does not start", node.host.name);
                    cast.stage.with(|history| history.out.stuck.get_or_insert(what).clone());
                }
                let power = self.rng.percent(50);
                self.stop(world, at, power).await;
            }
        }
        world.nodes[at].restart_at = Some(if self.is_over { in_ms(50) } else { self.lasting() });
    }

    /// A node has refused to start; its disk has `failed` meanwhile.
    fn refused(&mut self, world: &mut World, at: usize, error: &StartError, failed: bool) {
        let node = &world.nodes[at];
        let stage = &world.cast.stage;
        trace!("{}: refuses to start: {error}", node.host.name);
        stage.count("starts refused", 1);
        if failed || is_full(error) {
            return; // It passes.
        }
        if !node.is_tainted {
            let what = format!("{}: {error}", node.host.name);
            stage.with(|history| history.violate("I1", what));
        } else if self.budget.allows(at) {
            self.blank(world, at); // What an operator does with a disk that is beyond help.
        }
    }

    /// Puts a blank disk into a node that is down.
    fn blank(&mut self, world: &mut World, at: usize) {
        let cast = &world.cast;
        self.budget.spend(at, cast);
        cast.stage.count("disks wiped", 1);
        let node = &mut world.nodes[at];
        node.host.disk.wipe();
        node.host.disk.set_capacity(CAPACITY);
        node.is_tainted = false;
        node.image = None;
        node.rolled_back = None;
    }

    async fn fault(&mut self, world: &mut World, kind: Kind) {
        let at = self.rng.index(world.nodes.len());
        let done = match kind {
            Kind::Kill | Kind::Power | Kind::Pause => self.strike_node(world, at, kind).await,
            Kind::OwnerKill | Kind::OwnerPause => self.strike_owner(world, kind).await,
            Kind::Resets
            | Kind::OneWay
            | Kind::Cut
            | Kind::Isolate
            | Kind::Partition
            | Kind::Latency
            | Kind::RegisterCut => self.strike_network(world, kind),
            Kind::SyncError | Kind::WriteError | Kind::ReadError | Kind::Slow | Kind::Full => {
                self.strike_disk(world, at, kind)
            }
            Kind::Wipe | Kind::Rot | Kind::Silent | Kind::RollBack => {
                self.strike_data(world, at, kind).await
            }
            Kind::Ambush | Kind::Forget | Kind::Doubt => self.ambush(world, kind).await,
            Kind::Trap => self.trap(world, at),
            Kind::Stranger => {
                world.stranger.kill().await;
                stranger::call(&mut world.stranger, &world.cast, &mut self.rng);
                true
            }
            Kind::Clock => {
                let by = self.rng.range(0, 20_000_000).cast_signed() - 10_000_000;
                world.nodes[at].host.wall().jump(by);
                true
            }
        };
        if done {
            self.has_struck = true;
            trace!("nemesis: {kind:?}");
            world.cast.stage.count("faults", 1);
            world.cast.stage.count(name(kind), 1);
        }
    }

    async fn strike_node(&mut self, world: &mut World, at: usize, kind: Kind) -> bool {
        if world.nodes[at].process.is_none() {
            // A machine whose process has died may lose power too: its page cache is not durable.
            if kind == Kind::Power && world.nodes[at].restart_at.is_some() {
                world.nodes[at].cut_power(&world.cast.directory).await;
            }
            return false;
        }
        if kind == Kind::Pause {
            let until = self.lasting();
            let node = &mut world.nodes[at];
            node.host.pause();
            node.resume_at = Some(until);
        } else {
            self.stop(world, at, kind == Kind::Power).await;
        }
        true
    }

    /// Lets a node die at a certain operation of its disk.
    fn trap(&mut self, world: &World, at: usize) -> bool {
        let node = &world.nodes[at];
        if node.process.is_none() {
            return false;
        }
        let (operation, left, alone) = match self.rng.below(3) {
            0 => (Operation::Names, self.rng.below(4), self.rng.percent(50)),
            1 => (Operation::Any, self.rng.below(100), self.rng.percent(50)),
            _ => (Operation::Use, 0, true),
        };
        node.host.disk.trap(operation, left, alone);
        true
    }

    async fn strike_owner(&mut self, world: &mut World, kind: Kind) -> bool {
        let apart = |seat: &Seat| seat.place == Place::Apart && seat.is_taken;
        let seats: Vec<usize> =
            (0..world.seats.len()).filter(|at| apart(&world.seats[*at])).collect();
        if seats.is_empty() {
            return false;
        }
        let until = self.lasting();
        let at = self.rng.pick(&seats);
        let seat = &mut world.seats[at];
        if kind == Kind::OwnerPause {
            seat.host.pause();
            seat.resume_at = Some(until);
        } else {
            if self.rng.percent(50) {
                seat.host.kill().await;
            } else {
                seat.host.cut_power().await;
            }
            seat.is_taken = false;
            seat.resume_at = None;
            seat.restart_at = Some(until);
        }
        true
    }

    fn hosts(world: &World) -> Vec<String> {
        let nodes = world.nodes.iter().map(|node| node.host.name.clone());
        let apart = world.seats.iter().filter(|seat| seat.place == Place::Apart);
        nodes.chain(apart.map(|seat| seat.host.name.clone())).collect()
    }

    fn cut(&mut self, from: &str, to: &str, until: u64) {
        self.network.cut(from, to);
        self.cuts.push(CutLink { from: from.to_owned(), to: to.to_owned(), until });
    }

    fn cut_between(&mut self, here: &[String], there: &[String], ways: (bool, bool), until: u64) {
        for (one, other) in here.iter().flat_map(|a| there.iter().map(move |b| (a, b))) {
            if ways.0 {
                self.cut(one, other, until);
            }
            if ways.1 {
                self.cut(other, one, until);
            }
        }
    }

    fn strike_network(&mut self, world: &World, kind: Kind) -> bool {
        let until = self.lasting();
        let mut hosts = Self::hosts(world);
        self.rng.shuffle(&mut hosts);
        let both = (true, true);
        match kind {
            Kind::Resets => self.network.reset(1 + self.rng.index(6)),
            Kind::OneWay => {
                let ways = self.rng.pick(&[(true, false), (false, true)]);
                let some = 2 + self.rng.index(hosts.len() - 1);
                self.cut_between(&hosts[..1], &hosts[1..some], ways, until);
            }
            // Two that do not reach one another, though everybody else reaches both.
            Kind::Cut => self.cut_between(&hosts[..1], &hosts[1..2], both, until),
            Kind::Isolate => {
                self.cut_between(&hosts[..1], &hosts[1..], both, until);
                world.cast.register.cut(&hosts[0]);
                self.register_until = self.register_until.max(until);
            }
            Kind::Partition => {
                let border = 1 + self.rng.index(hosts.len() - 1);
                let (here, there) = hosts.split_at(border);
                self.cut_between(here, there, both, until);
            }
            Kind::Latency => {
                let delay_us = self.rng.pick(&[(500, 5_000), (5_000, 60_000), (0, 100_000)]);
                self.network.set_faults(NetworkFaults { delay_us, ..self.network_faults });
                self.latency_until = until;
            }
            _ => {
                world.cast.register.cut(&hosts[0]);
                self.register_until = self.register_until.max(until);
            }
        }
        true
    }

    fn strike_disk(&mut self, world: &mut World, at: usize, kind: Kind) -> bool {
        let node = &mut world.nodes[at];
        let off = self.rng.percent(30);
        let ppm = |on| if off { 0 } else { on };
        match kind {
            Kind::SyncError => node.faults.sync_eio_ppm = ppm(20_000),
            Kind::WriteError => node.faults.write_eio_ppm = ppm(10_000),
            Kind::ReadError => node.faults.read_eio_ppm = ppm(50_000),
            Kind::Slow => node.faults.slow_ppm = ppm(self.rng.pick(&[5_000, 100_000])),
            _ => {
                let left = self.rng.below(96 << 10);
                let capacity = if off { CAPACITY } else { node.host.disk.used() + left };
                node.host.disk.set_capacity(capacity);
            }
        }
        node.faults.budget = 1 + u32::try_from(self.rng.below(3)).expect("small");
        node.host.disk.set_faults(node.faults);
        true
    }

    /// Faults that cost data: within the budget.
    async fn strike_data(&mut self, world: &mut World, at: usize, kind: Kind) -> bool {
        let chance = self.rng.percent(50);
        if !self.budget.allows(at) || world.nodes[at].is_doomed {
            return false;
        }
        let cast = world.cast.clone();
        match kind {
            Kind::Wipe => {
                self.stop(world, at, chance).await;
                self.blank(world, at);
                if self.rng.percent(30) {
                    // What its first start has sent may come when there is another disk.
                    self.start(world, at).await;
                    executor::sleep(self.rng.millis(0, 40)).await;
                    self.stop(world, at, chance).await;
                    self.blank(world, at);
                    world.nodes[at].restart_at = Some(0);
                }
            }
            Kind::Rot => {
                self.stop(world, at, false).await;
                self.budget.spend(at, &cast);
                let count = 1 + self.rng.index(3);
                let node = &mut world.nodes[at];
                node.is_tainted = true;
                let done = if chance {
                    node.host.disk.rot_recent(count * 4)
                } else {
                    node.host.disk.rot(count, |name| name.starts_with("seg-"))
                };
                return done > 0;
            }
            Kind::Silent => {
                let node = &mut world.nodes[at];
                if node.process.is_none() {
                    return false;
                }
                self.budget.spend(at, &cast);
                node.is_tainted = true;
                let faults = if chance {
                    DiskFaults { misdirected_ppm: 200_000, ..node.faults }
                } else {
                    DiskFaults { stale_ppm: 200_000, ..node.faults }
                };
                node.host.disk.set_faults(DiskFaults { budget: 1, ..faults });
                // It does its harm within this time; then the process meets it.
                executor::sleep(self.rng.millis(1, 60)).await;
                self.stop(world, at, chance).await;
            }
            _ => return self.roll_back(world, at).await,
        }
        true
    }

    /// Keeps an image of a disk, or puts the one back that was kept.
    async fn roll_back(&mut self, world: &mut World, at: usize) -> bool {
        let cast = world.cast.clone();
        let node = &mut world.nodes[at];
        let Some(process) = &node.process else { return false };
        let (replica, mounted) = (process.replica, process.engine_mounts());
        match node.image.take() {
            // The same storage has been mounted again since, so an older one can be told from it.
            Some((image, of, seq)) if of == replica && cast.directory.mounts(of) > seq => {
                self.stop(world, at, true).await;
                self.budget.spend(at, &cast);
                let node = &mut world.nodes[at];
                node.host.disk.restore(image);
                node.rolled_back = Some(of);
                node.host.cut_power().await;
                true
            }
            _ => {
                node.image = Some((node.host.disk.backup(), replica, mounted));
                false
            }
        }
    }

    /// Ends all faults but for the nodes of `doomed`, which stay dead.
    pub(super) async fn settle(&mut self, world: &mut World, doomed: &[usize]) {
        self.is_over = true;
        self.kinds.clear();
        self.network_faults = NetworkFaults::default();
        self.network.set_faults(self.network_faults);
        self.cuts.clear();
        self.network.heal();
        world.cast.register.set_faults(RegisterFaults::default());
        world.cast.register.heal();
        world.stranger.kill().await;
        for at in 0..world.nodes.len() {
            let node = &mut world.nodes[at];
            node.faults = DiskFaults::default();
            node.host.disk.set_faults(node.faults);
            node.host.disk.set_capacity(CAPACITY);
            node.host.disk.untrap();
            if let Some(0..) = node.resume_at.take() {
                node.host.resume();
            }
            let dies = doomed.contains(&at);
            if dies {
                trace!("{}: stays dead", node.host.name);
                self.stop(world, at, true).await;
            }
            let node = &mut world.nodes[at];
            node.is_doomed = dies;
            if !dies && node.process.is_none() {
                node.restart_at = Some(0);
            }
        }
        for seat in &mut world.seats {
            if seat.resume_at.take().is_some() {
                seat.host.resume();
            }
            if !seat.is_taken {
                seat.restart_at = Some(0);
            }
        }
        self.tend(world).await;
    }
}

/// A storage that was rolled back must not serve under its name.
fn judge_identity(world: &mut World, at: usize) {
    let node = &mut world.nodes[at];
    let stage = &world.cast.stage;
    let serves = node.process.as_ref().map(|process| process.replica);
    if let Some(old) = node.rolled_back.take() {
        stage.count("roll-backs judged", 1);
        if serves == Some(old) {
            let what = format!("{old} serves although its disk was rolled back");
            stage.with(|history| history.violate("L18", what));
        }
    }
}

fn name_of(world: &World, node: usize) -> String {
    world.nodes[node].host.name.clone()
}

/// The host that a seat is on.
fn host_of(world: &World, seat: usize) -> String {
    match world.seats[seat].place {
        Place::Node(node) => name_of(world, node),
        Place::Apart => world.seats[seat].host.name.clone(),
    }
}

/// How often a node's disk has failed so far.
fn errors(node: &Node) -> u64 {
    let counts = node.host.disk.counts();
    counts.sync_errors + counts.write_errors + counts.read_errors
}

fn is_full(error: &StartError) -> bool {
    match error {
        StartError::Full { .. } => true,
        StartError::Io { error, .. } => error.kind() == std::io::ErrorKind::StorageFull,
        _ => false,
    }
}

/// What a kind is called among the figures.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "nodes killed",
        Kind::Power => "nodes without power",
        Kind::Pause => "nodes paused",
        Kind::OwnerKill => "owners killed",
        Kind::OwnerPause => "owners paused",
        Kind::Resets => "connections broken",
        Kind::OneWay => "one-way cuts",
        Kind::Cut => "links cut",
        Kind::Isolate => "hosts isolated",
        Kind::Partition => "partitions",
        Kind::Latency => "slow networks",
        Kind::RegisterCut => "register cut off",
        Kind::SyncError => "syncs to fail",
        Kind::WriteError => "writes to fail",
        Kind::ReadError => "reads to fail",
        Kind::Slow => "disks slow",
        Kind::Full => "disks full",
        Kind::Wipe => "disks to be wiped",
        Kind::Rot => "disks rotten",
        Kind::Silent => "silent writes",
        Kind::RollBack => "disks rolled back",
        Kind::Clock => "clock jumps",
        Kind::Ambush => "ambushes",
        Kind::Forget => "fences to be forgotten",
        Kind::Doubt => "doubts",
        Kind::Trap => "traps",
        Kind::Stranger => "strangers",
    }
}
