//! `thalweg standalone`: every role in one process.
//!
//! The order of a start is the order of what can go wrong for a person: ports are claimed, then the folder, then what
//! lies in it is recovered; only then does a port open. A stop goes the other way.

mod banner;
mod edge;
mod http;
mod metrics;
pub(crate) mod ports;
pub(crate) mod signals;
mod view;

use crate::cli::out;
use crate::exit;
use crate::os::{self, file::Folder, tcp::Tcp};
use anyhow::{Context as _, bail};
use banner::{Banner, Recovered};
use clap::Args;
use edge::Edge;
use ports::{Ports, advertised, endpoint};
use signals::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use thalweg_actor::env::Env;
use thalweg_node::{Config, Ended, Node, StartReport};
use thalweg_wire::controller::NodeUri;
use tokio::select;
use view::View;

/// Where a node keeps its data, and where it is found.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The folder of the data; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "./thalweg-data")]
    data_dir: PathBuf,
    /// Where the controller listens, for gRPC and native clients; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090",
          value_parser = ports::address)]
    controller: String,
    /// Where the segment store listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:12345",
          value_parser = ports::address)]
    segment_store: String,
    /// Where /health and /metrics are served
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9091",
          value_parser = ports::address)]
    http: String,
    /// The host that clients are told to connect to. Default: the address listened on; where that stands for all
    /// addresses (0.0.0.0), the one that this machine's packets to the outside carry
    #[arg(long, value_name = "HOST", value_parser = ports::host)]
    advertise_host: Option<String>,
}

/// Runs a node until it is told to stop, or must.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    os::raise_file_limit();
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let tcp = Arc::new(Tcp::default());
    let ports = Ports::claim(&tcp, &options).await?;
    let folder = Arc::new(Folder::open(&options.data_dir)?);
    let env = os::env(Arc::clone(&tcp), folder.clone()).context("cannot start")?;
    let host = options.advertise_host.as_deref();
    let store_uri = advertised(host, ports.segment_store);
    let config = Config::production(advertised(host, ports.controller), store_uri.clone());
    // A start changes nothing that a kill would not leave as well.
    let (node, report) = select! {
        biased;
        signal = signals.next() => {
            tracing::info!(signal, "told to stop before the start was done");
            return Ok(());
        }
        started = Node::start(env.clone(), config) => started?,
    };
    let serving = Serving::open(node, &env, (&tcp, ports), Arc::clone(&folder)).await?;
    out::text(&banner(&folder, &report, ports, &store_uri))?;
    serving.until_told(&mut signals).await
}

fn banner(folder: &Folder, report: &StartReport, ports: Ports, store: &NodeUri) -> String {
    let replayed = report.replayed;
    let recovered = (report.mounts > 1).then_some(Recovered {
        entries: replayed.entries,
        bytes: replayed.bytes,
        segments: replayed.segments,
        took: report.took,
    });
    // As it was called: `thalweg` where it was found in the path.
    let program = std::env::args().next();
    Banner {
        folder: folder.path(),
        recovered,
        damages: &report.damages,
        ports,
        advertised: store,
        program: program.as_deref().unwrap_or("thalweg"),
    }
    .text()
}

/// A node with its ports open.
struct Serving {
    node: Node,
    edge: Arc<Edge>,
    view: Arc<View>,
}

impl Serving {
    async fn open(
        node: Node,
        env: &Env,
        (tcp, ports): (&Tcp, Ports),
        folder: Arc<Folder>,
    ) -> anyhow::Result<Self> {
        let clock = Arc::clone(&env.clock);
        let edge = Edge::new(node.controller().clone(), clock, Arc::clone(&env.spawn));
        let view = Arc::new(View::new(folder, &node, Arc::clone(&edge)));
        let cannot = |flag: &str| format!("{flag}: cannot listen there any more");
        let store = env.network.listen(&endpoint(ports.segment_store)).await;
        node.serve_segments(store.with_context(|| cannot("--segment-store"))?);
        let http = tcp.open(&endpoint(ports.http)).await.with_context(|| cannot("--http"))?;
        let pages = http::router(Arc::clone(&view));
        let http = async move {
            // It serves until the process ends, and has no errors of its own.
            let _ = axum::serve(http, pages).await;
        };
        env.spawn.spawn("http listener", Box::pin(http));
        let controller = tcp.open(&endpoint(ports.controller)).await;
        let controller = controller.with_context(|| cannot("--controller"))?;
        env.spawn.spawn("controller listener", Box::pin(Arc::clone(&edge).listen(controller)));
        Ok(Self { node, edge, view })
    }

    /// Serves until a signal comes or the node must end.
    async fn until_told(self, signals: &mut Signals) -> anyhow::Result<()> {
        let ended = select! {
            biased;
            ended = self.node.ended() => Some(ended),
            signal = signals.next() => {
                tracing::info!(signal, "stopping; a second signal ends the process at once");
                None
            }
        };
        let Some(ended) = ended else { return self.stop(signals).await };
        let code = match ended {
            Ended::Disk(_) => exit::DISK_FAILED,
            Ended::Controller(_) | Ended::Container(_) => exit::BUG,
        };
        let text = format!(
            "{ended}. The process ends, since nothing more can be made durable; what was acknowledged is. \
             Start it again when the cause is mended"
        );
        Err(exit::With { code, text }.into())
    }

    /// New work is turned away, work under way is done, then the folder is marked as cleanly left.
    async fn stop(self, signals: &mut Signals) -> anyhow::Result<()> {
        let Self { node, edge, view } = self;
        view.set_stopping();
        edge.stop();
        let stopped = async {
            edge.drained().await;
            node.stop().await;
        };
        select! {
            biased;
            signal = signals.next() => bail!("ended at once by a second signal ({signal})"),
            () = stopped => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }
}
