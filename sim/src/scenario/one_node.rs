//! One node under its native clients: power losses, kills, failing syncs, full and damaged disks, a bad network.
//!
//! Clients work while the nemesis strikes. Then everything heals, clients finish what they have begun, the power fails
//! once more, and a fresh client reads everything back. The rules are those of the design notes on reliability.

mod audit;
mod bytestream;
mod events;
mod history;
mod nemesis;
mod raw;
mod rawlog;
mod scale;
mod site;
mod stage;
mod tables;
mod wire;

use super::{Bug, Scenario};
use crate::report::Outcome;
use crate::world::executor;
use crate::world::host::Host;
use crate::world::network::{NetworkCounts, SimNetwork};
use crate::world::rng::{Rng, Salt};
use history::StreamHistory;
use nemesis::Nemesis;
use site::Site;
use stage::{Phase, Play, Stage};
use std::time::Duration;
use tables::TableLog;
use thalweg_actor::BoxFuture;
use thalweg_client::{Client, config};
use thalweg_types::name::ScopedStream;

/// `one-node`.
pub(crate) const SCENARIO: Scenario = Scenario {
    name: "one-node",
    about: "one node under its native clients, with power losses, failing disks and networks",
    run,
    bugs: BUGS,
    together: &[
        ("changes torn", 20),
        ("syncs failed", 50),
        ("disks damaged", 20),
        ("blocks misplaced", 100),
        ("disks filled", 50),
        ("connections reset", 100),
        ("scales", 100),
        ("truncations", 100),
        ("raw merges", 50),
        ("raw writers on two connections", 50),
        ("raw truncations", 50),
        ("byte writes acked", 1_000),
        ("table changes acked", 1_000),
        ("container: snapshot", 20),
        ("cache: evicted", 20),
        ("engine: torn tail cut", 5),
        ("engine: file recycled", 20),
        ("engine: frames held on a full disk", 5),
        ("writer: segment sealed under it", 10),
    ],
};

/// The planted bugs that this scenario must find, each with the rules of which one must find it.
const BUGS: &[Bug] = &[
    Bug { id: "PB-L1", breaks: &["I1"] },
    Bug { id: "PB-D1", breaks: &["I1"] },
    Bug { id: "PB-D2", breaks: &["I3"] },
    Bug { id: "PB-D3", breaks: &["I3", "I4"] },
    Bug { id: "PB-D4", breaks: &["I1"] },
    Bug { id: "PB-D5", breaks: &["I1"] },
    Bug { id: "PB-D6", breaks: &["I1"] },
    // Stale batches behind the end hide what was acknowledged, or show what was not.
    Bug { id: "PB-D7", breaks: &["I1", "I3"] },
    Bug { id: "PB-D8", breaks: &["I1"] },
    Bug { id: "PB-D10", breaks: &["I3"] },
    Bug { id: "PB-S1", breaks: &["I11"] },
    Bug { id: "PB-S2", breaks: &["I2", "I6"] },
    Bug { id: "PB-S3", breaks: &["I2"] },
    Bug { id: "PB-S5", breaks: &["I4"] },
    Bug { id: "PB-S6", breaks: &["I3", "I4"] },
    Bug { id: "PB-S10", breaks: &["I1", "I2"] },
    Bug { id: "PB-S11", breaks: &["I8"] },
    Bug { id: "PB-T1", breaks: &["I1", "I14"] },
    Bug { id: "PB-K1", breaks: &["I2"] },
    Bug { id: "PB-K2", breaks: &["I1"] },
    Bug { id: "PB-K3", breaks: &["I13"] },
];

/// Longest time that clients may need once nothing fails any more.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// Events that must have been acknowledged before the end.
const EVENTS_MIN: u64 = 500;
const CLIENT_DISK: u64 = 1 << 20;
const SCOPE: &str = "world";

fn run(salt: Salt) -> BoxFuture<'static, Outcome> {
    Box::pin(play(salt))
}

fn client_config(rng: &mut Rng) -> config::Config {
    config::Config {
        request_timeout: Duration::from_millis(rng.pick(&[500, 3_000])),
        connect_timeout: Duration::from_millis(rng.pick(&[200, 2_000])),
        retry_delay_max: Duration::from_millis(rng.pick(&[20, 200])),
        controller_attempts: 1_000,
        keep_alive: Duration::from_millis(rng.pick(&[100, 1_000])),
        window_events: u32::try_from(rng.pick(&[10, 100, 1_000])).expect("small"),
        block_bytes_max: rng.pick(&[500, 8_192, 1 << 20]),
        read_bytes: rng.pick(&[1_000, 20_000, 200_000]),
        ..config::Config::production(vec![site::controller()])
    }
}

/// A client's host and the client.
fn client(play: &Play, network: &SimNetwork, name: &str, salt: Salt) -> (Host, Stage) {
    let mut host = Host::new(name, CLIENT_DISK, network, salt);
    play.add_client(name);
    let env = host.boot();
    let config = client_config(&mut salt.of(name).rng());
    let client = Client::new(env.clone(), config);
    (host, Stage::new(play, env, client))
}

async fn play(salt: Salt) -> Outcome {
    let mut rng = salt.of("play").rng();
    let network = SimNetwork::new(salt);
    let mut site = Site::new(&network, salt);
    let streams: Vec<StreamHistory> = (0..u16::try_from(rng.range(1, 4)).expect("few"))
        .map(|number| {
            StreamHistory::new(number, ScopedStream::new(SCOPE, &format!("stream-{number}")))
        })
        .collect();
    let count = streams.len();
    let play = Play::new(streams);
    let mut nemesis = Nemesis::new(&network, salt.of("nemesis").rng());
    nemesis.first_start(&mut site, &play).await;
    let (_director, stage) = client(&play, &network, "director", salt);
    for stream in 0..count {
        create(&stage, stream, &mut rng).await;
    }
    let mut hosts = Vec::new();
    let mut followers = 0;
    for stream in 0..count {
        let (host, stage) = client(&play, &network, &format!("client-{stream}"), salt);
        hosts.push(host);
        followers += perform(&stage, stream, &mut rng);
    }
    hosts.extend(perform_beside(&play, &network, salt, &mut rng));
    nemesis.strike(&mut site, &play, rng.range(3, 9)).await;
    nemesis.heal(&mut site, &play).await;
    warm_up(&play).await;
    play.enter(Phase::Closing);
    if let Err(who) = play.crew_is(followers, FINISH_MAX).await {
        play.with(|shared| shared.out.stuck = Some(format!("clients do not finish: {who}")));
    }
    // What has been acknowledged now must survive without any help of clients.
    nemesis.heal(&mut site, &play).await;
    let (_judge, stage) = client(&play, &network, "judge", salt);
    judge(&play, &stage, count).await;
    play.enter(Phase::Judged);
    if play.crew_is(0, FINISH_MAX).await.is_err() {
        play.enter(Phase::Over);
        // Followers that lack something say so now.
        let _reported = play.crew_is(0, FINISH_MAX).await;
    }
    site.stop().await;
    let counts = site.host.disk.counts();
    let NetworkCounts { connections, resets, cuts } = network.counts();
    let mut out = play.end();
    out.add("power losses", counts.power_losses);
    out.add("changes torn", counts.torn);
    out.add("changes dropped", counts.dropped);
    out.add("syncs", counts.syncs);
    out.add("syncs failed", counts.sync_errors);
    out.add("connections", connections);
    out.add("connections reset", resets);
    out.add("links cut", cuts);
    out.floors =
        vec![("events acked", EVENTS_MIN), ("events read", EVENTS_MIN), ("power losses", 2)];
    out
}

/// Clients of single segments, of a byte stream and of a table. Returns their hosts.
fn perform_beside(play: &Play, network: &SimNetwork, salt: Salt, rng: &mut Rng) -> Vec<Host> {
    let mut hosts = Vec::new();
    let mut join = |name: &str| {
        let (host, stage) = client(play, network, name, salt);
        hosts.push(host);
        stage
    };
    for number in 0..rng.below(3) {
        let stage = join(&format!("raw-{number}"));
        stage.spawn("raw segments", raw::perform(stage.clone(), number, rng.fork()));
    }
    if rng.percent(60) {
        let stage = join("bytes");
        stage.spawn("byte stream", bytestream::perform(stage.clone(), rng.fork()));
    }
    if rng.percent(60) {
        let name = ScopedStream::new(SCOPE, "table");
        play.with(|shared| shared.tables.push(TableLog::new(name)));
        for number in 0..rng.range(1, 4) {
            let stage = join(&format!("table-{number}"));
            stage.spawn("table client", tables::perform(stage.clone(), 0, rng.fork()));
        }
    }
    hosts
}

/// Lets clients work undisturbed where the nemesis has left them too little time.
async fn warm_up(play: &Play) {
    let acked = || play.with(|shared| shared.out.counts.get("events acked").copied());
    for _ in 0..300 {
        if acked().unwrap_or(0) >= EVENTS_MIN {
            return;
        }
        executor::sleep(Duration::from_millis(100)).await;
    }
}

/// The parts of the clients of one stream. Returns how many of them go on until everything is judged.
fn perform(stage: &Stage, stream: usize, rng: &mut Rng) -> usize {
    for _ in 0..rng.range(1, 4) {
        let part = events::write(stage.clone(), stream, rng.fork());
        stage.spawn("writer", part);
    }
    stage.spawn("follower", events::follow(stage.clone(), stream, rng.fork()));
    if rng.percent(50) {
        stage.spawn("rereader", events::reread(stage.clone(), stream, rng.fork()));
    }
    if rng.percent(60) {
        stage.spawn("scaler", scale::scale(stage.clone(), stream, rng.fork()));
    }
    if rng.percent(50) {
        stage.spawn("truncater", events::truncate(stage.clone(), stream, rng.fork()));
    }
    1
}

async fn create(stage: &Stage, stream: usize, rng: &mut Rng) {
    let name = stage.with(|shared| shared.streams[stream].name.clone());
    let segments = u32::try_from(rng.range(1, 4)).expect("few");
    loop {
        let made = match stage.client.create_scope(&name.scope).await {
            Ok(_) => stage.client.create_stream(&name, segments).await.map(drop),
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "no stream yet"),
        }
        executor::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads everything back.
async fn judge(play: &Play, stage: &Stage, count: usize) {
    if executor::timeout(FINISH_MAX, raw::judge(stage)).await.is_none() {
        let what = "raw segments cannot be read to their ends".to_owned();
        play.with(|shared| shared.out.stuck.get_or_insert(what).clone());
    }
    if executor::timeout(FINISH_MAX, tables::judge(stage)).await.is_none() {
        let what = "tables cannot be read".to_owned();
        play.with(|shared| shared.out.stuck.get_or_insert(what).clone());
    }
    for stream in 0..count {
        let read = events::read_all(stage, stream, "the judge");
        match executor::timeout(FINISH_MAX, read).await {
            Some(found) => play.with(|shared| {
                shared.streams[stream].judge(&found, &mut shared.out);
                shared.found.push(found);
            }),
            None => {
                play.with(|shared| {
                    let what = "what was written cannot be read to its end".to_owned();
                    shared.out.stuck.get_or_insert(what);
                    let found = shared.streams[stream].deliveries("nobody");
                    shared.found.push(found);
                });
            }
        }
    }
}
