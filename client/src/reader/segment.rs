//! One segment, read in order: the next read is under way while the events of the last one are delivered.

use super::ReadError;
use crate::event::{EVENT_HEADER_BYTES, EventBuffer};
use crate::store::{Place, StoreError, Stores};
use bytes::Bytes;
use std::task::{Context, Poll};
use thalweg_actor::BoxFuture;
use thalweg_actor::planted;
use thalweg_wire::segment::{Command, ReadSegment};

/// What a read brought.
pub(crate) enum Fetched {
    /// Bytes from the offset on; `end`: the segment ends behind them.
    Data { data: Vec<Bytes>, end: bool },
    /// The segment ends at the offset, or is gone.
    End,
    /// The segment begins later.
    Truncated { start: i64 },
    /// The server does not want to.
    Refused { answer: String },
}

/// What a segment has to say.
pub(super) enum Progress {
    Event {
        offset: i64,
        data: Bytes,
    },
    End,
    /// What was wanted is delivered.
    Stop,
    Failed(ReadError),
}

pub(super) struct SegmentReader {
    stores: Stores,
    place: Place,
    buffer: EventBuffer,
    /// Where the next event begins that is to be delivered.
    delivered: i64,
    /// Where the next read begins.
    fetched: i64,
    /// The read under way.
    read: Option<BoxFuture<'static, Fetched>>,
    /// Pieces that are not in the buffer yet, last first.
    pieces: Vec<Bytes>,
    /// Nothing follows what was fetched.
    ended: bool,
    /// Nothing is wanted from here on.
    end: Option<i64>,
}

impl SegmentReader {
    pub(super) fn new(stores: Stores, place: Place, offset: i64, end: Option<i64>) -> Self {
        Self {
            stores,
            place,
            buffer: EventBuffer::default(),
            delivered: offset,
            fetched: offset,
            read: None,
            pieces: Vec::new(),
            ended: false,
            end,
        }
    }

    /// Everything below is delivered: where another reader would go on.
    pub(super) fn position(&self) -> i64 {
        if planted!("PB-K3") { self.fetched } else { self.delivered }
    }

    /// The next event, the end, or why there is neither.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Progress> {
        if self.end.is_some_and(|end| self.delivered >= end) {
            return Poll::Ready(Progress::Stop);
        }
        loop {
            match self.buffer.next_event() {
                Ok(Some(data)) => {
                    let offset = self.delivered;
                    self.delivered += bytes(EVENT_HEADER_BYTES + data.len());
                    return Poll::Ready(Progress::Event { offset, data });
                }
                Ok(None) => {}
                Err(fault) => {
                    let (segment, offset) = (self.place.id, self.delivered);
                    let error = ReadError::NotAnEvent { segment, offset, fault };
                    return Poll::Ready(Progress::Failed(error));
                }
            }
            if let Some(piece) = self.pieces.pop() {
                self.buffer.push(piece);
                continue;
            }
            if self.ended {
                return Poll::Ready(Progress::End);
            }
            let read = self.read.get_or_insert_with(|| {
                Box::pin(fetch(self.stores.clone(), self.place.clone(), self.fetched))
            });
            let Poll::Ready(fetched) = read.as_mut().poll(context) else { return Poll::Pending };
            self.read = None;
            if let Some(error) = self.take(fetched, context) {
                return Poll::Ready(Progress::Failed(error));
            }
        }
    }

    fn take(&mut self, fetched: Fetched, context: &mut Context<'_>) -> Option<ReadError> {
        let segment = self.place.id;
        match fetched {
            Fetched::Data { mut data, end } => {
                self.fetched += bytes(data.iter().map(Bytes::len).sum());
                data.reverse();
                self.pieces = data;
                self.ended = end;
                if !end {
                    let mut next: BoxFuture<'static, Fetched> =
                        Box::pin(fetch(self.stores.clone(), self.place.clone(), self.fetched));
                    // Because: the first poll sends the request, so that it travels while events are delivered.
                    match next.as_mut().poll(context) {
                        Poll::Pending => self.read = Some(next),
                        Poll::Ready(early) => self.read = Some(Box::pin(std::future::ready(early))),
                    }
                }
                None
            }
            Fetched::End => {
                self.ended = true;
                None
            }
            Fetched::Truncated { start } => {
                let from = self.delivered;
                self.buffer = EventBuffer::default();
                (self.delivered, self.fetched) = (start, start);
                Some(ReadError::Truncated { segment, from, start })
            }
            Fetched::Refused { answer } => {
                let offset = self.fetched;
                Some(ReadError::Refused { segment, offset, answer })
            }
        }
    }
}

fn bytes(count: usize) -> i64 {
    i64::try_from(count).expect("lengths fit")
}

/// Reads at `offset`, through however many connections that takes.
pub(crate) async fn fetch(stores: Stores, place: Place, offset: i64) -> Fetched {
    let mut attempt = 0;
    loop {
        match fetch_once(&stores, &place, offset).await {
            Ok(Some(fetched)) => return fetched,
            // Because: an empty answer means that the server could not hold the read any longer.
            Ok(None) => {}
            Err(error) => tracing::debug!(segment = %place.id, offset, %error, "read again"),
        }
        attempt += 1;
        let pause = stores.config().retry_delay(attempt);
        let clock = &stores.env().clock;
        clock.sleep_until(clock.now().after(pause)).await;
    }
}

async fn fetch_once(
    stores: &Stores,
    place: &Place,
    offset: i64,
) -> Result<Option<Fetched>, StoreError> {
    let name = place.name();
    let suggested_length = i32::try_from(stores.config().read_bytes).unwrap_or(i32::MAX);
    let request = move |request_id| {
        let token = String::new();
        ReadSegment { segment: name, offset, suggested_length, token, request_id }.into()
    };
    Ok(match stores.ask(place, true, request).await? {
        Command::SegmentRead(read) if read.data.is_empty() => {
            read.end_of_segment.then_some(Fetched::End)
        }
        Command::SegmentRead(read) => {
            let data = read.data.pieces().to_vec();
            Some(Fetched::Data { data, end: read.end_of_segment })
        }
        Command::SegmentIsSealed(_) | Command::NoSuchSegment(_) => Some(Fetched::End),
        Command::SegmentIsTruncated(truncated) => {
            Some(Fetched::Truncated { start: truncated.start_offset })
        }
        Command::WrongHost(_) => None,
        other => {
            Some(Fetched::Refused { answer: format!("{other:?}").chars().take(200).collect() })
        }
    })
}
