//! A connection that appends travel on: commands out in order, replies in order back to the writer's shell.

use super::machine::{ConnectionId, Input, Outgoing, Reply};
use super::shell::Mail;
use crate::link::connect;
use crate::store::{Stores, hello, next_command};
use bytes::{Bytes, BytesMut};
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint};
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;
use thalweg_wire::segment::{AppendBlockEnd, Command, Encoder, KeepAlive, SetupAppend};
use tokio::sync::mpsc;

/// Bytes that a read has room for: acknowledgements are small.
const READ_BYTES: usize = 16 * 1024;
/// Commands written at once.
const BATCH_MAX: usize = 64;

/// The near end: dropping it ends the connection.
pub(super) type Out = mpsc::UnboundedSender<Outgoing>;

/// Connects in the background. The outcome comes as mail, and so do replies and the connection's end.
pub(super) fn open(
    stores: &Stores,
    stream: &ScopedStream,
    connection: ConnectionId,
    endpoint: Endpoint,
    mail: mpsc::UnboundedSender<Mail>,
) -> Out {
    let (out, outgoing) = mpsc::unbounded_channel();
    let (stores, stream) = (stores.clone(), stream.clone());
    let _task = stores.env().clone().spawn.spawn(
        "event writer connection",
        Box::pin(async move {
            let end = Mail::Input(Input::Disconnected(connection));
            match connect(stores.env(), stores.config(), &endpoint).await {
                Ok(Connection { reader, writer, .. }) => {
                    let read = Box::pin(read(reader, connection, mail.clone()));
                    let reading = stores.env().spawn.spawn("event writer replies", read);
                    if mail.send(Mail::Input(Input::Connected(connection))).is_ok() {
                        write(writer, &stream, outgoing).await;
                    }
                    reading.abort();
                }
                Err(error) => tracing::debug!(%endpoint, %error, "segment store not reached"),
            }
            // Because: the shell may have ended first.
            let _ended = mail.send(end);
        }),
    );
    out
}

async fn write(
    mut writer: Box<dyn ByteWriter>,
    stream: &ScopedStream,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) {
    if writer.write(vec![hello()]).await.is_err() {
        return;
    }
    let (mut batch, mut encoder) = (Vec::new(), Encoder::new());
    while outgoing.recv_many(&mut batch, BATCH_MAX).await > 0 {
        for outgoing in batch.drain(..) {
            encoder.push(&command(stream, outgoing));
        }
        let chunks: Vec<Bytes> = encoder.take();
        if writer.write(chunks).await.is_err() {
            return;
        }
    }
}

fn command(stream: &ScopedStream, outgoing: Outgoing) -> Command {
    match outgoing {
        Outgoing::Setup { writer, segment } => SetupAppend {
            request_id: segment.0,
            writer_id: writer,
            segment: stream.segment(segment),
            token: String::new(),
        }
        .into(),
        Outgoing::Append { writer, segment, data, events, last } => AppendBlockEnd {
            writer_id: writer,
            size_of_whole_events: i32::try_from(data.len()).expect("blocks are bounded"),
            data,
            num_events: i32::try_from(events).unwrap_or(i32::MAX),
            last_event_number: last,
            request_id: segment.0,
        }
        .into(),
        Outgoing::KeepAlive => KeepAlive {}.into(),
    }
}

async fn read(
    mut reader: Box<dyn ByteReader>,
    connection: ConnectionId,
    mail: mpsc::UnboundedSender<Mail>,
) {
    let mut stream = BytesMut::with_capacity(READ_BYTES);
    'connection: loop {
        stream.reserve(READ_BYTES);
        if !matches!(reader.read(&mut stream).await, Ok(1..)) {
            break;
        }
        loop {
            let reply = match next_command(&mut stream) {
                Ok(Some(command)) => reply(&command),
                Ok(None) => break,
                Err(reason) => {
                    tracing::warn!(%reason, "connection ended: the server broke the protocol");
                    break 'connection;
                }
            };
            let Some(reply) = reply else { break 'connection };
            if mail.send(Mail::Input(Input::Received { connection, reply })).is_err() {
                return;
            }
        }
    }
    // Because: the shell may have ended first.
    let _ended = mail.send(Mail::Input(Input::Disconnected(connection)));
}

/// What a command means to the machine; `None` ends the connection. Requests carry the segment's id as theirs.
fn reply(command: &Command) -> Option<Reply> {
    Some(match command {
        Command::Hello(_) | Command::KeepAlive(_) => Reply::KeepAlive,
        Command::AppendSetup(c) => {
            Reply::Setup { segment: SegmentId(c.request_id), last: c.last_event_number }
        }
        Command::DataAppended(c) => {
            Reply::Appended { segment: SegmentId(c.request_id), number: c.event_number }
        }
        Command::SegmentIsSealed(c) => Reply::Sealed { segment: SegmentId(c.request_id) },
        Command::NoSuchSegment(c) => Reply::NoSuchSegment { segment: SegmentId(c.request_id) },
        Command::WrongHost(c) => Reply::WrongHost { segment: SegmentId(c.request_id) },
        other => {
            tracing::warn!(reply = other.name(), "append refused, connection given up");
            return None;
        }
    })
}
