//! The project's own commands. `cargo xtask` without arguments lists them.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod acceptance;
mod conformance;
mod coverage;
mod crash;
mod damage;
mod doctor;
mod java;
mod node;
mod pending;
mod probes;
mod process;
mod python;
mod readme;
mod suites;
mod test;
mod tidy;

use anyhow::{Result, bail};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  test [--suites DIR]         everything a change must pass; sets up what it needs
  tidy                        crate directions, sizes, headers, forbidden words (also a unit test)
  acceptance [--scripts DIR]  programs on the real Python client against a node of its own
  conformance [--suites DIR]  the wire and controller suites, where a folder holds them
  readme                      the README's Python snippet against a node of its own
  crash [--kills N]           kill -9 under a real writer: nothing lost, doubled or reordered
  coverage [--missed FILE]    line coverage of log/src; the lines of one file that nothing reaches
  damage [--full]             one replica of three damaged in every place, and repaired
  exhaust [--full]            small worlds of the ledger machines, searched exhaustively
  java [--scripts DIR]        programs on the real Java client, where a folder holds them
  probes [--seeds N]          rare branches of log/src, all of them reached by a swarm of the simulator
  doctor                      what is missing on this machine

DIR defaults to ../shared where that exists; a missing folder is a SKIP with its reason.
Every command exits 0 only if all holds, and prints its figure last.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let command = args.first().map_or("help", String::as_str);
    let rest = args.get(1..).unwrap_or_default();
    match command {
        "test" => test::test(suites::folder(rest)?.as_deref()),
        "tidy" => tidy::tidy(),
        "acceptance" => acceptance::command(process::option(rest, "--scripts").as_deref()),
        "conformance" => conformance::command(suites::folder(rest)?.as_deref()),
        "readme" => readme::command(),
        "crash" => crash::command(rest),
        "coverage" => coverage::command(rest),
        "damage" => damage::command(rest),
        "exhaust" => exhaust(rest),
        "java" => java::command(process::option(rest, "--scripts").as_deref()),
        "probes" => probes::command(rest),
        "doctor" => doctor::doctor(),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command {other:?}\n{HELP}"),
    }
}

fn exhaust(args: &[String]) -> Result<()> {
    let fixed = ["run", "--quiet", "--release", "-p", "thalweg-log", "--example", "exhaust", "--"];
    let all: Vec<&str> = fixed.into_iter().chain(args.iter().map(String::as_str)).collect();
    process::cargo(&all)
}
