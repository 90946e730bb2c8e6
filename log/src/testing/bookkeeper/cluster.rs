//! A few real storages (engines on disks in memory) with the real machines around them, and no time in between: every
//! message arrives at once, or not at all.
//!
//! An owner's requests reach the replicas that a script names; a recovery's reach all that are up. A message for one
//! [`ReplicaId`] never reaches another storage on the same node.
//!
//! Deliberately not here: connections, retries over time, placement (the shells).

use super::play::{Outcome, ensure};
use super::site::Site;
pub(super) use super::site::{Damage, content};
use crate::engine::StartError;
use crate::ledger::Entry;
use crate::message::{Reply, Request};
use crate::quorum::Quorum;
use crate::recovery::{self, Plan, Recovery};
use crate::register::{Change, ContainerLog, Ending, LedgerRecord, RegisterReply};
use crate::testing::MemoryDisk;
use crate::writer::{self, Writer};
use std::collections::VecDeque;
use thalweg_actor::machine::Machine as _;
use thalweg_types::id::{
    ContainerId, EntryId, Epoch, Incarnation, LedgerId, NodeId, ReplicaId, StorageUuid,
};
use thalweg_types::time::Instant;

pub(super) const CONTAINER: ContainerId = ContainerId(1);
/// How often a recovery asks again before it counts as not possible now.
const RETRIES: usize = 3;

/// How many storages, and how many of them must have an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The quorum; as many storages as its write quorum.
    pub(super) quorum: Quorum,
    /// Length of each entry's payload in bytes.
    pub(super) payload: usize,
}

impl Shape {
    /// Three storages, two of which make an entry committed.
    pub(super) const THREE: Self = Self { quorum: Quorum { write: 3, ack: 2 }, payload: 700 };
    /// Two storages, both of which make an entry committed.
    pub(super) const TWO: Self = Self { quorum: Quorum { write: 2, ack: 2 }, payload: 700 };
}

/// What a full reading of the container's log came to, entry by entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Read, and right.
    pub(super) right: u64,
    /// Acked, and behind the end of its ledger: lost.
    pub(super) lost: u64,
    /// Read, and not what was written.
    pub(super) wrong: u64,
    /// Part of the log, and not readable from any storage that is up.
    pub(super) unavailable: u64,
}

/// One node: its disk, what runs on it, and whether it can be reached.
struct Seat {
    disk: MemoryDisk,
    site: Option<Site>,
    is_up: bool,
}

/// See the module's header.
pub(super) struct Cluster {
    shape: Shape,
    register: ContainerLog,
    seats: Vec<Seat>,
    writer: Option<Writer>,
    /// What was acked: the end of each epoch's ledger as its owner counted.
    acked: Vec<(Epoch, EntryId)>,
    seed: u64,
}

impl Cluster {
    /// Blank storages, and a register that nobody owns.
    pub(super) fn new(shape: Shape) -> Result<Self, String> {
        let disks = (0..shape.quorum.write).map(|_| MemoryDisk::new()).collect();
        let mut cluster = Self {
            shape,
            register: ContainerLog::new(CONTAINER),
            seats: Vec::new(),
            writer: None,
            acked: Vec::new(),
            seed: 0,
        };
        cluster.mount_all(disks)?;
        Ok(cluster)
    }

    fn mount_all(&mut self, disks: Vec<MemoryDisk>) -> Outcome {
        for disk in disks {
            self.seats.push(Seat { disk, site: None, is_up: true });
            self.start(self.seats.len() - 1).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The ledger of `epoch`.
    pub(super) fn ledger(epoch: u64) -> LedgerId {
        LedgerId { container: CONTAINER, epoch: Epoch(epoch) }
    }

    /// The storage in a place, if it has started.
    pub(super) fn site(&mut self, at: usize) -> Option<&mut Site> {
        self.seats[at].site.as_mut()
    }

    /// Starts the storage in a place from what is on its disk.
    pub(super) fn start(&mut self, at: usize) -> Result<(), StartError> {
        self.seed += 1;
        let node = NodeId(at as u64 + 1);
        self.seats[at].site = None;
        let site = Site::mount(node, &self.seats[at].disk, self.seed, self.register.epoch)?;
        self.seats[at].site = Some(site);
        Ok(())
    }

    /// The storage can no longer be reached.
    pub(super) fn down(&mut self, at: usize) {
        self.seats[at].is_up = false;
    }

    /// The storage can be reached again, if it runs.
    pub(super) fn up(&mut self, at: usize) -> Result<(), String> {
        self.seats[at].is_up = true;
        ensure(self.seats[at].site.is_some(), "it does not run")
    }

    /// A blank disk in place of the old one, on the same node.
    pub(super) fn replace_disk(&mut self, at: usize) -> Result<(), String> {
        self.seats[at].disk = MemoryDisk::new();
        self.start(at).map_err(|error| error.to_string())?;
        self.up(at)
    }

    /// Kills the storage, damages the batch that holds `entry` of the first ledger, and starts it again.
    pub(super) fn restart_damaged(&mut self, at: usize, entry: u64, byte: usize) -> Outcome {
        let site = self.seats[at].site.take().ok_or("it does not run")?;
        site.idle();
        drop(site);
        let disk = self.seats[at].disk.process_end();
        Damage::BatchHeader(byte).inflict(&disk, Self::ledger(1), EntryId(entry))?;
        self.seats[at].disk = disk;
        self.start(at).map_err(|error| error.to_string())
    }

    /// Lets the payload of an entry rot under the running storage.
    pub(super) fn rot(&mut self, at: usize, entry: u64) -> Outcome {
        self.damage(at, entry, Damage::Payload)
    }

    /// Damages what holds an entry of the first ledger under the running storage.
    pub(super) fn damage(&mut self, at: usize, entry: u64, damage: Damage) -> Outcome {
        let seat = &self.seats[at];
        seat.site.as_ref().ok_or("it does not run")?.idle();
        damage.inflict(&seat.disk, Self::ledger(1), EntryId(entry))
    }

    fn change(&mut self, change: &Change) -> Result<RegisterReply, String> {
        match self.register.apply(change) {
            RegisterReply::Invalid { reason } => Err(format!("{change:?} is invalid: {reason}")),
            reply => Ok(reply),
        }
    }

    /// The replicas as they are: a disk that was replaced counts as what it is now.
    pub(super) fn replicas(&self) -> Vec<ReplicaId> {
        let id = |(at, seat): (usize, &Seat)| match &seat.site {
            Some(site) => site.id(),
            None => ReplicaId { node: NodeId(at as u64 + 1), storage: StorageUuid::default() },
        };
        self.seats.iter().enumerate().map(id).collect()
    }

    /// The first owner, whose open has reached every storage.
    pub(super) fn open_all(&mut self) -> Result<(), String> {
        self.take_over()?;
        let all: Vec<usize> = (0..self.seats.len()).collect();
        self.drive(writer::Input::Begin, &all)
    }

    /// The owner appends `count` entries at once, and they reach the storages `to`.
    pub(super) fn append_to(&mut self, count: u64, to: &[usize]) -> Result<(), String> {
        let before = self.committed();
        for at in 0..count {
            let last = at + 1 == count;
            let writer = self.writer.as_ref().ok_or("nobody owns the container")?;
            let frame = content_of(self.shape, writer.ledger(), writer.next());
            let entry = Entry { headers: frame.headers, payload: frame.payload, exempt: false };
            self.stage(writer::Input::Submit(entry), to)?;
            if last {
                self.flush(to)?;
            }
        }
        ensure(self.committed() == before + count, "it was not committed")
    }

    /// How many entries the owner has committed.
    pub(super) fn committed(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| writer.committed_end().0)
    }

    /// The owner appends one entry, and it reaches whatever storage is in the places `to`, the right one or not.
    pub(super) fn append_in_spite(&mut self, to: &[usize]) -> Result<Vec<Reply>, String> {
        let writer = self.writer.as_mut().ok_or("nobody owns the container")?;
        let frame = content_of(self.shape, writer.ledger(), writer.next());
        let entry = Entry { headers: frame.headers, payload: frame.payload, exempt: false };
        let mut effects = Vec::new();
        writer.step(Instant::default(), writer::Input::Submit(entry), &mut effects);
        let (mut replies, mut heard) = (Vec::new(), Vec::new());
        for effect in effects {
            let writer::Effect::Send { to: replica, request } = effect else { continue };
            let at = place(replica);
            if let Some(site) = self.seats[at].site.as_mut().filter(|_| to.contains(&at)) {
                heard.extend(site.ask(request).into_iter().map(|reply| (replica, reply)));
            }
        }
        for (from, reply) in heard {
            replies.push(reply.clone());
            let mut ignored = Vec::new();
            writer.step(Instant::default(), writer::Input::Reply { from, reply }, &mut ignored);
        }
        Ok(replies)
    }

    /// Sends what follows from `input`, without waiting for anything to become durable.
    fn stage(&mut self, input: writer::Input, to: &[usize]) -> Outcome {
        let writer = self.writer.as_mut().ok_or("nobody owns the container")?;
        let mut effects = Vec::new();
        writer.step(Instant::default(), input, &mut effects);
        writer.check();
        for effect in effects {
            let writer::Effect::Send { to: replica, request } = effect else { continue };
            if let Some(site) = reach(&mut self.seats, replica, |at| to.contains(&at)) {
                site.take(request);
            }
        }
        Ok(())
    }

    /// Everything that storages have taken becomes durable, and the owner hears of it.
    fn flush(&mut self, to: &[usize]) -> Outcome {
        for at in to.iter().copied() {
            let Some(site) = self.seats[at].site.as_mut() else { continue };
            let from = site.id();
            for reply in site.settle() {
                self.drive(writer::Input::Reply { from, reply }, to)?;
            }
        }
        Ok(())
    }

    /// Lets the owner's machine take `input`, and everything that follows at the storages `to`.
    fn drive(&mut self, input: writer::Input, to: &[usize]) -> Outcome {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let writer = self.writer.as_mut().ok_or("nobody owns the container")?;
            let mut effects = Vec::new();
            writer.step(Instant::default(), input, &mut effects);
            writer.check();
            for effect in effects {
                let writer::Effect::Send { to: from, request } = effect else { continue };
                if let Some(site) = reach(&mut self.seats, from, |at| to.contains(&at)) {
                    let replies = site.ask(request).into_iter();
                    inputs.extend(replies.map(|reply| writer::Input::Reply { from, reply }));
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, epoch: Epoch, end: EntryId) {
        self.acked.retain(|(of, _)| *of != epoch);
        self.acked.push((epoch, end));
    }

    /// The next owner takes the container over. An error: that is not possible now, for want of replicas.
    pub(super) fn take_over(&mut self) -> Result<(), String> {
        if let Some(writer) = self.writer.take() {
            self.note(writer.ledger().epoch, writer.committed_end());
        }
        let epoch = Epoch(self.register.assigned.map_or(0, |assigned| assigned.epoch.0) + 1);
        let incarnation = Incarnation(epoch.0);
        self.change(&Change::Assign { host: NodeId(1), session: epoch.0, incarnation })?;
        self.change(&Change::BeginRecovery { epoch, incarnation })?;
        let (quorum, ensemble) = (self.shape.quorum, self.replicas());
        let last = self.register.ledgers.last().filter(|last| last.end().is_none()).cloned();
        if let Some(last) = last {
            self.recover(&last, epoch, ensemble.clone())?;
        } else {
            let (ending, ensemble) = (Ending::default(), ensemble.clone());
            self.change(&Change::Close { epoch, ending, quorum, ensemble })?;
        }
        let ledger = Self::ledger(epoch.0);
        let keep_from = self.register.keep_from;
        self.writer = Some(Writer::new(ledger, incarnation, quorum, &ensemble, keep_from));
        Ok(())
    }

    fn recover(&mut self, last: &LedgerRecord, by: Epoch, next: Vec<ReplicaId>) -> Outcome {
        let mut recovery = Recovery::new(Plan {
            ledger: Self::ledger(last.epoch.0),
            quorum: last.quorum,
            first: last.last_fragment().first,
            ensemble: last.last_fragment().ensemble.clone(),
            keep_from: self.register.keep_from_in(last.epoch),
            by,
            next_quorum: self.shape.quorum,
            next_ensemble: next,
            copies: 4,
        });
        let mut why = "too few replicas answer".to_owned();
        for input in std::iter::once(recovery::Input::Begin)
            .chain(std::iter::repeat_n(recovery::Input::Retry, RETRIES))
        {
            let mut inputs = VecDeque::from([input]);
            while let Some(input) = inputs.pop_front() {
                let mut effects = Vec::new();
                recovery.step(Instant::default(), input, &mut effects);
                recovery.check();
                for effect in effects {
                    match effect {
                        recovery::Effect::Send { to: from, request } => {
                            let replies = self.ask(from, request);
                            let reply = |reply| recovery::Input::Reply { from, reply };
                            inputs.extend(replies.into_iter().map(reply));
                        }
                        recovery::Effect::Register(change) => match self.change(&change)? {
                            RegisterReply::Done(_) => inputs.push_back(recovery::Input::Closed),
                            _ => inputs.push_back(recovery::Input::Stale),
                        },
                        recovery::Effect::Stuck { entry } => {
                            why = format!("nobody can give entry {entry}");
                        }
                        recovery::Effect::Done => return Ok(()),
                        recovery::Effect::Abdicated => return Err("it was overtaken".to_owned()),
                    }
                }
            }
        }
        Err(format!("unavailable: {why}"))
    }

    /// What the replica answers, if it can be reached.
    pub(super) fn ask(&mut self, replica: ReplicaId, request: Request) -> Vec<Reply> {
        let site = reach(&mut self.seats, replica, |_| true);
        site.map_or(Vec::new(), |site| site.ask(request))
    }

    /// Reads the whole log of the container, each entry from whoever gives it.
    pub(super) fn read_all(&mut self) -> Reading {
        let mut reading = Reading::default();
        for (epoch, acked) in self.acked.clone() {
            let record = self.register.ledger(epoch).cloned();
            let end = record.as_ref().and_then(LedgerRecord::end).unwrap_or_default();
            reading.lost += acked.0.saturating_sub(end.0);
            let Some(record) = record else { continue };
            for entry in (0..end.0).map(EntryId) {
                let members = record.fragment_of(entry).map(|fragment| fragment.ensemble.clone());
                let whole = content_of(self.shape, Self::ledger(epoch.0), entry);
                let mut given = Vec::new();
                for member in members.unwrap_or_default() {
                    let request = Request::Read { ledger: Self::ledger(epoch.0), entry };
                    for reply in self.ask(member, request) {
                        if let Reply::Have(frame) = reply {
                            given.push(is_content(&frame, &whole));
                        }
                    }
                }
                reading.right += u64::from(given.contains(&true));
                reading.wrong += u64::from(given.contains(&false));
                reading.unavailable += u64::from(given.is_empty());
            }
        }
        reading
    }

    /// Everything that was acked is there, and right, whoever is asked.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let reading = self.read_all();
        ensure(reading.lost == 0, &format!("I1: {} acked entries are lost", reading.lost))?;
        ensure(reading.wrong == 0, &format!("I3: {} entries have other bytes", reading.wrong))?;
        let missing = reading.unavailable;
        ensure(missing == 0, &format!("unavailable: {missing} entries cannot be read"))
    }
}

fn content_of(shape: Shape, ledger: LedgerId, entry: EntryId) -> crate::frame::EntryFrame {
    super::site::content_of(ledger, entry, shape.payload)
}

fn is_content(found: &crate::frame::EntryFrame, whole: &crate::frame::EntryFrame) -> bool {
    (&found.headers, &found.payload) == (&whole.headers, &whole.payload)
}

/// The place of a node.
fn place(replica: ReplicaId) -> usize {
    usize::try_from(replica.node.0 - 1).expect("few nodes")
}

/// The storage of that id, if it is up and `admits` its place.
fn reach(
    seats: &mut [Seat],
    replica: ReplicaId,
    admits: impl Fn(usize) -> bool,
) -> Option<&mut Site> {
    let at = place(replica);
    let seat = &mut seats[at];
    let site = seat.site.as_mut().filter(|_| seat.is_up && admits(at))?;
    (site.id() == replica).then_some(site)
}
