//! What this machine lacks for the project's commands.

use crate::{process, python};
use anyhow::{Result, bail};
use std::process::Command;

/// `cargo xtask doctor`.
pub(crate) fn doctor() -> Result<()> {
    let runs = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|out| out.status.success())
    };
    let checks = [
        (
            "cargo with rustfmt",
            runs(env!("CARGO"), &["fmt", "--version"]),
            "rustup component add rustfmt",
        ),
        (
            "cargo with clippy",
            runs(env!("CARGO"), &["clippy", "--version"]),
            "rustup component add clippy",
        ),
        (
            "CPython 3.11 with venv (the real client's wheel is for that version)",
            python::interpreter().is_some(),
            "Debian: apt-get install python3.11-venv",
        ),
        (
            "no RUSTFLAGS in the environment",
            std::env::var_os("RUSTFLAGS").is_none(),
            "unset RUSTFLAGS: it would switch the simulator off in a plain cargo sim",
        ),
        (
            "the conformance suites beside the project (optional)",
            process::root().join("../shared/conformance").is_dir(),
            "without them those steps are skipped",
        ),
    ];
    let mut missing = 0;
    for (what, have, cure) in checks {
        println!(
            "{} {what}{}",
            if have { "ok  " } else { "MISS" },
            if have { String::new() } else { format!(": {cure}") }
        );
        missing += usize::from(!have && !what.contains("optional"));
    }
    if missing > 0 {
        bail!("{missing} things are missing");
    }
    println!("doctor: nothing is missing");
    Ok(())
}
