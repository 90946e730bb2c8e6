//! The command line: what can be asked, and nothing about how it is done.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod name;
pub(crate) mod out;
pub(crate) mod read;
pub(crate) mod replica;
pub(crate) mod scope;
pub(crate) mod stream;
pub(crate) mod write;

use crate::{logging, os, standalone};
use clap::{Args, Parser, Subcommand};
use thalweg_actor::network::Endpoint;
use thalweg_client::Client;
use thalweg_client::config::Config;

/// A stream store that speaks Pravega's protocols: durable, ordered, exactly once.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) logging: logging::Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Each command is a module of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node: every role in one process, data in one folder.
    Standalone(standalone::Options),
    /// Create, list and delete scopes.
    #[command(subcommand)]
    Scope(scope::Command),
    /// Create, look at and change streams.
    #[command(subcommand)]
    Stream(stream::Command),
    /// Write the lines of a file or of stdin as events.
    Write(write::Options),
    /// Read events to stdout.
    Read(read::Options),
    /// Measure throughput and latency beside what disk and loopback can do.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Run the replicas of one data folder and nothing else.
    #[command(hide = true)]
    Replica(replica::Options),
    /// Print a shell's completions: source them in its start-up file.
    Completions(completions::Options),
}

impl Command {
    /// Does it. A server runs until it is told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Standalone(options) => standalone::run(options).await,
            Self::Scope(command) => scope::run(command).await,
            Self::Stream(command) => stream::run(command).await,
            Self::Write(options) => write::run(options).await,
            Self::Read(options) => read::run(options).await,
            Self::Bench(command) => bench::run(command).await,
            Self::Replica(options) => replica::run(options).await,
            Self::Completions(options) => completions::run(&options),
        }
    }
}

/// Which server a client command talks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    /// The controller's address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    pub(crate) controller: String,
}

impl Server {
    /// A client of that server. Nothing is connected yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let mut config = Config::production(vec![self.endpoint()]);
        // A person waits: a server that is not there is told within a second or two.
        config.controller_attempts = 5;
        Ok(Client::new(os::client_env()?, config))
    }

    /// The controller, with or without the scheme that Pravega's own clients want.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let plain = self.controller.strip_prefix("tcp://").unwrap_or(&self.controller);
        Endpoint::from(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
