//! The event writer's shell: mail in, the machine's effects out.

use super::connection::{self, Out};
use super::machine::{
    ConnectionId, Content, Effect, Input, Segments, StreamWriter, Succession, Target,
};
use super::{Window, WriteError};
use crate::controller::{CallError, unexpected};
use crate::store::{Stores, stream_name};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use thalweg_actor::BoxFuture;
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{SegmentId, WriterId};
use thalweg_types::name::ScopedStream;
use thalweg_types::stream::KeyRange;
use thalweg_types::time::Instant;
use thalweg_wire::controller::{Code, Request, Response, SegmentRange};
use tokio::sync::{mpsc, oneshot};

/// Mails handled before the machine is pumped.
const BATCH_MAX: usize = 1024;

pub(super) type Done = oneshot::Sender<Result<(), WriteError>>;

/// What reaches the shell.
pub(super) enum Mail {
    /// The application writes.
    Append { hash: f64, content: Content, bytes: u32, events: u32, done: Option<Done> },
    /// The application wants to know when everything so far is done.
    Flush(Done),
    /// The application is gone.
    Close,
    /// Something came back.
    Input(Input),
}

/// A submission that is not done.
struct Pending {
    events: u32,
    bytes: u32,
    done: Option<Done>,
    over: bool,
}

pub(super) struct Shell {
    stores: Stores,
    stream: ScopedStream,
    mail: mpsc::UnboundedSender<Mail>,
    window: Arc<Window>,
    machine: StreamWriter,
    effects: Vec<Effect>,
    connections: BTreeMap<ConnectionId, Out>,
    /// Submissions from `first` on; done ones leave when they reach the front.
    pending: VecDeque<Pending>,
    first: u64,
    /// Flushes, each with the submission that it waits for.
    flushes: VecDeque<(u64, Done)>,
    failed: Option<WriteError>,
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
}

impl Shell {
    pub(super) fn new(
        stores: Stores,
        stream: ScopedStream,
        mail: mpsc::UnboundedSender<Mail>,
        window: Arc<Window>,
    ) -> Self {
        let mut effects = Vec::new();
        let machine = StreamWriter::new(stores.config().clone(), &mut effects);
        Self {
            stores,
            stream,
            mail,
            window,
            machine,
            effects,
            connections: BTreeMap::new(),
            pending: VecDeque::new(),
            first: 0,
            flushes: VecDeque::new(),
            failed: None,
            sleep: None,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Mail>) {
        let mut batch = Vec::new();
        self.perform();
        loop {
            if self.wait(&mut inbox, &mut batch).await == 0 {
                self.step(Input::Tick);
            }
            for mail in batch.drain(..) {
                match mail {
                    Mail::Append { hash, content, bytes, events, done } => {
                        let submission = self.first + self.pending.len() as u64;
                        self.pending.push_back(Pending { events, bytes, done, over: false });
                        self.step(Input::Append { submission, hash, content });
                    }
                    Mail::Flush(done) => {
                        let target = self.first + self.pending.len() as u64;
                        self.flushes.push_back((target, done));
                    }
                    Mail::Close => return,
                    Mail::Input(input) => self.step(input),
                }
            }
            self.step(Input::Pump);
            self.perform();
            self.settle();
        }
    }

    /// Waits for mail; 0 if the machine's deadline came first.
    async fn wait(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Mail>,
        batch: &mut Vec<Mail>,
    ) -> usize {
        let Some(deadline) = self.machine.deadline() else {
            return inbox.recv_many(batch, BATCH_MAX).await;
        };
        let clock = &self.stores.env().clock;
        if self.sleep.as_ref().is_none_or(|(at, _)| *at != deadline) {
            self.sleep = Some((deadline, clock.sleep_until(deadline)));
        }
        let Some((_, sleep)) = &mut self.sleep else { return 0 };
        tokio::select! {
            biased;
            count = inbox.recv_many(batch, BATCH_MAX) => count,
            () = sleep => {
                self.sleep = None;
                0
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.machine.step(self.stores.env().clock.now(), input, &mut self.effects);
        if cfg!(debug_assertions) {
            self.machine.check();
        }
    }

    fn perform(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::FetchSegments => self.ask(fetch_segments),
                Effect::Resolve(segment) => {
                    self.ask(move |stores, stream| resolve(stores, stream, segment));
                }
                Effect::FetchSuccessors(segment) => {
                    self.ask(move |stores, stream| fetch_successors(stores, stream, segment));
                }
                Effect::Connect { connection, endpoint } => {
                    let mail = self.mail.clone();
                    let out =
                        connection::open(&self.stores, &self.stream, connection, endpoint, mail);
                    self.connections.insert(connection, out);
                }
                Effect::Disconnect(connection) => {
                    self.connections.remove(&connection);
                }
                Effect::Send { connection, outgoing } => {
                    if let Some(out) = self.connections.get(&connection) {
                        // Because: a connection that has ended says so by mail.
                        let _ended = out.send(outgoing);
                    }
                }
                Effect::Acked(submissions) => self.finish(&submissions, &Ok(())),
                Effect::Failed { submissions, failure } => {
                    let error = WriteError::of(failure, &self.stream);
                    self.failed.get_or_insert(error.clone());
                    self.finish(&submissions, &Err(error));
                }
            }
        }
        self.effects = effects;
    }

    /// Runs `question` beside the shell; its answer comes as mail.
    fn ask<F>(&self, question: impl FnOnce(Stores, ScopedStream) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let mail = self.mail.clone();
        let answer = question(self.stores.clone(), self.stream.clone());
        let _task = self.stores.env().spawn.spawn(
            "event writer question",
            Box::pin(async move {
                // Because: the shell may have ended meanwhile.
                let _ended = mail.send(Mail::Input(answer.await));
            }),
        );
    }

    fn finish(&mut self, submissions: &[u64], outcome: &Result<(), WriteError>) {
        for submission in submissions {
            let Ok(at) = usize::try_from(submission - self.first) else { continue };
            let Some(pending) = self.pending.get_mut(at).filter(|p| !p.over) else { continue };
            pending.over = true;
            self.window.leave(pending.events, pending.bytes);
            if let Some(done) = pending.done.take() {
                // Because: the application may not be interested.
                let _nobody_waits = done.send(outcome.clone());
            }
        }
    }

    /// Lets what is done leave, and answers the flushes that waited for it.
    fn settle(&mut self) {
        while self.pending.pop_front_if(|pending| pending.over).is_some() {
            self.first += 1;
        }
        while self.flushes.front().is_some_and(|(target, _)| *target <= self.first) {
            let Some((_, done)) = self.flushes.pop_front() else { return };
            let _nobody_waits = done.send(self.failed.take().map_or(Ok(()), Err));
        }
    }
}

/// Writer ids are drawn here: a machine makes no random numbers.
fn targets(stores: &Stores, ranges: Vec<SegmentRange>) -> Vec<Target> {
    let target = |range: SegmentRange| Target {
        id: range.segment,
        range: KeyRange { low: range.low, high: range.high },
        writer: WriterId(stores.env().entropy.draw()),
    };
    ranges.into_iter().map(target).collect()
}

async fn fetch_segments(stores: Stores, stream: ScopedStream) -> Input {
    Input::Segments(match stores.controller().current_segments(stream_name(&stream)).await {
        Ok(ranges) if ranges.is_empty() => Segments::Sealed,
        Ok(ranges) => Segments::Current(targets(&stores, ranges)),
        Err(error) if is_not_found(&error) => Segments::NoSuchStream,
        Err(error) => {
            tracing::debug!(%stream, %error, "segments of the stream not known yet");
            Segments::Later
        }
    })
}

async fn resolve(stores: Stores, stream: ScopedStream, segment: SegmentId) -> Input {
    let endpoint = stores.controller().locate(stream_name(&stream), segment).await;
    if let Err(error) = &endpoint {
        tracing::debug!(%stream, %segment, %error, "segment not located yet");
    }
    Input::Resolved { segment, endpoint: endpoint.ok() }
}

async fn fetch_successors(stores: Stores, stream: ScopedStream, segment: SegmentId) -> Input {
    let succession = match successors(&stores, &stream, segment).await {
        Ok(succession) => succession,
        Err(error) if is_not_found(&error) => Succession::Deleted,
        Err(error) => {
            tracing::debug!(%stream, %segment, %error, "successors not known yet");
            Succession::Later
        }
    };
    Input::Succession { segment, succession }
}

/// No successors means that the stream has ended, or that the controller has not taken note of the seal yet: the
/// current segments tell which.
async fn successors(
    stores: &Stores,
    stream: &ScopedStream,
    segment: SegmentId,
) -> Result<Succession, CallError> {
    let name = stream_name(stream);
    let request = Request::GetSuccessors { stream: name.clone(), segment };
    let successors = match stores.controller().call(request).await? {
        Response::Successors(successors) => successors,
        other => return Err(unexpected(&other)),
    };
    if !successors.is_empty() {
        let ranges = successors.into_iter().map(|successor| successor.range).collect();
        return Ok(Succession::Successors(targets(stores, ranges)));
    }
    let current = stores.controller().current_segments(name).await?;
    Ok(if current.is_empty() { Succession::Sealed } else { Succession::Later })
}

fn is_not_found(error: &CallError) -> bool {
    matches!(error, CallError::Refused(refusal) if refusal.code == Code::NotFound)
}
