//! Reads entries of a container's log from whichever replica can give them.
//!
//! One replica at a time is asked: the owner's own node first, then the fastest. Whoever says UNKNOWN, is out of reach
//! or lets the deadline pass is passed over; an error names everybody who was asked. Nothing here says that an entry
//! does not exist.

use super::Parts;
use crate::frame::EntryFrame;
use crate::ledger::ReadError;
use crate::links::{Lane, Link, LinkEvent, Sink};
use crate::message::{EntryHeaders, Reply, Request};
use crate::register::{Change, ContainerLog, RegisterCommand, RegisterReply};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thalweg_actor::{buggify, probe};
use thalweg_types::id::{Address, ContainerId, EntryId, LedgerId, ReplicaId};
use tokio::sync::oneshot;

/// How long each replica has to answer, round by round.
const PATIENCE: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
/// Whoever takes longer is asked after the others, wherever it is.
const SLOW: Duration = Duration::from_millis(50);
/// Between rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries whose headers are asked for at once.
const HEADERS_MAX: u32 = 1024;
/// The same in simulation, now and then.
const HEADERS_FEW: u32 = 3;
/// Bytes of headers that are asked for at once.
const HEADER_BYTES_MAX: u32 = 1024 * 1024;

/// Which answer somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Entry(LedgerId, EntryId),
    Headers(LedgerId, EntryId, u32),
}

impl Question {
    fn request(self) -> Request {
        match self {
            Self::Entry(ledger, entry) => Request::Read { ledger, entry },
            Self::Headers(ledger, from, entries_max) => {
                Request::Headers { ledger, from, entries_max, bytes_max: HEADER_BYTES_MAX }
            }
        }
    }

    fn address(self) -> Address {
        match self {
            Self::Entry(ledger, entry) | Self::Headers(ledger, entry, _) => {
                Address::new(ledger.epoch, entry)
            }
        }
    }

    fn is_answered_by(self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Entry(ledger, entry), Reply::Have(frame)) => {
                (frame.ledger, frame.entry) == (ledger, entry)
            }
            (Self::Headers(ledger, from, _), Reply::Headers { ledger: of, from: at, entries }) => {
                (*of, *at) == (ledger, from) && !entries.is_empty()
            }
            (
                Self::Entry(ledger, entry) | Self::Headers(ledger, entry, _),
                Reply::Unknown { ledger: of, entry: at }
                | Reply::NeverHad { ledger: of, entry: at, .. },
            ) => (*of, *at) == (ledger, entry),
            _ => false,
        }
    }
}

/// The way to one replica.
#[derive(Default)]
struct Way {
    link: Option<Arc<dyn Link>>,
    connected: bool,
    lost: Option<Arc<str>>,
    /// A moving mean of what its answers take; silence counts as well.
    latency: Duration,
    waiting: Vec<(Question, oneshot::Sender<Reply>)>,
}

#[derive(Default)]
struct State {
    ways: BTreeMap<ReplicaId, Way>,
    /// The first address that must stay, as the register has it.
    keep_from: Address,
}

/// See the module's header.
pub(super) struct Reader {
    parts: Arc<Parts>,
    container: ContainerId,
    /// Tells the register as it is without changing it.
    look: Change,
    state: Mutex<State>,
    me: Weak<Self>,
}

impl Reader {
    /// A reader for the owner that `log` names.
    pub(super) fn new(parts: Arc<Parts>, log: &ContainerLog) -> Arc<Self> {
        let owner = log.owner.expect("a recovery has an owner");
        let look = Change::BeginRecovery { epoch: owner.epoch, incarnation: owner.incarnation };
        let container = log.container;
        let state = State { keep_from: log.keep_from, ..State::default() };
        Arc::new_cyclic(|me| Self {
            parts,
            container,
            look,
            state: Mutex::new(state),
            me: me.clone(),
        })
    }

    /// The payload of the entry at `address`.
    pub(super) async fn payload(
        &self,
        log: &ContainerLog,
        address: Address,
    ) -> Result<Bytes, ReadError> {
        let ledger = LedgerId { container: self.container, epoch: address.epoch };
        match self.ask(log, Question::Entry(ledger, address.entry)).await? {
            Reply::Have(frame) => Ok(joined(frame)),
            _ => Err(unknown(address, "a replica answered something else")),
        }
    }

    /// The headers of the entries from `from` on, at least one and below `end`.
    pub(super) async fn headers(
        &self,
        log: &ContainerLog,
        from: Address,
        end: EntryId,
    ) -> Result<Vec<EntryHeaders>, ReadError> {
        let ledger = LedgerId { container: self.container, epoch: from.epoch };
        let left = u32::try_from(end.0 - from.entry.0).unwrap_or(u32::MAX);
        let max = if buggify!("reader: few headers") { HEADERS_FEW } else { HEADERS_MAX };
        let max = left.min(max);
        match self.ask(log, Question::Headers(ledger, from.entry, max)).await? {
            Reply::Headers { mut entries, .. } => {
                entries.truncate(max as usize);
                Ok(entries)
            }
            _ => Err(unknown(from, "a replica answered something else")),
        }
    }

    /// Asks one replica after the other. Fragments may have been repaired meanwhile, so the register is looked at
    /// before anybody is asked again.
    async fn ask(&self, log: &ContainerLog, question: Question) -> Result<Reply, ReadError> {
        let address = question.address();
        let mut tried: BTreeMap<ReplicaId, String> = BTreeMap::new();
        let mut fresh = None;
        for (round, patience) in PATIENCE.into_iter().enumerate() {
            if round > 0 {
                probe!("reader: nobody could give an entry, once more");
                self.parts.clock.sleep_until(self.parts.clock.now().after(PAUSE)).await;
                let (container, change) = (self.container, self.look.clone());
                let look = RegisterCommand { container, change };
                // Without it the fragments that are known have to do.
                if let Some(RegisterReply::Done(newer)) = self.parts.submitted(&look).await {
                    fresh = Some(newer);
                }
            }
            let log = fresh.as_deref().unwrap_or(log);
            if address < log.keep_from {
                return Err(ReadError::Trimmed { address });
            }
            let listed = log.ledger(address.epoch);
            let Some(fragment) = listed.and_then(|l| l.fragment_of(address.entry)) else {
                return Err(unknown(address, "the register lists no such entry"));
            };
            for replica in self.in_order(&fragment.ensemble) {
                match self.ask_one(replica, question, patience).await {
                    Ok(reply @ (Reply::Have(_) | Reply::Headers { .. })) => return Ok(reply),
                    Ok(Reply::NeverHad { .. }) => {
                        tried.insert(replica, "does not have it".to_owned());
                    }
                    Ok(_) => {
                        tried.insert(replica, "cannot read it".to_owned());
                    }
                    Err(why) => {
                        tried.insert(replica, why);
                    }
                }
                probe!("reader: the next replica is asked");
            }
        }
        let told: Vec<String> = tried.iter().map(|(who, what)| format!("{who} {what}")).collect();
        Err(unknown(address, &told.join("; ")))
    }

    /// Whoever is out of reach or slow last, and the owner's node first.
    fn in_order(&self, ensemble: &[ReplicaId]) -> Vec<ReplicaId> {
        for replica in ensemble {
            self.attach(*replica);
        }
        let state = self.lock();
        let mut order = ensemble.to_vec();
        order.sort_by_key(|replica| {
            let way = &state.ways[replica];
            let afar = replica.node != self.parts.owner.host;
            (!way.connected && way.lost.is_some(), way.latency > SLOW, afar, way.latency)
        });
        order
    }

    /// One question to one replica; why there is no answer, if there is none.
    async fn ask_one(
        &self,
        replica: ReplicaId,
        question: Question,
        patience: Duration,
    ) -> Result<Reply, String> {
        let (sender, receiver) = oneshot::channel();
        let link = {
            let mut state = self.lock();
            let way = state.ways.get_mut(&replica).expect("attached before");
            if let Some(lost) = way.lost.as_ref().filter(|_| !way.connected) {
                return Err(format!("is out of reach: {lost}"));
            }
            way.waiting.push((question, sender));
            way.link.clone()
        };
        if let Some(link) = link {
            link.send(question.request());
        }
        let began = self.parts.clock.now();
        let reply = tokio::select! {
            biased;
            reply = receiver => reply.map_err(|_| "lost the connection".to_owned()),
            () = self.parts.clock.sleep_until(began.after(patience)) => {
                Err(format!("has not answered within {patience:?}"))
            }
        };
        let took = self.parts.clock.now().since(began);
        if let Some(way) = self.lock().ways.get_mut(&replica) {
            way.waiting.retain(|(_, sender)| !sender.is_closed());
            way.latency = (way.latency * 7 + took) / 8;
        }
        reply
    }

    fn attach(&self, replica: ReplicaId) {
        let known = {
            let mut state = self.lock();
            let known = state.ways.contains_key(&replica);
            state.ways.entry(replica).or_default();
            known
        };
        if !known {
            let sink = Arc::new(Events(self.me.clone()));
            let link = self.parts.links.attach(self.container, replica, Lane::Urgent, sink);
            let link: Arc<dyn Link> = Arc::from(link);
            if let Some(way) = self.lock().ways.get_mut(&replica) {
                way.link = Some(link);
            }
        }
    }

    /// The register has moved `keep_from` from what it was `before`: tells everybody who had or has entries.
    pub(super) fn trim(&self, before: &ContainerLog, after: &ContainerLog) {
        let ledgers = before.ledgers.iter().chain(&after.ledgers);
        let fragments = ledgers.flat_map(|ledger| &ledger.fragments);
        let replicas: BTreeSet<ReplicaId> =
            fragments.flat_map(|fragment| fragment.ensemble.iter().copied()).collect();
        let keep_from = after.keep_from;
        self.lock().keep_from = keep_from;
        for replica in replicas {
            self.attach(replica);
            let link = self.lock().ways.get(&replica).and_then(|way| way.link.clone());
            if let Some(link) = link {
                link.send(Request::Trim { keep_from });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the replicas' connections report to.
struct Events(Weak<Reader>);

impl Sink for Events {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        if let Some(reader) = self.0.upgrade() {
            reader.event(from, event);
        }
    }
}

impl Reader {
    fn event(&self, from: ReplicaId, event: LinkEvent) {
        let mut state = self.lock();
        let keep_from = state.keep_from;
        let Some(way) = state.ways.get_mut(&from) else { return };
        match event {
            LinkEvent::Connected { .. } => {
                way.connected = true;
                way.lost = None;
                // What was sent before may be gone.
                let waiting: Vec<_> = way.waiting.iter().map(|(q, _)| q.request()).collect();
                let link = way.link.clone();
                drop(state);
                if let Some(link) = link {
                    if keep_from > Address::default() {
                        link.send(Request::Trim { keep_from });
                    }
                    for request in waiting {
                        link.send(request);
                    }
                }
            }
            LinkEvent::Lost { reason } => {
                way.connected = false;
                way.lost = Some(reason);
                way.waiting.clear();
            }
            LinkEvent::Reply(reply) => {
                let asked = way.waiting.iter().position(|(q, _)| q.is_answered_by(&reply));
                if let Some(at) = asked {
                    // Nobody listens any more after a deadline.
                    let _ = way.waiting.remove(at).1.send(reply);
                }
            }
        }
    }
}

fn unknown(address: Address, reason: &str) -> ReadError {
    ReadError::Unknown { address, reason: Arc::from(reason) }
}

/// The payload in one piece.
fn joined(frame: EntryFrame) -> Bytes {
    let mut chunks = frame.payload;
    match chunks.len() {
        0 => Bytes::new(),
        1 => chunks.remove(0),
        _ => {
            let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
            for chunk in &chunks {
                whole.extend_from_slice(chunk);
            }
            whole.freeze()
        }
    }
}
