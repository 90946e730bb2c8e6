//! Reads the events of a stream with one or several readers.
//!
//! What is promised: every event from the start on is delivered to some reader; those of one routing key in the order
//! in which they were written, across scales and failures. An event is counted as delivered when
//! [`Reader::next`] returns it: a reader that is dropped gives its segments back behind the last such event, so within
//! one group object an event comes once. Across processes, an application that stores [`ReaderGroup::cut`] and begins
//! there again gets what came after the cut once more: at least once.
//!
//! Not here: state shared between processes, checkpoints.

pub(crate) mod segment;

use crate::controller::{CallError, unexpected};
use crate::event::NotAnEvent;
use crate::group::{Assignment, Group, ReaderId, Start};
use crate::store::{Place, StoreError, Stores, stream_name};
use bytes::Bytes;
use segment::{Progress, SegmentReader};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;
use thalweg_types::stream::StreamCut;
use thalweg_wire::controller::{Request, Response};
use thalweg_wire::segment::{Command, GetStreamSegmentInfo};
use thiserror::Error;
use tokio::sync::Notify;

/// Why a group cannot begin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GroupError {
    /// The controller could not be asked, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A segment's length could not be found out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A segment store answered something else.
    #[error("segment {segment} answered {answer}")]
    Unexpected {
        /// The segment.
        segment: SegmentId,
        /// The answer.
        answer: String,
    },
}

/// Why the next event cannot be delivered. The reader can be asked again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Events are gone: the stream was truncated. Reading goes on behind them.
    #[error("segment {segment} was truncated: {from} to {start} are gone")]
    Truncated {
        /// The segment.
        segment: SegmentId,
        /// The first offset that is missing.
        from: i64,
        /// Where reading goes on.
        start: i64,
    },
    /// The segment holds something else than events. Reading of this segment ends here.
    #[error("segment {segment} at offset {offset}: {fault}")]
    NotAnEvent {
        /// The segment.
        segment: SegmentId,
        /// Where.
        offset: i64,
        /// What stands there.
        fault: NotAnEvent,
    },
    /// The server refuses the read. Reading of this segment ends here.
    #[error("segment {segment} at offset {offset}: the server says {answer}")]
    Refused {
        /// The segment.
        segment: SegmentId,
        /// Where.
        offset: i64,
        /// The server's words.
        answer: String,
    },
    /// The controller could not say what follows a segment.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// One event and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its segment.
    pub segment: SegmentId,
    /// The offset of its first byte, the header's.
    pub offset: i64,
    /// Its content.
    pub data: Bytes,
}

struct Shared {
    stores: Stores,
    stream: ScopedStream,
    group: Mutex<Group>,
    /// Where reading ends, in segments that have an end; nowhere without it.
    ends: StreamCut,
    /// Segments became free, or none are left.
    news: Notify,
}

impl Shared {
    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group of readers that share a stream's segments. Cheap to clone.
#[derive(Clone)]
pub struct ReaderGroup {
    shared: Arc<Shared>,
}

impl ReaderGroup {
    pub(crate) async fn open(
        stores: Stores,
        stream: ScopedStream,
        start: Start,
        bounded: bool,
    ) -> Result<Self, GroupError> {
        let cut = match start {
            Start::Head => head(&stores, &stream).await?,
            Start::Tail => tail(&stores, &stream).await?,
            Start::Cut(cut) => resolve(&stores, &stream, cut).await?,
        };
        let ends = if bounded { tail(&stores, &stream).await? } else { StreamCut::default() };
        let group = Mutex::new(Group::bounded(cut, &ends));
        let news = Notify::new();
        Ok(Self { shared: Arc::new(Shared { stores, stream, group, ends, news }) })
    }

    /// One more reader.
    pub fn reader(&self) -> Reader {
        let id = self.shared.group().join();
        self.shared.news.notify_waiters();
        Reader {
            shared: Arc::clone(&self.shared),
            id,
            segments: BTreeMap::new(),
            last: None,
            failed: None,
        }
    }

    /// What is delivered so far: begin there to read on.
    pub fn cut(&self) -> StreamCut {
        self.shared.group().cut()
    }
}

/// The stream's oldest cut.
async fn head(stores: &Stores, stream: &ScopedStream) -> Result<StreamCut, GroupError> {
    let request = Request::GetHead { stream: stream_name(stream), timestamp: 0 };
    match stores.controller().call(request).await? {
        Response::Head(segments) => Ok(StreamCut(segments.into_iter().collect())),
        other => Err(unexpected(&other).into()),
    }
}

/// What the stream holds now, to its end.
async fn tail(stores: &Stores, stream: &ScopedStream) -> Result<StreamCut, GroupError> {
    let segments = stores.controller().current_segments(stream_name(stream)).await?;
    let ends = segments.into_iter().map(|range| (range.segment, -1)).collect();
    resolve(stores, stream, StreamCut(ends)).await
}

/// Replaces each -1 of a cut by the segment's length.
async fn resolve(
    stores: &Stores,
    stream: &ScopedStream,
    cut: StreamCut,
) -> Result<StreamCut, GroupError> {
    let mut resolved = BTreeMap::new();
    for (segment, offset) in cut.0 {
        let place = Place { stream: stream.clone(), id: segment };
        let offset = if offset < 0 { segment_info(stores, &place).await?.1 } else { offset };
        resolved.insert(segment, offset);
    }
    Ok(StreamCut(resolved))
}

/// First offset and length of a segment.
pub(crate) async fn segment_info(stores: &Stores, place: &Place) -> Result<(i64, i64), GroupError> {
    let name = place.name();
    let request = move |request_id| {
        GetStreamSegmentInfo { request_id, segment: name, token: String::new() }.into()
    };
    match stores.ask(place, false, request).await? {
        Command::StreamSegmentInfo(info) => Ok((info.start_offset, info.write_offset)),
        other => Err(GroupError::Unexpected { segment: place.id, answer: other.name().to_owned() }),
    }
}

/// One reader of a group. Dropping it gives its segments back.
pub struct Reader {
    shared: Arc<Shared>,
    id: ReaderId,
    segments: BTreeMap<SegmentId, (Assignment, SegmentReader)>,
    /// The segment that was served last: the others come first.
    last: Option<SegmentId>,
    /// What [`try_next`](Reader::try_next) met and [`next`](Reader::next) is to tell.
    failed: Option<ReadError>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.group().leave(self.id);
        self.shared.news.notify_waiters();
    }
}

/// What a reader found when it looked around.
enum Found {
    Event(Event),
    End(SegmentId),
    Stop(SegmentId),
    Failed(ReadError),
    News,
}

impl Reader {
    /// The next event of any of the reader's segments; waits for it. `None`: the stream is sealed and everything is
    /// delivered. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            // Because: registered before the state is looked at, so that no news is missed.
            let shared = Arc::clone(&self.shared);
            let mut news = std::pin::pin!(shared.news.notified());
            news.as_mut().enable();
            self.share();
            if self.shared.group().is_finished() {
                return Ok(None);
            }
            let found = std::future::poll_fn(|context| {
                if let Poll::Ready(found) = self.poll_segments(context) {
                    return Poll::Ready(found);
                }
                news.as_mut().poll(context).map(|()| Found::News)
            })
            .await;
            match found {
                Found::Event(event) => return Ok(Some(event)),
                Found::Failed(error) => return Err(error),
                Found::End(segment) => self.finish(segment).await?,
                Found::Stop(segment) => self.stop(segment),
                Found::News => {}
            }
        }
    }

    /// The next event, if it has arrived already: never waits. `None` says nothing about what is to come.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.failed.is_some() {
            return None;
        }
        match self.poll_segments(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Found::Event(event)) => Some(event),
            Poll::Ready(Found::Stop(segment)) => {
                self.stop(segment);
                None
            }
            Poll::Ready(Found::Failed(error)) => {
                self.failed = Some(error);
                None
            }
            // Because: an end is found again.
            Poll::Ready(Found::End(_) | Found::News) | Poll::Pending => None,
        }
    }

    /// A segment is read as far as the group wants it.
    fn stop(&mut self, segment: SegmentId) {
        if let Some((assignment, _)) = self.segments.remove(&segment) {
            self.shared.group().finish(&assignment, []);
            self.shared.news.notify_waiters();
        }
    }

    /// Takes free segments, gives back what is too much.
    fn share(&mut self) {
        let mut group = self.shared.group();
        let mut released = false;
        while group.has_too_many(self.id) {
            let Some((_, (assignment, _))) = self.segments.pop_last() else { break };
            group.release(&assignment);
            released = true;
        }
        while let Some(assignment) = group.acquire(self.id) {
            let place = Place { stream: self.shared.stream.clone(), id: assignment.segment };
            let end = self.shared.ends.0.get(&assignment.segment).copied();
            let stores = self.shared.stores.clone();
            let reader = SegmentReader::new(stores, place, assignment.offset, end);
            self.segments.insert(assignment.segment, (assignment, reader));
        }
        drop(group);
        if released {
            self.shared.news.notify_waiters();
        }
    }

    /// Looks at each segment once, beginning behind the one that was served last.
    fn poll_segments(&mut self, context: &mut std::task::Context<'_>) -> Poll<Found> {
        let ids: Vec<_> = self.segments.keys().copied().collect();
        let first = self.last.map_or(0, |last| ids.partition_point(|id| *id <= last));
        for segment in ids[first..].iter().chain(&ids[..first]).copied() {
            let Some((assignment, reader)) = self.segments.get_mut(&segment) else { continue };
            let Poll::Ready(progress) = reader.poll(context) else { continue };
            self.last = Some(segment);
            let found = match progress {
                Progress::Event { offset, data } => {
                    self.shared.group().advance(assignment, reader.position());
                    Found::Event(Event { segment, offset, data })
                }
                Progress::End => Found::End(segment),
                Progress::Stop => Found::Stop(segment),
                Progress::Failed(error) => {
                    self.shared.group().advance(assignment, reader.position());
                    Found::Failed(error)
                }
            };
            return Poll::Ready(found);
        }
        Poll::Pending
    }

    /// A segment is read to its end: its successors take its place.
    async fn finish(&mut self, segment: SegmentId) -> Result<(), ReadError> {
        let stream = stream_name(&self.shared.stream);
        let request = Request::GetSuccessors { stream: stream.clone(), segment };
        let controller = self.shared.stores.controller();
        let successors = match controller.call(request).await? {
            Response::Successors(successors) => successors,
            other => return Err(unexpected(&other).into()),
        };
        if successors.is_empty() && !controller.current_segments(stream).await?.is_empty() {
            // Because: the segment is sealed, but the controller is not that far yet.
            let env = self.shared.stores.env();
            let pause = self.shared.stores.config().retry_delay_max / 4;
            env.clock.sleep_until(env.clock.now().after(pause)).await;
            return Ok(());
        }
        let Some((assignment, _)) = self.segments.remove(&segment) else { return Ok(()) };
        tracing::debug!(stream = %self.shared.stream, %segment, ?successors, "segment read to its end");
        let follow = successors.into_iter().map(|s| (s.range.segment, s.predecessors));
        self.shared.group().finish(&assignment, follow);
        self.shared.news.notify_waiters();
        Ok(())
    }
}
