//! Programs on the real Java client, where a folder holds them, against a node of their own.

use crate::node::Node;
use crate::{process, suites};
use anyhow::{Result, bail};
use std::time::Duration;

/// All programs together, and what Maven fetches for them.
const LIMIT: Duration = Duration::from_mins(15);

/// `cargo xtask java [--scripts DIR]`.
pub(crate) fn command(scripts: Option<&str>) -> Result<()> {
    let outside = suites::programs(scripts)?;
    let script = outside.map(|folder| folder.join("java/run.sh")).filter(|script| script.exists());
    let Some(script) = script else {
        println!("SKIP java: no folder with java/run.sh");
        return Ok(());
    };
    if process::command("mvn").arg("--version").output().is_err() {
        println!("SKIP java: no Maven (mvn)");
        return Ok(());
    }
    let mut node = Node::start("java")?;
    let mut command = process::command("bash");
    command.arg(&script).env("PRAVEGA_URI", node.uri()).env("OUT", node.folder().join("out"));
    let done = process::bounded(&mut command, LIMIT, &node.folder().join("java.log"))?;
    let is_result = |line: &&str| line.starts_with("PASS ") || line.starts_with("FAIL ");
    let results: Vec<&str> = done.output.lines().filter(is_result).collect();
    for line in &results {
        println!("  {line}");
    }
    node.check_alive()?;
    let passed = results.iter().filter(|line| line.starts_with("PASS ")).count();
    println!("java: {passed} passed of {}", results.len());
    if !done.passed || done.hung || passed == 0 {
        bail!("see {}", node.folder().join("java.log").display());
    }
    Ok(())
}
