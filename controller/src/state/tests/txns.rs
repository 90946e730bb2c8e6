//! Transactions among everything else that happens to a stream.

use super::*;
use crate::record::{StreamStatus, TxnCommand, TxnKey, TxnPhase};
use thalweg_wire::controller::TxnState;

/// What a property test does next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Act {
    Begin,
    Opened(usize),
    Commit(usize),
    Abort(usize),
    Aborted(usize),
    Expire(usize),
    Ping(usize),
    BeginCommit,
    Reroute,
    Advance,
    Other(super::Act),
    Seal,
    Later,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let which = || 0..20_usize;
    let one = prop_oneof![
        3 => Just(Act::Begin),
        3 => which().prop_map(Act::Opened),
        3 => which().prop_map(Act::Commit),
        1 => which().prop_map(Act::Abort),
        1 => which().prop_map(Act::Aborted),
        1 => which().prop_map(Act::Expire),
        1 => which().prop_map(Act::Ping),
        3 => Just(Act::BeginCommit),
        1 => Just(Act::Reroute),
        6 => Just(Act::Advance),
        2 => (0..8_usize, 0.01..0.99_f64).prop_map(|(at, part)| Act::Other(super::Act::Split(at, part))),
        1 => (0..8_usize).prop_map(|at| Act::Other(super::Act::Merge(at))),
        1 => Just(Act::Seal),
        1 => Just(Act::Later),
    ];
    proptest::collection::vec(one, 0..60)
}

/// The state, and what it has promised.
struct Bench {
    state: State,
    clock_ms: u64,
    begun: Vec<TxnKey>,
    /// In the order in which it was promised.
    decided: Vec<(TxnKey, bool)>,
}

impl Bench {
    fn run(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let stamp = Stamp { clock_ms: self.clock_ms, wall_ms: 7 };
        let before = self.state.clone();
        let outcome = self.state.apply(command, stamp);
        self.state.check();
        if outcome.is_err() {
            let mut expected = before.record().clone();
            expected.clock_ms = self.state.record().clock_ms;
            assert_eq!(self.state.record(), &expected, "{command:?} was refused and had an effect");
        }
        outcome
    }

    fn txn(&mut self, command: TxnCommand) -> Result<Outcome, Refusal> {
        self.run(&Command::Txn(command))
    }

    fn key(&self, which: usize) -> TxnKey {
        let unknown = TxnKey { high: 0, low: 1 };
        self.begun.get(which % self.begun.len().max(1)).copied().unwrap_or(unknown)
    }

    fn decide(&mut self, which: usize, commit: bool) {
        let (name, key) = (name(), self.key(which));
        let before = self.state.txn_state(&name, key);
        let command =
            if commit { TxnCommand::Commit { name, key } } else { TxnCommand::Abort { name, key } };
        if self.txn(command).is_ok() && before == TxnState::Open {
            self.decided.push((key, commit));
        }
    }

    fn act(&mut self, act: &Act) {
        let low = |which: &usize, bench: &Self| bench.key(*which).low;
        match act {
            Act::Begin => {
                let begin = TxnCommand::Begin { name: name(), lease_ms: 10 };
                if let Ok(Outcome::Begun(key)) = self.txn(begin) {
                    self.begun.push(key);
                }
            }
            Act::Opened(n) => {
                drop(self.txn(TxnCommand::Opened { name: name(), low: low(n, self) }));
            }
            Act::Aborted(n) => {
                drop(self.txn(TxnCommand::Aborted { name: name(), low: low(n, self) }));
            }
            Act::Expire(n) => {
                drop(self.txn(TxnCommand::Expire { name: name(), low: low(n, self) }));
            }
            Act::Ping(n) => {
                let (key, lease_ms) = (self.key(*n), 10);
                drop(self.txn(TxnCommand::Ping { name: name(), key, lease_ms }));
            }
            Act::Commit(n) => self.decide(*n, true),
            Act::Abort(n) => self.decide(*n, false),
            Act::BeginCommit => drop(self.txn(TxnCommand::BeginCommit { name: name() })),
            Act::Reroute => {
                let found = stream(&self.state).workflow.as_ref().map(|found| found.id);
                let workflow = found.unwrap_or_default();
                drop(self.txn(TxnCommand::Reroute { name: name(), workflow }));
            }
            Act::Advance => drop(advance(&mut self.state, &name())),
            Act::Other(act) => {
                let next = command(stream(&self.state), act);
                drop(self.run(&next));
            }
            Act::Seal => drop(self.run(&Command::Seal { name: name() })),
            Act::Later => self.clock_ms += 5000,
        }
    }

    /// What drivers would do until nothing is left to be done.
    fn finish(&mut self) {
        for _ in 0..1000 {
            let live = self.state.txns(&name()).map(|txns| txns.live.clone()).unwrap_or_default();
            for (low, txn) in live {
                match txn.phase {
                    TxnPhase::Creating => drop(self.txn(TxnCommand::Opened { name: name(), low })),
                    TxnPhase::Aborting => drop(self.txn(TxnCommand::Aborted { name: name(), low })),
                    TxnPhase::Open { .. } | TxnPhase::Committing { .. } => {}
                }
            }
            let idle = !advance(&mut self.state, &name());
            if idle && self.txn(TxnCommand::BeginCommit { name: name() }).is_err() {
                return;
            }
        }
        panic!("there is no end to it");
    }
}

fn bench() -> Bench {
    Bench { state: with_stream(2), clock_ms: 0, begun: Vec::new(), decided: Vec::new() }
}

proptest! {
    #[test]
    fn what_was_decided_comes_true_in_order_and_the_stream_stays_whole(acts in acts()) {
        let mut bench = bench();
        for act in &acts {
            bench.act(act);
        }
        bench.finish();
        let txns = bench.state.txns(&name()).cloned().unwrap_or_default();
        prop_assert!(!txns.seals && !txns.is_committing());
        for (key, committed) in &bench.decided {
            let want = if *committed { TxnState::Committed } else { TxnState::Aborted };
            prop_assert_eq!(bench.state.txn_state(&name(), *key), want);
        }
        for key in &bench.begun {
            let state = bench.state.txn_state(&name(), *key);
            prop_assert!(matches!(state, TxnState::Open | TxnState::Committed | TxnState::Aborted));
        }
        // Of one epoch, those committed first end first.
        let ended: Vec<TxnKey> = txns.ended.iter().filter(|e| e.committed).map(|e| e.key).collect();
        let epochs: std::collections::BTreeSet<i64> = ended.iter().map(|key| key.high).collect();
        for epoch in epochs {
            let of = |key: &&TxnKey| key.high == epoch;
            let order: Vec<_> = ended.iter().filter(of).collect();
            let promised: Vec<_> = bench.decided.iter().filter(|d| d.1).map(|d| &d.0).collect();
            let promised: Vec<_> = promised.into_iter().filter(of).collect();
            prop_assert_eq!(order, promised);
        }
        let stream = stream(&bench.state);
        let last: Vec<_> = stream.current().iter().map(|s| s.id).collect();
        for segment in stream.epochs.iter().flat_map(|epoch| &epoch.segments) {
            let after = stream.successors(segment.id);
            prop_assert_eq!(after.is_empty(), last.contains(&segment.id));
            let Some((first, _)) = after.first() else { continue };
            let (end, _) = &after[after.len() - 1];
            prop_assert!(first.low <= segment.low && end.high >= segment.high);
        }
    }

    #[test]
    fn a_snapshot_holds_the_transactions_too(acts in acts()) {
        let mut bench = bench();
        for act in &acts {
            bench.act(act);
        }
        let bytes = crate::record::encode_state(bench.state.record());
        let record = crate::record::decode_state(&bytes).unwrap();
        prop_assert_eq!(State::restore(record), bench.state);
    }
}

#[test]
fn a_sealed_stream_ends_its_commits_even_if_more_is_decided_than_fits_a_batch() {
    let mut bench = bench();
    for number in 0..crate::limits::TXN_BATCH_MAX + 3 {
        bench.act(&Act::Begin);
        bench.act(&Act::Opened(number));
        bench.act(&Act::Commit(number));
    }
    bench.act(&Act::BeginCommit);
    assert_eq!(bench.run(&Command::Seal { name: name() }), Err(Refusal::Busy));
    while advance(&mut bench.state, &name()) {}
    assert!(matches!(bench.run(&Command::Seal { name: name() }), Ok(Outcome::Started(_))));
    let begin = TxnCommand::Begin { name: name(), lease_ms: 10 };
    assert_eq!(bench.txn(begin), Err(Refusal::StreamSealed));
    while advance(&mut bench.state, &name()) {}
    assert_eq!(stream(&bench.state).status, StreamStatus::Sealed);
    let ended = &bench.state.txns(&name()).unwrap().ended;
    assert!(ended.len() == crate::limits::TXN_BATCH_MAX + 3 && ended.iter().all(|e| e.committed));
}
