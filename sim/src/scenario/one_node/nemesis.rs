//! The nemesis: what goes wrong, round by round.

use super::audit;
use super::site::{CAPACITY, HOST, Site, Start};
use super::stage::Play;
use crate::world::disk::DiskFaults;
use crate::world::executor;
use crate::world::network::{NetworkFaults, SimNetwork};
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::time::Duration;
use tokio::select;

/// Longest time that a start may take, undisturbed.
const START_MAX: Duration = Duration::from_secs(60);
/// Failed starts in a row that failing devices explain.
const ATTEMPTS_MAX: u32 = 40;

/// Which kinds of faults a run has. Each is on in about half of the seeds.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a set of names")]
struct Kinds {
    power: bool,
    kill: bool,
    stop: bool,
    resets: bool,
    full: bool,
    rot: bool,
    early: bool,
}

/// The nemesis.
pub(super) struct Nemesis {
    rng: Rng,
    kinds: Kinds,
    disk: DiskFaults,
    network: SimNetwork,
}

impl Nemesis {
    /// Draws what may happen.
    pub(super) fn new(network: &SimNetwork, mut rng: Rng) -> Self {
        let mut coin = || rng.percent(50);
        let kinds = Kinds {
            power: coin() || coin(),
            kill: coin(),
            stop: coin(),
            resets: coin(),
            full: coin(),
            rot: coin(),
            early: coin(),
        };
        let disk = DiskFaults {
            sync_eio_ppm: if coin() { 10_000 } else { 0 },
            write_eio_ppm: if coin() { 2_000 } else { 0 },
            slow_ppm: if coin() { 5_000 } else { 0 },
            budget: 6,
            ..DiskFaults::default()
        };
        let faults = NetworkFaults {
            delay_us: rng.pick(&[(0, 1), (20, 200), (100, 5_000)]),
            window: rng.pick(&[(4_096, 8_192), (64 << 10, 1 << 20)]),
            reset_ppm: if kinds.resets { 300 } else { 0 },
            accept_error_ppm: if kinds.resets { 20_000 } else { 0 },
        };
        network.set_faults(faults);
        trace!("nemesis: {kinds:?} {disk:?} {faults:?}");
        Self { rng, kinds, disk, network: network.clone() }
    }

    /// Starts the node for the first time.
    pub(super) async fn first_start(&mut self, site: &mut Site, play: &Play) {
        self.start(site, play).await;
    }

    /// Strikes `rounds` times while clients work.
    pub(super) async fn strike(&mut self, site: &mut Site, play: &Play, rounds: u64) {
        for _ in 0..rounds {
            let budget = 1 + u32::try_from(self.rng.below(3)).expect("small");
            site.host.disk.set_faults(DiskFaults { budget, ..self.disk });
            self.work(site, play).await;
            self.end_process(site, play).await;
            if self.kinds.rot && self.rng.percent(30) {
                self.damage(site, play).await;
            }
            self.start(site, play).await;
        }
    }

    /// Lets the node work for a while, with small faults.
    async fn work(&mut self, site: &mut Site, play: &Play) {
        let until = executor::now() + self.nanos(20, 500);
        while executor::now() < until && site.is_up() {
            let pause = self.rng.millis(1, 100);
            let ended = select! {
                biased;
                ended = site.ended() => Some(ended),
                () = executor::sleep(pause) => None,
            };
            if let Some(ended) = ended {
                trace!("node: has ended: {ended}");
                play.with(|shared| shared.out.add("nodes ended by a fault", 1));
                return;
            }
            if self.kinds.resets && self.rng.percent(20) {
                self.network.reset(2);
            }
            if self.kinds.full && self.rng.percent(20) {
                let used = site.host.disk.used();
                let left = self.rng.below(64 << 10);
                trace!("nemesis: the disk has {left} bytes left");
                site.host.disk.set_capacity(used + left);
                play.with(|shared| shared.out.add("disks filled", 1));
            } else if self.rng.percent(40) {
                site.host.disk.set_capacity(CAPACITY);
            }
        }
    }

    fn nanos(&mut self, low_ms: u64, high_ms: u64) -> u64 {
        u64::try_from(self.rng.millis(low_ms, high_ms).as_nanos()).expect("short")
    }

    /// Ends the node's process one way or another.
    async fn end_process(&mut self, site: &mut Site, play: &Play) {
        let Kinds { power, kill, stop, .. } = self.kinds;
        let mut ways = vec!["kill"];
        ways.extend(power.then_some("power"));
        ways.extend(power.then_some("power"));
        ways.extend(kill.then_some("kill"));
        ways.extend(stop.then_some("stop"));
        let way = self.rng.pick(&ways);
        match way {
            "power" => site.cut_power().await,
            "kill" => site.kill().await,
            _ => site.stop().await,
        }
        // A machine whose process has died may lose power too: its page cache is not durable.
        if way != "power" && power && self.rng.percent(20) {
            site.cut_power().await;
        }
        play.with(|shared| shared.out.add("processes ended", 1));
        site.host.disk.set_capacity(CAPACITY);
    }

    /// Flips bits on a stopped node, whose folder somebody has a backup of. The damaged node may refuse to start or to
    /// answer; what it answers must be right, and never silently less. Then the backup is put back.
    async fn damage(&mut self, site: &mut Site, play: &Play) {
        let backup = site.host.disk.backup();
        let count = 1 + self.rng.index(3);
        // Before the start, or under a node that runs.
        let misplaces = self.rng.percent(40);
        if !misplaces && site.host.disk.rot(count, |name| name.starts_with("seg-")) == 0 {
            return;
        }
        play.with(|shared| shared.out.add("disks damaged", 1));
        site.host.disk.set_faults(DiskFaults::default());
        for client in play.clients() {
            self.network.cut(&client, HOST);
            self.network.cut(HOST, &client);
        }
        match site.start(START_MAX).await {
            Start::Up(report) => {
                trace!("node: up on a damaged disk: {:?}", report.damages);
                let named = u64::from(!report.damages.is_empty());
                play.with(|shared| {
                    shared.out.add("starts with damage", 1);
                    shared.out.add("damages named", named);
                });
                if misplaces {
                    let count = 1 + self.rng.index(20);
                    let done = site.host.disk.misplace(count, |name| name.starts_with("seg-"));
                    play.with(|shared| shared.out.add("blocks misplaced", done as u64));
                }
                audit::audit(play, &self.network, self.rng.word()).await;
            }
            Start::Refused(error) => {
                trace!("node: refuses its damaged disk: {error}");
                play.with(|shared| {
                    shared.out.add("damaged disks refused", 1);
                    let error = error.to_string();
                    if !error.contains("seg-") || !error.contains("offset") {
                        shared
                            .out
                            .violate("damage", format!("a refusal that names no place: {error}"));
                    }
                });
            }
            Start::Unfinished => {
                play.with(|shared| shared.out.stuck = Some("a damaged node hangs".into()));
            }
        }
        site.kill().await;
        site.host.disk.restore(backup);
        self.network.heal();
    }

    /// Starts the node, however often its start is cut short.
    async fn start(&mut self, site: &mut Site, play: &Play) {
        for _ in 0..ATTEMPTS_MAX {
            let early = self.kinds.early && self.rng.percent(20);
            let limit = if early { self.rng.millis(0, 30) } else { START_MAX };
            let errors = errors(site);
            match site.start(limit).await {
                Start::Up(report) => {
                    trace!("node: up, {} damages", report.damages.len());
                    if !report.damages.is_empty() {
                        let what = format!("damage where there is none: {:?}", report.damages);
                        play.with(|shared| shared.out.violate("I1", what));
                    }
                    return;
                }
                Start::Refused(error) => {
                    trace!("node: refuses to start: {error}");
                    play.with(|shared| shared.out.add("starts refused", 1));
                    if errors == self::errors(site) {
                        let what = format!("what was acknowledged cannot be read: {error}");
                        play.with(|shared| shared.out.violate("I1", what));
                        return;
                    }
                }
                Start::Unfinished if early => {
                    play.with(|shared| shared.out.add("starts cut short", 1));
                }
                Start::Unfinished => {
                    play.with(|shared| shared.out.stuck = Some("a start takes too long".into()));
                    return;
                }
            }
            if self.kinds.power && self.rng.percent(50) {
                site.cut_power().await;
            } else {
                site.kill().await;
            }
        }
        play.with(|shared| shared.out.stuck = Some("no start succeeds".into()));
    }

    /// Ends all faults and starts the node for good.
    pub(super) async fn heal(&mut self, site: &mut Site, play: &Play) {
        self.disk = DiskFaults::default();
        self.kinds.early = false;
        self.network.set_faults(NetworkFaults::default());
        self.network.heal();
        site.host.disk.set_faults(DiskFaults::default());
        site.host.disk.set_capacity(CAPACITY);
        site.cut_power().await;
        self.start(site, play).await;
    }
}

/// How often the disk has failed so far.
fn errors(site: &Site) -> u64 {
    let counts = site.host.disk.counts();
    counts.sync_errors + counts.write_errors + counts.read_errors
}
