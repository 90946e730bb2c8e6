//! A node of its own for a test: the dev binary on free ports and a fresh folder.

use crate::process;
use anyhow::{Context as _, Result, bail};
use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to open its ports.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running `thalweg standalone`. Dropping it ends the process, not its folder.
pub(crate) struct Node {
    /// The controller's port.
    pub(crate) controller: u16,
    /// The segment store's port.
    pub(crate) segment_store: u16,
    /// The HTTP port.
    pub(crate) http: u16,
    binary: PathBuf,
    folder: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Builds the dev binary and starts it on a fresh folder called `name`.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let binary = build()?;
        let folder = process::scratch(name)?;
        let [controller, segment_store, http] = free_ports()?;
        let mut node = Self { controller, segment_store, http, binary, folder, child: None };
        node.launch()?;
        Ok(node)
    }

    /// Where the node's data and log are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a client connects to.
    pub(crate) fn uri(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.controller)
    }

    /// Starts the process on the same folder and ports again.
    pub(crate) fn launch(&mut self) -> Result<()> {
        let log = self.folder.join("node.log");
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let at = |port: u16| format!("127.0.0.1:{port}");
        let child = process::command(&self.binary)
            .arg("standalone")
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args(["--controller", &at(self.controller)])
            .args(["--segment-store", &at(self.segment_store)])
            .args(["--http", &at(self.http)])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{} does not start", self.binary.display()))?;
        self.child = Some(child);
        self.wait_until_ready()
    }

    /// `kill -9`, and waits for the process to be gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Fails if the process has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()) {
            bail!("the node ended by itself ({}): {}", status?, self.log_tail());
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + START_LIMIT;
        while [self.controller, self.segment_store]
            .iter()
            .any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        {
            self.check_alive()?;
            if Instant::now() > end {
                bail!("the node opened no port within {START_LIMIT:?}: {}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            println!("the node could not be ended: {error}");
        }
    }
}

/// Builds the dev binary and says where it is.
pub(crate) fn build() -> Result<PathBuf> {
    process::cargo(&["build", "--quiet", "-p", "thalweg-server"])?;
    Ok(process::root().join("target/debug/thalweg"))
}

/// Three ports that nobody uses at this moment.
fn free_ports() -> Result<[u16; 3]> {
    let sockets = [bind()?, bind()?, bind()?];
    let port = |socket: &TcpListener| Ok::<u16, anyhow::Error>(socket.local_addr()?.port());
    Ok([port(&sockets[0])?, port(&sockets[1])?, port(&sockets[2])?])
}

fn bind() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")
}
