//! Two native byte writers that get in one another's way.

use super::raw;
use super::rawlog::RawLog;
use super::stage::Stage;
use crate::world::executor;
use crate::world::rng::Rng;
use std::time::Duration;
use thalweg_client::byte_stream::ByteStreamError;
use thalweg_types::id::SegmentId;
use thalweg_types::name::ScopedStream;

/// Makes a byte stream, lets two writers work on it until the stage closes, and seals it for the judge.
pub(super) async fn perform(stage: Stage, mut rng: Rng) {
    let name = ScopedStream::new("world", "bytes");
    while let Err(error) = stage.client.create_stream(&name, 1).await {
        tracing::debug!(%error, "no byte stream yet");
        executor::sleep(Duration::from_millis(50)).await;
    }
    let segment = name.segment(SegmentId(0));
    let log = stage.with(|shared| {
        shared.raws.push(RawLog::new(segment.clone()));
        shared.raws.len() - 1
    });
    for _ in 0..2 {
        stage.spawn("byte writer", write(stage.clone(), name.clone(), log, rng.fork()));
    }
    while !stage.is_closing() {
        stage.pause(Duration::from_secs(1)).await;
    }
    raw::finish(stage, log, segment).await;
}

async fn write(stage: Stage, name: ScopedStream, log: usize, mut rng: Rng) {
    while !stage.is_closing() {
        let Ok(mut bytes) = stage.client.byte_writer(&name).await else {
            stage.pause(rng.millis(1, 50)).await;
            continue;
        };
        // A writer that does not know how its last write ended gives up: another one begins.
        let writer = stage.with(|shared| shared.raws[log].add_writer());
        loop {
            if stage.is_closing() {
                return;
            }
            stage.pause(rng.millis(0, 30)).await;
            let len = u16::try_from(rng.below(400)).expect("short");
            let at = bytes.offset();
            let data = stage.with(|shared| shared.raws[log].compose(writer, len, Some(at)));
            match bytes.write(data).await {
                Ok(()) => {
                    stage.with(|shared| {
                        let log = &mut shared.raws[log];
                        let last = log.count(writer) - 1;
                        log.acked(writer, last);
                    });
                    stage.count("byte writes acked", 1);
                }
                Err(error) => {
                    if error.is_refused() {
                        stage.with(|shared| shared.raws[log].refused(writer));
                    }
                    let other = matches!(error, ByteStreamError::OtherWriter { .. });
                    if !other || bytes.seek_to_tail().await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}
