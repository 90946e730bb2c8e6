//! One step's segment commands: sent until their outcome is known.

use super::StepJob;
use crate::controller::{Ended, Inner};
use crate::join::join_all;
use crate::limits::SEGMENT_COMMANDS_MAX;
use crate::segments::{SegmentError, SegmentKind};
use std::collections::BTreeMap;
use std::time::Duration;
use thalweg_actor::{BoxFuture, probe};
use thalweg_types::id::SegmentId;
use thalweg_types::name::SegmentName;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One command to one segment.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The segment.
    pub(crate) name: SegmentName,
    /// Its id, where its final length is to be recorded.
    pub(crate) id: Option<SegmentId>,
    /// What is asked of it.
    pub(crate) deed: Deed,
}

/// What is asked of a segment.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Create(SegmentKind),
    Seal,
    Truncate(i64),
    Delete,
    /// Into the segment of that name.
    Merge(SegmentName),
}

/// What a step came to.
#[derive(Default)]
pub(super) struct Sent {
    /// The final lengths of the segments that were sealed, where they are to be recorded.
    pub(super) lengths: BTreeMap<SegmentId, i64>,
    /// A segment to merge into takes nothing any more: what came behind that merge was not sent.
    pub(super) blocked: bool,
}

enum Answer {
    Done(Option<i64>),
    Blocked,
}

/// Sends one step's segment commands.
pub(super) struct Hand<'a> {
    pub(super) inner: &'a Inner,
    pub(super) job: &'a StepJob,
}

impl Hand<'_> {
    /// Sends all orders of the job, stage by stage, those of one stage some at a time.
    pub(super) async fn send_all(&self) -> Result<Sent, Ended> {
        let mut sent = Sent::default();
        let chunks = self.job.stages.iter().flat_map(|stage| stage.chunks(SEGMENT_COMMANDS_MAX));
        for chunk in chunks {
            let one = |order| -> BoxFuture<'_, _> { Box::pin(self.send(order)) };
            let answers = join_all(chunk.iter().map(one).collect()).await;
            for (order, answer) in chunk.iter().zip(answers) {
                match answer? {
                    Answer::Done(length) => sent.lengths.extend(order.id.zip(length)),
                    Answer::Blocked => sent.blocked = true,
                }
            }
            if sent.blocked {
                break;
            }
        }
        Ok(sent)
    }

    /// Sends one order until its outcome is known.
    async fn send(&self, order: &Order) -> Result<Answer, Ended> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(order).await {
                Ok(length) => return Ok(Answer::Done(length)),
                Err(error) => error,
            };
            if let Some(answer) = settled(order, &error) {
                return Ok(answer);
            }
            probe!("controller: segment command is sent again");
            tracing::warn!(%error, ?order, "segment command failed, trying again");
            self.inner.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, order: &Order) -> Result<Option<i64>, SegmentError> {
        let (segments, fence) = (&self.inner.segments, self.job.fence);
        let segment = &order.name;
        match order.deed {
            Deed::Create(kind) => segments.create(fence, segment, kind).await.map(|()| None),
            Deed::Merge(ref into) => segments.merge(fence, into, segment).await.map(|()| None),
            Deed::Seal => segments.seal(fence, segment).await.map(Some),
            Deed::Delete => segments.delete(fence, segment).await.map(|()| None),
            Deed::Truncate(offset) => {
                let mut done = segments.truncate(fence, segment, offset).await;
                if let Err(SegmentError::BeyondEnd { length, .. }) = done {
                    // A cut may lie behind what is written: then everything goes.
                    probe!("controller: truncation behind the end");
                    done = segments.truncate(fence, segment, length).await;
                }
                done.map(|()| None)
            }
        }
    }
}

/// What a failed command has come to, if sending it again can change nothing.
fn settled(order: &Order, error: &SegmentError) -> Option<Answer> {
    match (error, &order.deed) {
        (SegmentError::NotFound { .. }, Deed::Create(_)) => None,
        (SegmentError::NotFound { name }, Deed::Merge(into)) if name != into => {
            // All sources were sealed before the first merge was sent, so this one was merged.
            probe!("controller: a transaction's segment was merged before");
            Some(Answer::Done(None))
        }
        (SegmentError::NotFound { .. } | SegmentError::Sealed { .. }, Deed::Merge(_)) => {
            tracing::warn!(%error, ?order, "a segment to merge into takes nothing");
            Some(Answer::Blocked)
        }
        (SegmentError::NotFound { .. }, _) => {
            // Somebody removed it at the store: there is nothing left to seal or to cut.
            probe!("controller: segment is gone");
            tracing::warn!(%error, ?order, "segment is missing");
            Some(Answer::Done(None))
        }
        _ => None,
    }
}
