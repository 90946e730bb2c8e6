//! A running node as its HTTP port shows it.

use super::edge::Edge;
use crate::os::file::Folder;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thalweg_log::engine::Engine;
use thalweg_log::storage::Storage as _;
use thalweg_node::Node;
use thalweg_segment::connection::Connections;
use thalweg_segment::container::Acknowledged;
use thalweg_segment::store::SegmentStore;

/// How the node fares.
#[derive(Debug)]
pub(super) enum State {
    /// Everything is served.
    Serving,
    /// Appends wait, for this reason; reads go on.
    Held(Arc<str>),
    /// It has been asked to stop.
    Stopping,
    /// A container has ended, for this reason.
    Stopped(Arc<str>),
}

/// What can be seen of the node without asking its actors.
pub(super) struct View {
    folder: Arc<Folder>,
    log: Arc<Engine>,
    store: Arc<SegmentStore>,
    connections: Arc<Connections>,
    edge: Arc<Edge>,
    stopping: AtomicBool,
}

impl View {
    pub(super) fn new(folder: Arc<Folder>, node: &Node, edge: Arc<Edge>) -> Self {
        Self {
            folder,
            log: Arc::clone(node.log()),
            store: Arc::clone(node.store()),
            connections: Arc::clone(node.connections()),
            edge,
            stopping: AtomicBool::new(false),
        }
    }

    /// From here on the node is stopping.
    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> State {
        if self.stopping.load(Ordering::Relaxed) {
            return State::Stopping;
        }
        let log = self.log.progress().borrow().clone();
        let stopped = || self.store.health().into_iter().find_map(|health| health.stopped);
        if let Some(reason) = log.stopped.or_else(stopped) {
            return State::Stopped(reason);
        }
        log.held.or_else(|| self.store.held()).map_or(State::Serving, State::Held)
    }

    pub(super) fn containers(&self) -> usize {
        self.store.health().len()
    }

    pub(super) fn segments(&self) -> usize {
        self.store.health().iter().map(|health| health.segments).sum()
    }

    pub(super) fn segment_connections(&self) -> usize {
        self.connections.open()
    }

    pub(super) fn controller_connections(&self) -> usize {
        self.edge.open()
    }

    pub(super) fn acknowledged(&self) -> Acknowledged {
        self.store.acknowledged()
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(super) fn cache_bytes(&self) -> usize {
        self.store.cache_bytes()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("state", &self.state()).finish_non_exhaustive()
    }
}
