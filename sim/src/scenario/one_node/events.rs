//! Clients of event streams: writers with routing keys, groups of readers, one that truncates behind itself.

use super::history::{Deliveries, EventId, Told};
use super::stage::Stage;
use crate::world::executor;
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::collections::BTreeSet;
use thalweg_client::group::Start;
use thalweg_client::reader::{Event, ReadError, Reader, ReaderGroup};
use thalweg_client::writer::Receipt;
use thalweg_wire::controller::{CutOfStream, Request, Response, StreamName, UpdateStreamStatus};
use tokio::select;
use tokio::sync::mpsc;

/// Writes to a stream until the stage closes, then waits for every receipt.
pub(super) async fn write(stage: Stage, stream: usize, mut rng: Rng) {
    let name = stage.with(|shared| shared.streams[stream].name.clone());
    let writer = stage.with(|shared| shared.streams[stream].add_writer());
    let events = stage.client.event_writer(&name);
    let (receipts, collected) = mpsc::unbounded_channel();
    let collector = stage.clone();
    stage.spawn("receipts", async move { collect(collector, stream, collected).await });
    let keys = rng.range(1, 9);
    let (len_max, burst_max) = (rng.pick(&[16, 200, 1_500]), rng.pick(&[2, 8, 30]));
    let pause_ms = rng.pick(&[4, 20, 100]);
    while !stage.is_closing() {
        for _ in 0..rng.range(1, burst_max) {
            let key = u16::try_from(rng.below(keys)).expect("few keys");
            let len = u32::try_from(rng.below(len_max)).expect("short");
            let (id, data) = stage.with(|shared| shared.streams[stream].sends(writer, key, len));
            stage.count("events sent", 1);
            match events.write(&format!("key {key}"), data).await {
                Ok(receipt) => drop(receipts.send((id, receipt))),
                Err(error) => settle(&stage, stream, id, error.is_refused()),
            }
        }
        stage.pause(rng.millis(0, pause_ms)).await;
    }
    drop(receipts);
    let _told_by_the_receipts = events.flush().await;
}

fn settle(stage: &Stage, stream: usize, id: EventId, refused: bool) {
    let told = if refused { Told::Refused } else { Told::InDoubt };
    stage.with(|shared| shared.streams[stream].told(id, told));
}

async fn collect(
    stage: Stage,
    stream: usize,
    mut receipts: mpsc::UnboundedReceiver<(EventId, Receipt)>,
) {
    while let Some((id, receipt)) = receipts.recv().await {
        match receipt.await {
            Ok(()) => {
                stage.with(|shared| shared.streams[stream].told(id, Told::Acked));
                stage.count("events acked", 1);
            }
            Err(error) => {
                stage.count("events in doubt", u64::from(!error.is_refused()));
                stage.with(|shared| {
                    if error.is_refused() && !shared.streams[stream].may_be_sealed {
                        let what = format!("event {id:?}: {error}");
                        shared.out.violate("I16", format!("nothing explains a refusal: {what}"));
                    }
                });
                settle(&stage, stream, id, error.is_refused());
            }
        }
    }
}

/// Opens a group at the stream's head, however long it takes.
pub(super) async fn group(stage: &Stage, stream: usize, bounded: bool) -> ReaderGroup {
    let name = stage.with(|shared| shared.streams[stream].name.clone());
    loop {
        let group = if bounded {
            stage.client.bounded_reader_group(&name, Start::Head).await
        } else {
            stage.client.reader_group(&name, Start::Head).await
        };
        match group {
            Ok(group) => return group,
            Err(error) => tracing::debug!(%error, "no group yet"),
        }
        executor::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What came of asking a reader once.
enum Next {
    Event,
    End,
    Again,
}

/// Takes one event from a reader and has it judged.
fn take(
    stage: &Stage,
    stream: usize,
    deliveries: &mut Deliveries,
    next: Result<Option<Event>, ReadError>,
) -> Next {
    match next {
        Ok(Some(Event { segment, offset, data })) => {
            stage.with(|shared| {
                let out = &mut shared.out;
                shared.streams[stream].delivered(deliveries, (segment, offset), &data, out);
            });
            Next::Event
        }
        Ok(None) => Next::End,
        Err(ReadError::NotAnEvent { segment, offset, fault }) => {
            let what = format!("stream {stream} segment {segment} offset {offset}: {fault}");
            stage.with(|shared| shared.out.violate("I3", what));
            Next::End
        }
        Err(error @ (ReadError::Truncated { .. } | ReadError::Refused { .. })) => {
            tracing::debug!(%error, "reading");
            Next::Again
        }
        Err(error @ ReadError::Call(_)) => {
            tracing::debug!(%error, "reading");
            Next::Again
        }
    }
}

/// Reads a stream from its head to its end, once.
pub(super) async fn read_all(stage: &Stage, stream: usize, who: &str) -> Deliveries {
    let mut deliveries = stage.with(|shared| shared.streams[stream].deliveries(who));
    let group = group(stage, stream, true).await;
    let mut reader = group.reader();
    trace!("stream {stream}: {who} begins at {:?}", group.cut());
    loop {
        let patience = std::time::Duration::from_secs(30);
        let Some(next) = executor::timeout(patience, reader.next()).await else {
            trace!("stream {stream}: {who} waits at {:?}", group.cut());
            continue;
        };
        match take(stage, stream, &mut deliveries, next) {
            Next::Event => {}
            Next::End => return deliveries,
            Next::Again => executor::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// Reads a stream from its head to its end again and again.
pub(super) async fn reread(stage: Stage, stream: usize, mut rng: Rng) {
    while !stage.is_closing() {
        stage.pause(rng.millis(20, 600)).await;
        read_all(&stage, stream, "a rereader").await;
        stage.count("streams reread", 1);
    }
}

/// Follows a stream from its head with one reader that is replaced now and then. Goes on behind the closing until it
/// has met every event that `until` names.
pub(super) async fn follow(mut stage: Stage, stream: usize, mut rng: Rng) {
    let mut deliveries = stage.with(|shared| shared.streams[stream].deliveries("a follower"));
    let group = group(&stage, stream, false).await;
    let mut reader = group.reader();
    let every = rng.pick(&[20, 100, 1_000_000]);
    loop {
        if stage.has_followed(stream, &deliveries) {
            return;
        }
        let next = select! {
            biased;
            next = reader.next() => next,
            () = stage.news() => continue,
        };
        match take(&stage, stream, &mut deliveries, next) {
            Next::Event if rng.below(every) == 0 => {
                drop(reader);
                reader = group.reader();
                stage.count("readers replaced", 1);
            }
            Next::Event => {}
            Next::End => {
                stage.lacks(stream, &deliveries);
                return;
            }
            Next::Again => stage.pause(rng.millis(1, 50)).await,
        }
    }
}

/// Reads a stream from its head and truncates it behind itself now and then.
pub(super) async fn truncate(mut stage: Stage, stream: usize, mut rng: Rng) {
    let mut deliveries = stage.with(|shared| shared.streams[stream].deliveries("a truncater"));
    let group = group(&stage, stream, false).await;
    let mut reader: Reader = group.reader();
    let every = rng.pick(&[30, 100]);
    while !stage.is_closing() {
        let next = select! {
            biased;
            next = reader.next() => next,
            () = stage.news() => continue,
        };
        match take(&stage, stream, &mut deliveries, next) {
            Next::Event if rng.below(every) == 0 => {
                cut(&stage, stream, &group, deliveries.seen().clone()).await;
            }
            Next::Event => {}
            Next::End => return,
            Next::Again => stage.pause(rng.millis(1, 50)).await,
        }
    }
}

async fn cut(stage: &Stage, stream: usize, group: &ReaderGroup, seen: BTreeSet<EventId>) {
    let name = stage.with(|shared| shared.streams[stream].name.clone());
    let stream_name = StreamName::new(name.scope.as_ref(), name.stream.as_ref());
    trace!("stream {stream}: truncation at {:?}", group.cut());
    let cut = CutOfStream { stream: stream_name, cut: group.cut().0 };
    stage.with(|shared| shared.streams[stream].truncating(&seen));
    match stage.client.controller().call(Request::TruncateStream(cut)).await {
        Ok(Response::UpdateStream(UpdateStreamStatus::Success)) => {
            stage.count("truncations", 1);
            stage.with(|shared| shared.streams[stream].truncated(&seen));
        }
        other => tracing::debug!(?other, "truncation"),
    }
}
