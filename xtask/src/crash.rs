//! `kill -9` under a real writer: nothing acknowledged may be lost, doubled or reordered.

use crate::node::Node;
use crate::{process, python};
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const KILLS: u64 = 20;
/// Events that must be acknowledged between two kills.
const EVENTS_BETWEEN: u64 = 2_000;
const LIMIT: Duration = Duration::from_secs(120);

/// What the writing program says after each flush.
struct Acked {
    events: u64,
    flushes: u64,
}

/// `cargo xtask crash [--kills N]`.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let kills = process::option(args, "--kills").map_or(Ok(KILLS), |n| n.parse())?;
    println!("{}", run(kills)?);
    Ok(())
}

/// Kills the node `kills` times under load and compares what is read with what was acknowledged.
pub(crate) fn run(kills: u64) -> Result<String> {
    let python = python::environment(None)?;
    let mut node = Node::start("crash")?;
    let started = Instant::now();
    let flushes_before = device_flushes(node.folder())?;
    let mut writer = Writer::start(&python, &node.uri())?;
    let mut restarts = Vec::new();
    let mut last = Acked { events: 0, flushes: 0 };
    for _ in 0..kills {
        let goal = last.events + EVENTS_BETWEEN;
        while last.events < goal {
            node.check_alive()?;
            last = writer.next_ack()?;
            if started.elapsed() > LIMIT {
                bail!("only {} events were acknowledged within {LIMIT:?}", last.events);
            }
        }
        node.kill()?;
        let down = Instant::now();
        node.launch()?;
        restarts.push(down.elapsed());
    }
    let total = writer.finish()?;
    let took = started.elapsed();
    let flushes = device_flushes(node.folder())?.zip(flushes_before).map(|(now, was)| now - was);
    let verdict = read_back(&python, &node.uri(), total.events)?;
    if took > LIMIT {
        bail!("{kills} kills took {took:?}, more than {LIMIT:?}");
    }
    let flushes = match flushes {
        Some(seen) if seen < total.flushes => {
            bail!("{} flushes were acknowledged, the device saw {seen}", total.flushes)
        }
        Some(seen) => format!("device flushes {seen} for {} acknowledged flushes", total.flushes),
        None => "device flushes not counted on this file system".to_owned(),
    };
    let slowest = restarts.iter().max().copied().unwrap_or_default();
    Ok(format!(
        "crash: {kills} kills, {} events acknowledged in {:.1} s, {verdict}; slowest restart {} ms; {flushes}",
        total.events,
        took.as_secs_f64(),
        slowest.as_millis()
    ))
}

/// The program that writes until it is told to stop.
struct Writer {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Writer {
    fn start(python: &Path, uri: &str) -> Result<Self> {
        let mut child = process::command(python)
            .arg(program("crash_writer.py"))
            .env("PRAVEGA_URI", uri)
            .env("RUST_LOG", "error")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let stdout = child.stdout.take().context("the writer has no output")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// What is acknowledged by now. The program's own watchdog ends a wait that takes too long.
    fn next_ack(&mut self) -> Result<Acked> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                bail!("the writer ended ({})", self.child.wait()?);
            }
            // The client logs to standard output: other lines are not ours.
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["acked", events, flushes] = words[..] {
                return Ok(Acked { events: events.parse()?, flushes: flushes.parse()? });
            }
        }
    }

    /// Tells it to stop and waits for its last word.
    fn finish(mut self) -> Result<Acked> {
        drop(self.child.stdin.take());
        let mut last = self.next_ack()?;
        loop {
            match self.next_ack() {
                Ok(acked) => last = acked,
                Err(_) if self.child.wait()?.success() => return Ok(last),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // An ended child is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(name: &str) -> PathBuf {
    process::root().join("server/tests/clients/python").join(name)
}

fn read_back(python: &Path, uri: &str, events: u64) -> Result<String> {
    let log = process::scratch("crash-read")?.join("reader.log");
    let mut command = process::command(python);
    command.arg(program("crash_reader.py")).arg(events.to_string());
    command.env("PRAVEGA_URI", uri).env("RUST_LOG", "error").env("PYTHONDONTWRITEBYTECODE", "1");
    let done = process::bounded(&mut command, Duration::from_secs(180), &log)?;
    if !done.passed {
        bail!("reading back: {}", done.last_line());
    }
    Ok(done.last_line().trim_start_matches("PASS ").to_owned())
}

/// Cache flushes that the device under `folder` has been asked for, where the kernel counts them.
fn device_flushes(folder: &Path) -> Result<Option<u64>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize()?;
    let device = mounts
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (numbers, at) = (words.get(2)?, words.get(4)?);
            folder.starts_with(at).then(|| (at.len(), (*numbers).to_owned()))
        })
        .max_by_key(|(depth, _)| *depth);
    let Some((_, numbers)) = device else { return Ok(None) };
    let stats = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    // Field 16 of the line (from 0: 18th word minus the three leading ones) counts flush requests.
    Ok(stats.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let same = format!("{}:{}", words.first()?, words.get(1)?) == numbers;
        same.then(|| words.get(18)?.parse().ok()).flatten()
    }))
}
