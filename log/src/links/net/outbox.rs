//! The outgoing direction: messages are put in order by whoever has one, and one task writes all that wait at once.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use thalweg_actor::network::ByteWriter;
use thalweg_wire::ledger::{ContentSums, Message, Outgoing};
use tokio::sync::Notify;

/// What waits for one connection.
pub(super) struct Outbox {
    state: Mutex<State>,
    news: Notify,
    room: Notify,
    ended: Notify,
    /// Bytes that may wait; beyond it the connection is closed.
    bytes_max: usize,
    /// So many bytes may wait when something large is put behind them.
    bytes_calm: usize,
}

#[derive(Default)]
struct State {
    out: Outgoing,
    /// Bytes handed to the network and not yet taken by it.
    writing: usize,
    closed: bool,
    overflowed: bool,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        let (news, room, ended) = (Notify::new(), Notify::new(), Notify::new());
        Self { state: Mutex::default(), news, room, ended, bytes_max, bytes_calm: bytes_max / 8 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `message` behind the others, with the checksums of its content if they are known. It leaves when
    /// [`Outbox::flush`] is called, or earlier.
    pub(super) fn push(&self, message: Message, sums: Option<ContentSums>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let pushed = match sums {
            Some(sums) => state.out.push_summed(message, sums),
            None => state.out.push(message),
        };
        if let Err(error) = pushed {
            // Whoever makes entries keeps to the limit.
            tracing::error!(%error, "a message cannot be sent");
            state.closed = true;
            self.ended.notify_one();
        }
        if state.out.bytes() + state.writing > self.bytes_max {
            state.closed = true;
            state.overflowed = true;
            state.out = Outgoing::default();
            self.ended.notify_one();
        }
    }

    /// Lets go what waits.
    pub(super) fn flush(&self) {
        self.news.notify_one();
    }

    /// Nothing more is sent.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ended.notify_one();
        self.news.notify_one();
        self.room.notify_waiters();
    }

    /// Completes, once, when nothing is sent any more.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// True if the peer took too little for too long.
    pub(super) fn overflowed(&self) -> bool {
        self.lock().overflowed
    }

    /// Completes when little waits, or nothing is sent any more.
    pub(super) async fn room(&self) {
        loop {
            let more = self.room.notified();
            {
                let state = self.lock();
                if state.closed || state.out.bytes() + state.writing <= self.bytes_calm {
                    return;
                }
            }
            more.await;
        }
    }

    /// Writes what comes until the outbox is closed or the connection fails; nothing is sent afterwards.
    pub(super) async fn drain(&self, writer: &mut dyn ByteWriter) -> io::Result<()> {
        loop {
            let chunks = {
                let mut state = self.lock();
                if state.closed {
                    return Ok(());
                }
                state.writing = state.out.bytes();
                state.out.take()
            };
            if chunks.is_empty() {
                self.news.notified().await;
                continue;
            }
            let written = writer.write(chunks).await;
            self.lock().writing = 0;
            self.room.notify_waiters();
            if written.is_err() {
                self.close();
                return written;
            }
        }
    }
}
