//! The same seed in two processes: the traces must be equal, byte for byte.

use super::arguments::Arguments;
use super::say;
use super::swarm::wall;
use std::io;
use std::process::{Command, Output, Stdio};

const SEEDS_DEFAULT: u64 = 20;

fn run(scenario: &str, seed: u64) -> io::Result<Output> {
    let program = std::env::current_exe()?;
    let seed = seed.to_string();
    Command::new(program)
        .args(["run", "--trace", "--scenario", scenario, "--seed", &seed])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
}

/// The first line in which two traces differ.
fn first_difference(left: &[u8], right: &[u8]) -> String {
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let at = left.iter().zip(&right).position(|(left, right)| left != right);
    let at = at.unwrap_or(left.len().min(right.len()));
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "the end".to_owned());
    format!("line {}:\n    {}\n    {}", at + 1, line(&left), line(&right))
}

/// Compares every seed with itself.
pub(super) fn compare(arguments: &Arguments) -> bool {
    let started = wall();
    let seeds = arguments.seeds.unwrap_or(SEEDS_DEFAULT);
    let name = arguments.scenario.name;
    let (mut equal, mut bytes) = (0, 0);
    for seed in arguments.start..arguments.start + seeds {
        let pair = run(name, seed).and_then(|first| Ok((first, run(name, seed)?)));
        let (first, second) = match pair {
            Ok(pair) => pair,
            Err(error) => {
                eprintln!("seed {seed}: cannot run a copy of this program: {error}");
                continue;
            }
        };
        if first.stdout != second.stdout || first.stdout.is_empty() {
            eprintln!("seed {seed}: {}", first_difference(&first.stdout, &second.stdout));
            continue;
        }
        let text = String::from_utf8_lossy(&first.stdout);
        say(text.lines().last().unwrap_or_default());
        bytes += first.stdout.len();
        equal += 1;
    }
    say(&format!(
        "{name}: {equal} of {seeds} seeds gave two processes the same trace, byte for byte \
         ({bytes} bytes compared) in {:.1} s",
        started.elapsed().as_secs_f64(),
    ));
    equal == seeds
}
