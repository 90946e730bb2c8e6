//! What a node says when it is ready.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use thalweg_wire::controller::NodeUri;

/// Everything in it.
pub(super) struct Banner<'a> {
    pub(super) folder: &'a Path,
    /// What an earlier run had left; `None` if the folder is new.
    pub(super) recovered: Option<Recovered>,
    /// Damage that was found and does not keep the node from running.
    pub(super) damages: &'a [String],
    pub(super) ports: super::ports::Ports,
    /// Where clients are told to find the segment store.
    pub(super) advertised: &'a NodeUri,
    /// How this program was called.
    pub(super) program: &'a str,
}

/// What a start found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) segments: u64,
    pub(super) took: Duration,
}

/// Where client commands look unless they are told otherwise.
const CONTROLLER_PORT: u16 = 9090;

impl Banner<'_> {
    /// The text, line ends included.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes everything");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { ports, advertised, program, .. } = self;
        writeln!(out, "thalweg {}", env!("CARGO_PKG_VERSION"))?;
        let new = if self.recovered.is_none() { " (new)" } else { "" };
        writeln!(out, "  data folder    {}{new}", self.folder.display())?;
        writeln!(out, "  controller     {} (gRPC and native)", ports.controller)?;
        let told = format!("{}:{}", advertised.host, advertised.port);
        write!(out, "  segment store  {}", ports.segment_store)?;
        if told.eq_ignore_ascii_case(&ports.segment_store.to_string()) {
            writeln!(out)?;
        } else {
            writeln!(out, " (clients are told {told})")?;
        }
        writeln!(out, "  http           http://{} (/health, /metrics)", ports.http)?;
        writeln!(out, "  durable: fsync before ack")?;
        if let Some(recovered) = self.recovered {
            writeln!(out, "  {}", recovered.text())?;
        }
        for damage in self.damages {
            writeln!(out, "  damaged: {damage}")?;
        }
        let at = client_flag(ports.controller);
        writeln!(out, "\nTry it from another terminal:")?;
        writeln!(out, "  echo hello | {program} write --create --stream demo/greetings{at}")?;
        writeln!(out, "  {program} read --stream demo/greetings{at}")
    }
}

impl Recovered {
    fn text(self) -> String {
        let Self { entries, bytes, segments, took } = self;
        format!(
            "recovered {entries} entries ({}) of {segments} segments in {} ms",
            size(bytes),
            took.as_millis()
        )
    }
}

/// What client commands must be told to find this controller.
fn client_flag(controller: SocketAddr) -> String {
    let is_default = controller.port() == CONTROLLER_PORT
        && (controller.ip().is_unspecified() || controller.ip() == std::net::Ipv4Addr::LOCALHOST);
    if is_default {
        return String::new();
    }
    let mut reached = controller;
    match controller.ip() {
        std::net::IpAddr::V4(ip) if ip.is_unspecified() => {
            reached.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        std::net::IpAddr::V6(ip) if ip.is_unspecified() => {
            reached.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    format!(" --controller {reached}")
}

fn size(bytes: u64) -> String {
    let (mut whole, mut rest, mut unit) = (bytes, 0, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if whole < 1000 {
            break;
        }
        (rest, whole, unit) = (whole % 1000 / 100, whole / 1000, next);
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{rest} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::super::ports::Ports;
    use super::*;

    fn text(controller: &str, recovered: Option<Recovered>) -> String {
        let at = |text: &str| text.parse().unwrap();
        let ports = Ports {
            controller: at(controller),
            segment_store: at("0.0.0.0:12345"),
            http: at("127.0.0.1:9091"),
        };
        let advertised = NodeUri { host: "10.0.0.7".to_owned(), port: 12345 };
        let folder = Path::new("/srv/data");
        let (damages, program) = (&["seg-1.log at 4096".to_owned()], "thalweg");
        Banner { folder, recovered, damages, ports, advertised: &advertised, program }.text()
    }

    #[test]
    fn the_banner_says_what_is_needed_to_go_on() {
        let text = text("127.0.0.1:9090", None);
        for part in [
            env!("CARGO_PKG_VERSION"),
            "/srv/data (new)",
            "127.0.0.1:9090 (gRPC and native)",
            "0.0.0.0:12345 (clients are told 10.0.0.7:12345)",
            "http://127.0.0.1:9091",
            "durable: fsync before ack",
            "damaged: seg-1.log at 4096",
            "| thalweg write --create --stream demo/greetings\n",
            "  thalweg read --stream demo/greetings\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }

    #[test]
    fn another_port_is_named_in_the_lines_to_copy() {
        assert!(text("0.0.0.0:80", None).contains("greetings --controller 127.0.0.1:80\n"));
        assert!(text("[::]:9090", None).ends_with("greetings\n"));
        assert!(text("10.0.0.7:9090", None).ends_with("--controller 10.0.0.7:9090\n"));
    }

    #[test]
    fn a_second_start_says_what_it_recovered() {
        let took = Duration::from_millis(1234);
        let recovered = Recovered { entries: 12, bytes: 1_560_000, segments: 3, took };
        let text = text("127.0.0.1:9090", Some(recovered));
        let line = "recovered 12 entries (1.5 MB) of 3 segments in 1234 ms";
        assert!(text.contains(line) && !text.contains("(new)"), "{text}");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_000), "1.0 kB");
        assert_eq!(size(2_340_000_000_000_000), "2340.0 TB");
    }
}
