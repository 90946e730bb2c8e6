//! A connection on which many requests wait for their answers at once, each found by its number.
//!
//! Two tasks serve it: one writes, one reads. When either ends, every waiting request learns that its outcome is
//! unknown, and every later one that it was not sent.

use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thalweg_actor::env::Env;
use thalweg_actor::network::{ByteReader, ByteWriter, Connection, Endpoint};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;

/// Bytes that a read has room for.
const READ_BYTES: usize = 64 * 1024;
/// Requests written at once.
const BATCH_MAX: usize = 64;

/// A reply, and the number of its request if it answers one.
pub(crate) type Numbered<R> = (Option<u64>, R);

/// How requests and replies of one protocol become bytes.
pub(crate) trait Protocol: Send + Sync + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What is answered.
    type Reply: Send + 'static;

    /// What the side that connects says first.
    fn greeting() -> Option<Bytes>;

    /// Request `number` as bytes.
    fn encode(number: u64, request: Self::Request) -> Result<Vec<Bytes>, String>;

    /// Takes the next whole reply out of `stream`. `None`: more bytes are needed. An error ends the connection.
    fn decode(stream: &mut BytesMut) -> Result<Option<Numbered<Self::Reply>>, String>;
}

/// Why a request has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// It was never sent: nothing happened.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The connection ended before the answer: it may have happened.
    #[error("connection lost before the answer")]
    Lost,
}

/// Requests that wait for their answers, by number.
struct Waiting<R> {
    last: u64,
    answers: BTreeMap<u64, oneshot::Sender<R>>,
}

struct Shared<P: Protocol> {
    /// `None`: the connection has ended.
    waiting: Mutex<Option<Waiting<P::Reply>>>,
    ended: Notify,
}

impl<P: Protocol> Shared<P> {
    /// Ends the connection: whoever waits is woken without an answer.
    fn end(&self) {
        self.lock().take();
        self.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting<P::Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's near end. The connection ends with its last handle.
pub(crate) struct Link<P: Protocol> {
    requests: mpsc::UnboundedSender<Vec<Bytes>>,
    shared: Arc<Shared<P>>,
}

impl<P: Protocol> Clone for Link<P> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone(), shared: Arc::clone(&self.shared) }
    }
}

/// An answer to come.
pub(crate) struct Answer<R>(oneshot::Receiver<R>);

impl<R> Answer<R> {
    /// Waits for it.
    pub(crate) async fn wait(self) -> Result<R, LinkError> {
        self.0.await.map_err(|_| LinkError::Lost)
    }
}

impl<P: Protocol> Link<P> {
    /// Connects to `endpoint`.
    pub(crate) async fn connect(
        env: &Env,
        config: &Config,
        endpoint: &Endpoint,
    ) -> io::Result<Self> {
        let connection = connect(env, config, endpoint).await?;
        let Connection { reader, mut writer, .. } = connection;
        if let Some(greeting) = P::greeting() {
            writer.write(vec![greeting]).await?;
        }
        let (requests, receiver) = mpsc::unbounded_channel();
        let waiting = Mutex::new(Some(Waiting { last: 0, answers: BTreeMap::new() }));
        let shared = Arc::new(Shared { waiting, ended: Notify::new() });
        let reading =
            env.spawn.spawn("client link reader", Box::pin(read::<P>(reader, Arc::clone(&shared))));
        let serving = Arc::clone(&shared);
        let _task = env.spawn.spawn(
            "client link writer",
            Box::pin(async move {
                write::<P>(writer, receiver, &serving).await;
                serving.end();
                reading.abort();
            }),
        );
        Ok(Self { requests, shared })
    }

    /// Sends `request`. Never waits.
    pub(crate) fn send(&self, request: P::Request) -> Result<Answer<P::Reply>, LinkError> {
        let over = || LinkError::NotSent("the connection has ended".to_owned());
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.shared.lock();
        let waiting = waiting.as_mut().ok_or_else(over)?;
        let number = waiting.last + 1;
        let bytes = P::encode(number, request).map_err(LinkError::NotSent)?;
        // Because: under the lock, so that requests leave in the order of their numbers.
        self.requests.send(bytes).map_err(|_| over())?;
        waiting.last = number;
        waiting.answers.insert(number, sender);
        Ok(Answer(receiver))
    }

    /// True when no request can be answered any more.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.lock().is_none()
    }

    /// Gives the connection up.
    pub(crate) fn end(&self) {
        self.shared.end();
    }
}

/// Connects, or fails when the configured time is over.
pub(crate) async fn connect(
    env: &Env,
    config: &Config,
    endpoint: &Endpoint,
) -> io::Result<Connection> {
    within(env, config.connect_timeout, env.network.connect(endpoint))
        .await
        .unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::TimedOut, "connect timed out")))
}

/// What `future` gives, `None` if that takes longer than `limit`.
pub(crate) async fn within<T>(
    env: &Env,
    limit: std::time::Duration,
    future: impl Future<Output = T> + Send,
) -> Option<T> {
    let deadline = env.clock.now().after(limit);
    tokio::select! {
        biased;
        value = future => Some(value),
        () = env.clock.sleep_until(deadline) => None,
    }
}

async fn write<P: Protocol>(
    mut writer: Box<dyn ByteWriter>,
    mut requests: mpsc::UnboundedReceiver<Vec<Bytes>>,
    shared: &Shared<P>,
) {
    let mut batch = Vec::new();
    loop {
        let taken = tokio::select! {
            biased;
            () = shared.ended.notified() => return,
            taken = requests.recv_many(&mut batch, BATCH_MAX) => taken,
        };
        if taken == 0 || writer.write(batch.drain(..).flatten().collect()).await.is_err() {
            return;
        }
    }
}

async fn read<P: Protocol>(mut reader: Box<dyn ByteReader>, shared: Arc<Shared<P>>) {
    let mut stream = BytesMut::with_capacity(READ_BYTES);
    'connection: loop {
        stream.reserve(READ_BYTES);
        if !matches!(reader.read(&mut stream).await, Ok(1..)) {
            break;
        }
        loop {
            match P::decode(&mut stream) {
                Ok(Some((Some(number), reply))) => {
                    let answer = match shared.lock().as_mut() {
                        Some(waiting) => waiting.answers.remove(&number),
                        None => return,
                    };
                    if let Some(answer) = answer {
                        // Because: whoever asked may have stopped waiting.
                        let _nobody_waits = answer.send(reply);
                    }
                }
                Ok(Some((None, _))) => {}
                Ok(None) => break,
                Err(reason) => {
                    tracing::warn!(%reason, "connection ended: the peer broke the protocol");
                    break 'connection;
                }
            }
        }
    }
    shared.end();
}
