//! The README's Python snippet, run as it stands there.

use crate::node::Node;
use crate::{process, python};
use anyhow::{Context as _, Result, bail};
use std::time::Duration;

/// `cargo xtask readme`.
pub(crate) fn command() -> Result<()> {
    println!("{}", run()?);
    Ok(())
}

/// Runs the snippet against a node of its own; only the address is replaced.
pub(crate) fn run() -> Result<String> {
    let text = std::fs::read_to_string(process::root().join("README.md"))?;
    let snippet = text
        .split("```python\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("README.md has no Python block")?;
    let python = python::environment(None)?;
    let node = Node::start("readme")?;
    let address = format!("127.0.0.1:{}", node.controller);
    if !snippet.contains("127.0.0.1:9090") {
        bail!("the README's snippet does not name the default address 127.0.0.1:9090");
    }
    let script = node.folder().join("snippet.py");
    // The wheel's threads may abort the interpreter while it is torn down, after the work is done.
    let body = snippet.replace("127.0.0.1:9090", &address);
    let ending = "\nimport os, sys; sys.stdout.flush(); os._exit(0)\n";
    std::fs::write(&script, body + ending)?;
    let mut command = process::command(&python);
    command.arg(&script).env("RUST_LOG", "error");
    let log = node.folder().join("snippet.log");
    let done = process::bounded(&mut command, Duration::from_secs(60), &log)?;
    if !done.passed || !done.output.contains("hello") {
        bail!("the README's snippet failed: {}", done.output);
    }
    Ok(format!(
        "readme: {} lines of Python, printed {:?}",
        snippet.lines().count(),
        done.last_line()
    ))
}
