//! `thalweg bench`: what a server does on this machine, beside what this machine's disk and loopback can do.
//!
//! Only events whose acknowledgement the client saw, in order, count. The server is a child process on a folder of its
//! own, whose CPU time and device flushes are counted; the raw limits are measured in the same run, on the same disk.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench measures the real clock, disk, processes and sockets"
)]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod append;
mod child;
mod device;
mod latency;
mod ledger;
mod load;
mod raw;
mod times;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use thalweg_actor::network::Endpoint;
use thalweg_client::Client;
use thalweg_client::config::Config;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How many events a second one writer gets durably stored.
    Append(append::Options),
    /// How long an event takes to be durable: one in flight, then at half of the highest rate.
    Latency(latency::Options),
    /// What the replicated ledger does, without anything on top of it: several replicas, each a process.
    Ledger(ledger::Options),
}

/// How to measure.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Measure the server behind this controller; without it a child server is started
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "data_dir")]
    connect: Option<String>,
    /// Folder of the child server and of the raw measurements; a new one here by default, removed afterwards
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Length of one run
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Runs after one warm-up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Fail unless every figure reaches this fraction of its bar
    #[arg(long, value_name = "FRACTION")]
    floor: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("want seconds, 0.05 to 3600".to_owned()),
    }
}

impl Common {
    fn run_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Where the child server and the raw measurements write.
    fn folder(&self) -> anyhow::Result<Folder> {
        let (path, ours) = match &self.data_dir {
            Some(path) => (path.clone(), !path.exists()),
            None => (PathBuf::from(format!("thalweg-bench-{}", std::process::id())), true),
        };
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let path = path.canonicalize()?;
        Ok(Folder { path, ours })
    }

    /// An error if the fraction is below the floor.
    fn check(&self, figure: &str, fraction: f64) -> anyhow::Result<()> {
        if let Some(floor) = self.floor.filter(|floor| fraction < *floor) {
            bail!("{figure}: below the floor of {floor}");
        }
        Ok(())
    }

    /// Ends the bench: the figure last, or an error if it is below the floor.
    fn conclude(&self, figure: &str, fraction: f64) -> anyhow::Result<()> {
        self.check(figure, fraction)?;
        super::out::line(figure)
    }
}

/// A folder that goes away with the bench if the bench made it.
struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            // Because: nothing can be done about it, and the figures stand.
            let _left_behind = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Does it. On a thread of its own kind: the client's tasks hand over to each other without waking another core.
pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let bench = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match command {
            Command::Append(options) => append::run(&options, &runtime),
            Command::Latency(options) => latency::run(&options, &runtime),
            Command::Ledger(options) => ledger::run(&options, &runtime),
        }
    });
    let ended = tokio::task::spawn_blocking(move || bench.join()).await?;
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A client whose window holds `events` events of any size.
fn client(controller: &str, events: u32) -> anyhow::Result<Client> {
    let mut config = Config::production(vec![Endpoint::from(controller)]);
    config.window_events = events;
    config.window_bytes = u32::MAX / 2;
    Ok(Client::new(crate::os::client_env()?, config))
}

/// Middle, lowest and highest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let middle = f64::midpoint(values[last / 2], values[last.div_ceil(2)]);
    (middle, values[0], values[last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(spread(vec![4.0, 1.0]), (2.5, 1.0, 4.0));
    }
}
