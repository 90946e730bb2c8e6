//! The network seam: ordered byte streams.

use crate::BoxFuture;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io;
use std::sync::Arc;

/// `host:port`. Port 0 asks `listen` for a free one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(pub Arc<str>);

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes and accepts connections.
pub trait Network: Send + Sync {
    /// Accepts connections at `at`. `AddrInUse` if somebody else does.
    fn listen<'a>(&'a self, at: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// Connects to `to`. May hang as long as the network does; callers bound it with the clock.
    fn connect<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Connection>>;
}

/// A listening socket. Dropping it stops listening.
pub trait Listener: Send {
    /// Where it listens, the port filled in.
    fn local(&self) -> Endpoint;

    /// The next connection. An error concerns one attempt (too many open files, a reset before the accept): callers
    /// wait a little and go on.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;
}

/// One connection, both directions. Dropping a half closes that direction; dropping the writer without `shutdown`
/// may lose what was not yet delivered.
pub struct Connection {
    /// From the peer.
    pub reader: Box<dyn ByteReader>,
    /// To the peer.
    pub writer: Box<dyn ByteWriter>,
    /// The peer, for messages to people.
    pub peer: Endpoint,
}

/// The incoming direction.
pub trait ByteReader: Send {
    /// Appends what has arrived, at least one byte, to `into` and says how many; 0 means that the peer has shut its
    /// direction down. MUST NOT exceed the spare capacity of `into` unless that is zero, so that callers bound memory.
    /// Dropping the future loses nothing.
    fn read<'a>(&'a mut self, into: &'a mut BytesMut) -> BoxFuture<'a, io::Result<usize>>;
}

/// The outgoing direction.
pub trait ByteWriter: Send {
    /// Hands `chunks` to the network, one behind the other, waiting while the peer's window is full. An error, or
    /// dropping the future, leaves an unknown prefix sent: the connection is then of no further use.
    fn write(&mut self, chunks: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;

    /// Delivers what was written, then tells the peer that nothing more comes.
    fn shutdown(&mut self) -> BoxFuture<'_, io::Result<()>>;
}
