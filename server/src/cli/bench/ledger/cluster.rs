//! The replicas under measurement, and the owner's way to them.

use super::super::child::Replica;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use thalweg_log::ledger::{Ledger, Logs as _};
use thalweg_log::links::net::{LinkCounters, NetLinks, NodeIdentity, Patience};
use thalweg_log::local::Owner;
use thalweg_log::placement::{Candidate, Members, Policy};
use thalweg_log::quorum::Quorum;
use thalweg_log::register::MemoryRegister;
use thalweg_log::replicated::{Cluster, ReplicatedLogs};
use thalweg_types::id::{ContainerId, Incarnation, NodeId, ReplicaId, StorageUuid};

const CLUSTER: u128 = 0xbe9c;
/// The node that owns the ledgers: this process.
const OWNER: NodeId = NodeId(0);
/// Containers of a cluster are used once each.
const CONTAINERS: u32 = 1 << 20;

/// Who is there, and where.
struct Fixed {
    members: Vec<(ReplicaId, Endpoint)>,
}

impl Members for Fixed {
    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(replica, _): &(ReplicaId, Endpoint)| Candidate {
            replica: *replica,
            zone: Arc::default(),
            rack: Arc::default(),
            free_bytes: u64::MAX / 2,
            load: 0,
            up: true,
        };
        self.members.iter().map(candidate).collect()
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        let found = self.members.iter().find(|(replica, _)| replica.node == node);
        found.map(|(_, endpoint)| endpoint.clone())
    }
}

/// Replicas that are processes of their own; they end with this, and their data go.
pub(super) struct Replicas {
    processes: Vec<Replica>,
    logs: Arc<ReplicatedLogs>,
    next_container: std::sync::atomic::AtomicU32,
    folders: Vec<PathBuf>,
}

impl Replicas {
    /// Starts `count` of them, with an owner in this process. To be called inside the runtime.
    pub(super) fn start(folder: &Path, count: u8) -> anyhow::Result<Self> {
        let (mut processes, mut members, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        for node in 1..=u64::from(count) {
            // What a bench that was killed has left is of another owner.
            let _nothing_there = std::fs::remove_dir_all(folder.join(format!("data-{node}")));
            let process = Replica::start(folder, node, CLUSTER)?;
            folders.push(folder.join(format!("data-{node}")));
            let storage = process.name.split_once('/').map(|(_, uuid)| uuid).unwrap_or_default();
            let storage = u128::from_str_radix(storage, 16).context("a replica has no name")?;
            let replica = ReplicaId { node: NodeId(node), storage: StorageUuid(storage) };
            members.push((replica, Endpoint::from(process.address.as_str())));
            processes.push(process);
        }
        let env = crate::os::client_env()?;
        let logs = logs(&env, members, Quorum { write: count, ack: count / 2 + 1 });
        Ok(Self { processes, logs, next_container: 0.into(), folders })
    }

    /// A fresh ledger, of a container of its own.
    pub(super) async fn ledger(&self) -> anyhow::Result<Arc<dyn Ledger>> {
        let next = self.next_container.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let opened = self.logs.open(ContainerId(next % CONTAINERS)).await?;
        Ok(opened.ledger)
    }

    /// CPU time of the replicas and of this process so far.
    pub(super) fn cpu(&self) -> (Duration, Duration) {
        let replicas = self.processes.iter().map(Replica::cpu).sum();
        (replicas, crate::os::process::cpu())
    }

    /// Resident memory in bytes: of the largest replica, and of this process.
    pub(super) fn memory(&self) -> (u64, u64) {
        let largest = self.processes.iter().map(Replica::memory).max();
        (largest.unwrap_or(0), crate::os::process::memory())
    }

    /// The last replica, to be suspended.
    pub(super) fn last(&self) -> Option<&Replica> {
        self.processes.last()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.processes.clear();
        for folder in &self.folders {
            // Because: the figures stand, and the bench's own folder goes as a whole.
            let _left_behind = std::fs::remove_dir_all(folder);
        }
    }
}

fn logs(env: &Env, members: Vec<(ReplicaId, Endpoint)>, quorum: Quorum) -> Arc<ReplicatedLogs> {
    let members: Arc<dyn Members> = Arc::new(Fixed { members });
    let incarnation = Incarnation(u64::try_from(env.entropy.draw() >> 64).unwrap_or_default());
    let identity = NodeIdentity { cluster: CLUSTER, node: OWNER, incarnation };
    let counters = Arc::<LinkCounters>::default();
    let patience = Patience::production();
    let links = NetLinks::new(env.clone(), identity, Arc::clone(&members), patience, counters);
    let cluster = Cluster {
        links: Arc::new(links),
        register: Arc::new(MemoryRegister::default()),
        members,
        policy: Policy::new(quorum),
    };
    ReplicatedLogs::start(env, cluster, Owner { host: OWNER, session: 1, incarnation })
}
