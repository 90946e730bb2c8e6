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
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Create(SegmentKind),
    Seal,
    Truncate(i64),
    Delete,
}

/// Sends one step's segment commands.
pub(super) struct Hand<'a> {
    pub(super) inner: &'a Inner,
    pub(super) job: &'a StepJob,
}

impl Hand<'_> {
    /// Sends all orders of the job, some at a time. Answers the final length of each segment that was sealed.
    pub(super) async fn send_all(&self) -> Result<BTreeMap<SegmentId, i64>, Ended> {
        let mut lengths = BTreeMap::new();
        for chunk in self.job.orders.chunks(SEGMENT_COMMANDS_MAX) {
            let one = |order| -> BoxFuture<'_, _> { Box::pin(self.send(order)) };
            let answers = join_all(chunk.iter().map(one).collect()).await;
            for (order, answer) in chunk.iter().zip(answers) {
                lengths.extend(order.id.zip(answer?));
            }
        }
        Ok(lengths)
    }

    /// Sends one order until its outcome is known.
    async fn send(&self, order: &Order) -> Result<Option<i64>, Ended> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.attempt(order).await {
                Ok(length) => return Ok(length),
                Err(error) => error,
            };
            let creates = matches!(order.deed, Deed::Create(_));
            if matches!(error, SegmentError::NotFound { .. }) && !creates {
                // Somebody removed it at the store: there is nothing left to seal or to cut.
                probe!("controller: segment is gone");
                tracing::warn!(%error, ?order, "segment is missing");
                return Ok(None);
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
