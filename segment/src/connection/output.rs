//! The outgoing direction: answers are written in batches, one vectored write each.

use crate::request::{Outbox, Outgoing};
use std::sync::Arc;
use thalweg_actor::network::ByteWriter;
use thalweg_actor::probe;
use thalweg_wire::segment::Encoder;
use tokio::select;

/// A batch takes no further answer from here on, in bytes.
const BATCH_BYTES: usize = 1024 * 1024;

/// How the outgoing direction ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything was sent, and nobody is left who could answer.
    All,
    /// Everything was sent up to where somebody closed the connection.
    Closed(Arc<str>),
    /// The peer is gone, or never reads.
    Gone,
}

/// Writes answers until the connection is closed, the peer is gone, or nobody is left who could answer.
pub(super) async fn write(mut outbox: Outbox, mut writer: Box<dyn ByteWriter>) -> Written {
    let mut batch = Encoder::new();
    let mut end = None;
    while end.is_none() {
        let mut next = outbox.next().await;
        loop {
            match next {
                None => end = Some(Written::All),
                Some(Outgoing::Close(reason)) => end = Some(Written::Closed(reason)),
                Some(Outgoing::Reply(command)) => batch.push(&command),
            }
            if end.is_some() || batch.bytes() >= BATCH_BYTES {
                break;
            }
            next = match outbox.try_next() {
                None => break,
                some => some,
            };
        }
        if batch.is_empty() {
            continue;
        }
        let sent = select! {
            biased;
            sent = writer.write(batch.take()) => sent,
            () = outbox.overrun() => {
                probe!("connection: answers overrun");
                return Written::Closed("its client does not read its answers".into());
            }
        };
        if sent.is_err() {
            return Written::Gone;
        }
    }
    // The peer may be gone by now: there is nobody to tell.
    let _ = writer.shutdown().await;
    end.unwrap_or(Written::All)
}
