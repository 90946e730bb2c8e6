//! One connection to the segment store, without a client in between: what the native client never does is done here.

use super::site;
use crate::world::executor;
use bytes::BytesMut;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection};
use thalweg_wire::segment::{Command, Encoder, Hello, VERSION_HIGH, VERSION_LOW, frame};

/// Longest wait for a connection, and for a reply that is not held on purpose.
const WAIT_MAX: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 64 << 10;

/// A connection. After a `None` or a false it is of no further use.
pub(super) struct Wire {
    reader: Box<dyn ByteReader>,
    writer: Box<dyn ByteWriter>,
    arrived: BytesMut,
}

impl Wire {
    /// Connects and says hello.
    pub(super) async fn open(env: &Env) -> Option<Self> {
        let at = site::segments();
        let connection = executor::timeout(WAIT_MAX, env.network.connect(&at)).await?.ok()?;
        let Connection { reader, writer, .. } = connection;
        let mut wire = Self { reader, writer, arrived: BytesMut::new() };
        let hello = Hello { high: VERSION_HIGH, low: VERSION_LOW };
        wire.send([hello.into()]).await.then_some(wire)
    }

    /// Sends commands, one behind the other.
    pub(super) async fn send(&mut self, commands: impl IntoIterator<Item = Command>) -> bool {
        let mut encoder = Encoder::new();
        for command in commands {
            encoder.push(&command);
        }
        let sent = executor::timeout(WAIT_MAX, self.writer.write(encoder.take())).await;
        matches!(sent, Some(Ok(())))
    }

    /// The next reply.
    pub(super) async fn next(&mut self) -> Option<Command> {
        executor::timeout(WAIT_MAX, self.receive()).await?
    }

    async fn receive(&mut self) -> Option<Command> {
        loop {
            while let Some(frame) = frame::next(&mut self.arrived).ok()? {
                match Command::decode(frame).ok()? {
                    Command::Hello(_) | Command::KeepAlive(_) => {}
                    reply => return Some(reply),
                }
            }
            self.arrived.reserve(READ_BYTES);
            if self.reader.read(&mut self.arrived).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends one command and waits for its reply.
    pub(super) async fn ask(&mut self, command: impl Into<Command>) -> Option<Command> {
        if !self.send([command.into()]).await {
            return None;
        }
        self.next().await
    }
}

/// Asks on a connection of its own until there is a reply.
pub(super) async fn insist<C: Into<Command> + Clone>(env: &Env, command: C) -> Command {
    loop {
        if let Some(mut wire) = Wire::open(env).await
            && let Some(reply) = wire.ask(command.clone()).await
        {
            return reply;
        }
        executor::sleep(Duration::from_millis(20)).await;
    }
}
