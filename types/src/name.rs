//! Names: scopes, streams and segments, and the container that a segment name belongs to.
//!
//! A segment name is `<scope>/<stream>/<number>.#epoch.<epoch>`, with `#transaction.<32 hex>` or
//! `#transient.<32 hex>.<32 hex>` behind it for the segments that live with a parent.

use crate::hash::murmur3;
use crate::id::{ContainerId, SegmentId};
use crate::limits::NAME_CHARS_MAX;
use std::fmt;
use std::sync::Arc;

const TRANSACTION: &str = "#transaction.";
const TRANSIENT: &str = "#transient.";
const EPOCH: &str = ".#epoch.";
/// Seed of the spread of segments over containers. Persisted in effect: never change it.
const CONTAINER_SEED: u64 = 0x7468_616c_7765_6721;

/// True for a name that a scope or stream may have: `_?[A-Za-z0-9.-]+`, at most 255 characters.
pub fn is_entity_name(name: &str) -> bool {
    let rest = name.strip_prefix('_').unwrap_or(name);
    name.len() <= NAME_CHARS_MAX
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

/// A stream's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopedStream {
    /// The scope's name.
    pub scope: Arc<str>,
    /// The stream's name.
    pub stream: Arc<str>,
}

impl ScopedStream {
    /// `scope/stream`.
    pub fn new(scope: &str, stream: &str) -> Self {
        Self { scope: scope.into(), stream: stream.into() }
    }

    /// The name of one of the stream's segments at the segment store.
    pub fn segment(&self, id: SegmentId) -> SegmentName {
        SegmentName::from(format!("{self}/{}{EPOCH}{}", id.number(), id.epoch()))
    }
}

impl fmt::Display for ScopedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.stream)
    }
}

/// The full name of a segment, exactly as it crossed the wire. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(Arc<str>);

impl From<String> for SegmentName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<&str> for SegmentName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SegmentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without a transaction or transient suffix: the parent's, or its own.
    pub fn parent(&self) -> &str {
        let cut = |name: &str, mark: &str| name.find(mark).unwrap_or(name.len());
        &self.0[..cut(&self.0, TRANSACTION).min(cut(&self.0, TRANSIENT))]
    }

    /// True for the segment of a transaction.
    pub fn is_transaction(&self) -> bool {
        self.0.contains(TRANSACTION)
    }

    /// True for the segment of a large event under way.
    pub fn is_transient(&self) -> bool {
        self.0.contains(TRANSIENT)
    }

    /// The stream and segment id, if the name has that form. Suffixes are ignored.
    pub fn stream(&self) -> Option<(ScopedStream, SegmentId)> {
        let (path, number) = self.parent().rsplit_once('/')?;
        let (scope, stream) = path.rsplit_once('/')?;
        let (number, epoch) = number.split_once(EPOCH).unwrap_or((number, "0"));
        let id = SegmentId::new(epoch.parse().ok()?, number.parse().ok()?);
        Some((ScopedStream::new(scope, stream), id))
    }

    /// The container that holds the segment, of `containers` in all. A transaction's or large event's segment
    /// lives with its parent, and so do all epochs of one segment number.
    pub fn container(&self, containers: u32) -> ContainerId {
        let parent = self.parent();
        let cut = parent.find(EPOCH).unwrap_or(parent.len());
        let hash = murmur3(&parent.as_bytes()[..cut], CONTAINER_SEED);
        ContainerId(u32::try_from(hash % u64::from(containers)).expect("below a u32"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_says_stream_and_id() {
        let name = ScopedStream::new("s", "t").segment(SegmentId::new(2, 5));
        assert_eq!(name.as_str(), "s/t/5.#epoch.2");
        assert_eq!(name.stream(), Some((ScopedStream::new("s", "t"), SegmentId::new(2, 5))));
    }

    #[test]
    fn transactions_live_with_their_parent() {
        let parent = SegmentName::from("s/t/0.#epoch.0");
        let txn = SegmentName::from(format!("{parent}#transaction.{:032x}", 7));
        assert_eq!(txn.parent(), parent.as_str());
        assert_eq!(txn.container(32), parent.container(32));
        assert_eq!(SegmentName::from("s/t/0.#epoch.4").container(32), parent.container(32));
    }

    #[test]
    fn entity_names_are_those_that_the_controller_takes() {
        for good in ["a", "_a", "a.b-C9", &"x".repeat(255)] {
            assert!(is_entity_name(good), "{good}");
        }
        for bad in ["", "_", "a_b", "a/b", "ä", &"x".repeat(256)] {
            assert!(!is_entity_name(bad), "{bad}");
        }
    }
}
