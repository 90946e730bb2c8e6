//! Transactions, as clients see them, and what becomes of them when a controller is cut off.

use super::*;
use thalweg_types::name::ScopedStream;
use thalweg_wire::controller::{PingStatus, TxnId, TxnState, TxnStatus};

const LEASE_MS: i64 = 10_000;

fn name_of(parent: SegmentId, txn: TxnId) -> SegmentName {
    let parent = ScopedStream::new("s", "a").segment(parent);
    SegmentName::from(format!("{parent}#transaction.{:016x}{:016x}", txn.high, txn.low))
}

impl World {
    /// A transaction on `s/a`, and the segments to write to.
    fn begin(&self, controller: &Controller) -> (TxnId, Vec<SegmentId>) {
        let request = Request::CreateTransaction { stream: a(), lease_ms: LEASE_MS };
        match self.ask(controller, request) {
            Ok(Response::CreateTransaction { txn, segments }) => {
                (txn, segments.iter().map(|s| s.segment).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    /// A transaction with `bytes` bytes in each of its segments.
    fn begin_with(&self, controller: &Controller, bytes: i64) -> TxnId {
        let (txn, segments) = self.begin(controller);
        for segment in segments {
            self.segments.grow(&name_of(segment, txn), bytes);
        }
        txn
    }

    fn txn(&self, controller: &Controller, txn: TxnId) -> TxnState {
        let request = Request::CheckTransactionState { stream: a(), txn };
        match self.ask(controller, request) {
            Ok(Response::TransactionState(state)) => state,
            other => panic!("{other:?}"),
        }
    }

    fn decide(&self, controller: &Controller, txn: TxnId, commit: bool) -> TxnStatus {
        let request = if commit {
            let (writer, timestamp) = (String::new(), None);
            Request::CommitTransaction { stream: a(), txn, writer, timestamp }
        } else {
            Request::AbortTransaction { stream: a(), txn }
        };
        match self.ask(controller, request) {
            Ok(Response::EndTransaction(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    fn pause(&self, controller: &Controller, millis: u64) {
        let pause = controller.inner.pause(Duration::from_millis(millis));
        self.executor.run(pause).unwrap();
    }

    fn until(&self, controller: &Controller, txn: TxnId, want: TxnState) {
        for _ in 0..1000 {
            if self.txn(controller, txn) == want {
                return;
            }
            self.pause(controller, 20);
        }
        panic!("still {:?}", self.txn(controller, txn));
    }

    /// Bytes in all segments of `s/a` that are no transaction's.
    fn bytes(&self) -> i64 {
        let names = self.segments.names();
        let own = names.iter().filter(|n| n.starts_with("s/a/") && !n.contains("#transaction"));
        own.filter_map(|name| self.segments.length(&segment(name))).sum()
    }

    fn has_txn_segments(&self) -> bool {
        self.segments.names().iter().any(|name| name.contains("#transaction"))
    }

    fn split(&self, controller: &Controller) {
        let scaled = self.ask(controller, split_first());
        assert!(matches!(scaled, Ok(Response::Scale(_))), "{scaled:?}");
        let done = Request::CheckScale { stream: a(), epoch: 0 };
        while self.ask(controller, done.clone()) != Ok(Response::CheckScale(ScaleState::Success)) {
            self.pause(controller, 5);
        }
    }
}

#[test]
fn all_segments_of_a_transaction_exist_before_its_id_is_known() {
    let world = World::new();
    let controller = world.with_stream(2);
    world.segments.fail_next(5);
    let (txn, segments) = world.begin(&controller);
    assert_eq!(segments, [id(0, 0), id(0, 1)]);
    assert!(txn.low >= 0 && txn.high >> 32 == 0, "{txn:?}");
    for segment in segments {
        assert_eq!(world.segments.length(&name_of(segment, txn)), Some(0));
    }
}

#[test]
fn a_transaction_is_merged_once_wherever_the_controller_is_cut_off() {
    for rolls in [false, true] {
        for (spared, losses) in (0..20).flat_map(|spared| [(spared, 0), (spared, 1), (spared, 2)]) {
            let world = World::new();
            let controller = world.with_stream(2);
            let (x, y) = (world.begin_with(&controller, 7), world.begin_with(&controller, 100));
            if rolls {
                world.split(&controller);
            }
            world.segments.cut_off(spared, losses);
            assert_eq!(world.decide(&controller, y, true), TxnStatus::Success);
            assert_eq!(world.decide(&controller, x, true), TxnStatus::Success);
            world.pause(&controller, 200);
            let controller = world.restart(&controller);
            world.segments.fail_next(0);
            for txn in [x, y] {
                world.until(&controller, txn, TxnState::Committed);
            }
            assert_eq!(world.bytes(), 2 * 107, "rolls {rolls}, cut off after {spared} + {losses}");
            assert!(!world.has_txn_segments());
            let again = world.begin_with(&controller, 1000);
            assert_eq!(world.decide(&controller, again, true), TxnStatus::Success);
            world.until(&controller, again, TxnState::Committed);
        }
    }
}

#[test]
fn commits_of_one_epoch_are_merged_in_their_order() {
    let world = World::new();
    let controller = world.with_stream(1);
    let txns: Vec<_> = (0..5).map(|_| world.begin_with(&controller, 1)).collect();
    world.segments.cut_off(0, 0);
    let order = [3, 0, 4, 1, 2].map(|at| txns[at]);
    for txn in order {
        assert_eq!(world.decide(&controller, txn, true), TxnStatus::Success);
    }
    world.segments.fail_next(0);
    world.until(&controller, order[4], TxnState::Committed);
    let source = |command: String| command.strip_prefix("merge ").map(str::to_owned);
    let mut merges: Vec<_> = world.segments.commands().into_iter().filter_map(source).collect();
    merges.dedup();
    // The first one may have been a batch of its own, but came first all the same.
    assert_eq!(merges, order.map(|txn| name_of(id(0, 0), txn).to_string()));
}

#[test]
fn successors_of_a_roll_are_recorded_before_its_first_seal() {
    let world = World::new();
    let controller = world.with_stream(2);
    let txn = world.begin_with(&controller, 7);
    world.split(&controller);
    // Seals of the transaction's two segments, five segments made, two merges; then nothing more.
    world.segments.cut_off(2 + 5 + 2, 0);
    assert_eq!(world.decide(&controller, txn, true), TxnStatus::Success);
    world.pause(&controller, 200);
    let after =
        |segment| match world.ask(&controller, Request::GetSuccessors { stream: a(), segment }) {
            Ok(Response::Successors(found)) => {
                found.iter().map(|s| s.range.segment).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
    let last = world.segments.commands().pop().unwrap();
    assert!(last.starts_with("seal s/a/"), "{last}");
    assert_eq!(after(id(0, 1)), [id(2, 1)]);
    assert_eq!(after(id(1, 2)), [id(2, 0)]);
    assert_eq!(after(id(2, 0)), [id(3, 2), id(3, 3)]);
    assert_eq!(after(id(3, 2)), []);
    world.segments.fail_next(0);
    world.until(&controller, txn, TxnState::Committed);
    let ids: Vec<_> = world.current(&controller).iter().map(|s| s.0).collect();
    assert_eq!(ids, [id(3, 2), id(3, 3), id(3, 1)]);
    assert_eq!(world.segments.length(&segment("s/a/0.#epoch.2")), Some(7));
}

#[test]
fn a_segment_that_a_client_sealed_takes_nothing_and_the_transaction_goes_round_it() {
    let world = World::new();
    let controller = world.with_stream(2);
    let txn = world.begin_with(&controller, 7);
    world.segments.seal_by_client(&segment("s/a/1.#epoch.0"));
    assert_eq!(world.decide(&controller, txn, true), TxnStatus::Success);
    world.until(&controller, txn, TxnState::Committed);
    assert_eq!(world.bytes(), 14);
    assert!(!world.has_txn_segments());
    // The same in the middle of a roll: the targets are sealed as soon as they exist.
    let txn = world.begin_with(&controller, 7);
    world.split_by(&controller);
    world.segments.cut_off(2 + 5, 0);
    assert_eq!(world.decide(&controller, txn, true), TxnStatus::Success);
    world.pause(&controller, 200);
    let target = world.segments.names().into_iter().find(|n| n == "s/a/1.#epoch.4").unwrap();
    world.segments.seal_by_client(&segment(&target));
    world.segments.fail_next(0);
    world.until(&controller, txn, TxnState::Committed);
    assert_eq!(world.bytes(), 28);
    assert!(!world.has_txn_segments());
}

impl World {
    /// Splits the first segment, whichever it is.
    fn split_by(&self, controller: &Controller) {
        let (first, low, high) = self.current(controller)[0];
        let middle = f64::midpoint(low, high);
        let ranges = vec![(low, middle), (middle, high)];
        let request = Request::Scale { stream: a(), sealed: vec![first], ranges };
        let Ok(Response::Scale(answer)) = self.ask(controller, request) else { panic!() };
        assert_eq!(answer.status, ScaleStatus::Started);
        while self.current(controller)[0].0 == first {
            self.pause(controller, 5);
        }
    }
}

#[test]
fn a_seal_merges_what_is_decided_and_aborts_the_rest() {
    let world = World::new();
    let controller = world.with_stream(2);
    let (x, y) = (world.begin_with(&controller, 7), world.begin_with(&controller, 100));
    world.segments.fail_next(3);
    assert_eq!(world.decide(&controller, x, true), TxnStatus::Success);
    let sealed = world.ask(&controller, Request::SealStream(a()));
    assert_eq!(sealed, Ok(Response::UpdateStream(UpdateStreamStatus::Success)));
    assert_eq!(world.txn(&controller, x), TxnState::Committed);
    assert_eq!(world.txn(&controller, y), TxnState::Aborted);
    assert_eq!(world.bytes(), 14);
    assert!(!world.has_txn_segments());
    let begin = Request::CreateTransaction { stream: a(), lease_ms: LEASE_MS };
    assert_eq!(world.ask(&controller, begin).unwrap_err().code, Code::InvalidArgument);
    world.ask(&controller, Request::DeleteStream(a())).unwrap();
    let controller = world.restart(&controller);
    assert_eq!(world.txn(&controller, x), TxnState::Committed, "it outlives the stream");
}

#[test]
fn a_transaction_that_nobody_pings_is_aborted_and_a_pinged_one_is_not() {
    let world = World::new();
    let controller = world.with_stream(1);
    let [x, y, z] = [(); 3].map(|()| world.begin_with(&controller, 7));
    let ping = |controller: &Controller, txn| {
        let request = Request::PingTransaction { stream: a(), txn, lease_ms: LEASE_MS };
        match world.ask(controller, request) {
            Ok(Response::PingTransaction(status)) => status,
            other => panic!("{other:?}"),
        }
    };
    // A client may sleep a whole lease between two pings.
    world.pause(&controller, 19_000);
    assert_eq!(ping(&controller, y), PingStatus::Ok);
    assert_eq!(ping(&controller, z), PingStatus::Ok);
    assert_eq!(world.txn(&controller, x), TxnState::Open);
    world.pause(&controller, 15_000);
    assert_eq!(world.txn(&controller, x), TxnState::Aborted);
    assert_eq!(ping(&controller, x), PingStatus::Aborted);
    assert_eq!(world.decide(&controller, x, true), TxnStatus::TransactionNotFound);
    assert_eq!(world.decide(&controller, y, true), TxnStatus::Success);
    assert_eq!(ping(&controller, y), PingStatus::Committed);
    // Log time stands still while no controller runs: the lease goes on with the next one.
    let controller = world.restart(&controller);
    assert_eq!(world.txn(&controller, z), TxnState::Open);
    world.pause(&controller, 31_000);
    assert_eq!(world.txn(&controller, z), TxnState::Aborted);
}

#[test]
fn of_a_commit_and_an_abort_at_once_one_is_refused_and_the_other_done() {
    let world = World::new();
    let controller = world.with_stream(1);
    let txn = world.begin_with(&controller, 7);
    let (writer, timestamp) = (String::new(), None);
    let commit = Request::CommitTransaction { stream: a(), txn, writer, timestamp };
    let abort = Request::AbortTransaction { stream: a(), txn };
    let (commit, abort) =
        world.executor.run(async { tokio::join!(controller.call(commit), controller.call(abort)) });
    let done = Ok(Response::EndTransaction(TxnStatus::Success));
    assert_ne!(commit == done, abort == done, "{commit:?} {abort:?}");
    let want = if commit == done { TxnState::Committed } else { TxnState::Aborted };
    world.until(&controller, txn, want);
}

#[test]
fn a_scope_goes_with_its_open_and_its_decided_transactions() {
    let world = World::new();
    let controller = world.with_stream(2);
    let (x, y) = (world.begin_with(&controller, 7), world.begin_with(&controller, 7));
    world.segments.fail_next(4);
    assert_eq!(world.decide(&controller, x, true), TxnStatus::Success);
    let gone = world.ask(&controller, Request::DeleteScopeRecursive { scope: "s".into() });
    assert_eq!(gone, Ok(Response::DeleteScope(DeleteScopeStatus::Success)));
    assert_eq!(world.txn(&controller, x), TxnState::Committed);
    assert_eq!(world.txn(&controller, y), TxnState::Aborted);
    assert_eq!(world.segments.names(), Vec::<String>::new());
}
