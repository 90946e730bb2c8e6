//! TCP behind the network seam: no delay, keep-alive, vectored writes from `Bytes`, reads straight into the buffer.

use bytes::{Bytes, BytesMut};
use rustix::net::sockopt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thalweg_actor::BoxFuture;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint, Listener, Network};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that the system completes before they are accepted.
const BACKLOG: u32 = 1024;
/// A silent peer is probed after this long, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … this often, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after so many probes.
const KEEPALIVE_PROBES: u32 = 3;
/// Chunks handed to the system at once.
const CHUNKS_MAX: usize = 64;
/// Room made in a buffer that has none.
const READ_RESERVE_BYTES: usize = 8 * 1024;

/// The network of the system.
#[derive(Default)]
pub(crate) struct Tcp {
    claimed: Mutex<Vec<(Endpoint, TcpSocket)>>,
}

impl Tcp {
    /// Takes the address `at`, with a free port for port 0, without opening it: nobody can connect before somebody
    /// listens on the endpoint that is returned. The host may be a name or an address, IPv6 in brackets.
    pub(crate) async fn claim(&self, at: &Endpoint) -> io::Result<Endpoint> {
        let socket = bind(at).await?;
        let local = Endpoint::from(socket.local_addr()?.to_string());
        self.claims().push((local.clone(), socket));
        Ok(local)
    }

    fn claims(&self) -> MutexGuard<'_, Vec<(Endpoint, TcpSocket)>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens, on the claimed socket if there is one.
    pub(crate) async fn open(&self, at: &Endpoint) -> io::Result<TcpListener> {
        let claimed = {
            let mut claims = self.claims();
            let found = claims.iter().position(|(endpoint, _)| endpoint == at);
            found.map(|found| claims.remove(found).1)
        };
        match claimed {
            Some(socket) => socket.listen(BACKLOG),
            None => bind(at).await?.listen(BACKLOG),
        }
    }
}

impl Network for Tcp {
    fn listen<'a>(&'a self, at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listening = Accepting::new(self.open(at).await?)?;
            Ok(Box::new(listening) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move { connection(TcpStream::connect(&*to.0).await?) })
    }
}

async fn bind(at: &Endpoint) -> io::Result<TcpSocket> {
    let mut last = None;
    for address in tokio::net::lookup_host(&*at.0).await? {
        match bind_to(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host")))
}

fn bind_to(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Otherwise a restart would wait for the connections of the process before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The options that every connection has.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// A connected stream as the seam has it.
pub(crate) fn connection(stream: TcpStream) -> io::Result<Connection> {
    tune(&stream)?;
    let peer = Endpoint::from(stream.peer_addr()?.to_string());
    let (reader, writer) = stream.into_split();
    Ok(Connection { reader: Box::new(Incoming(reader)), writer: Box::new(Outgoing(writer)), peer })
}

/// A listening socket as the seam has it.
pub(crate) struct Accepting {
    listener: TcpListener,
    local: Endpoint,
}

impl Accepting {
    fn new(listener: TcpListener) -> io::Result<Self> {
        let local = Endpoint::from(listener.local_addr()?.to_string());
        Ok(Self { listener, local })
    }
}

impl Listener for Accepting {
    fn local(&self) -> Endpoint {
        self.local.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, _peer) = self.listener.accept().await?;
            connection(stream)
        })
    }
}

struct Incoming(OwnedReadHalf);

impl ByteReader for Incoming {
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(async move {
            if into.capacity() == into.len() {
                into.reserve(READ_RESERVE_BYTES);
            }
            self.0.read_buf(into).await
        })
    }
}

struct Outgoing(OwnedWriteHalf);

impl ByteWriter for Outgoing {
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut rest = Rest::new(&chunks);
            while !rest.is_empty() {
                let mut slices = [IoSlice::new(&[]); CHUNKS_MAX];
                let filled = rest.fill(&mut slices);
                let written = self.0.write_vectored(&slices[..filled]).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                rest.advance(written);
            }
            Ok(())
        })
    }

    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.0.shutdown().await })
    }
}

/// What of a list of chunks is still to be written.
pub(crate) struct Rest<'a> {
    chunks: &'a [Bytes],
    /// Bytes of the first chunk that are done.
    done: usize,
}

impl<'a> Rest<'a> {
    /// All of `chunks`.
    pub(crate) fn new(chunks: &'a [Bytes]) -> Self {
        let mut rest = Self { chunks, done: 0 };
        rest.advance(0);
        rest
    }

    /// Nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Points `slices` at what comes next; says how many were filled.
    pub(crate) fn fill(&self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.done;
        let count = self.chunks.len().min(slices.len());
        for (slice, chunk) in slices.iter_mut().zip(self.chunks) {
            *slice = IoSlice::new(&chunk[skip..]);
            skip = 0;
        }
        count
    }

    /// `written` bytes more are done.
    pub(crate) fn advance(&mut self, mut written: usize) {
        while let [first, others @ ..] = self.chunks {
            let left = first.len() - self.done;
            if written < left {
                self.done += written;
                return;
            }
            written -= left;
            self.chunks = others;
            self.done = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_starts_where_the_last_write_ended() {
        let chunks =
            [Bytes::new(), Bytes::from("ab"), Bytes::new(), Bytes::from("cde"), Bytes::new()];
        let mut rest = Rest::new(&chunks);
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2];
            let filled = rest.fill(&mut slices);
            let next = slices[..filled].iter().find(|slice| !slice.is_empty()).unwrap();
            seen.push(next[0]);
            rest.advance(1);
        }
        assert_eq!(seen, b"abcde");
    }
}
