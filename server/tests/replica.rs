//! `thalweg replica` as a process: what it says, what it keeps, how it ends.

#![expect(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test of a process looks at the system's files and sockets"
)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A folder of its own that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("replica-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn replica(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.arg("replica").arg("--data-dir").arg(data).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its name and its address.
fn start(data: &Path) -> (Child, String, String) {
    let mut child = replica(data, &["--node", "4"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let ["replica", name, "at", address] = fields[..] else { panic!("{line}") };
    (child, name.to_owned(), address.to_owned())
}

fn stop(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_replica_keeps_its_identity_and_refuses_whoever_is_not_of_its_cluster() {
    let folder = Scratch::new("identity");
    let (child, name, address) = start(&folder.0);
    assert!(name.starts_with("n4/"), "{name}");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // The end of the connection, or its reset.
    let _ = stream.read_to_end(&mut said);
    assert!(said.is_empty(), "garbage gets no answer");
    stop(child);
    let (child, again, _) = start(&folder.0);
    assert_eq!(again, name, "a storage stays what it is");
    stop(child);
    let other = replica(&folder.0, &["--node", "4", "--cluster", "2"]).output().unwrap();
    let why = String::from_utf8(other.stderr).unwrap();
    assert_eq!(other.status.code(), Some(1), "{why}");
    assert!(why.contains("cluster"), "{why}");
}
