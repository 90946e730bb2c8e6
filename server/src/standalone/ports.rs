//! The ports of a node: claimed before anything else is done, opened when everything runs.

use crate::os::tcp::Tcp;
use anyhow::{Context as _, bail};
use std::io;
use std::net::{IpAddr, SocketAddr};
use thalweg_actor::network::Endpoint;
use thalweg_wire::controller::NodeUri;

/// The three addresses, ports filled in. Nobody else can take them, and nobody can connect to them yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) controller: SocketAddr,
    pub(super) segment_store: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Ports {
    /// Claims all three, or says which one cannot be had.
    pub(super) async fn claim(tcp: &Tcp, options: &super::Options) -> anyhow::Result<Self> {
        Ok(Self {
            controller: claim(tcp, "--controller", &options.controller).await?,
            segment_store: claim(tcp, "--segment-store", &options.segment_store).await?,
            http: claim(tcp, "--http", &options.http).await?,
        })
    }
}

/// Claims one address, or says why it cannot be had.
pub(crate) async fn claim(tcp: &Tcp, flag: &str, at: &str) -> anyhow::Result<SocketAddr> {
    let claimed = match tcp.claim(&Endpoint::from(at)).await {
        Ok(claimed) => claimed,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
            "{flag} {at}: the port is taken. Stop what listens there, or give another address (port 0: a free one)"
        ),
        Err(error) => {
            return Err(error).with_context(|| format!("{flag} {at}: cannot listen there"));
        }
    };
    claimed.0.parse().with_context(|| format!("{flag} {at}: the system calls it {claimed}"))
}

/// An address as the seam names it.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from(address.to_string())
}

/// What clients are told: `host` if it is given, else the address that is listened on. An address that stands for all
/// of this machine's is replaced by the one that its packets to the outside carry, or by loopback without any.
pub(super) fn advertised(host: Option<&str>, listening: SocketAddr) -> NodeUri {
    let port = listening.port();
    let host = host.map_or_else(|| written(reachable(listening.ip())), str::to_owned);
    NodeUri { host, port }
}

/// Pravega's Rust client takes IPv6 in brackets and in capitals only.
fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{}]", address.to_string().to_uppercase()),
    }
}

fn reachable(listening: IpAddr) -> IpAddr {
    match listening {
        IpAddr::V4(address) if address.is_unspecified() => {
            outbound("0.0.0.0:0", "192.0.2.1:9").unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
        }
        IpAddr::V6(address) if address.is_unspecified() => {
            outbound("[::]:0", "[2001:db8::1]:9").unwrap_or(std::net::Ipv6Addr::LOCALHOST.into())
        }
        other => other,
    }
}

/// The address of this machine on the way to `to`. Nothing is sent: a datagram socket is only told where it would.
fn outbound(from: &str, to: &str) -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// What clients may be told as a host: what Pravega's Rust client takes for one.
pub(super) fn host(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if !text.is_empty() && text.chars().all(is_name) {
        return Ok(text.to_owned());
    }
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match inside.parse::<std::net::Ipv6Addr>() {
        Ok(address) => Ok(written(address.into())),
        Err(_) => Err("want a host name or an address, without a port".to_owned()),
    }
}

/// `HOST:PORT`, for clap. Names are looked up later.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("want HOST:PORT")?;
    if host.is_empty() {
        return Err("want HOST:PORT, with 0.0.0.0 for all addresses of this machine".to_owned());
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address stands in brackets: [::1]:9090".to_owned());
    }
    port.parse::<u16>().map_err(|_| "the port is a number up to 65535".to_owned())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: Option<&str>, listening: &str) -> String {
        let uri = advertised(host, listening.parse().unwrap());
        format!("{}:{}", uri.host, uri.port)
    }

    #[test]
    fn clients_are_told_an_address_that_they_can_connect_to() {
        assert_eq!(told(None, "127.0.0.1:12345"), "127.0.0.1:12345");
        assert_eq!(told(None, "[fe80::ab]:7"), "[FE80::AB]:7");
        assert_eq!(told(Some("stream.example"), "0.0.0.0:12345"), "stream.example:12345");
        for all in ["0.0.0.0:5", "[::]:5"] {
            let told = told(None, all);
            assert!(!told.starts_with("0.0.0.0") && !told.starts_with("[::]"), "{told}");
            assert!(told.ends_with(":5") && told.parse::<SocketAddr>().is_ok(), "{told}");
        }
    }

    #[test]
    fn a_host_is_what_clients_take_for_one() {
        assert_eq!(host("stream-1.example").as_deref(), Ok("stream-1.example"));
        assert_eq!(host("fe80::ab").as_deref(), Ok("[FE80::AB]"));
        assert_eq!(host("[fe80::ab]").as_deref(), Ok("[FE80::AB]"));
        for bad in ["", "a:1", "a b", "tcp://a", "ä"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "localhost:9090", "[::1]:65535"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in ["9090", ":9090", "a:", "a:65536", "::1:9090", "a:b"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
