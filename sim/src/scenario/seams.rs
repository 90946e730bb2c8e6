//! The conformance suite of the seams, run against the simulated ones; then what only they can show: power losses.

use super::Scenario;
use crate::report::Outcome;
use crate::world::host::Host;
use crate::world::network::{NetworkFaults, SimNetwork};
use crate::world::rng::{Rng, Salt};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::disk::{Disk, File, Open};
use thalweg_actor::network::Endpoint;
use thalweg_actor::testing;
use thalweg_types::time::Instant;

/// `seams`.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "seams",
    about: "the seams' conformance suite on the simulated seams, and a disk that loses power",
    run,
    bugs: &[],
    together: &[("changes torn", 100)],
};

const CAPACITY: u64 = 64 << 20;
const POWER_LOSSES: u64 = 20;

fn run(salt: Salt) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let mut outcome = Outcome::default();
        let network = SimNetwork::new(salt);
        let mut rng = salt.of("seams").rng();
        network.set_faults(NetworkFaults {
            delay_us: rng.pick(&[(0, 1), (20, 200), (100, 5_000)]),
            window: rng.pick(&[(4_096, 8_192), (64 << 10, 1 << 20)]),
            ..NetworkFaults::default()
        });
        let mut host = Host::new("a", CAPACITY, &network, salt);
        let env = host.boot();
        check_clock(&env.clock, &host, &mut outcome).await;
        testing::check_disk(Arc::clone(&env.disk)).await;
        testing::check_network(&env, &Endpoint::from("a:0")).await;
        drop(env);
        host.kill().await;
        power_losses(&mut host, &mut rng, &mut outcome).await;
        outcome.floors = vec![("power losses", POWER_LOSSES), ("records acked", 1_000)];
        outcome
    })
}

async fn check_clock(
    clock: &Arc<dyn thalweg_actor::clock::Clock>,
    host: &Host,
    outcome: &mut Outcome,
) {
    for by in [1_u64, 999, 1_000_000, 70_000_000_000] {
        let at = clock.now().after(Duration::from_nanos(by));
        clock.sleep_until(at).await;
        if clock.now() < at {
            outcome.violate("clock", format!("a sleep of {by} ns ended early"));
        }
    }
    clock.sleep_until(Instant(0)).await;
    let before = clock.wall();
    host.wall().jump(-1_000);
    if clock.wall() >= before {
        outcome.violate("clock", "a jump of the wall clock is not seen");
    }
}

/// The smallest log: records of a fixed size in one file, each acked after its sync. What was acked stays, what was
/// not may stay; names stay once their folder was synced.
async fn power_losses(host: &mut Host, rng: &mut Rng, outcome: &mut Outcome) {
    const RECORD: u64 = 700;
    let mut acked: BTreeMap<u64, u8> = BTreeMap::new();
    let mut next = 0;
    for round in 0..POWER_LOSSES {
        let disk = host.boot().disk;
        let file = open(&disk, round == 0).await;
        for (at, fill) in &acked {
            let read = file.read_at(at * RECORD, 700).await.expect("no read fails here");
            if read.len() != 700 || read.iter().any(|byte| byte != fill) {
                outcome.violate("I1", format!("record {at} was acked and is not there"));
            }
        }
        for _ in 0..60 {
            let batch = rng.range(1, 4);
            let first = next;
            for _ in 0..batch {
                let byte = u8::try_from(1 + next % 255).expect("small");
                let record = vec![Bytes::from(vec![byte; 700])];
                file.write_at(next * RECORD, record).await.expect("no write fails here");
                next += 1;
            }
            file.sync().await.expect("no sync fails here");
            acked.extend((first..next).map(|at| (at, u8::try_from(1 + at % 255).expect("small"))));
        }
        let unsynced = vec![Bytes::from(vec![9; 5_000])];
        file.write_at(next * RECORD, unsynced).await.expect("no write fails here");
        drop(disk.open("never-synced", Open::Either).await.expect("no open fails here"));
        drop((file, disk));
        if rng.percent(30) {
            host.kill().await;
        }
        host.cut_power().await;
    }
    let counts = host.disk.counts();
    outcome.add("power losses", counts.power_losses);
    outcome.add("records acked", acked.len() as u64);
    outcome.add("changes torn", counts.torn);
    outcome.add("changes dropped", counts.dropped);
}

async fn open(disk: &Arc<dyn Disk>, new: bool) -> Arc<dyn File> {
    let how = if new { Open::New } else { Open::Existing };
    let file = disk.open("log", how).await.expect("a name whose folder was synced is there");
    if new {
        disk.sync_dir().await.expect("no sync fails here");
    }
    file
}
