//! Placement: which replicas make up an ensemble, and which one takes a member's place.
//!
//! Pure: the same candidates, policy and seed give the same answer everywhere. What must hold, and what is preferred:
//! 1. Members live on distinct nodes (L18). Never negotiable.
//! 2. A [`Spread::Strict`] policy: no domain holds as many members as the ack quorum. A cluster that cannot satisfy it
//!    is refused, with the numbers.
//! 3. A candidate that is down, or short of space, only fills the write quorum up, and never takes more places than
//!    may fail (write quorum minus ack quorum).
//! 4. As few of those as possible; then one member on the owner's host, members in two zones at least, members in
//!    distinct racks; then chance, weighed by free space and load.
//!
//! Domains are checked here and not when acks are counted: an ensemble that was placed well stays as it is.
//!
//! Deliberately not here: when to place (the owner, the repair), and where the facts come from ([`Members`]).

use crate::quorum::{Quorum, QuorumError};
use rand_core::{RngCore as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use thalweg_actor::network::Endpoint;
use thalweg_actor::probe;
use thalweg_types::id::{NodeId, ReplicaId};
use thiserror::Error;

/// Beyond this many times the policy's minimum, more free space makes no candidate more welcome: entries are trimmed
/// within minutes, so a disk needs room for a while and not for ever.
const FREE_SHARES_MAX: u64 = 16;
/// Load that counts as much as all else: keeps an empty cluster from dividing by zero, and chance in play.
const LOAD_FLOOR: u64 = 1;

/// A storage that may carry replicas, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which storage on which node.
    pub replica: ReplicaId,
    /// The zone that its node is labelled with; an empty text where nobody has said.
    pub zone: Arc<str>,
    /// The rack within that zone; an empty text where nobody has said.
    pub rack: Arc<str>,
    /// Bytes that it can still take.
    pub free_bytes: u64,
    /// How busy it is, in a unit that all candidates share (bytes per second, members carried).
    pub load: u64,
    /// It is thought to be reachable.
    pub up: bool,
}

/// What fails as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A rack within a zone.
    Rack,
    /// A zone.
    Zone,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rack => "rack",
            Self::Zone => "zone",
        })
    }
}

/// How seriously domains are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spread {
    /// Spread over zones and racks as far as there are any.
    Prefer,
    /// An ack quorum never lies in one such domain. Replicas without a label count as one domain.
    Strict(Domain),
}

/// How ensembles are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Copies of each entry, and how many make it committed.
    pub quorum: Quorum,
    /// How members are spread over domains.
    pub spread: Spread,
    /// A candidate with less free space than this many bytes is as good as one that is down.
    pub free_bytes_min: u64,
}

impl Policy {
    /// Spread as far as possible, on any storage that is up.
    pub fn new(quorum: Quorum) -> Self {
        Self { quorum, spread: Spread::Prefer, free_bytes_min: 0 }
    }

    /// Members that one domain may hold: below the ack quorum where that is demanded.
    fn domain_max(&self) -> usize {
        match self.spread {
            Spread::Prefer => usize::MAX,
            Spread::Strict(_) => usize::from(self.quorum.ack) - 1,
        }
    }

    fn fits(&self, candidate: &Candidate) -> bool {
        candidate.up && candidate.free_bytes >= self.free_bytes_min
    }

    /// Where `candidate` lies, for [`Policy::domain_max`].
    fn domain(&self, candidate: &Candidate) -> Place {
        match self.spread {
            Spread::Prefer => (Arc::default(), Arc::default()),
            Spread::Strict(Domain::Zone) => (Arc::clone(&candidate.zone), Arc::default()),
            Spread::Strict(Domain::Rack) => rack(candidate),
        }
    }
}

/// Why no ensemble can be placed. Each names the numbers that are in the way.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlacementError {
    /// The quorum itself is wrong.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// An ack quorum of one always lies in one domain.
    #[error("an ack quorum of 1 lies in one {domain} whatever is placed where")]
    AckQuorumOfOne {
        /// The domain that the policy names.
        domain: Domain,
    },
    /// The policy's domains are too few.
    #[error(
        "{write} members with at most {each} in one {domain} need {needed} of them, and there are {found}"
    )]
    TooFewDomains {
        /// The domain that the policy names.
        domain: Domain,
        /// Members to be placed.
        write: u8,
        /// Members that one domain may hold.
        each: usize,
        /// Domains needed.
        needed: usize,
        /// Domains that have a candidate.
        found: usize,
    },
    /// There are not enough nodes, or not enough of them in the right domains.
    #[error("{write} members need as many nodes, and {found} can be used at once ({nodes} known)")]
    TooFewNodes {
        /// Members to be placed.
        write: u8,
        /// Nodes that could be used together under the policy.
        found: usize,
        /// Nodes with a candidate.
        nodes: usize,
    },
    /// Too many members would be down or short of space from the start.
    #[error("{unfit} of {write} members would be down or short of space, and {most} may be")]
    TooManyDown {
        /// Members to be placed.
        write: u8,
        /// Members that would have to be on a node that is down or short of space.
        unfit: usize,
        /// How many may be: the write quorum minus the ack quorum.
        most: usize,
    },
    /// Nobody can take the member's place.
    #[error(
        "nobody can take the place of {old}: of {known} other storages {taken} share a node with a member, \
         {avoided} are avoided, {unfit} are down or short of space, {crowded} lie in a full domain"
    )]
    NoSubstitute {
        /// The member that shall go.
        old: ReplicaId,
        /// Storages other than the member itself.
        known: usize,
        /// On a node of a member that stays.
        taken: usize,
        /// On the caller's list.
        avoided: usize,
        /// Down, or with too little space.
        unfit: usize,
        /// In a domain that may hold no more members.
        crowded: usize,
    },
}

/// What is known of the cluster's storages.
pub trait Members: Send + Sync {
    /// Every storage that may carry replicas, in whatever order.
    fn candidates(&self) -> Vec<Candidate>;

    /// Where `node` listens for what is said about ledgers; `None` while nobody knows.
    fn endpoint(&self, node: NodeId) -> Option<Endpoint>;
}

/// A new ensemble for a ledger whose owner runs on `near`. The order of `candidates` decides nothing.
pub fn ensemble(
    policy: &Policy,
    candidates: &[Candidate],
    near: Option<NodeId>,
    seed: u64,
) -> Result<Vec<ReplicaId>, PlacementError> {
    let quorum = policy.quorum;
    quorum.validate()?;
    enough_domains(policy, candidates)?;
    let mut table = Table::new(policy, candidates, seed);
    let wanted = usize::from(quorum.write);
    while table.members.len() < wanted {
        let wish = |candidate: &Candidate| near == Some(candidate.replica.node);
        let Some(best) = table.best(wish) else {
            let (found, nodes) = (table.members.len(), nodes(candidates));
            return Err(PlacementError::TooFewNodes { write: quorum.write, found, nodes });
        };
        table.take(best);
    }
    let unfit = table.members.iter().filter(|member| !policy.fits(member)).count();
    let most = usize::from(quorum.write - quorum.ack);
    if unfit > most {
        return Err(PlacementError::TooManyDown { write: quorum.write, unfit, most });
    }
    if unfit > 0 {
        probe!("placement: a member that is down fills the ensemble");
    }
    let members: Vec<_> = table.members.iter().map(|member| member.replica).collect();
    quorum.validate_ensemble(&members)?;
    Ok(members)
}

/// The replica that takes the place of `old` in `ensemble`. Never one of `avoid`, never on a node that holds a member
/// that stays; on the node of `old` itself (another disk there) only if no other node will do.
pub fn substitute(
    policy: &Policy,
    candidates: &[Candidate],
    ensemble: &[ReplicaId],
    old: ReplicaId,
    avoid: &[ReplicaId],
    seed: u64,
) -> Result<ReplicaId, PlacementError> {
    policy.quorum.validate()?;
    let stays = |replica: ReplicaId| replica != old && ensemble.contains(&replica);
    let mut open = Vec::with_capacity(candidates.len());
    let (mut known, mut taken, mut avoided, mut unfit) = (0, 0, 0, 0);
    for candidate in candidates.iter().filter(|candidate| candidate.replica != old) {
        known += 1;
        let node = candidate.replica.node;
        if ensemble.iter().any(|member| stays(*member) && member.node == node) {
            taken += 1;
        } else if avoid.contains(&candidate.replica) {
            avoided += 1;
        } else if !policy.fits(candidate) {
            unfit += 1;
        } else {
            open.push(candidate.clone());
        }
    }
    let mut table = Table::new(policy, &open, seed);
    for member in candidates.iter().filter(|candidate| stays(candidate.replica)) {
        table.take(member.clone());
    }
    let best = table.best(|candidate| candidate.replica.node != old.node);
    let crowded = open.len();
    best.map(|best| best.replica).ok_or(PlacementError::NoSubstitute {
        old,
        known,
        taken,
        avoided,
        unfit,
        crowded,
    })
}

/// Refuses a policy that the cluster as it is labelled cannot satisfy, whoever is up.
fn enough_domains(policy: &Policy, candidates: &[Candidate]) -> Result<(), PlacementError> {
    let Spread::Strict(domain) = policy.spread else { return Ok(()) };
    let (write, each) = (policy.quorum.write, policy.domain_max());
    if each == 0 {
        return Err(PlacementError::AckQuorumOfOne { domain });
    }
    let needed = usize::from(write).div_ceil(each);
    let found = candidates.iter().map(|c| policy.domain(c)).collect::<BTreeSet<_>>().len();
    if found < needed {
        return Err(PlacementError::TooFewDomains { domain, write, each, needed, found });
    }
    Ok(())
}

/// A zone and a rack in it.
type Place = (Arc<str>, Arc<str>);

fn rack(candidate: &Candidate) -> Place {
    (Arc::clone(&candidate.zone), Arc::clone(&candidate.rack))
}

fn nodes(candidates: &[Candidate]) -> usize {
    candidates.iter().map(|candidate| candidate.replica.node).collect::<BTreeSet<_>>().len()
}

/// An ensemble in the making. Domains part the nodes, so taking the best that is allowed, one after another, gives
/// the fewest unfit members and the most racks that any choice could.
struct Table<'a> {
    policy: &'a Policy,
    /// Those that may still be taken, by identity, at most one per node.
    open: Vec<Candidate>,
    members: Vec<Candidate>,
    domains: BTreeMap<Place, usize>,
    mean_load: u64,
    random: Pcg64Mcg,
}

impl<'a> Table<'a> {
    fn new(policy: &'a Policy, candidates: &[Candidate], seed: u64) -> Self {
        let mut open = candidates.to_vec();
        // A node's best storage stands for it. Identities are unique, so the order is one.
        open.sort_by_key(|c| (c.replica.node, !policy.fits(c), c.load, c.replica.storage));
        open.dedup_by_key(|candidate| candidate.replica.node);
        let total: u128 = open.iter().map(|candidate| u128::from(candidate.load)).sum();
        let count = open.len().max(1) as u128;
        Self {
            policy,
            open,
            members: Vec::new(),
            domains: BTreeMap::new(),
            mean_load: u64::try_from(total / count).unwrap_or(u64::MAX),
            random: Pcg64Mcg::seed_from_u64(seed),
        }
    }

    /// The next member, chosen by chance among the best; `None` if none is allowed. `wish` is granted to any of the
    /// fit ones before domains are looked at.
    fn best(&mut self, wish: impl Fn(&Candidate) -> bool) -> Option<Candidate> {
        let max = self.policy.domain_max();
        let allowed =
            |c: &&Candidate| self.domains.get(&self.policy.domain(c)).copied().unwrap_or(0) < max;
        let zones: BTreeSet<_> = self.members.iter().map(|member| &member.zone).collect();
        let racks: BTreeSet<_> = self.members.iter().map(rack).collect();
        let rank = |c: &Candidate| {
            let zone_wanted = zones.len() == 1 && !zones.contains(&c.zone);
            let fits = self.policy.fits(c);
            (fits, fits && wish(c), zone_wanted, !racks.contains(&rack(c)))
        };
        let top = self.open.iter().filter(allowed).map(rank).max()?;
        let equals: Vec<_> =
            self.open.iter().filter(allowed).filter(|c| rank(c) == top).cloned().collect();
        let total: u128 = equals.iter().map(|candidate| self.weight(candidate)).sum();
        let mut drawn = self.draw(total);
        equals.into_iter().find(|candidate| {
            let weight = self.weight(candidate);
            let hit = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            hit
        })
    }

    fn take(&mut self, member: Candidate) {
        self.open.retain(|candidate| candidate.replica.node != member.replica.node);
        *self.domains.entry(self.policy.domain(&member)).or_default() += 1;
        self.members.push(member);
    }

    /// Never 0. An idle storage weighs twice as much as one of mean load.
    fn weight(&self, candidate: &Candidate) -> u128 {
        let share = candidate.free_bytes / self.policy.free_bytes_min.max(1);
        let free = u128::from(share.clamp(1, FREE_SHARES_MAX));
        let mean = u128::from(self.mean_load) + u128::from(LOAD_FLOOR);
        (free * mean * 1024 / (mean + u128::from(candidate.load))).max(1)
    }

    fn draw(&mut self, total: u128) -> u128 {
        let drawn = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        drawn % total.max(1)
    }
}

#[cfg(test)]
mod tests;
