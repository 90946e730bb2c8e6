//! Running other programs: environment cleaned, time bounded, output kept.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The project's top folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// The value behind `--name` (or in `--name=value`), if given.
pub(crate) fn option(args: &[String], name: &str) -> Option<String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == name {
            return args.next().cloned();
        }
        if let Some(value) = arg.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

/// A command that runs in the project's folder. `RUSTFLAGS` is removed: it would override the flags that the
/// simulator's alias sets, and switch the simulator off without a word.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(root()).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Runs cargo with its output shown.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    let status = command(env!("CARGO")).args(args).status().context("cargo does not start")?;
    if !status.success() {
        bail!("cargo {} failed ({status})", args.join(" "));
    }
    Ok(())
}

/// How a bounded run ended.
pub(crate) struct Finished {
    /// The exit code was 0.
    pub(crate) passed: bool,
    /// It did not end in time and was killed.
    pub(crate) hung: bool,
    /// Standard output and standard error, mixed.
    pub(crate) output: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl Finished {
    /// The last line that says something.
    pub(crate) fn last_line(&self) -> &str {
        self.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(no output)")
    }
}

/// Runs `command` for at most `limit`, its output kept in `log`.
pub(crate) fn bounded(command: &mut Command, limit: Duration, log: &Path) -> Result<Finished> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("{} does not start", command.get_program().display()))?;
    let status = wait(&mut child, limit)?;
    let mut output = Vec::new();
    File::open(log)?.read_to_end(&mut output)?;
    Ok(Finished {
        passed: status.is_some_and(|status| status.success()),
        hung: status.is_none(),
        output: String::from_utf8_lossy(&output).into_owned(),
        took: started.elapsed(),
    })
}

/// Waits for `child`; past `limit` it is killed and the answer is `None`.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A fresh folder below `target/` for one run's files.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let folder = root().join("target").join("xtask").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
