//! `thalweg replica`: the replicas of one data folder, for owners elsewhere. Until nodes form clusters by themselves,
//! this is what the ledger is measured and tried with.

use super::out;
use crate::exit;
use crate::os::{self, file::Folder, tcp::Tcp};
use crate::standalone::ports;
use crate::standalone::signals::Signals;
use anyhow::{Context as _, bail};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use thalweg_log::engine::{Config, Engine};
use thalweg_log::links::net::{LinkCounters, Mounted, NodeIdentity, Patience, ReplicaListener};
use thalweg_log::service::ReplicaService;
use thalweg_log::storage::Storage as _;
use thalweg_types::id::{Incarnation, NodeId, ReplicaId};
use tokio::select;

/// Which storage, and where it is reached.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where owners connect to; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0",
          value_parser = ports::address)]
    listen: String,
    /// The folder of the data; made if it does not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The number of this node in its cluster
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    node: u64,
    /// The cluster, as a hexadecimal number; those of another one are refused
    #[arg(long, value_name = "HEX", default_value = "1", value_parser = cluster)]
    cluster: u128,
}

fn cluster(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16)
        .map_err(|_| "want a hexadecimal number of up to 32 digits".to_owned())
}

/// Serves until it is told to stop, or must.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    os::raise_file_limit();
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let tcp = Arc::new(Tcp::default());
    let at = ports::claim(&tcp, "--listen", &options.listen).await?;
    let folder = Arc::new(Folder::open(&options.data_dir)?);
    let env = os::env(tcp, folder).context("cannot start")?;
    let node = NodeId(options.node);
    let config = Config { cluster: Some(options.cluster), node, ..Config::production() };
    let engine = Engine::open(env.clone(), config).await?;
    let identity = ReplicaId { node, storage: engine.uuid() };
    let (clock, spawn) = (env.clock.clone(), env.spawn.clone());
    let service = ReplicaService::start(clock, spawn, engine.clone(), identity);
    let mounted = Mounted::default();
    mounted.add(service);
    let incarnation = Incarnation(u64::try_from(env.entropy.draw() >> 64).unwrap_or_default());
    let listener = env.network.listen(&ports::endpoint(at)).await.context("--listen")?;
    let counters = Arc::<LinkCounters>::default();
    let listening = ReplicaListener::start(
        env,
        listener,
        NodeIdentity { cluster: options.cluster, node, incarnation },
        mounted,
        Patience::production(),
        Arc::clone(&counters),
    );
    out::line(format!("replica {identity} at {}", listening.local()))?;
    let mut progress = engine.progress();
    select! {
        biased;
        // The sender lives as long as the engine does.
        failed = progress.wait_for(|now| now.stopped.is_some()) => {
            let reason = failed.ok().and_then(|now| now.stopped.clone());
            let text = format!("{}. The process ends", reason.as_deref().unwrap_or_default());
            return Err(exit::With { code: exit::DISK_FAILED, text }.into());
        }
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
    listening.stop();
    select! {
        biased;
        signal = signals.next() => bail!("ended at once by a second signal ({signal})"),
        () = engine.shutdown() => {}
    }
    let counts: Vec<String> =
        counters.all().iter().map(|(name, n)| format!("{name} {n}")).collect();
    tracing::info!(connections = counts.join(", "), "stopped");
    Ok(())
}
