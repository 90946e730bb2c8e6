//! The command line of the simulator.

mod arguments;
mod bugs;
mod child;
mod meta;
mod swarm;

use crate::scenario::{self, ALL, Scenario};
use arguments::{Arguments, Command};
use std::process::ExitCode;

const HELP: &str = "\
Deterministic simulation of Thalweg. A seed decides everything.

  cargo sim swarm --scenario NAME [--seeds N] [--start S]   many seeds without planted bugs: all must be clean
  cargo sim bugs  --scenario NAME [--seeds N] [--only ID]   each planted bug must be found by its oracle
  cargo sim run   --scenario NAME --seed S [--bug ID] [--trace] [--log]
                                                            one seed; --trace prints what happened, line by line,
                                                            --log what the code under test has to say
  cargo sim meta  [--scenario NAME] [--seeds N] [--start S] the same seed in two processes: byte-identical traces
  cargo sim regressions                                     the seeds of sim/regressions.txt: all must be clean
  cargo sim list                                            scenarios and their planted bugs

Progress goes to stderr, the figure to the last line of stdout. The exit code is 0 only if all holds.";

/// Runs the command that was asked for.
pub(crate) fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => dispatch(&arguments),
        Err(message) => {
            eprintln!("{message}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn dispatch(arguments: &Arguments) -> ExitCode {
    scenario::capture_panics();
    let good = match arguments.command {
        Command::Help => {
            say(HELP);
            true
        }
        Command::List => list(),
        Command::Run => {
            if arguments.log {
                log_to_stderr();
            }
            child::watch_over_me();
            swarm::one(arguments)
        }
        Command::Swarm => swarm::many(arguments),
        Command::Regressions => swarm::regressions(),
        Command::Bugs => bugs::all(arguments),
        Command::Meta => meta::compare(arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the code under test logs, down to its details.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(std::io::stderr)
        .init();
}

/// A line on stdout.
#[expect(clippy::print_stdout, reason = "figures belong on stdout")]
fn say(line: &str) {
    println!("{line}");
}

fn list() -> bool {
    for Scenario { name, about, bugs, .. } in ALL {
        say(&format!("{name:12} {about}"));
        let bugs: Vec<String> =
            bugs.iter().map(|bug| format!("{} ({})", bug.id, bug.breaks.join(" or "))).collect();
        if !bugs.is_empty() {
            say(&format!("{:12} planted: {}", "", bugs.join(", ")));
        }
    }
    true
}
