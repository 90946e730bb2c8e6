//! Programs on the real Python client against a node of their own.

use crate::node::Node;
use crate::pending::Pending;
use crate::{process, python, suites};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// No program may take longer; each has a watchdog of its own below this.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);
/// Programs at a time: they mostly wait.
const PARALLEL: usize = 3;

/// `cargo xtask acceptance`: the project's own programs, and those of `--scripts DIR`.
pub(crate) fn command(scripts: Option<&str>) -> Result<()> {
    let outside = suites::programs(scripts)?;
    println!("{}", run(outside.as_deref())?);
    Ok(())
}

/// Runs everything and says how it went in one line.
pub(crate) fn run(outside: Option<&Path>) -> Result<String> {
    let python = python::environment(None)?;
    let node = Mutex::new(Node::start("acceptance")?);
    let uri = node.lock().expect("no thread panics with it").uri();
    let own = process::root().join("server/tests/clients/python");
    let mut programs = list(&own, |name| name.starts_with("check_"))?;
    let own_count = programs.len();
    if let Some(folder) = outside {
        programs.extend(list(folder, |name| {
            name.strip_prefix('p')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })?);
    }
    if own_count == 0 {
        bail!("there is no check_*.py in {}", own.display());
    }
    let next = Mutex::new(programs.iter());
    let results = Mutex::new(Vec::new());
    let logs = process::scratch("acceptance-logs")?;
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let Some(program) = next.lock().expect("poisoned").next() else { break };
                    let result = one(&python, program, &uri, &logs);
                    results.lock().expect("poisoned").push(result);
                }
            });
        }
    });
    let results: Vec<(String, bool)> =
        results.into_inner().expect("poisoned").into_iter().collect::<Result<_>>()?;
    node.lock().expect("poisoned").check_alive()?;
    Pending::load("acceptance")?.judge(&results).conclude("acceptance")
}

fn list(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|end| end == "py") && wanted(name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs one program. A hang is an error of its own, pending or not: a refusal must come at once.
fn one(python: &Path, program: &Path, uri: &str, logs: &Path) -> Result<(String, bool)> {
    let name = program.file_stem().and_then(|stem| stem.to_str()).unwrap_or("?").to_owned();
    let mut command = process::command(python);
    command.arg(program).env("PRAVEGA_URI", uri).env("RUST_LOG", "error");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let log = logs.join(format!("{name}.log"));
    let done = process::bounded(&mut command, PROGRAM_LIMIT, &log)?;
    println!("  {:6.1}s {}", done.took.as_secs_f64(), done.last_line());
    if done.hung || done.output.contains("Timeout (") {
        bail!("{name} hung: {}", log.display());
    }
    Ok((name, done.passed))
}
