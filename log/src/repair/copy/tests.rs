use super::*;
use bytes::Bytes;
use std::time::Duration;
use thalweg_types::id::{Address, ContainerId, NodeId, StorageUuid};

const LEDGER: LedgerId = LedgerId { container: ContainerId(1), epoch: Epoch(2) };

fn replica(node: u64) -> ReplicaId {
    ReplicaId { node: NodeId(node), storage: StorageUuid(u128::from(node)) }
}

fn frame(entry: u64, content: &'static str) -> EntryFrame {
    EntryFrame {
        ledger: LEDGER,
        base: EntryId(0),
        entry: EntryId(entry),
        lac: None,
        keep_from: Address::default(),
        headers: Bytes::from_static(b"h"),
        payload: vec![Bytes::from_static(content.as_bytes())],
        exempt: false,
    }
}

struct Run {
    copy: Copy,
    now: Instant,
    effects: Vec<Effect>,
}

impl Run {
    /// Entries 0..5 to replica 1, from 2 and 3; two at once.
    fn new(config: Config) -> Self {
        let now = Instant(1000);
        let sources = vec![replica(2), replica(3)];
        let task =
            Task { ledger: LEDGER, entries: 0..5, target: replica(1), sources, by: Epoch(4) };
        let bucket = Bucket::new(now, config.bandwidth, config.burst);
        Self { copy: Copy::new(now, task, config, bucket), now, effects: Vec::new() }
    }

    fn config() -> Config {
        Config { window: 2, ..Config::simulated() }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        self.copy.step(self.now, input, &mut self.effects);
        self.copy.check();
        std::mem::take(&mut self.effects)
    }

    fn reply(&mut self, from: u64, reply: Reply) -> Vec<Effect> {
        self.step(Input::Reply { from: replica(from), reply })
    }

    fn connect(&mut self) -> Vec<Effect> {
        (1..4).flat_map(|node| self.step(Input::Connected(replica(node)))).collect()
    }
}

fn reads(to: u64, entries: &[u64]) -> Vec<Effect> {
    let read = |entry: &u64| Effect::Send {
        to: replica(to),
        request: Request::Read { ledger: LEDGER, entry: EntryId(*entry) },
    };
    entries.iter().map(read).collect()
}

fn unknown(entry: u64) -> Reply {
    Reply::Unknown { ledger: LEDGER, entry: EntryId(entry) }
}

fn writes(effects: &[Effect]) -> Vec<EntryFrame> {
    let write = |effect: &Effect| match effect {
        Effect::Send { to, request: Request::Repair { by, entry } } => {
            assert_eq!((*to, *by), (replica(1), Epoch(4)));
            Some(entry.clone())
        }
        _ => None,
    };
    effects.iter().filter_map(write).collect()
}

#[test]
fn what_the_target_reads_back_is_not_copied() {
    let mut run = Run::new(Run::config());
    assert_eq!(run.connect(), reads(1, &[0, 1]));
    for entry in 0..4 {
        let more = run.reply(1, Reply::Have(frame(entry, "x")));
        assert_eq!(more, reads(1, &[entry + 2][..usize::from(entry < 3)]));
    }
    let end = run.reply(1, Reply::Have(frame(4, "x")));
    let whole = Outcome { whole: true, ..Outcome::default() };
    assert_eq!(end, [Effect::Ended(whole)]);
    assert_eq!(run.copy.deadline(), None);
}

#[test]
fn a_copy_is_what_the_holders_agree_on() {
    let mut run = Run::new(Run::config());
    run.connect();
    let asked = run.reply(1, unknown(0));
    assert_eq!(asked, [reads(2, &[0]), reads(3, &[0])].concat());
    assert_eq!(run.reply(2, Reply::Have(frame(0, "x"))), [], "the other one may differ");
    assert_eq!(run.reply(2, Reply::Have(frame(1, "x"))), [], "nobody asked for that");
    let wrong = EntryFrame { ledger: LedgerId { epoch: Epoch(1), ..LEDGER }, ..frame(0, "x") };
    assert_eq!(run.reply(3, Reply::Have(wrong)), []);
    assert_eq!(writes(&run.reply(3, Reply::Have(frame(0, "x")))), [frame(0, "x")]);
    assert_eq!(run.reply(3, Reply::Repaired { ledger: LEDGER, entry: EntryId(0) }), []);
    let more = run.reply(1, Reply::Repaired { ledger: LEDGER, entry: EntryId(0) });
    assert_eq!(more, reads(1, &[2]));
    // Entry 1: they differ. Entry 2: only one has it.
    run.reply(1, unknown(1));
    run.reply(2, Reply::Have(frame(1, "x")));
    assert_eq!(writes(&run.reply(3, Reply::Have(frame(1, "y")))), []);
    run.reply(1, Reply::NeverHad { ledger: LEDGER, entry: EntryId(2), end: EntryId(2) });
    run.reply(2, unknown(2));
    assert_eq!(writes(&run.reply(3, Reply::Have(frame(2, "z")))), [frame(2, "z")]);
    run.reply(1, Reply::Repaired { ledger: LEDGER, entry: EntryId(2) });
    run.reply(1, Reply::Have(frame(3, "x")));
    let end = run.reply(1, Reply::Have(frame(4, "x")));
    let outcome = Outcome { copied: 2, conflicts: 1, ..Outcome::default() };
    assert_eq!(end, [Effect::Ended(outcome)]);
}

#[test]
fn silence_and_loss_are_no_answer_and_hold_nothing_up_for_long() {
    let mut run = Run::new(Run::config());
    assert_eq!(run.step(Input::Connected(replica(1))), []);
    assert_eq!(run.step(Input::Lost(replica(2))), []);
    // Replica 3 says nothing at all.
    run.now = run.copy.deadline().unwrap();
    assert_eq!(run.step(Input::Tick), reads(1, &[0, 1]));
    run.step(Input::Connected(replica(2)));
    assert_eq!(run.reply(1, unknown(0)), reads(2, &[0]));
    run.step(Input::Lost(replica(2)));
    let more = run.reply(1, unknown(1));
    assert_eq!(more, reads(1, &[3]), "nobody can be asked");
    // A target that hangs ends it.
    run.now = run.copy.deadline().unwrap();
    let outcome = Outcome { failed: 5, ..Outcome::default() };
    assert_eq!(run.step(Input::Tick), [Effect::Ended(outcome)]);
}

#[test]
fn a_source_that_hangs_holds_up_one_round_and_not_every_entry() {
    let mut run = Run::new(Run::config());
    run.connect();
    run.reply(1, unknown(0));
    run.reply(1, unknown(1));
    run.reply(2, Reply::Have(frame(0, "x")));
    assert_eq!(run.reply(2, Reply::Have(frame(1, "x"))), [], "the other one may differ");
    run.now = run.copy.deadline().unwrap();
    assert_eq!(writes(&run.step(Input::Tick)), [frame(0, "x"), frame(1, "x")]);
    run.reply(1, Reply::Repaired { ledger: LEDGER, entry: EntryId(0) });
    assert_eq!(run.reply(1, unknown(2)), reads(2, &[2]), "it is not asked again");
}

#[test]
fn a_target_that_is_gone_or_fenced_ends_it_at_once() {
    let mut run = Run::new(Run::config());
    run.connect();
    let end = run.step(Input::Lost(replica(1)));
    assert_eq!(end, [Effect::Ended(Outcome { failed: 5, ..Outcome::default() })]);
    let mut run = Run::new(Run::config());
    run.connect();
    let end = run.reply(1, Reply::Fenced { ledger: LEDGER, by: Epoch(9) });
    assert_eq!(end, [Effect::Ended(Outcome { superseded: true, ..Outcome::default() })]);
    assert_eq!(run.reply(1, Reply::Have(frame(0, "x"))), []);
}

#[test]
fn nothing_is_sent_while_the_bandwidth_is_used_up() {
    let config = Config { bandwidth: 1000, burst: 1, ..Run::config() };
    let mut run = Run::new(config);
    assert_eq!(run.connect(), reads(1, &[0]));
    let big =
        Reply::Have(EntryFrame { payload: vec![Bytes::from_static(&[0; 500])], ..frame(0, "") });
    assert_eq!(run.reply(1, big), []);
    let at = run.copy.deadline().unwrap();
    assert!(at.since(run.now) >= Duration::from_millis(499), "{at:?}");
    run.now = at;
    assert_eq!(run.step(Input::Tick), reads(1, &[1]));
}
