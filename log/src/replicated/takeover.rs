//! Taking a container over from whoever owned it before: assignment, fence, tails, copies, close.
//!
//! Members that do not answer are asked again with growing pauses, and for as long as they are silent: a member that is
//! merely away may hold what nobody else has. When everybody has answered and it is still not enough, that is damage,
//! and the error says who answered what.
//!
//! Deliberately not here: what may be dropped and what must be copied (`recovery`).

use super::mailbox::Mailbox;
use super::{Parts, Registered};
use crate::ledger::OpenError;
use crate::links::{Lane, Link, LinkEvent};
use crate::message::{Reply, RunFacts};
use crate::placement;
use crate::recovery::{COPIES_MAX, Effect, Input, Plan, Recovery};
use crate::register::{Change, ContainerLog, Ending, LedgerRecord, LedgerStage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::machine::Machine as _;
use thalweg_actor::{planted, probe};
use thalweg_types::id::{ContainerId, EntryId, LedgerId, ReplicaId};
use thalweg_types::time::Instant;

/// The first pause before silent members are asked again; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often everybody is asked again after all have answered and it was not enough: a read may fail for a moment.
const ROUNDS_MAX: u32 = 6;
/// How long a recovery may stand still before it looks whether it is still wanted.
const ASK_REGISTER: Duration = Duration::from_secs(5);

/// Makes this process the owner of a new epoch whose ledger is open and empty. When it returns, no earlier owner can
/// have anything acknowledged any more. `begun` is called when the register has the new epoch.
pub(super) async fn take_over(
    parts: &Arc<Parts>,
    container: ContainerId,
    begun: impl FnOnce(&ContainerLog),
) -> Result<ContainerLog, OpenError> {
    let owner = parts.owner;
    let assign =
        Change::Assign { host: owner.host, session: owner.session, incarnation: owner.incarnation };
    let assigned = submit(parts, container, assign).await?.assigned;
    let epoch = assigned.expect("an assignment assigns").epoch;
    let beginning = Change::BeginRecovery { epoch, incarnation: owner.incarnation };
    let log = submit(parts, container, beginning.clone()).await?;
    begun(&log);
    let next = place(parts, container)?;
    let quorum = parts.policy.quorum;
    match log.ledgers.last() {
        Some(last) if last.stage == LedgerStage::Recovering => {
            Takeover::new(parts, &log, last, next, beginning).run().await
        }
        _ => {
            let close = Change::Close { epoch, ending: Ending::default(), quorum, ensemble: next };
            submit(parts, container, close).await
        }
    }
}

/// An ensemble for the next ledger.
fn place(parts: &Parts, container: ContainerId) -> Result<Vec<ReplicaId>, OpenError> {
    let candidates = parts.members.candidates();
    let near = Some(parts.owner.host);
    placement::ensemble(&parts.policy, &candidates, near, parts.seed()).map_err(|error| {
        let reason = format!("no ensemble can be placed: {error}").into();
        OpenError::Unavailable { container, reason }
    })
}

/// Submits `change` until an outcome is known.
async fn submit(
    parts: &Parts,
    container: ContainerId,
    change: Change,
) -> Result<ContainerLog, OpenError> {
    match parts.registered(container, change, || true).await {
        Some(Registered::Done(log)) => Ok(*log),
        Some(Registered::Stale) | None => Err(OpenError::Superseded { container }),
        Some(Registered::Invalid(reason)) => Err(OpenError::Unavailable { container, reason }),
    }
}

/// What a replica has said last, for people.
#[derive(Default)]
struct Word {
    connected: bool,
    /// Why there is no connection.
    lost: Option<Arc<str>>,
    fenced: Option<RunFacts>,
    /// It could not give this entry.
    unreadable: Option<EntryId>,
    /// It has sent something since the last round.
    heard: bool,
}

/// The shell of one recovery.
struct Takeover<'a> {
    parts: &'a Arc<Parts>,
    container: ContainerId,
    recovery: Recovery,
    /// Tells whether this epoch still is the newest.
    begin: Change,
    mailbox: Arc<Mailbox>,
    links: BTreeMap<ReplicaId, Box<dyn Link>>,
    words: BTreeMap<ReplicaId, Word>,
    /// Replicas that shall take no copies.
    avoid: Vec<ReplicaId>,
    closed: Option<ContainerLog>,
    /// The entry that nobody could give, in this round.
    stuck: Option<EntryId>,
    /// Rounds in which everybody had answered and it was not enough.
    rounds: u32,
    pause: Duration,
    /// Replies that the planted variant keeps back until everybody has answered.
    kept_back: Vec<Input>,
}

impl<'a> Takeover<'a> {
    fn new(
        parts: &'a Arc<Parts>,
        log: &ContainerLog,
        last: &LedgerRecord,
        next_ensemble: Vec<ReplicaId>,
        begin: Change,
    ) -> Self {
        let fragment = last.last_fragment();
        let recovery = Recovery::new(Plan {
            ledger: LedgerId { container: log.container, epoch: last.epoch },
            quorum: last.quorum,
            first: fragment.first,
            ensemble: fragment.ensemble.clone(),
            keep_from: log.keep_from_in(last.epoch),
            by: log.epoch,
            next_quorum: parts.policy.quorum,
            next_ensemble,
            copies: COPIES_MAX,
        });
        Self {
            parts,
            container: log.container,
            recovery,
            begin,
            mailbox: Arc::default(),
            links: BTreeMap::new(),
            words: BTreeMap::new(),
            avoid: fragment.ensemble.clone(),
            closed: None,
            stuck: None,
            rounds: 0,
            pause: PAUSE_MIN,
            kept_back: Vec::new(),
        }
    }

    async fn run(mut self) -> Result<ContainerLog, OpenError> {
        let members = self.recovery.plan().ensemble.clone();
        for member in members {
            self.attach(member);
        }
        let mut inputs = vec![Input::Begin];
        let mut round_at = self.parts.clock.now().after(self.pause);
        let mut asked_register = self.parts.clock.now();
        loop {
            if let Some(log) = self.perform(&mut inputs).await? {
                return Ok(log);
            }
            let mailbox = self.mailbox.clone();
            tokio::select! {
                biased;
                events = mailbox.take() => {
                    for (from, event) in events {
                        self.event(from, event, &mut inputs);
                    }
                }
                () = self.parts.clock.sleep_until(round_at) => {
                    let now = self.parts.clock.now();
                    if now.since(asked_register) >= ASK_REGISTER {
                        asked_register = now;
                        submit(self.parts, self.container, self.begin.clone()).await?;
                    }
                    self.round(&mut inputs)?;
                    round_at = self.next_round(now);
                }
            }
        }
    }

    /// Steps the machine with all `inputs` and does what it wants. The register once it is over.
    async fn perform(
        &mut self,
        inputs: &mut Vec<Input>,
    ) -> Result<Option<ContainerLog>, OpenError> {
        let mut effects = Vec::new();
        while !inputs.is_empty() {
            for input in inputs.drain(..) {
                self.recovery.step(self.parts.clock.now(), input, &mut effects);
                if cfg!(debug_assertions) {
                    self.recovery.check();
                }
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send { to, request } => {
                        self.attach(to);
                        self.links[&to].send(request);
                    }
                    Effect::Register(change) => {
                        self.closed = Some(submit(self.parts, self.container, change).await?);
                        inputs.push(Input::Closed);
                    }
                    Effect::Stuck { entry } => {
                        tracing::warn!(
                            ledger = %self.recovery.plan().ledger, %entry,
                            "nobody within reach can give an entry that may be committed"
                        );
                        self.stuck = Some(self.stuck.map_or(entry, |first| first.min(entry)));
                    }
                    Effect::Done => return Ok(Some(self.closed.take().expect("closed before"))),
                    Effect::Abdicated => {
                        return Err(OpenError::Superseded { container: self.container });
                    }
                }
            }
        }
        Ok(None)
    }

    fn attach(&mut self, to: ReplicaId) {
        let Self { links, parts, container, mailbox, .. } = self;
        links
            .entry(to)
            .or_insert_with(|| parts.links.attach(*container, to, Lane::Urgent, mailbox.clone()));
    }

    fn event(&mut self, from: ReplicaId, event: LinkEvent, inputs: &mut Vec<Input>) {
        let word = self.words.entry(from).or_default();
        match event {
            LinkEvent::Connected { .. } => {
                word.connected = true;
                inputs.push(Input::Connected { replica: from });
            }
            LinkEvent::Lost { reason } => {
                word.connected = false;
                word.lost = Some(reason);
            }
            LinkEvent::Reply(reply) => {
                word.heard = true;
                match &reply {
                    Reply::FenceDone { run, .. } => word.fenced = Some(*run),
                    Reply::Unknown { entry, .. } | Reply::NeverHad { entry, .. } => {
                        word.unreadable = Some(*entry);
                    }
                    _ => {}
                }
                let input = Input::Reply { from, reply };
                if planted!("PB-V3") {
                    return self.keep_back(input, inputs);
                }
                inputs.push(input);
            }
        }
    }

    /// The planted variant waits for everybody: one hung replica blocks it for ever.
    fn keep_back(&mut self, input: Input, inputs: &mut Vec<Input>) {
        self.kept_back.push(input);
        let members = &self.recovery.plan().ensemble;
        let words = &self.words;
        let all = members.iter().all(|m| words.get(m).is_some_and(|word| word.fenced.is_some()));
        if all {
            inputs.append(&mut self.kept_back);
        }
    }

    fn next_round(&mut self, now: Instant) -> Instant {
        let at = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        at
    }

    /// A pause is over: everything that got no answer is asked again, and who takes no copies is replaced.
    fn round(&mut self, inputs: &mut Vec<Input>) -> Result<(), OpenError> {
        let silent = self.recovery.silent().count();
        let enough = self.recovery.is_copying() && self.stuck.is_none();
        if silent == 0 && !enough {
            self.rounds += 1;
            if self.rounds >= ROUNDS_MAX {
                return Err(self.damaged());
            }
        } else {
            self.rounds = 0;
        }
        probe!("takeover: asks again");
        self.stuck = None;
        let lagging: Vec<ReplicaId> = self.recovery.lagging().collect();
        for old in lagging {
            self.substitute(old, inputs);
        }
        for word in self.words.values_mut() {
            word.heard = false;
        }
        inputs.push(Input::Retry);
        Ok(())
    }

    /// Finds another place for the copies of `old` if it is out of reach or in doubt.
    fn substitute(&mut self, old: ReplicaId, inputs: &mut Vec<Input>) {
        let word = self.words.get(&old);
        let reached = word.is_some_and(|word| word.heard);
        let doubtful = self.recovery.doubtful().any(|replica| replica == old);
        if reached && !doubtful {
            return; // It is at it.
        }
        let candidates = self.parts.members.candidates();
        let target: Vec<ReplicaId> = self.recovery.target().to_vec();
        let (policy, seed) = (&self.parts.policy, self.parts.seed());
        let found = placement::substitute(policy, &candidates, &target, old, &self.avoid, seed);
        if let Ok(new) = found {
            tracing::info!(
                ledger = %self.recovery.plan().ledger, %old, %new,
                "copies go to another replica"
            );
            self.avoid.push(new);
            inputs.push(Input::Substitute { old, new });
        }
    }

    /// Everybody has answered, and it is not enough.
    fn damaged(&self) -> OpenError {
        let Plan { ledger, ensemble, quorum, .. } = self.recovery.plan();
        let needed = quorum.recovery();
        let what = match self.stuck {
            Some(entry) => {
                format!("entry {entry} of ledger {ledger} may be committed and nobody can give it")
            }
            None => {
                format!("fewer than {needed} replicas can vouch for the end of ledger {ledger}")
            }
        };
        let mut answers = Vec::new();
        let mut named: BTreeSet<ReplicaId> = ensemble.iter().copied().collect();
        named.extend(self.words.keys());
        for replica in named {
            answers.push(format!("{replica} {}", self.describe(replica)));
        }
        let reason = format!("{what}: {}", answers.join("; ")).into();
        OpenError::Damaged { container: self.container, reason }
    }

    fn describe(&self, replica: ReplicaId) -> String {
        let Some(word) = self.words.get(&replica) else { return "has not answered".to_owned() };
        let mut text = match (&word.fenced, &word.lost) {
            (Some(run), _) => {
                let doubt = if run.certain { "" } else { ", which it cannot vouch for" };
                format!("has entries up to {}, exclusive{doubt}", run.end)
            }
            (None, Some(reason)) if !word.connected => format!("is out of reach: {reason}"),
            (None, _) => "has not answered the fence".to_owned(),
        };
        if let Some(entry) = word.unreadable {
            text = format!("{text} and cannot read entry {entry}");
        }
        text
    }
}
