//! Owners: they take containers over, replay, append, read, trim, and are taken over from.

use super::history::{self, ReplayCheck};
use super::stage::{Phase, Stage, Want};
use crate::world::executor;
use crate::world::rng::Rng;
use crate::world::trace::trace;
use std::sync::Arc;
use std::time::Duration;
use thalweg_actor::env::Env;
use thalweg_log::ledger::{Ledger, Logs, OpenError, Opened, Progress, ReadError};
use thalweg_types::id::{Address, EntryId, Epoch};
use tokio::select;
use tokio::sync::watch;

/// Longest time that anything asked for may take while things fail; whoever waits longer gives it up.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an owner that somebody else is wanted for goes on at most.
const ZOMBIE_MAX: Duration = Duration::from_secs(8);

/// One process's owner of one container.
#[derive(Clone)]
pub(super) struct Owner {
    /// Its place in the play.
    pub(super) stage: Stage,
    /// The process's world.
    pub(super) env: Env,
    /// The logs as this process sees them.
    pub(super) logs: Arc<dyn Logs>,
    /// Which seat it sits on.
    pub(super) seat: usize,
    /// Numbers the processes of a run.
    pub(super) process: u64,
    /// Of which container.
    pub(super) container: usize,
}

/// A log that this owner has opened.
struct Session {
    opened: Opened,
    ledger: Arc<dyn Ledger>,
    epoch: Epoch,
    progress: watch::Receiver<Progress>,
    want: Want,
}

impl Session {
    fn is_stopped(&self) -> bool {
        self.progress.borrow().stopped.is_some()
    }
}

impl Owner {
    /// Owns the container whenever it shall, for as long as the process lives.
    pub(super) async fn serve(self, mut rng: Rng) {
        let mut last = 0;
        loop {
            let want = self.stage.wanted(self.container, self.seat, last).await;
            if self.stage.phase() == Phase::Over {
                return;
            }
            if let Some((session, check)) = self.open(want).await {
                self.work(session, check, &mut rng).await;
            }
            let pause = rng.millis(1, 60);
            // Whoever was taken over waits until it is wanted again.
            let goes_on = self.stage.want(self.container) == want;
            last = if goes_on { want.round - 1 } else { want.round };
            executor::sleep(pause).await;
        }
    }

    /// How long it waits for an answer.
    fn patience(&self) -> Duration {
        if self.stage.phase() == Phase::Open { PATIENCE } else { Duration::from_secs(600) }
    }

    async fn open(&self, want: Want) -> Option<(Session, ReplayCheck)> {
        let Self { stage, container, process, .. } = self;
        let container = *container;
        let before = stage.with(|history| history.before(container));
        trace!("container {container}: process {process} opens it");
        stage.count("opens", 1);
        let opening = self.logs.open(history::id(container));
        let opened = match executor::timeout(self.patience(), opening).await {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => {
                trace!("container {container}: process {process}: {error}");
                let name = match error {
                    OpenError::Superseded { .. } => "opens superseded",
                    OpenError::Damaged { .. } => "opens damaged",
                    OpenError::Unavailable { .. } => "opens unavailable",
                };
                stage.count(name, 1);
                return None;
            }
            None => {
                trace!("container {container}: process {process} gives up");
                stage.count("opens given up", 1);
                return None;
            }
        };
        let ledger = Arc::clone(&opened.ledger);
        let epoch = ledger.id().epoch;
        let kept = (opened.keep_from, &opened.snapshots);
        let check = stage.with(|h| h.opened(container, before, (epoch, *process), kept));
        let progress = ledger.progress();
        let follower = follow(stage.clone(), container, epoch, progress.clone());
        self.env.spawn.spawn("owner: progress", Box::pin(follower));
        Some((Session { opened, ledger, epoch, progress, want }, check))
    }

    async fn work(&self, session: Session, check: ReplayCheck, rng: &mut Rng) {
        let settling = self.stage.phase() >= Phase::Settling;
        let whole = if settling { 100 } else { 10 };
        let mut reading = rng.fork();
        let replay = self.replay(&session, check, whole, &mut reading);
        let hasty = !settling && rng.percent(self.stage.style.hasty_percent);
        let replayed = if hasty {
            let (replayed, ()) = tokio::join!(replay, self.append(&session, rng));
            replayed
        } else {
            replay.await
        };
        if !replayed {
            return; // A container whose log cannot be replayed must not start.
        }
        if settling && !self.shows_life(&session, rng).await {
            return;
        }
        let polite = rng.percent(self.stage.style.polite_percent);
        let mut until = u64::MAX;
        while !session.is_stopped() && executor::now() < until {
            if self.stage.want(self.container) != session.want {
                if polite {
                    return;
                }
                let zombie = u64::try_from(ZOMBIE_MAX.as_nanos()).unwrap_or(u64::MAX);
                until = until.min(executor::now() + zombie);
            }
            if self.stage.phase() == Phase::Over {
                return;
            }
            self.act(&session, rng).await;
        }
    }

    /// Appends one entry and waits until it is committed: the round is done.
    async fn shows_life(&self, session: &Session, rng: &mut Rng) -> bool {
        let stage = &self.stage;
        self.append_one(session, rng);
        let mut progress = session.progress.clone();
        let seen = progress.wait_for(|seen| seen.committed.is_some() || seen.stopped.is_some());
        let lives = seen.await.is_ok_and(|seen| seen.committed.is_some());
        if lives {
            trace!("container {}: round {} is done", self.container, session.want.round);
            stage.has_done(self.container, session.want.round);
        }
        lives
    }

    /// One thing that an owner does.
    async fn act(&self, session: &Session, rng: &mut Rng) {
        let style = self.stage.style;
        let phase = self.stage.phase();
        if phase < Phase::Judging && rng.percent(style.trim_percent) {
            self.trim(session, rng).await;
        } else if rng.percent(25) {
            self.read(session, rng).await;
        } else {
            self.append(session, rng).await;
        }
        // Once nothing fails any more, what matters is that they get on.
        let calm = self.stage.has_plenty() || phase == Phase::Settling && self.stage.has_enough();
        let pause = if calm { rng.millis(50, 300) } else { rng.micros(0, style.pause_us) };
        if calm || rng.percent(60) {
            self.stage.pause(self.container, session.want, pause).await;
        }
    }

    fn append_one(&self, session: &Session, rng: &mut Rng) -> bool {
        let Self { stage, container, .. } = self;
        // An entry has its number when it is appended, so nobody can hear of it before it is noted.
        stage.with(|history| {
            let (content, entry) = history.compose(rng);
            match session.ledger.append(entry) {
                Ok(number) => {
                    history.submitted(*container, session.epoch, number, content);
                    true
                }
                Err(_) => false,
            }
        })
    }

    async fn append(&self, session: &Session, rng: &mut Rng) {
        let Self { stage, container, .. } = self;
        for _ in 0..rng.range(1, stage.style.burst + 1) {
            let limit = stage.style.in_flight;
            let flying = || stage.with(|history| history.in_flight(*container, session.epoch));
            if flying() >= limit {
                let mut progress = session.progress.clone();
                progress.mark_unchanged();
                if flying() >= limit && !session.is_stopped() {
                    // A ledger that makes no progress is left to its owner's next thought.
                    let _news =
                        executor::timeout(Duration::from_millis(40), progress.changed()).await;
                    return;
                }
            }
            if !self.append_one(session, rng) {
                return;
            }
        }
    }

    async fn read(&self, session: &Session, rng: &mut Rng) {
        let Self { stage, container, .. } = self;
        let epoch = session.epoch;
        let wanted = stage.with(|history| history.readable(*container, epoch, rng));
        let Some(address) = wanted else { return };
        self.read_at(session, address, "a read").await;
    }

    /// True if the payload came, whatever it was.
    async fn read_at(&self, session: &Session, address: Address, who: &str) -> bool {
        let Self { stage, container, .. } = self;
        match executor::timeout(self.patience(), session.ledger.read(address)).await {
            Some(Ok(payload)) => {
                stage.with(|h| h.judge_payload(*container, address, &payload, who));
                true
            }
            Some(Err(error)) => {
                stage.with(|history| history.judge_refusal(*container, address, &error));
                matches!(error, ReadError::Trimmed { .. })
            }
            None => {
                stage.count("reads given up", 1);
                false
            }
        }
    }

    /// Moves `keep_from` to some place within what is committed.
    async fn trim(&self, session: &Session, rng: &mut Rng) {
        let Self { stage, container, .. } = self;
        let (container, epoch) = (*container, session.epoch);
        let target = stage.with(|history| {
            let end = history.committed_end(container, epoch);
            let within =
                if rng.percent(70) { end - end.min(rng.below(8)) } else { rng.below(end + 1) };
            let older = history.readable(container, epoch, rng).filter(|_| rng.percent(20));
            let target = older.unwrap_or(Address::new(epoch, EntryId(within)));
            if target < history.asked(container) {
                return None;
            }
            let pointers = history::pointers(target, rng.below(1 << 40));
            history.asks_to_keep(container, target, pointers.clone());
            Some((target, pointers))
        });
        let Some((target, pointers)) = target else { return };
        let kept = session.ledger.set_keep_from(target, pointers);
        if let Some(Ok(())) = executor::timeout(self.patience(), kept).await {
            trace!("container {container}: kept from {target}");
            stage.with(|history| history.keeps(container, target));
        }
    }

    /// Replays the whole log, and reads `whole` percent of the payloads. False if it did not come to its end.
    async fn replay(
        &self,
        session: &Session,
        mut check: ReplayCheck,
        whole: u32,
        rng: &mut Rng,
    ) -> bool {
        let Self { stage, container, .. } = self;
        let mut replay = self.logs.replay(&session.opened, None);
        loop {
            let next = select! {
                biased;
                next = executor::timeout(self.patience(), replay.next()) => next,
                () = stopped(session.progress.clone()) => return false,
            };
            match next {
                Some(Ok(Some(entry))) => {
                    stage.with(|history| history.replayed(&mut check, &entry));
                    if rng.percent(whole) && !self.read_at(session, entry.address, "a replay").await
                    {
                        return false;
                    }
                }
                Some(Ok(None)) => {
                    stage.with(|history| history.replay_ended(&check));
                    trace!("container {container}: {} entries replayed", check.met);
                    return true;
                }
                Some(Err(error)) => {
                    trace!("container {container}: a replay ends: {error}");
                    stage.count("replays cut short", 1);
                    if let ReadError::Trimmed { address } | ReadError::Unknown { address, .. } =
                        error
                    {
                        stage.with(|h| h.judge_refusal(*container, address, &error));
                    }
                    return false;
                }
                None => {
                    stage.count("replays given up", 1);
                    return false;
                }
            }
        }
    }
}

/// Completes when the ledger has stopped.
async fn stopped(mut progress: watch::Receiver<Progress>) {
    if progress.wait_for(|seen| seen.stopped.is_some()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Notes what a ledger announces, until it stops.
async fn follow(
    stage: Stage,
    container: usize,
    epoch: Epoch,
    mut progress: watch::Receiver<Progress>,
) {
    loop {
        let Progress { committed, stopped, .. } = progress.borrow_and_update().clone();
        if let Some(last) = committed {
            stage.with(|history| history.committed(container, epoch, last));
        }
        if let Some(reason) = stopped {
            trace!("container {container} epoch {epoch}: stopped: {reason}");
            stage.count("ledgers stopped", 1);
            return;
        }
        if progress.changed().await.is_err() {
            return; // The ledger has been dropped.
        }
    }
}
