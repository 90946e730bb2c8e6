//! Everything a change must pass, each step timed.

use crate::{acceptance, conformance, crash, process, readme, tidy};
use anyhow::{Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// Scenarios of the smoke run and how many seeds each gets.
const SMOKE_SEEDS: &str = "20";
/// Kills of the short crash run; `cargo xtask crash` does more.
const SMOKE_KILLS: u64 = 3;

const STRICT: [&str; 3] = ["--", "-D", "warnings"];

/// `cargo xtask test`.
pub(crate) fn test(suites: Option<&Path>) -> Result<()> {
    let mut steps = Steps { rows: Vec::new(), started: Instant::now(), skipped: 0 };
    steps.run("fmt", || process::cargo(&["fmt", "--all", "--check"]).map(|()| None))?;
    steps.run("tidy", || tidy::tidy().map(|()| None))?;
    steps.run("clippy", || {
        let args = ["clippy", "--quiet", "--workspace", "--all-targets"];
        process::cargo(&[&args[..], &STRICT].concat()).map(|()| None)
    })?;
    steps.run("unit and property tests", || {
        process::cargo(&["test", "--quiet", "--workspace"]).map(|()| None)
    })?;
    steps.run("build of the dev binary", || crate::node::build().map(|_| None))?;
    beside_one_another(&mut steps, suites)?;
    steps.run("readme", || readme::run().map(Some))?;
    steps.run("crash", || crash::run(SMOKE_KILLS).map(Some))?;
    steps.run("simulator: clippy", || {
        let flags =
            "build.rustflags=['--cfg','madsim','--cfg','getrandom_backend=\"linux_getrandom\"']";
        let args = ["clippy", "--quiet", "--config", flags, "--target-dir", "target/sim"];
        let what = ["--profile", "sim", "-p", "thalweg-sim"];
        process::cargo(&[&args[..], &what, &STRICT].concat()).map(|()| None)
    })?;
    steps.run("simulator: determinism", || {
        process::cargo(&["sim", "meta", "--seeds", "2"]).map(|()| None)
    })?;
    for scenario in scenarios()? {
        steps.run(&format!("simulator: {scenario}"), || {
            process::cargo(&["sim", "swarm", "--seeds", SMOKE_SEEDS, "--scenario", &scenario])
                .map(|()| None)
        })?;
    }
    steps.conclude();
    Ok(())
}

/// The clients' programs and the suites wait more than they work: they run at the same time.
fn beside_one_another(steps: &mut Steps, suites: Option<&Path>) -> Result<()> {
    // Set up once, before three threads want it.
    let requirements = suites.map(|dir| dir.join("conformance/controller/requirements.txt"));
    steps.run("python environment", || {
        crate::python::environment(requirements.as_deref()).map(|_| None)
    })?;
    let Some(suites) = suites else {
        steps.run("acceptance", || acceptance::run(None).map(Some))?;
        steps.skip("conformance", "no suites beside the project; give --suites DIR");
        return Ok(());
    };
    steps.run("acceptance and conformance", || {
        std::thread::scope(|scope| {
            let own = scope.spawn(|| acceptance::run(Some(&suites.join("acceptance"))));
            let wire = scope.spawn(|| conformance::wire(suites));
            let controller = scope.spawn(|| conformance::controller(suites));
            let mut figures = Vec::new();
            for thread in [own, wire, controller] {
                figures.push(thread.join().expect("a check does not panic")?);
            }
            Ok(Some(figures.join("\n     ")))
        })
    })
}

fn scenarios() -> Result<Vec<String>> {
    let out = process::command(env!("CARGO")).args(["sim", "list"]).output()?;
    if !out.status.success() {
        bail!("cargo sim list failed: {}", String::from_utf8_lossy(&out.stderr));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    // Indented lines say more about the scenario above them.
    let own = text.lines().filter(|line| !line.starts_with(' '));
    let names: Vec<String> =
        own.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("the simulator knows no scenario");
    }
    Ok(names)
}

struct Steps {
    rows: Vec<(String, Duration)>,
    started: Instant,
    skipped: usize,
}

impl Steps {
    fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Option<String>>) -> Result<()> {
        println!("==== {name}");
        let started = Instant::now();
        let figure = step().map_err(|error| error.context(format!("step {name:?}")))?;
        let took = started.elapsed();
        if let Some(figure) = figure {
            println!("     {figure}");
        }
        println!("     {:.1} s", took.as_secs_f64());
        self.rows.push((name.to_owned(), took));
        Ok(())
    }

    /// The suites are no part of the project: a clone without them still passes, and says what it did not ask.
    fn skip(&mut self, name: &str, why: &str) {
        println!("==== SKIP {name}: {why}");
        self.skipped += 1;
    }

    fn conclude(&self) {
        println!("\n==== all steps");
        for (name, took) in &self.rows {
            println!("{:8.1} s  {name}", took.as_secs_f64());
        }
        println!("{:8.1} s  in all", self.started.elapsed().as_secs_f64());
        println!("{} passed, 0 failed, {} skipped", self.rows.len(), self.skipped);
    }
}
