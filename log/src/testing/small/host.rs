//! A process in a small world: the shell of one recovery and, behind it, of one writer.

use super::{CONTAINER, QUORUM, SLOTS, place};
use crate::recovery::Recovery;
use crate::register::{Change, Ending};
use crate::writer::Writer;
use std::collections::VecDeque;
use thalweg_actor::explore::Digest;
use thalweg_types::id::{Address, EntryId, Epoch, Incarnation, LedgerId, ReplicaId};

/// What the register has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Done,
    Stale,
}

/// See the module's header. Its epoch is its place among the processes plus one.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) epoch: Epoch,
    pub(super) recovery: Option<Recovery>,
    pub(super) writer: Option<Writer>,
    /// Commands for the register, the oldest first.
    pub(super) calls: VecDeque<Change>,
    /// What became of the oldest, while the process has not heard of it.
    pub(super) answer: Option<Answer>,
    /// What became of it is late.
    pub(super) late_answer: bool,
    /// The last takeover has reached it.
    pub(super) late: bool,
    /// Entries that it will still submit.
    pub(super) to_submit: u64,
    /// Its recovery could not read an entry that it must read.
    pub(super) stuck: bool,
}

impl Host {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            recovery: None,
            writer: None,
            calls: VecDeque::new(),
            answer: None,
            late_answer: false,
            late: true,
            to_submit: 0,
            stuck: false,
        }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.epoch.0)
    }

    /// Becomes the owner of its open ledger.
    pub(super) fn own(&mut self, ensemble: &[ReplicaId], keep_from: Address, to_submit: u64) {
        let ledger = LedgerId { container: CONTAINER, epoch: self.epoch };
        let writer = Writer::new(ledger, self.incarnation(), QUORUM, ensemble, keep_from);
        self.writer = Some(writer);
        self.to_submit = to_submit;
    }

    /// Its writer, if it goes on.
    pub(super) fn live_writer(&self) -> Option<&Writer> {
        self.writer.as_ref().filter(|writer| writer.stopped().is_none())
    }

    /// Its recovery, if it goes on.
    pub(super) fn live_recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref().filter(|recovery| !recovery.has_ended())
    }

    /// True if a reply can still change anything.
    pub(super) fn listens(&self) -> bool {
        self.live_writer().is_some() || self.live_recovery().is_some()
    }

    /// Everything below is committed, as its writer counts.
    pub(super) fn committed_end(&self) -> EntryId {
        self.writer.as_ref().map_or(EntryId(0), Writer::committed_end)
    }

    pub(super) fn digest(&self) -> Digest<SLOTS> {
        let Self { epoch, recovery, writer, calls, answer, to_submit, .. } = self;
        let Self { late_answer, late, stuck, .. } = self;
        let mut digest = Digest::default();
        if self.listens() {
            digest.all(&(late, late_answer));
        }
        let to_submit = if self.live_writer().is_some() { *to_submit } else { 0 };
        digest.all(&(epoch, answer, to_submit, stuck, recovery.is_some(), writer.is_some()));
        if let Some(recovery) = recovery {
            recovery.digest(place, &mut digest);
        }
        if let Some(writer) = writer {
            writer.digest(place, &mut digest);
        }
        for call in calls {
            digest_call(call, &mut digest);
        }
        digest
    }
}

/// A command on its way; the order of an ensemble's members decides nothing.
pub(super) fn digest_call(change: &Change, digest: &mut Digest<SLOTS>) {
    let places = |members: &[ReplicaId]| members.iter().copied().map(place).collect::<Vec<_>>();
    match change {
        Change::Close { epoch, ending, quorum, ensemble } => {
            let Ending { start, end, ensemble: ending } = ending;
            digest.all(&("close", epoch, start, end, quorum));
            digest.of_each(places(ending), &("ending", epoch));
            digest.of_each(places(ensemble), &("opening", epoch));
        }
        Change::ChangeEnsemble { epoch, id, first, ensemble } => {
            digest.all(&("change", epoch, id, first));
            digest.of_each(places(ensemble), &("change", epoch, id));
        }
        Change::Repair { ledger, first, old, new } => {
            digest.all(&("repair", ledger, first));
            digest.of(place(*old), &("repair: old", ledger));
            digest.of(place(*new), &("repair: new", ledger));
        }
        other => digest.all(other),
    }
}
