//! The thalweg binary: every role in one process.

mod cli;
mod exit;
mod grpc;
mod logging;
mod os;
mod standalone;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    logging::start(&cli.logging);
    let runtime = match os::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::anyhow!("no threads to run on: {error}")),
    };
    let outcome = runtime.block_on(cli.command.run());
    // What still runs has nothing left to do that anybody waits for.
    runtime.shutdown_background();
    outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

/// One line for people, and a code for programs.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("thalweg: {error:#}");
    let code = error.downcast_ref::<exit::With>().map_or(exit::FAILED, |with| with.code);
    ExitCode::from(code)
}
