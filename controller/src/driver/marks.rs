//! Watermarks: from what writers have noted into the stream's mark segment, where readers find them.
//!
//! The mark segment is all that there is of a watermark. It is appended to at the offset that it was read up to, so
//! after an answer that was lost, or beside another controller, nothing stands there twice and nothing goes back.

use crate::controller::{Ended, Inner};
use crate::limits::{WATERMARKS_MIN, WATERMARKS_READ_BYTES};
use crate::record::{Command, Name, Step, WriterCommand};
use crate::segments::{Fence, SegmentError};
use crate::state::{State, companion};
use crate::watermark::{Round, round};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::probe;
use thalweg_types::name::{ScopedStream, SegmentName};
use thalweg_types::time::Instant;
use thalweg_wire::watermark::Watermark;

/// What is known of a stream's watermarks.
struct Known {
    /// Which incarnation of the mark stream they are in.
    stream: u64,
    segment: SegmentName,
    last: Option<Watermark>,
    /// Where each begins that has not been cut off, and where the next will.
    begins: VecDeque<i64>,
    end: i64,
    /// Since when writers have not come beyond the last lower bound.
    silent: BTreeMap<String, Instant>,
}

/// Looks to the watermarks of all streams, round by round, for as long as the controller runs.
pub(crate) async fn keep_watermarks(inner: Arc<Inner>) {
    let mut known: BTreeMap<Name, Known> = BTreeMap::new();
    while inner.pause(inner.config.watermark_period).await.is_ok() {
        let names: Vec<Name> = inner.read(|state| state.record().marks.keys().cloned().collect());
        known.retain(|name, _| names.binary_search(name).is_ok());
        for name in names {
            let Some((stream, segment)) = inner.read(|state| mark_segment(state, &name)) else {
                known.remove(&name);
                continue;
            };
            let found = known.remove(&name).filter(|known| known.stream == stream);
            let done = match found {
                Some(found) => look(&inner, &name, found).await,
                None => match Known::load(&inner, stream, segment).await {
                    Ok(found) => look(&inner, &name, found).await,
                    Err(error) => Err(error),
                },
            };
            match done {
                Ok(Ok(next)) => drop(known.insert(name, next)),
                Ok(Err(_ended)) => return,
                // What stands there now is read again in the next round.
                Err(error) => tracing::warn!(%error, ?name, "a stream's watermarks have to wait"),
            }
        }
    }
}

/// The segment that readers of the stream's watermarks read, and which incarnation of the mark stream has it.
fn mark_segment(state: &State, name: &Name) -> Option<(u64, SegmentName)> {
    let marks = companion(name)?;
    let stream = state.stream(&marks)?;
    let segment = stream.open().first()?;
    Some((stream.id, ScopedStream::new(&marks.scope, &marks.stream).segment(segment.id)))
}

impl Known {
    /// Reads what stands in the segment.
    async fn load(inner: &Inner, stream: u64, segment: SegmentName) -> Result<Self, SegmentError> {
        let info = inner.segments.info(&segment).await?;
        let (last, begins, silent) = (None, VecDeque::new(), BTreeMap::new());
        let mut known = Self { stream, segment, last, begins, end: info.start, silent };
        let mut rest = BytesMut::new();
        let mut at = info.start;
        while at < info.length {
            let read = inner.segments.read(&known.segment, at, WATERMARKS_READ_BYTES).await?;
            if read.is_empty() {
                break;
            }
            at += i64::try_from(read.len()).unwrap_or(i64::MAX);
            rest.extend_from_slice(&read);
            let mut bytes = rest.split().freeze();
            loop {
                let found = Watermark::decode(&bytes).map_err(|flaw| known.unreadable(&flaw))?;
                let Some((watermark, len)) = found else { break };
                known.push(watermark, len);
                bytes = bytes.slice(len..);
            }
            rest = BytesMut::from(&bytes[..]);
        }
        if known.end < info.length {
            return Err(known.unreadable(&"it ends within a watermark"));
        }
        Ok(known)
    }

    /// Somebody else has written there: nothing is added to what cannot be read.
    fn unreadable(&self, flaw: &dyn std::fmt::Display) -> SegmentError {
        let reason = format!("at offset {}: {flaw}", self.end);
        SegmentError::Unavailable { name: self.segment.clone(), reason: reason.into() }
    }

    fn push(&mut self, watermark: Watermark, len: usize) {
        self.last = Some(watermark);
        self.begins.push_back(self.end);
        self.end += i64::try_from(len).unwrap_or(i64::MAX);
    }

    /// Notes who is silent, and gives those up that have been for longer than `timeout`.
    fn given_up(&mut self, silent: &[String], now: Instant, timeout: Duration) -> Vec<String> {
        self.silent.retain(|writer, _| silent.contains(writer));
        for writer in silent {
            self.silent.entry(writer.clone()).or_insert(now);
        }
        let over = self.silent.iter().filter(|(_, since)| now.since(**since) >= timeout);
        over.map(|(writer, _)| writer.clone()).collect()
    }
}

/// One round of one stream.
async fn look(
    inner: &Arc<Inner>,
    name: &Name,
    mut known: Known,
) -> Result<Result<Known, Ended>, SegmentError> {
    let ask = |known: &Known, given_up: &[String]| {
        inner.read(|state| {
            let stream = state.stream(name)?;
            let marks = state.record().marks.get(name)?;
            let gone = |writer: &str| given_up.iter().any(|other| other == writer);
            let timeout = stream.config.timestamp_aggregation_timeout_ms;
            let timeout = Duration::from_millis(u64::try_from(timeout).unwrap_or(0));
            Some((round(stream, marks, known.last.as_ref(), gone), timeout))
        })
    };
    let Some((Round { mut next, silent }, timeout)) = ask(&known, &[]) else {
        return Ok(Ok(known));
    };
    let given_up = known.given_up(&silent, inner.now(), timeout);
    if !given_up.is_empty() {
        next = ask(&known, &given_up).and_then(|(round, _)| round.next);
    }
    if let Some(watermark) = next {
        append(inner, &mut known, watermark).await?;
    }
    for writer in given_up {
        probe!("controller: silent writer given up");
        let leave = WriterCommand::Leave { name: name.clone(), writer };
        if let Err(ended) = inner.propose(Command::Writer(leave)).await {
            return Ok(Err(ended));
        }
    }
    Ok(Ok(known))
}

/// Adds a watermark, and cuts old ones off when there are many.
async fn append(
    inner: &Inner,
    known: &mut Known,
    watermark: Watermark,
) -> Result<(), SegmentError> {
    let bytes = watermark.encode();
    let len = bytes.len();
    if !inner.segments.append_at(&known.segment, known.end, bytes).await? {
        probe!("controller: somebody else has written a watermark");
        return Err(known.unreadable(&"somebody else has written there"));
    }
    known.push(watermark, len);
    if known.begins.len() > 2 * WATERMARKS_MIN {
        known.begins.drain(..known.begins.len() - WATERMARKS_MIN);
        let begin = known.begins[0];
        let fence = Fence { term: 1, stream: known.stream, workflow: 0, step: Step::Truncate };
        inner.segments.truncate(fence, &known.segment, begin).await?;
    }
    Ok(())
}
