//! What a node is told at start.

use std::time::Duration;
use thalweg_log::engine;
use thalweg_segment::store;
use thalweg_types::limits::CONTAINERS;
use thalweg_wire::controller::NodeUri;

/// How one node behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients find the segment store, as the controller tells them.
    pub segment_store: NodeUri,
    /// Where clients find the controller.
    pub controller: NodeUri,
    /// How long an RPC may wait before it answers that its outcome is unknown.
    pub rpc_deadline: Duration,
    /// How often watermarks are looked to.
    pub watermark_period: Duration,
    /// The disk log.
    pub log: engine::Config,
    /// The containers.
    pub store: store::Config,
}

impl Config {
    /// What a real node uses.
    pub fn production(controller: NodeUri, segment_store: NodeUri) -> Self {
        Self {
            segment_store,
            controller,
            rpc_deadline: Duration::from_secs(120),
            watermark_period: Duration::from_secs(10),
            log: engine::Config::production(),
            store: store::Config { containers: CONTAINERS, ..store::Config::default() },
        }
    }
}
