//! The Python environment of the tests: the real client and what the suites need, below `target/`.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The real client. Its wheel exists for CPython 3.11 on glibc 2.35 or later.
pub(crate) const CLIENT: &str = "pravega==0.3.8";

/// A CPython 3.11 with `venv`, if this machine has one.
pub(crate) fn interpreter() -> Option<&'static str> {
    ["python3.11", "python3"].into_iter().find(|name| {
        Command::new(name)
            .args(["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))"])
            .output()
            .is_ok_and(|out| out.status.success())
    })
}

/// The environment's interpreter, set up on first use and again when `requirements` change.
pub(crate) fn environment(requirements: Option<&Path>) -> Result<PathBuf> {
    let folder = process::root().join("target").join("python");
    let python = folder.join("bin/python");
    let mut wanted = format!("{CLIENT}\n");
    if let Some(file) = requirements {
        wanted += &std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    let stamp = folder.join("thalweg-requirements.txt");
    let installed = std::fs::read_to_string(&stamp).unwrap_or_default();
    if wanted.lines().all(|line| installed.lines().any(|have| have == line)) && python.exists() {
        return Ok(python);
    }
    let Some(base) = interpreter() else {
        bail!(
            "no CPython 3.11 with venv on this machine (Debian: apt-get install python3.11-venv)"
        );
    };
    if !python.exists() {
        run(
            process::command(base).args(["-m", "venv"]).arg(&folder),
            "make a virtual environment",
        )?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(process::command(&python).args(pip).args(wanted.lines()), "install Python packages")?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let out = command.output().with_context(|| format!("cannot {what}"))?;
    if !out.status.success() {
        bail!("cannot {what}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}
