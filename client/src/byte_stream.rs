//! Reads and writes a stream of one segment as plain bytes.
//!
//! A writer appends at the offset that it knows and nowhere else: bytes of two writers are never mixed, the second one
//! learns that the stream has moved. Writes are repeated over lost connections under one writer id and number, so each
//! is stored once.
//!
//! Not here: buffering. One write is one append, acknowledged before the next.

use crate::controller::CallError;
use crate::link::Link;
use crate::reader::segment::{Fetched, fetch};
use crate::reader::{GroupError, segment_info};
use crate::store::{Commands, Place, StoreError, Stores, stream_name};
use bytes::Bytes;
use std::collections::VecDeque;
use thalweg_types::id::WriterId;
use thalweg_types::name::ScopedStream;
use thalweg_wire::segment::{
    Command, ConditionalBlockEnd, SealSegment, SetupAppend, TruncateSegment,
};
use thiserror::Error;

/// Bytes of one append; longer writes become several.
const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why an operation on a byte stream did not succeed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ByteStreamError {
    /// The controller could not be asked, or refused: it did not happen.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The stream has not exactly one segment: it did not happen.
    #[error("stream {stream} has {segments} segments, a byte stream has one")]
    NotAByteStream {
        /// The stream.
        stream: ScopedStream,
        /// How many it has.
        segments: usize,
    },
    /// The stream is longer than this writer knows: somebody else writes. Nothing was stored.
    #[error("stream {stream} is not {expected} bytes long any more: another writer is at work")]
    OtherWriter {
        /// The stream.
        stream: ScopedStream,
        /// The length that the writer knew.
        expected: i64,
    },
    /// The stream is sealed: nothing was stored.
    #[error("stream {stream} is sealed")]
    Sealed {
        /// The stream.
        stream: ScopedStream,
    },
    /// The stream is gone.
    #[error("there is no stream {stream}")]
    NoSuchStream {
        /// The stream.
        stream: ScopedStream,
    },
    /// The bytes asked for are gone; the stream begins later.
    #[error("stream {stream} begins at {start}")]
    Truncated {
        /// The stream.
        stream: ScopedStream,
        /// Its first offset.
        start: i64,
    },
    /// The store did not answer: it may have happened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store answered something else: it may have happened.
    #[error("stream {stream}: the server says {answer}")]
    Unexpected {
        /// The stream.
        stream: ScopedStream,
        /// The answer.
        answer: String,
    },
}

impl ByteStreamError {
    /// True if it certainly did not happen.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Call(error) => error.is_refused(),
            Self::Store(error) => error.is_refused(),
            Self::Unexpected { .. } => false,
            Self::NotAByteStream { .. }
            | Self::OtherWriter { .. }
            | Self::Sealed { .. }
            | Self::NoSuchStream { .. }
            | Self::Truncated { .. } => true,
        }
    }
}

impl From<GroupError> for ByteStreamError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Call(error) => Self::Call(error),
            GroupError::Store(error) => Self::Store(error),
            GroupError::Unexpected { answer, .. } => {
                Self::Unexpected { stream: ScopedStream::new("", ""), answer }
            }
        }
    }
}

/// The stream's only segment.
async fn only_segment(stores: &Stores, stream: &ScopedStream) -> Result<Place, ByteStreamError> {
    let segments = stores.controller().current_segments(stream_name(stream)).await?;
    match segments.as_slice() {
        [one] => Ok(Place { stream: stream.clone(), id: one.segment }),
        [] => Err(ByteStreamError::Sealed { stream: stream.clone() }),
        more => {
            Err(ByteStreamError::NotAByteStream { stream: stream.clone(), segments: more.len() })
        }
    }
}

/// What a reply that is none of the expected ones means.
fn refusal(stream: &ScopedStream, reply: &Command) -> ByteStreamError {
    let stream = stream.clone();
    match reply {
        Command::SegmentIsSealed(_) => ByteStreamError::Sealed { stream },
        Command::NoSuchSegment(_) => ByteStreamError::NoSuchStream { stream },
        Command::SegmentIsTruncated(c) => {
            ByteStreamError::Truncated { stream, start: c.start_offset }
        }
        other => {
            let answer = format!("{other:?}").chars().take(200).collect();
            ByteStreamError::Unexpected { stream, answer }
        }
    }
}

/// Appends bytes at the offset that it knows.
pub struct ByteWriter {
    stores: Stores,
    place: Place,
    writer: WriterId,
    /// Number of the last append that is stored.
    number: i64,
    offset: i64,
    link: Option<Link<Commands>>,
}

impl ByteWriter {
    pub(crate) async fn open(
        stores: Stores,
        stream: &ScopedStream,
    ) -> Result<Self, ByteStreamError> {
        let place = only_segment(&stores, stream).await?;
        let (_, offset) = segment_info(&stores, &place).await?;
        let writer = WriterId(stores.env().entropy.draw());
        Ok(Self { stores, place, writer, number: 0, offset, link: None })
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Appends `data`; it is durable when this returns. After an error the offset says how much of it was stored,
    /// unless the error says that this is unknown.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), ByteStreamError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(APPEND_BYTES_MAX));
            self.append(piece).await?;
        }
        Ok(())
    }

    /// Goes to the end, wherever another writer has moved it.
    pub async fn seek_to_tail(&mut self) -> Result<(), ByteStreamError> {
        self.offset = segment_info(&self.stores, &self.place).await?.1;
        Ok(())
    }

    /// Ends the stream's segment: nobody appends any more.
    pub async fn seal(&mut self) -> Result<(), ByteStreamError> {
        let segment = self.place.name();
        let request =
            move |request_id| SealSegment { request_id, segment, token: String::new() }.into();
        match self.stores.ask(&self.place, false, request).await? {
            Command::SegmentSealed(_) | Command::SegmentIsSealed(_) => Ok(()),
            other => Err(refusal(&self.place.stream, &other)),
        }
    }

    /// Drops everything below `offset`.
    pub async fn truncate(&mut self, offset: i64) -> Result<(), ByteStreamError> {
        let segment = self.place.name();
        let request = move |request_id| {
            let token = String::new();
            TruncateSegment { request_id, segment, truncation_offset: offset, token }.into()
        };
        match self.stores.ask(&self.place, false, request).await? {
            Command::SegmentTruncated(_) => Ok(()),
            other => Err(refusal(&self.place.stream, &other)),
        }
    }

    /// Appends one piece, over as many connections as the configured number of attempts.
    async fn append(&mut self, data: Bytes) -> Result<(), ByteStreamError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.append_once(&data).await {
                Ok(()) => {
                    self.offset += i64::try_from(data.len()).expect("lengths fit");
                    return Ok(());
                }
                Err(ByteStreamError::Store(error))
                    if attempt < self.stores.config().controller_attempts =>
                {
                    tracing::debug!(stream = %self.place.stream, %error, "append again");
                    self.link = None;
                    let pause = self.stores.config().retry_delay(attempt);
                    let clock = &self.stores.env().clock;
                    clock.sleep_until(clock.now().after(pause)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The number of an append is used up only when it is stored, so that a repetition is recognised.
    async fn append_once(&mut self, data: &Bytes) -> Result<(), ByteStreamError> {
        let number = self.number + 1;
        let link = if let Some(link) = &self.link {
            link.clone()
        } else {
            let (link, stored) = self.set_up().await?;
            self.link = Some(link.clone());
            if stored >= number {
                self.number = number;
                return Ok(());
            }
            link
        };
        let (writer_id, expected, data) = (self.writer, self.offset, data.clone());
        let request = move |request_id| {
            ConditionalBlockEnd {
                writer_id,
                event_number: number,
                expected_offset: expected,
                data,
                request_id,
            }
            .into()
        };
        match self.stores.ask_on(&link, &self.place, request).await? {
            Command::DataAppended(_) => {
                self.number = number;
                Ok(())
            }
            Command::ConditionalCheckFailed(_) => {
                let stream = self.place.stream.clone();
                Err(ByteStreamError::OtherWriter { stream, expected })
            }
            Command::InvalidEventNumber(_) | Command::WrongHost(_) => {
                self.link = None;
                Err(self.no_answer().into())
            }
            other => {
                self.link = None;
                Err(refusal(&self.place.stream, &other))
            }
        }
    }

    /// A connection on which the writer is announced, and the last number that is stored.
    async fn set_up(&self) -> Result<(Link<Commands>, i64), ByteStreamError> {
        let link = self.stores.own_link(&self.place).await?;
        let (writer_id, segment) = (self.writer, self.place.name());
        let request = move |request_id| {
            SetupAppend { request_id, writer_id, segment, token: String::new() }.into()
        };
        match self.stores.ask_on(&link, &self.place, request).await? {
            Command::AppendSetup(setup) => Ok((link, setup.last_event_number)),
            Command::WrongHost(_) => Err(self.no_answer().into()),
            other => Err(refusal(&self.place.stream, &other)),
        }
    }

    fn no_answer(&self) -> StoreError {
        StoreError::Unknown { endpoint: self.place.name().as_str().into() }
    }
}

/// Reads bytes from an offset on.
pub struct ByteReader {
    stores: Stores,
    place: Place,
    offset: i64,
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl ByteReader {
    pub(crate) async fn open(
        stores: Stores,
        stream: &ScopedStream,
    ) -> Result<Self, ByteStreamError> {
        let place = only_segment(&stores, stream).await?;
        let (offset, _) = segment_info(&stores, &place).await?;
        Ok(Self { stores, place, offset, pieces: VecDeque::new(), ended: false })
    }

    /// First offset that is still there, and the length.
    pub async fn bounds(&self) -> Result<(i64, i64), ByteStreamError> {
        Ok(segment_info(&self.stores, &self.place).await?)
    }

    /// Where the next byte comes from.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Goes to `offset`.
    pub fn seek(&mut self, offset: i64) {
        self.offset = offset;
        self.pieces.clear();
        self.ended = false;
    }

    /// The next bytes, at least one; waits for them at the tail. `None`: the stream is sealed and ends here.
    pub async fn read(&mut self) -> Result<Option<Bytes>, ByteStreamError> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                self.offset += i64::try_from(piece.len()).expect("lengths fit");
                return Ok(Some(piece));
            }
            if self.ended {
                return Ok(None);
            }
            let stream = self.place.stream.clone();
            match fetch(self.stores.clone(), self.place.clone(), self.offset).await {
                Fetched::Data { data, end } => {
                    self.pieces = data.into_iter().filter(|piece| !piece.is_empty()).collect();
                    self.ended = end;
                }
                Fetched::End => self.ended = true,
                Fetched::Truncated { start } => {
                    return Err(ByteStreamError::Truncated { stream, start });
                }
                Fetched::Refused { answer } => {
                    return Err(ByteStreamError::Unexpected { stream, answer });
                }
            }
        }
    }
}
