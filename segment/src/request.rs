//! What a connection hands to a container, and how answers come back.
//!
//! A request is sequenced by the one container that holds its segment. Answers go straight to the connection's queue;
//! the container releases one only when it is a committed fact. Answers to one writer keep the order of its appends.
//!
//! Two amounts are bounded here: bytes of appends and table updates that have not been answered ([`Replies::charge`]),
//! and bytes queued towards a client that does not read ([`Replies::is_overrun`]).
//!
//! Not here: how a connection assembles blocks (the connection handler), what a request means (the container).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use thalweg_types::id::WriterId;
use thalweg_types::limits::{CONNECTION_IN_FLIGHT_BYTES_MAX, OUTPUT_BYTES_MAX};
use thalweg_types::name::SegmentName;
use thalweg_wire::segment::{Command, Payload};
use tokio::sync::{Notify, Semaphore, mpsc};

/// One client connection, or one caller inside this process. Never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One thing that a connection wants of a container. Requests of one connection are sequenced in the order in which
/// they were submitted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub connection: ConnectionId,
    /// Where answers go.
    pub replies: Replies,
    /// What is asked.
    pub what: What,
}

/// The kinds of request.
#[derive(Clone, Debug)]
pub enum What {
    /// Every request of the protocol but appends, `Hello` and `KeepAlive`, as it was decoded. Answered by exactly one
    /// [`Outgoing::Reply`], or by [`Outgoing::Close`].
    Command(Command),
    /// A whole append. Answered, alone or together with later ones, by `DataAppended`; or refused.
    Append(Append),
    /// The connection has ended: its writers, held reads and large events go with it. Nothing of it follows.
    ConnectionClosed,
}

impl What {
    /// Bytes to be stored, which count as under way until the container settles them: bounded per connection and per
    /// container.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.data.len(),
            Self::Command(command @ Command::UpdateTableEntries(_)) => command.body_bytes(),
            Self::Command(_) | Self::ConnectionClosed => 0,
        }
    }
}

/// One block of events, or of raw bytes: stored as one, or not at all. The container refuses it if `writer` was not
/// set up for `segment` on this connection.
#[derive(Clone, Debug)]
pub struct Append {
    /// The segment of the connection's last `SetupAppend` for this writer.
    pub segment: SegmentName,
    /// The writer.
    pub writer: WriterId,
    /// The number of its last event, at least 0.
    pub event_number: i64,
    /// How many events it holds, at least 1; nothing checks it against the data.
    pub event_count: u32,
    /// The length that the segment must have, in bytes; `None` for any.
    pub expected_offset: Option<i64>,
    /// Echoed in the answer.
    pub request_id: i64,
    /// The bytes, verbatim, already charged with [`Replies::charge`].
    pub data: Payload,
}

/// What a connection does next towards its client.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// Send this.
    Reply(Command),
    /// Send what was queued before, then close. Nothing queued later matters.
    Close(Arc<str>),
}

#[derive(Debug)]
struct Account {
    /// Bytes of appends that may still come in.
    appends: Semaphore,
    queued_bytes: AtomicUsize,
    overrun: AtomicBool,
    overrun_notice: Notify,
}

/// The container's end of a connection's answer queue. Cheap to clone; sending never waits.
#[derive(Clone, Debug)]
pub struct Replies {
    queue: mpsc::UnboundedSender<Outgoing>,
    account: Arc<Account>,
}

/// The connection's end of its answer queue.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::UnboundedReceiver<Outgoing>,
    account: Arc<Account>,
}

/// What an answer costs in the queue besides its frame.
const OUTGOING_OVERHEAD_BYTES: usize = 64;

fn cost(outgoing: &Outgoing) -> usize {
    OUTGOING_OVERHEAD_BYTES
        + match outgoing {
            Outgoing::Reply(command) => command.frame_bytes(),
            Outgoing::Close(_) => 0,
        }
}

/// A new answer queue, empty.
pub fn replies() -> (Replies, Outbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let account = Arc::new(Account {
        appends: Semaphore::new(CONNECTION_IN_FLIGHT_BYTES_MAX),
        queued_bytes: AtomicUsize::new(0),
        overrun: AtomicBool::new(false),
        overrun_notice: Notify::new(),
    });
    let replies = Replies { queue: sender, account: Arc::clone(&account) };
    (replies, Outbox { queue: receiver, account })
}

impl Replies {
    /// Queues an answer. Dropped if the connection has ended, or does not read and is about to be closed.
    pub fn send(&self, reply: impl Into<Command>) {
        self.put(Outgoing::Reply(reply.into()));
    }

    /// Ends the connection behind what has been queued.
    pub fn close(&self, reason: impl Into<Arc<str>>) {
        self.put(Outgoing::Close(reason.into()));
    }

    fn put(&self, outgoing: Outgoing) {
        let bytes = cost(&outgoing);
        let before = self.account.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > OUTPUT_BYTES_MAX && before > 0 {
            self.account.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.account.overrun.store(true, Ordering::Release);
            self.account.overrun_notice.notify_one();
            return;
        }
        // The connection has ended when this fails: nobody is left who could want the answer.
        let _ = self.queue.send(outgoing);
    }

    /// Waits until `bytes` of appends more may be under way, and counts them. To be called by the connection before it
    /// submits an append: while it waits the socket is not read.
    pub async fn charge(&self, bytes: usize) {
        // The semaphore is never closed.
        if let Ok(permit) = self.account.appends.acquire_many(permits(bytes)).await {
            permit.forget();
        }
    }

    /// `bytes` of appends have been answered. Called by the container.
    pub fn refund(&self, bytes: usize) {
        self.account.appends.add_permits(permits(bytes) as usize);
    }

    /// True once answers were dropped because the client does not read: the connection must be closed.
    pub fn is_overrun(&self) -> bool {
        self.account.overrun.load(Ordering::Acquire)
    }

    /// True once the connection has dropped its [`Outbox`].
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// True if both lead to one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.account, &other.account)
    }
}

/// One append never waits for more than the whole allowance.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(CONNECTION_IN_FLIGHT_BYTES_MAX)).expect("the allowance fits 32 bits")
}

impl Outbox {
    /// The next answer; `None` when nobody is left who could answer. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.recv().await;
        self.count(outgoing)
    }

    /// The next answer if there is one now.
    pub fn try_next(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.try_recv().ok();
        self.count(outgoing)
    }

    /// Completes when answers were dropped because too much is queued: the connection must be closed even if a write
    /// to its client is under way.
    pub async fn overrun(&self) {
        while !self.account.overrun.load(Ordering::Acquire) {
            self.account.overrun_notice.notified().await;
        }
    }

    fn count(&self, outgoing: Option<Outgoing>) -> Option<Outgoing> {
        if let Some(outgoing) = &outgoing {
            self.account.queued_bytes.fetch_sub(cost(outgoing), Ordering::Relaxed);
        }
        outgoing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use thalweg_wire::segment::{KeepAlive, SegmentRead};

    fn now<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn answers_come_in_order_and_close_comes_behind_them() {
        let (replies, mut outbox) = replies();
        replies.send(KeepAlive {});
        replies.close("enough");
        assert!(matches!(outbox.try_next(), Some(Outgoing::Reply(Command::KeepAlive(_)))));
        assert!(matches!(outbox.try_next(), Some(Outgoing::Close(_))));
        assert!(outbox.try_next().is_none());
    }

    #[test]
    fn appends_wait_for_room_and_go_on_when_others_are_answered() {
        let (replies, _outbox) = replies();
        assert!(now(replies.charge(CONNECTION_IN_FLIGHT_BYTES_MAX)).is_ready());
        assert!(now(replies.charge(1)).is_pending());
        replies.refund(1);
        assert!(now(replies.charge(1)).is_ready());
    }

    #[test]
    fn a_client_that_does_not_read_is_noticed_at_the_limit() {
        let (replies, mut outbox) = replies();
        let read = SegmentRead {
            segment: SegmentName::from("s/t/0.#epoch.0"),
            offset: 0,
            at_tail: false,
            end_of_segment: false,
            data: bytes::Bytes::from(vec![0; OUTPUT_BYTES_MAX / 4]).into(),
            request_id: 1,
        };
        for _ in 0..3 {
            replies.send(read.clone());
        }
        assert!(!replies.is_overrun() && now(outbox.overrun()).is_pending());
        replies.send(read.clone());
        assert!(replies.is_overrun() && now(outbox.overrun()).is_ready());
        let queued = std::iter::from_fn(|| outbox.try_next()).count();
        assert_eq!(queued, 3, "what was dropped is not queued");
    }
}
