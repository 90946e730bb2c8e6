//! The server under measurement: this binary, standalone, on a folder and ports of its own.

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for the server to answer.
const START_MAX: Duration = Duration::from_secs(30);
/// Longest wait for it to stop by itself.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A server that ends with this.
pub(super) struct Server {
    process: Child,
    pub(super) controller: String,
}

impl Server {
    /// Starts it and waits until its controller takes connections.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let [controller, store, http] = free_ports()?;
        let data = folder.join("data");
        let log = folder.join("server.log");
        let out = File::create(&log)?;
        let process = Command::new(std::env::current_exe()?)
            .arg("standalone")
            .arg("--data-dir")
            .arg(&data)
            .args(["--controller", &controller, "--segment-store", &store, "--http", &http])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .context("cannot start the server")?;
        let mut server = Self { process, controller };
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = server.process.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("the server ended at once ({status}): {said}");
            }
            if std::net::TcpStream::connect(&server.controller).is_ok() {
                return Ok(server);
            }
            if Instant::now() > deadline {
                bail!("the server does not answer at {}", server.controller);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time of all its threads so far.
    pub(super) fn cpu(&self) -> Duration {
        cpu(self.process.id()).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub(super) fn memory(&self) -> u64 {
        memory(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Resident memory of a process in bytes.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let field = |status: String| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    status.ok().and_then(field).unwrap_or(0) * 1024
}

/// Asks a child to stop, and sees to it that it does.
fn end(process: &mut Child) {
    signal(process, Signal::TERM);
    let deadline = Instant::now() + STOP_MAX;
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ended = process.kill();
    let _ended = process.wait();
}

fn signal(process: &Child, signal: Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(process.id().cast_signed()) {
        // Because: it may have ended by itself.
        let _ended = rustix::process::kill_process(pid, signal);
    }
}

/// A replica of the ledger: this binary on a folder of its own. Ends with this.
pub(super) struct Replica {
    process: Child,
    /// As it calls itself: `n1/uuid`.
    pub(super) name: String,
    pub(super) address: String,
}

impl Replica {
    /// Starts it on `folder` as node `node` of `cluster`, and waits until it says where it listens.
    pub(super) fn start(folder: &Path, node: u64, cluster: u128) -> anyhow::Result<Self> {
        let said = File::create(folder.join(format!("replica-{node}.log")))?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("replica")
            .arg("--data-dir")
            .arg(folder.join(format!("data-{node}")))
            .args(["--node", &node.to_string(), "--cluster", &format!("{cluster:x}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .context("cannot start a replica")?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ["replica", name, "at", address] = fields[..] else {
            end(&mut process);
            bail!("a replica ended at once; see replica-{node}.log in {}", folder.display());
        };
        Ok(Self { name: name.to_owned(), address: address.to_owned(), process })
    }

    /// CPU time of all its threads so far.
    pub(super) fn cpu(&self) -> Duration {
        cpu(self.process.id()).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub(super) fn memory(&self) -> u64 {
        memory(self.process.id())
    }

    /// Suspends it: it lives and does nothing.
    pub(super) fn suspend(&self) {
        signal(&self.process, Signal::STOP);
    }

    /// Lets it go on.
    pub(super) fn resume(&self) {
        signal(&self.process, Signal::CONT);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.resume();
        end(&mut self.process);
    }
}

/// The time that the scheduler has given to each thread of the process, in all.
fn cpu(pid: u32) -> std::io::Result<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

fn free_ports() -> anyhow::Result<[String; 3]> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    // Because: all three are held at once, so that they differ.
    let listeners = [bind()?, bind()?, bind()?];
    let mut ports = [const { String::new() }; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.to_string();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_time() {
        let before = cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu(std::process::id()).unwrap() <= before {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
