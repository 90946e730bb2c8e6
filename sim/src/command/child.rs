//! Seeds in processes of their own, a few at a time.
//!
//! One process per seed, because a library keeps random state for as long as its process lives (tokio's `watch` draws
//! from it whom to wake first): what a seed shows must not depend on the seeds before it.

use crate::report::{Run, Summary};
use crate::scenario::Scenario;
use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Wall time after which a run that has not ended is given up.
const WALL_MAX: Duration = Duration::from_secs(120);
/// Exit code of a run that was given up.
const GIVEN_UP: u8 = 9;
/// Processes at once: as many as the smallest machine has cores.
const AT_ONCE: usize = 2;

fn spawn(scenario: &Scenario, seed: u64, bug: Option<&str>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--report", "--scenario", scenario.name, "--seed", &seed.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", bug]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn collect(seed: u64, child: std::io::Result<Child>) -> Summary {
    let output = match child.and_then(Child::wait_with_output) {
        Ok(output) => output,
        Err(error) => return Summary::broken(seed, &format!("cannot run a copy: {error}")),
    };
    if output.status.code() == Some(i32::from(GIVEN_UP)) {
        return Summary::broken(seed, &format!("no end after {WALL_MAX:?} of wall time"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Summary::parse(seed, &text)
        .unwrap_or_else(|| Summary::broken(seed, &format!("died: {}", output.status)))
}

/// What seeds have shown, in their order.
pub(super) struct Runs<'a, S> {
    scenario: &'a Scenario,
    bug: Option<&'a str>,
    seeds: S,
    running: VecDeque<(u64, std::io::Result<Child>)>,
}

/// Runs `seeds` of `scenario`.
pub(super) fn runs<'a, S: Iterator<Item = u64>>(
    scenario: &'a Scenario,
    bug: Option<&'a str>,
    seeds: S,
) -> Runs<'a, S> {
    Runs { scenario, bug, seeds, running: VecDeque::new() }
}

impl<S: Iterator<Item = u64>> Iterator for Runs<'_, S> {
    type Item = Summary;

    fn next(&mut self) -> Option<Summary> {
        while self.running.len() < AT_ONCE
            && let Some(seed) = self.seeds.next()
        {
            self.running.push_back((seed, spawn(self.scenario, seed, self.bug)));
        }
        let (seed, child) = self.running.pop_front()?;
        Some(collect(seed, child))
    }
}

impl<S> Drop for Runs<'_, S> {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            if let Ok(child) = child {
                // It may have ended by itself.
                let _gone = child.kill();
                let _status = child.wait();
            }
        }
    }
}

/// Ends this process if it takes too long: a simulation that turns in circles cannot end itself.
#[expect(clippy::disallowed_methods, reason = "the harness's own thread, outside of every run")]
pub(super) fn watch_over_me() {
    std::thread::spawn(|| {
        std::thread::sleep(WALL_MAX);
        std::process::exit(i32::from(GIVEN_UP));
    });
}

/// What a run has shown, for the process that started this one.
pub(super) fn report(run: &Run) {
    super::say(&Summary::of(run).text());
}
