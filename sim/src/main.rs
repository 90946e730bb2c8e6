//! Deterministic simulation: simulated seams, nemesis, workloads, oracles.
//!
//! A seed decides everything. Run it with `cargo sim`: madsim's executor needs a build of its own.

#[cfg(madsim)]
mod command;
#[cfg(madsim)]
mod report;
#[cfg(madsim)]
mod scenario;
#[cfg(madsim)]
mod world;

use std::process::ExitCode;

#[cfg(madsim)]
fn main() -> ExitCode {
    command::main()
}

#[cfg(not(madsim))]
fn main() -> ExitCode {
    eprintln!("this build has no simulated executor; run `cargo sim --help` instead");
    ExitCode::from(2)
}
