//! Writes events to a stream, each exactly once, in order for each routing key.
//!
//! What is promised: an event whose receipt says `Ok` is durable; it stands in the stream once, behind every earlier
//! event of the same writer and routing key, whatever connections failed and however the stream was scaled
//! meanwhile. An event whose receipt is an error is not in the stream, unless the error says that it may be. A
//! writer that is dropped leaves events without a receipt in doubt: call [`EventWriter::flush`] first.
//!
//! Not here: what is decided (the machine), transactions.

mod connection;
mod large;
pub mod machine;
mod shell;

use crate::config::{EVENT_BYTES_MAX, LARGE_EVENT_BYTES_MAX};
use crate::store::Stores;
use bytes::Bytes;
use machine::{Content, Failure};
use rand_core::RngCore as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use thalweg_types::hash;
use thalweg_types::name::ScopedStream;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::event::EVENT_HEADER_BYTES;
use shell::Mail;

/// Why an event is not stored, or may not be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// The stream is sealed: not stored.
    #[error("stream {stream} is sealed")]
    Sealed {
        /// The stream.
        stream: ScopedStream,
    },
    /// There is no such stream: not stored.
    #[error("there is no stream {stream}")]
    NoSuchStream {
        /// The stream.
        stream: ScopedStream,
    },
    /// The event is too large: not stored.
    #[error("event of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// The limit, that of an event or of a block of events.
        limit: usize,
    },
    /// The writer, or the stream, went away before the answer: stored or not.
    #[error("the outcome of a write to stream {stream} is unknown")]
    Unknown {
        /// The stream.
        stream: ScopedStream,
    },
}

impl WriteError {
    /// True if the event is certainly not stored.
    pub fn is_refused(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }

    pub(crate) fn of(failure: Failure, stream: &ScopedStream) -> Self {
        let stream = stream.clone();
        match failure {
            Failure::Sealed => Self::Sealed { stream },
            Failure::NoSuchStream => Self::NoSuchStream { stream },
            Failure::Unknown => Self::Unknown { stream },
        }
    }
}

/// The outcome of a write, to come. Dropping it does not take the event back.
#[derive(Debug)]
pub struct Receipt {
    outcome: oneshot::Receiver<Result<(), WriteError>>,
    stream: ScopedStream,
}

impl Future for Receipt {
    type Output = Result<(), WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| {
            outcome.unwrap_or_else(|_| Err(WriteError::Unknown { stream: self.stream.clone() }))
        })
    }
}

/// How much may be unacknowledged.
#[derive(Debug)]
struct Window {
    events: Semaphore,
    bytes: Semaphore,
    events_max: u32,
    bytes_max: u32,
}

impl Window {
    /// Waits for room. What exceeds the whole window waits until it is alone.
    async fn enter(&self, events: u32, bytes: u32) {
        let events = self.events.acquire_many(events.min(self.events_max)).await;
        let bytes = self.bytes.acquire_many(bytes.min(self.bytes_max)).await;
        for permit in [events, bytes] {
            permit.expect("the window is never closed").forget();
        }
    }

    fn leave(&self, events: u32, bytes: u32) {
        self.events.add_permits(events.min(self.events_max) as usize);
        self.bytes.add_permits(bytes.min(self.bytes_max) as usize);
    }
}

/// Writes to one stream. Methods take `&self`: events go in the order of the calls.
pub struct EventWriter {
    mail: mpsc::UnboundedSender<Mail>,
    window: Arc<Window>,
    stores: Stores,
    stream: ScopedStream,
    /// Held while a large event is on its way: nothing overtakes it.
    gate: tokio::sync::RwLock<()>,
    /// Where events without a routing key go: over the whole key space in turn.
    scatter: std::sync::Mutex<rand_pcg::Pcg64Mcg>,
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        // Because: the shell may have ended already, with the executor.
        let _ended = self.mail.send(Mail::Close);
    }
}

impl EventWriter {
    /// A writer to `stream`. Does not wait: a stream that does not exist shows in the receipts.
    pub(crate) fn open(stores: Stores, stream: ScopedStream) -> Self {
        let config = stores.config().clone();
        let (mail, inbox) = mpsc::unbounded_channel();
        let window = Arc::new(Window {
            events: Semaphore::new(config.window_events as usize),
            bytes: Semaphore::new(config.window_bytes as usize),
            events_max: config.window_events,
            bytes_max: config.window_bytes,
        });
        let scatter = std::sync::Mutex::new(stores.env().entropy.stream("event scatter"));
        let env = stores.env().clone();
        let shell =
            shell::Shell::new(stores.clone(), stream.clone(), mail.clone(), Arc::clone(&window));
        let _task = env.spawn.spawn("event writer", Box::pin(shell.run(inbox)));
        Self { mail, window, stores, stream, gate: tokio::sync::RwLock::new(()), scatter }
    }

    /// Writes `event` behind all earlier events with that routing key. Waits only while the window is full, or for an
    /// event over [`EVENT_BYTES_MAX`] to be durable; the receipt says when this one is.
    pub async fn write(&self, routing_key: &str, event: Bytes) -> Result<Receipt, WriteError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(hash::route(routing_key), event, Some(sender)).await?;
        Ok(Receipt { outcome: receiver, stream: self.stream.clone() })
    }

    /// Writes `event` like [`write`](Self::write), but only [`flush`](Self::flush) tells how it ended.
    pub async fn send(&self, routing_key: &str, event: Bytes) -> Result<(), WriteError> {
        self.submit(hash::route(routing_key), event, None).await
    }

    /// Writes `event` anywhere in the stream, in no order with others.
    pub async fn send_unkeyed(&self, event: Bytes) -> Result<(), WriteError> {
        let hash = {
            let scatter = self.scatter.lock();
            hash::unit(scatter.unwrap_or_else(std::sync::PoisonError::into_inner).next_u64())
        };
        self.submit(hash, event, None).await
    }

    async fn submit(
        &self,
        hash: f64,
        event: Bytes,
        done: Option<oneshot::Sender<Result<(), WriteError>>>,
    ) -> Result<(), WriteError> {
        if event.len() > EVENT_BYTES_MAX {
            return self.submit_large(hash, &event, done).await;
        }
        let _no_large_event = self.gate.read().await;
        let bytes = window_bytes(EVENT_HEADER_BYTES + event.len());
        self.window.enter(1, bytes).await;
        self.post(Mail::Append { hash, content: Content::Event(event), bytes, events: 1, done })
    }

    async fn submit_large(
        &self,
        hash: f64,
        event: &Bytes,
        done: Option<oneshot::Sender<Result<(), WriteError>>>,
    ) -> Result<(), WriteError> {
        let (bytes, limit) = (event.len(), LARGE_EVENT_BYTES_MAX);
        if bytes > limit {
            return Err(WriteError::TooLarge { bytes, limit });
        }
        let _alone = self.gate.write().await;
        self.flush().await?;
        large::write(&self.stores, &self.stream, hash, event).await?;
        if let Some(done) = done {
            // Because: the receipt cannot have been dropped yet, the caller holds its other half.
            let _received = done.send(Ok(()));
        }
        Ok(())
    }

    /// Writes `events` events that `data` holds with their headers, all with the routing key, in one append.
    /// The cost does not depend on the number of events.
    pub async fn write_block(
        &self,
        routing_key: &str,
        data: Bytes,
        events: u32,
    ) -> Result<Receipt, WriteError> {
        if data.len() > EVENT_BYTES_MAX + EVENT_HEADER_BYTES {
            let limit = EVENT_BYTES_MAX + EVENT_HEADER_BYTES;
            return Err(WriteError::TooLarge { bytes: data.len(), limit });
        }
        let _no_large_event = self.gate.read().await;
        let bytes = window_bytes(data.len());
        self.window.enter(events, bytes).await;
        let (sender, receiver) = oneshot::channel();
        let content = Content::Block { data, events };
        let hash = hash::route(routing_key);
        self.post(Mail::Append { hash, content, bytes, events, done: Some(sender) })?;
        Ok(Receipt { outcome: receiver, stream: self.stream.clone() })
    }

    /// Waits until everything written so far is durable. The first failure among it since the last call is returned.
    pub async fn flush(&self) -> Result<(), WriteError> {
        let (sender, receiver) = oneshot::channel();
        self.post(Mail::Flush(sender))?;
        receiver.await.unwrap_or_else(|_| Err(self.unknown()))
    }

    fn post(&self, mail: Mail) -> Result<(), WriteError> {
        self.mail.send(mail).map_err(|_| self.unknown())
    }

    fn unknown(&self) -> WriteError {
        WriteError::Unknown { stream: self.stream.clone() }
    }
}

fn window_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
