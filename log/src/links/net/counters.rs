//! What has happened on connections, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one node's ledger connections, both sides. All only grow.
        #[derive(Debug, Default)]
        pub struct LinkCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl LinkCounters {
            /// Each counter's name and value.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Connections made to other nodes, handshake included.
    connected,
    /// Attempts that failed.
    connect_failed,
    /// Connections of ours that ended.
    lost,
    /// Those of them that ended because nothing came any more.
    silent,
    /// Connections taken from other nodes, handshake included.
    accepted,
    /// Connections refused: no feature level in common.
    refused_level,
    /// Connections refused: of another cluster.
    refused_cluster,
    /// Connections refused: for another node.
    refused_node,
    /// Connections refused: too many.
    refused_busy,
    /// Connections that did not begin with a handshake in time.
    no_handshake,
    /// Channels refused: that storage is not mounted here.
    not_mounted,
    /// Channels refused: too many, or a storage that has stopped.
    not_attached,
    /// Connections closed because of bytes that are no message.
    bad_frames,
    /// Those of them where an entry did not match its checksum.
    bad_contents,
    /// Connections closed because of a message that must not come there.
    bad_messages,
    /// Connections closed because the peer took nothing.
    overflowed,
    /// Requests taken.
    requests,
    /// Replies taken.
    replies,
    /// Bytes read.
    bytes_read,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
