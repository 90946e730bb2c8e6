//! An event that no append may hold: it is gathered in a transient segment, which then becomes part of its parent.
//!
//! The parent gets the event whole or not at all. If the answer to the merge is lost, the merge is asked for again: a
//! segment that was merged is remembered as such, one that was not is gone with its connection.

use super::WriteError;
use crate::controller::CallError;
use crate::event::put_event;
use crate::link::Link;
use crate::store::{Commands, Place, StoreError, Stores, stream_name};
use bytes::{Bytes, BytesMut};
use thalweg_actor::probe;
use thalweg_types::id::WriterId;
use thalweg_types::name::{ScopedStream, SegmentName};
use thalweg_wire::controller::Code;
use thalweg_wire::segment::{
    Command, ConditionalBlockEnd, CreateTransientSegment, MergeSegments, SetupAppend,
};

/// Bytes of one append.
const APPEND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why an attempt did not succeed.
enum Failure {
    /// The event is not in the stream: another attempt may succeed.
    Again(String),
    /// No attempt will.
    Final(WriteError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Again(error.to_string())
    }
}

/// Writes `event` to the segment that has `hash`. Everything written earlier must be durable.
pub(super) async fn write(
    stores: &Stores,
    stream: &ScopedStream,
    hash: f64,
    event: &Bytes,
) -> Result<(), WriteError> {
    let mut framed = BytesMut::with_capacity(crate::event::EVENT_HEADER_BYTES + event.len());
    put_event(&mut framed, event);
    let framed = framed.freeze();
    let mut attempt = 0;
    loop {
        match attempt_once(stores, stream, hash, framed.clone()).await {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(reason)) => {
                tracing::debug!(%stream, %reason, "large event: again from the start");
                attempt += 1;
                let pause = stores.config().retry_delay(attempt);
                let clock = &stores.env().clock;
                clock.sleep_until(clock.now().after(pause)).await;
            }
        }
    }
}

async fn attempt_once(
    stores: &Stores,
    stream: &ScopedStream,
    hash: f64,
    framed: Bytes,
) -> Result<(), Failure> {
    let place = segment_of(stores, stream, hash).await?;
    let link = stores.own_link(&place).await?;
    let writer = WriterId(stores.env().entropy.draw());
    let source = create(stores, &link, &place, writer).await?;
    fill(stores, (&link, &place), &source, writer, framed).await?;
    let reply = if let Ok(reply) = merge(stores, &link, &place, &source).await {
        reply
    } else {
        probe!("writer: answer to the merge of a large event lost");
        merge_again(stores, &place, &source).await
    };
    match reply {
        Command::SegmentsMerged(_) => Ok(()),
        other => Err(Failure::Again(other.name().to_owned())),
    }
}

/// The open segment whose key range has `hash`.
async fn segment_of(stores: &Stores, stream: &ScopedStream, hash: f64) -> Result<Place, Failure> {
    let segments = stores.controller().current_segments(stream_name(stream)).await;
    let segments = segments.map_err(|error| match error {
        CallError::Refused(refusal) if refusal.code == Code::NotFound => {
            Failure::Final(WriteError::NoSuchStream { stream: stream.clone() })
        }
        other => Failure::Again(other.to_string()),
    })?;
    if segments.is_empty() {
        return Err(Failure::Final(WriteError::Sealed { stream: stream.clone() }));
    }
    let owner = segments.iter().find(|s| (s.low..s.high).contains(&hash));
    let owner = owner.ok_or_else(|| Failure::Again("no segment has the key".to_owned()))?;
    Ok(Place { stream: stream.clone(), id: owner.segment })
}

async fn create(
    stores: &Stores,
    link: &Link<Commands>,
    place: &Place,
    writer_id: WriterId,
) -> Result<SegmentName, Failure> {
    let parent_segment = place.name();
    let request = move |request_id| {
        let token = String::new();
        CreateTransientSegment { request_id, writer_id, parent_segment, token }.into()
    };
    match stores.ask_on(link, place, request).await? {
        Command::SegmentCreated(created) => Ok(created.segment),
        other => Err(Failure::Again(other.name().to_owned())),
    }
}

/// Puts the whole event into the transient segment.
async fn fill(
    stores: &Stores,
    (link, place): (&Link<Commands>, &Place),
    source: &SegmentName,
    writer_id: WriterId,
    mut framed: Bytes,
) -> Result<(), Failure> {
    let segment = source.clone();
    let request = move |request_id| {
        SetupAppend { request_id, writer_id, segment, token: String::new() }.into()
    };
    match stores.ask_on(link, place, request).await? {
        Command::AppendSetup(_) => {}
        other => return Err(Failure::Again(other.name().to_owned())),
    }
    let (mut event_number, mut expected_offset) = (0, 0);
    while !framed.is_empty() {
        let data = framed.split_to(framed.len().min(APPEND_BYTES_MAX));
        let bytes = i64::try_from(data.len()).expect("lengths fit");
        let request = move |request_id| {
            ConditionalBlockEnd { writer_id, event_number, expected_offset, data, request_id }
                .into()
        };
        match stores.ask_on(link, place, request).await? {
            Command::DataAppended(_) => {}
            other => return Err(Failure::Again(other.name().to_owned())),
        }
        event_number += 1;
        expected_offset += bytes;
    }
    Ok(())
}

async fn merge(
    stores: &Stores,
    link: &Link<Commands>,
    place: &Place,
    source: &SegmentName,
) -> Result<Command, StoreError> {
    let (target, source) = (place.name(), source.clone());
    let request = move |request_id| {
        let (token, updates) = (String::new(), Vec::new());
        MergeSegments { request_id, target, source, token, updates }.into()
    };
    stores.ask_on(link, place, request).await
}

/// Asks until there is an answer: whether the event is stored must not stay open.
async fn merge_again(stores: &Stores, place: &Place, source: &SegmentName) -> Command {
    let mut attempt = 0;
    loop {
        if let Ok(link) = stores.own_link(place).await
            && let Ok(reply) = merge(stores, &link, place, source).await
            && !matches!(reply, Command::WrongHost(_))
        {
            return reply;
        }
        attempt += 1;
        let pause = stores.config().retry_delay(attempt);
        let clock = &stores.env().clock;
        clock.sleep_until(clock.now().after(pause)).await;
    }
}
