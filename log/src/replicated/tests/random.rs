//! Many owners and many faults, chosen by a seed: whatever was committed is replayed at the end.
//!
//! Storages sync when they like and lose at a restart what they had not synced. At most one is lost for good.

use super::*;
use rand_core::SeedableRng as _;

const NODES: u64 = 5;
const STEPS: usize = 60;

/// What one owner has done.
struct Session {
    logs: Arc<ReplicatedLogs>,
    opened: Opened,
    submitted: u64,
}

impl Session {
    fn epoch(&self) -> Epoch {
        self.opened.ledger.id().epoch
    }

    fn committed_end(&self) -> u64 {
        self.opened.ledger.progress().borrow().committed.map_or(0, |last| last.0 + 1)
    }
}

struct Play {
    world: World,
    coin: Pcg64Mcg,
    /// All owners that there have been, the zombies among them.
    sessions: Vec<Session>,
    owners: u64,
    faulty: Vec<ReplicaId>,
    full: Vec<ReplicaId>,
    /// Storages of which everything was lost.
    lost: u64,
    next_storage: u128,
}

impl Play {
    fn new(seed: u64) -> Self {
        let (sessions, faulty, full) = (Vec::new(), Vec::new(), Vec::new());
        let coin = Pcg64Mcg::seed_from_u64(seed);
        let (world, next_storage) = (World::new(0), 100);
        let mut play =
            Self { world, coin, sessions, owners: 0, faulty, full, lost: 0, next_storage };
        for node in 1..=NODES {
            play.mount(replica(node), MemoryStorage::manual());
        }
        play
    }

    /// `storage` serves as `replica`, and syncs now and then.
    fn mount(&mut self, replica: ReplicaId, storage: Arc<MemoryStorage>) {
        let env = self.world.env();
        let syncs = sync(Arc::downgrade(&storage), env.clock, self.coin.next_u64());
        drop(env.spawn.spawn("sync", Box::pin(syncs)));
        self.world.mount(replica, storage);
    }

    fn below(&mut self, end: u64) -> u64 {
        self.coin.next_u64() % end
    }

    fn any(&mut self) -> ReplicaId {
        let known: Vec<ReplicaId> = self.world.storages.keys().copied().collect();
        let at = self.below(known.len() as u64);
        known[usize::try_from(at).unwrap()]
    }

    fn step(&mut self) {
        match self.below(100) {
            0..40 => self.append(),
            40..60 => {
                let micros = 1 << self.below(20);
                self.world.pass(Duration::from_micros(micros));
            }
            60..70 => self.break_link(),
            70..78 => self.heal(),
            78..83 => self.restart(),
            83..86 => self.replace_disk(),
            86..90 => self.fill(),
            90..93 => {
                let lost = self.below(3);
                self.world.register.lose.store(lost, Ordering::Relaxed);
            }
            93..95 => self.trim(),
            95..97 => self.take_over_twice(),
            _ => self.take_over(Duration::from_secs(20)),
        }
    }

    fn append(&mut self) {
        let count = 1 + self.below(8);
        let newest = self.below(4) > 0;
        let at = match self.sessions.len() as u64 {
            0 => return,
            sessions if newest => sessions - 1,
            sessions => self.below(sessions),
        };
        let session = &mut self.sessions[usize::try_from(at).unwrap()];
        for _ in 0..count {
            let text = format!("{}:{}", session.epoch(), session.submitted);
            if session.opened.ledger.append(entry(&text)).is_err() {
                return;
            }
            session.submitted += 1;
        }
    }

    /// At most one replica at a time is out of reach, so that owners get on now and then.
    fn break_link(&mut self) {
        if self.faulty.len() < 2 {
            let replica = self.any();
            let faults = [Fault::Cut, Fault::Stalled, Fault::LosesRequests, Fault::LosesReplies];
            let fault = faults[usize::try_from(self.below(4)).unwrap()];
            self.world.links.set_fault(replica, fault);
            self.faulty.push(replica);
        }
    }

    fn heal(&mut self) {
        for replica in std::mem::take(&mut self.faulty) {
            self.world.links.restore(replica);
        }
        for replica in std::mem::take(&mut self.full) {
            if let Some(storage) = self.world.storages.get(&replica) {
                storage.hold(None);
            }
        }
    }

    fn restart(&mut self) {
        let replica = self.any();
        let again = self.world.storages[&replica].restart();
        self.world.links.remove(replica);
        let micros = self.below(20_000);
        self.world.pass(Duration::from_micros(micros));
        self.mount(replica, again);
    }

    /// One storage per play is gone for good, and a blank one is there in its place: fewer than the ack quorum.
    fn replace_disk(&mut self) {
        if self.lost == 0 && !self.sessions.is_empty() {
            self.lost += 1;
            let gone = self.any();
            self.world.links.remove(gone);
            self.world.storages.remove(&gone);
            self.world.members.0.lock().unwrap().retain(|known| known.replica != gone);
            self.next_storage += 1;
            let blank = ReplicaId { storage: StorageUuid(self.next_storage), ..gone };
            self.mount(blank, MemoryStorage::manual());
        }
    }

    fn fill(&mut self) {
        let replica = self.any();
        self.world.storages[&replica].hold(Some("the disk is full"));
        self.full.push(replica);
    }

    /// The newest owner needs only some of what it has committed.
    fn trim(&mut self) {
        let Some((epoch, end)) = self.sessions.last().map(|s| (s.epoch(), s.committed_end()))
        else {
            return;
        };
        let keep_from = Address::new(epoch, EntryId(self.below(end + 1)));
        let ledger = self.sessions.last().unwrap().opened.ledger.clone();
        let clock = self.world.env().clock;
        let late = clock.sleep_until(clock.now().after(Duration::from_secs(1)));
        self.world.executor.run(async {
            tokio::select! {
                biased;
                _ = ledger.set_keep_from(keep_from, SnapshotPointers::default()) => {}
                () = late => {}
            }
        });
    }

    fn logs(&mut self) -> Arc<ReplicatedLogs> {
        self.owners += 1;
        self.world.logs(self.owners % NODES + 1 + NODES * self.owners)
    }

    fn take_over(&mut self, patience: Duration) {
        let logs = self.logs();
        let opened = self.world.executor.run(self.open(&logs, patience, Duration::ZERO));
        self.own(logs, opened);
    }

    /// Two at once, one a little later than the other.
    fn take_over_twice(&mut self) {
        let (first, second) = (self.logs(), self.logs());
        let (patience, after) = (Duration::from_secs(20), Duration::from_micros(self.below(5000)));
        let (one, other) = self.world.executor.run(async {
            tokio::join!(
                self.open(&first, patience, Duration::ZERO),
                self.open(&second, patience, after)
            )
        });
        self.own(first, one);
        self.own(second, other);
    }

    async fn open(
        &self,
        logs: &ReplicatedLogs,
        patience: Duration,
        after: Duration,
    ) -> Option<Opened> {
        let clock = self.world.env().clock;
        clock.sleep_until(clock.now().after(after)).await;
        tokio::select! {
            biased;
            opened = logs.open(CONTAINER) => opened.ok(),
            () = clock.sleep_until(clock.now().after(patience)) => None,
        }
    }

    fn own(&mut self, logs: Arc<ReplicatedLogs>, opened: Option<Opened>) {
        if let Some(opened) = opened {
            self.sessions.push(Session { logs, opened, submitted: 0 });
            self.sessions.sort_by_key(Session::epoch);
        }
    }

    /// Nothing fails any more: a last owner gets on, and finds everything that anybody was told is safe.
    fn judge(mut self) -> u64 {
        self.world.register.lose.store(0, Ordering::Relaxed);
        self.heal();
        self.world.pass(Duration::from_secs(1));
        let before = self.sessions.len();
        self.take_over(Duration::from_secs(60));
        assert_eq!(self.sessions.len(), before + 1, "the last takeover comes to an end");
        let last = self.sessions.last().unwrap();
        let keep_from = last.opened.keep_from;
        let kept = |epoch| if epoch == keep_from.epoch { keep_from.entry.0 } else { 0 };
        let replayed = self.world.executor.run(async {
            let mut replay = last.logs.replay(&last.opened, None);
            let mut entries = BTreeMap::<Epoch, u64>::new();
            while let Some(entry) = replay.next().await.unwrap() {
                let start = kept(entry.address.epoch);
                let end = entries.entry(entry.address.epoch).or_insert(start);
                assert_eq!(entry.address.entry.0, *end, "no hole");
                let text = format!("{}:{end}", entry.address.epoch);
                assert_eq!(entry.headers, text);
                let payload = last.opened.ledger.read(entry.address).await.unwrap();
                assert_eq!(payload, format!("<{text}"));
                *end += 1;
            }
            entries
        });
        let mut committed = 0;
        self.append();
        self.world.pass(Duration::from_secs(10));
        for session in &self.sessions {
            let (epoch, told) = (session.epoch(), session.committed_end());
            committed += told;
            if epoch < keep_from.epoch {
                continue;
            }
            let end = replayed.get(&epoch).copied().unwrap_or(kept(epoch));
            if Some(epoch) == self.sessions.last().map(Session::epoch) {
                assert_eq!(told, session.submitted, "the last owner gets on");
            } else {
                assert!(told <= end, "epoch {epoch}: {told} were committed, {end} are there");
                assert!(end <= session.submitted, "epoch {epoch}: nobody wrote {end}");
            }
        }
        committed
    }
}

/// Makes durable what is staged, after a while that differs.
async fn sync(storage: Weak<MemoryStorage>, clock: Arc<dyn Clock>, seed: u64) {
    let mut coin = Pcg64Mcg::seed_from_u64(seed);
    loop {
        let pause = Duration::from_micros(100 + coin.next_u64() % 3000);
        clock.sleep_until(clock.now().after(pause)).await;
        let Some(storage) = storage.upgrade() else { return };
        storage.make_durable(storage.staged());
    }
}

/// Plays all of `seeds`; what was committed in them.
fn play(seeds: std::ops::Range<u64>) -> u64 {
    let played = seeds.map(|seed| {
        let mut play = Play::new(seed);
        for _ in 0..STEPS {
            play.step();
        }
        play.judge()
    });
    played.sum()
}

#[test]
fn whatever_was_committed_is_replayed_at_the_end() {
    let committed = play(0..40);
    assert!(committed > 2000, "{committed} entries are no test");
}

/// Each breaks a rule that only this many faults together put to the test.
#[test]
fn planted_bugs_are_found() {
    for bug in ["PB-L2", "PB-L4", "PB-L15", "PB-V3"] {
        let found = (0..300).any(|seed| {
            std::panic::catch_unwind(|| {
                start_run(Some(bug), None);
                play(seed..seed + 1)
            })
            .is_err()
        });
        start_run(None, None);
        assert!(found, "{bug}");
    }
}
