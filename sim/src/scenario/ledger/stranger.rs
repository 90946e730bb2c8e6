//! Somebody who has no business here: a machine of another cluster, or one that takes a node for another, or asks for a
//! storage that is not there. Whatever it says must be refused, and must leave no trace.

use super::CLUSTER;
use super::history::id;
use super::site::Cast;
use super::wiring::Directory;
use crate::world::executor;
use crate::world::host::Host;
use crate::world::rng::Rng;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_log::links::net::{NetLinks, NodeIdentity};
use thalweg_log::links::{Lane, Link, LinkEvent, Links as _, Sink};
use thalweg_log::message::Request;
use thalweg_log::placement::{Candidate, Members};
use thalweg_types::id::{Epoch, Incarnation, LedgerId, NodeId, ReplicaId, StorageUuid};

/// How a stranger is wrong.
#[derive(Clone, Copy, Debug)]
enum Error {
    Cluster,
    Node,
    Storage,
}

/// The address book of a stranger.
struct Book {
    directory: Arc<Directory>,
    error: Error,
}

impl Members for Book {
    fn candidates(&self) -> Vec<Candidate> {
        self.directory.candidates()
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        let there = match self.error {
            Error::Node => NodeId(node.0 % 3 + 1),
            Error::Cluster | Error::Storage => node,
        };
        self.directory.endpoint(there)
    }
}

/// Notes whoever lets a stranger in.
struct Ear {
    cast: Cast,
    error: Error,
}

impl Sink for Ear {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        match event {
            LinkEvent::Connected { .. } | LinkEvent::Reply(_) => {
                let what = format!("{from} talks to a stranger (wrong {:?})", self.error);
                self.cast.stage.with(|history| history.violate("L18", what));
            }
            LinkEvent::Lost { .. } => self.cast.stage.count("strangers turned away", 1),
        }
    }
}

/// Lets a stranger call on everybody.
pub(super) fn call(host: &mut Host, cast: &Cast, rng: &mut Rng) {
    let env = host.boot();
    let error = rng.pick(&[Error::Cluster, Error::Node, Error::Storage]);
    env.spawn.spawn("stranger", Box::pin(insist(env.clone(), cast.clone(), error)));
}

async fn insist(env: Env, cast: Cast, error: Error) {
    let cluster = if matches!(error, Error::Cluster) { CLUSTER + 1 } else { CLUSTER };
    let identity = NodeIdentity { cluster, node: NodeId(99), incarnation: Incarnation(1) };
    let members = Arc::new(Book { directory: Arc::clone(&cast.directory), error });
    let links = NetLinks::new(env, identity, members, cast.limits.links, Arc::default());
    let ear = Arc::new(Ear { cast: cast.clone(), error });
    let mut attached: Vec<(LedgerId, Box<dyn Link>)> = Vec::new();
    for container in (0..cast.stage.containers()).map(id) {
        for candidate in cast.directory.candidates() {
            let ReplicaId { node, storage } = candidate.replica;
            let wrong = StorageUuid(storage.0 ^ 1);
            let storage = if matches!(error, Error::Storage) { wrong } else { storage };
            let replica = ReplicaId { node, storage };
            let link = links.attach(container, replica, Lane::Urgent, ear.clone());
            let epoch = cast.register.get(container).map_or(Epoch(1), |log| log.epoch);
            attached.push((LedgerId { container, epoch }, link));
        }
    }
    loop {
        for (ledger, link) in &attached {
            link.send(Request::Fence { ledger: *ledger, by: Epoch(1 << 40) });
        }
        executor::sleep(Duration::from_millis(20)).await;
    }
}
