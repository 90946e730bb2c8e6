//! `thalweg standalone` as a process: what it says, what it refuses, how it ends.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test of a process looks at the system's clock, files and sockets"
)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of its own that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("standalone-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn thalweg() -> Command {
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
}

/// `thalweg standalone` on `data` and free ports; `more` overrides.
fn standalone(data: &Path, more: &[&str]) -> Command {
    let mut command = thalweg();
    command.arg("standalone").arg("--data-dir").arg(data);
    for flag in ["--controller", "--segment-store", "--http"] {
        if !more.contains(&flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a start that must fail, and returns what it said.
fn refused(data: &Path, more: &[&str]) -> String {
    let Output { status, stdout, stderr } = standalone(data, more).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(stdout.is_empty(), "nothing is announced that does not run");
    assert!(said.starts_with("thalweg: ") && said.lines().count() == 1, "{said}");
    said
}

/// A node that runs.
struct Node {
    child: Child,
    banner: String,
}

impl Node {
    fn start(data: &Path) -> Self {
        let mut child = standalone(data, &[]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains(" read --stream ") {
            assert_ne!(lines.read_line(&mut banner).unwrap(), 0, "it ended: {banner}");
        }
        Self { child, banner }
    }

    /// The address in the banner's line that begins with `name`.
    fn address(&self, name: &str) -> String {
        let line = self.banner.lines().find_map(|line| line.trim().strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next()).unwrap();
        word.trim_start_matches("http://").to_owned()
    }

    fn client(&self, args: &[&str], stdin: &str) -> Vec<u8> {
        let mut command = thalweg();
        command.args(args).args(["--controller", &self.address("controller")]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
        stdout
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("http")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: how it ended, and what it said on stderr.
    fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(count: u32) -> String {
    let lines: Vec<String> = (0..count).map(|number| format!("event {number}\n")).collect();
    lines.concat()
}

#[test]
fn a_node_tells_where_it_is_stops_when_told_and_finds_everything_again() {
    let scratch = Scratch::new("life");
    let node = Node::start(&scratch.data());
    let data = scratch.data().canonicalize().unwrap();
    assert!(node.banner.contains(&format!("{} (new)", data.display())), "{}", node.banner);
    assert!(node.banner.contains("durable: fsync before ack"));
    assert!(node.get("/health").starts_with("HTTP/1.1 200"));
    assert!(node.get("/health").contains(r#""state":"serving""#));
    let text = lines(1_000);
    node.client(&["write", "--create", "--stream", "demo/greetings"], &text);
    let metrics = node.get("/metrics");
    for line in ["thalweg_segments 2", "thalweg_append_events_total 1000", "thalweg_appends_held 0"]
    {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in:\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("thalweg_disk_syncs_total 0\n"));

    node.signal(Signal::TERM);
    let (status, said) = node.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("ERROR") && !said.contains("WARN"), "{said}");

    let node = Node::start(&scratch.data());
    let recovered = node.banner.lines().find(|line| line.trim().starts_with("recovered "));
    let recovered = recovered.unwrap_or_else(|| panic!("{}", node.banner));
    assert!(recovered.contains(" of 2 segments in ") && !node.banner.contains("(new)"));
    let back = node.client(&["read", "--stream", "demo/greetings"], "");
    assert_eq!(String::from_utf8(back).unwrap(), text);
    node.signal(Signal::INT);
    assert_eq!(node.end().0.code(), Some(0));
}

#[test]
fn the_commands_of_the_command_line_do_what_they_say() {
    let scratch = Scratch::new("commands");
    let node = Node::start(&scratch.data());
    let run = |line: &str, stdin: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        String::from_utf8(node.client(&words, stdin)).unwrap()
    };
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(run("scope create s", ""), "scope s created\n");
    assert_eq!(run("scope create s", ""), "scope s was there already\n");
    assert_eq!(run("stream create s/t --segments 2", ""), "stream s/t created\n");
    assert_eq!(run("stream list s", ""), "s/t\n");
    run("write --stream s/t --routing-key-field 1", "a,1\nb,1\nc,1\n");
    run("stream scale s/t --segments 3", "");
    assert!(run("stream describe s/t", "").contains("segments   3 since epoch 1"));
    run("write --stream s/t --routing-key-field 1", "a,2\nb,2\nc,2\n");
    let all = run("read --stream s/t", "");
    let of_a: Vec<&str> = all.lines().filter(|line| line.starts_with('a')).collect();
    assert_eq!(of_a, ["a,1", "a,2"], "a key's events are in order across a scale");
    assert_eq!(sorted(all), ["a,1", "a,2", "b,1", "b,2", "c,1", "c,2"]);
    assert_eq!(run("stream truncate s/t --tail", ""), "stream s/t truncated\n");
    assert_eq!(run("read --stream s/t", ""), "");
    run("write --stream s/t", "last\n");
    assert_eq!(run("stream seal s/t", ""), "stream s/t sealed\n");
    assert_eq!(run("read --stream s/t", ""), "last\n");
    assert_eq!(run("stream delete s/t", ""), "stream s/t deleted\n");
    assert_eq!(run("scope delete s", ""), "scope s deleted\n");
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let scratch = Scratch::new("kill");
    let node = Node::start(&scratch.data());
    let text = lines(5_000);
    node.client(&["write", "--create", "--stream", "demo/greetings"], &text);
    node.signal(Signal::KILL);
    node.end();
    let node = Node::start(&scratch.data());
    let back = node.client(&["read", "--stream", "demo/greetings"], "");
    assert_eq!(String::from_utf8(back).unwrap(), text);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let scratch = Scratch::new("ports");
    let node = Node::start(&scratch.data());
    let other = scratch.0.join("other");
    for (flag, name) in
        [("--controller", "controller"), ("--segment-store", "segment store"), ("--http", "http")]
    {
        let taken = node.address(name);
        let said = refused(&other, &[flag, &taken]);
        assert!(said.contains(&format!("{flag} {taken}: the port is taken")), "{said}");
    }
    assert!(!other.exists(), "nothing is made before the ports are claimed");
}

#[test]
fn a_folder_in_use_names_the_process_that_has_it() {
    let scratch = Scratch::new("lock");
    let node = Node::start(&scratch.data());
    let said = refused(&scratch.data(), &[]);
    assert!(said.contains(&format!("process {}", node.child.id())), "{said}");
    assert!(node.get("/health").starts_with("HTTP/1.1 200"), "the other one runs on");
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let scratch = Scratch::new("foreign");
    std::fs::create_dir(scratch.data()).unwrap();
    std::fs::write(scratch.data().join("letter.txt"), "dear").unwrap();
    let said = refused(&scratch.data(), &[]);
    assert!(said.contains("letter.txt") && said.contains("Choose an empty folder"), "{said}");
    assert_eq!(std::fs::read_to_string(scratch.data().join("letter.txt")).unwrap(), "dear");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let scratch = Scratch::new("unusable");
    std::fs::write(scratch.0.join("file"), "").unwrap();
    let below = scratch.0.join("file/data");
    let said = refused(&below, &[]);
    assert!(said.contains(&below.display().to_string()) && said.contains("--data-dir"), "{said}");
}

#[test]
fn a_damaged_superblock_is_named_and_nothing_is_changed() {
    let scratch = Scratch::new("damage");
    let node = Node::start(&scratch.data());
    node.signal(Signal::TERM);
    node.end();
    for copy in ["superblock.0", "superblock.1", "superblock.2"] {
        let path = scratch.data().join(copy);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let before = contents(&scratch.data());
    let said = refused(&scratch.data(), &[]);
    assert!(said.contains("superblock") && said.contains("nothing has been changed"), "{said}");
    assert!(contents(&scratch.data()) == before);
}

/// Every file of a data folder but the lock.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| !path.ends_with("thalweg.lock")).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn garbage_closes_its_connection_with_few_lines_and_no_harm() {
    const CONNECTIONS: usize = 300;
    let scratch = Scratch::new("garbage");
    let node = Node::start(&scratch.data());
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n-------------------------------",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, and this is no frame either",
        b"PUT / HTTP/1.1\r\nhost: x\r\n\r\n-------------------------------",
        &[0xff; 64],
    ];
    for port in ["controller", "segment store"] {
        let address = node.address(port);
        for number in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(garbage[number % garbage.len()]).unwrap();
            // It ends, whether in order or with a reset; a timeout is another kind of error.
            let ended = stream.read_to_end(&mut Vec::new());
            let kind =
                ended.map_or_else(|error| error.kind(), |_| std::io::ErrorKind::ConnectionReset);
            assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{port} {number}");
        }
    }
    node.client(&["write", "--create", "--stream", "demo/greetings"], "hello\n");
    node.signal(Signal::TERM);
    let (status, said) = node.end();
    assert_eq!(status.code(), Some(0));
    let closed = said.lines().filter(|line| line.contains("connection ")).count();
    assert!((2..200).contains(&closed), "{closed} lines:\n{said}");
}

#[test]
fn a_client_that_does_not_go_delays_a_stop_and_a_second_signal_ends_it() {
    let scratch = Scratch::new("second");
    let node = Node::start(&scratch.data());
    let mut stream = TcpStream::connect(node.address("controller")).unwrap();
    // A preface and empty settings; what the server sends is never answered.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut first = [0; 9];
    stream.read_exact(&mut first).unwrap();
    node.signal(Signal::TERM);
    let asked = Instant::now();
    while !node.get("/health").contains(r#""state":"stopping""#) {
        assert!(asked.elapsed() < PATIENCE);
    }
    node.signal(Signal::TERM);
    let (status, said) = node.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("ended at once by a second signal (SIGTERM)"), "{said}");
}
