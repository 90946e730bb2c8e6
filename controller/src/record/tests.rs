use super::*;
use std::fmt::Write as _;
use thalweg_log::register::Change;
use thalweg_types::id::{ContainerId, Incarnation, NodeId};

const STAMP: Stamp = Stamp { clock_ms: 0x0102, wall_ms: -3 };

fn config() -> ConfigRecord {
    ConfigRecord {
        scaling: ScalingRecord {
            kind: ScalingKind::EventsPerSecond,
            target_rate: 100,
            scale_factor: 2,
            min_segments: 3,
        },
        retention: Some(RetentionRecord { by_size: true, param: 4, max: 5 }),
        tags: BTreeSet::from(["x".to_owned(), "y".to_owned()]),
        timestamp_aggregation_timeout_ms: 6,
        rollover_size_bytes: 7,
    }
}

fn commands() -> Vec<Command> {
    let (name, scope) = (Name::new("s", "a"), || "s".to_owned());
    let sealed = vec![SegmentId::new(1, 2)];
    let cut = Cut::from([(SegmentId::new(1, 2), 9)]);
    let change = Change::Assign { host: NodeId(1), session: 2, incarnation: Incarnation(3) };
    vec![
        Command::CreateScope { scope: scope() },
        Command::DeleteScope { scope: scope() },
        Command::BeginDeleteScope { scope: scope() },
        Command::FinishDeleteScope { scope: scope(), id: 8 },
        Command::CreateStream { name: name.clone(), config: config() },
        Command::UpdateStream { name: name.clone(), config: ConfigRecord::fixed(1) },
        Command::Scale { name: name.clone(), sealed, ranges: vec![(0.0, 0.25)] },
        Command::Truncate { name: name.clone(), cut: cut.clone() },
        Command::Seal { name: name.clone() },
        Command::Delete { name: name.clone(), force: true },
        Command::Advance { name, workflow: 10, step: Step::ScaleSeal, lengths: cut },
        Command::Register(RegisterCommand { container: ContainerId(4), change }),
    ]
}

fn group_config() -> GroupConfigRecord {
    GroupConfigRecord {
        refresh_ms: 1,
        checkpoint_interval_ms: 2,
        max_outstanding_checkpoints: 3,
        retention: 1,
        starts: vec![(Name::new("s", "a"), Cut::from([(SegmentId::new(1, 2), 9)]))],
        ends: vec![(Name::new("s", "a"), Cut::new())],
    }
}

fn table_config() -> TableConfigRecord {
    TableConfigRecord { partitions: 2, primary_key_bytes: 3, secondary_key_bytes: 4 }
}

/// What version 2 added.
fn new_commands() -> Vec<Command> {
    let (name, writer, id) = (|| Name::new("s", "a"), || "w".to_owned(), 1 << 127);
    let position = Cut::from([(SegmentId::new(1, 2), 9)]);
    let (cut, config) = (position.clone(), group_config);
    vec![
        Command::Writer(WriterCommand::Mark { name: name(), writer: writer(), time: -1, position }),
        Command::Writer(WriterCommand::Leave { name: name(), writer: writer() }),
        Command::Group(GroupCommand::Create { name: name(), id, config: config() }),
        Command::Group(GroupCommand::Update { name: name(), id, generation: 1, config: config() }),
        Command::Group(GroupCommand::Delete { name: name(), id }),
        Command::Group(GroupCommand::Consume {
            name: name(),
            id,
            generation: 2,
            stream: name(),
            cut,
        }),
        Command::Table(TableCommand::Create { name: name(), config: table_config() }),
        Command::Table(TableCommand::Delete { name: name() }),
        Command::Table(TableCommand::Advance { name: name(), workflow: 3 }),
    ]
}

fn txn_commands() -> Vec<Command> {
    let (name, key) = (|| Name::new("s", "a"), TxnKey { high: 1 << 32, low: 30 });
    let commands = [
        TxnCommand::Begin { name: name(), lease_ms: 31 },
        TxnCommand::Opened { name: name(), low: 30 },
        TxnCommand::Ping { name: name(), key, lease_ms: 32 },
        TxnCommand::Commit { name: name(), key },
        TxnCommand::Abort { name: name(), key },
        TxnCommand::Expire { name: name(), low: 30 },
        TxnCommand::Aborted { name: name(), low: 30 },
        TxnCommand::BeginCommit { name: name() },
        TxnCommand::Reroute { name: name(), workflow: 33 },
    ];
    let advance = |step| {
        let lengths = BTreeMap::new();
        Command::Advance { name: name(), workflow: 34, step, lengths }
    };
    let steps = [Step::TxnSeal, Step::RollCreate, Step::TxnMerge, Step::RollSeal];
    commands.map(Command::Txn).into_iter().chain(steps.map(advance)).collect()
}

fn txn_workflows() -> Vec<Workflow> {
    let batch = || vec![30, 31];
    let segments =
        |epoch| vec![SegmentRecord { id: SegmentId::new(epoch, 2), low: 0.5, high: 1.0 }];
    let (merged, next) = (segments(2), segments(3));
    vec![
        Workflow::TxnSeal { batch: batch() },
        Workflow::RollCreate { batch: batch(), reference: 1, merged, next },
        Workflow::TxnMerge { batch: batch(), rolled: true },
        Workflow::RollSeal { batch: batch() },
    ]
}

fn txns() -> TxnsRecord {
    let mut txns = TxnsRecord { seals: true, ..TxnsRecord::default() };
    let phases = [
        TxnPhase::Creating,
        TxnPhase::Open { deadline_ms: 35 },
        TxnPhase::Committing { order: 36 },
        TxnPhase::Aborting,
    ];
    for (low, phase) in (40..).zip(phases) {
        let parents = vec![SegmentRecord { id: SegmentId::new(1, 2), low: 0.0, high: 1.0 }];
        let (stream, high) = (2, 1 << 32);
        let txn = TxnRecord { stream, high, parents, phase, lease_ms: 37, begun_ms: 38 };
        txns.live.insert(low, txn);
    }
    for (low, committed) in [(50, true), (51, false)] {
        let key = TxnKey { high: 1 << 32, low };
        txns.ended.push_back(EndedTxn { key, committed, ended_ms: 39 });
    }
    txns
}

fn all_commands() -> Vec<Command> {
    commands().into_iter().chain(new_commands()).chain(txn_commands()).collect()
}

fn workflows() -> Vec<Option<Workflow>> {
    let sealed = vec![SegmentId::new(0, 1)];
    let created = vec![SegmentRecord { id: SegmentId::new(1, 2), low: 0.5, high: 1.0 }];
    vec![
        None,
        Some(Workflow::Create),
        Some(Workflow::ScaleCreate { sealed: sealed.clone(), created }),
        Some(Workflow::ScaleSeal { sealed: sealed.clone() }),
        Some(Workflow::Truncate { gone: sealed }),
        Some(Workflow::Seal),
        Some(Workflow::Delete),
    ]
}

fn state() -> StateRecord {
    let mut state = StateRecord { clock_ms: 11, next_id: 12, ..StateRecord::default() };
    state.scopes.insert("s".into(), ScopeRecord { id: 1, deleting: true });
    state.retired.insert(Name::new("s", "gone"), RetiredRecord { next_number: 13 });
    for (number, kind) in workflows().into_iter().enumerate() {
        let segments = vec![SegmentRecord { id: SegmentId::new(0, 1), low: 0.0, high: 1.0 }];
        let stream = StreamRecord {
            id: 2,
            config: config(),
            epochs: vec![EpochRecord { reference: 0, segments, created_at_ms: 14 }],
            active: 0,
            status: if number == 0 { StreamStatus::Sealed } else { StreamStatus::Active },
            next_number: 15,
            sealed_lengths: BTreeMap::from([(SegmentId::new(0, 0), 16)]),
            truncation: Some(Cut::from([(SegmentId::new(0, 1), 17)])),
            workflow: kind.map(|kind| WorkflowRecord { id: 18, kind }),
            created_at_ms: 19,
        };
        state.streams.insert(Name::new("s", format!("w{number}")), stream);
    }
    for command in commands() {
        if let Command::Register(command) = command {
            state.registers.apply(&command);
        }
    }
    state
}

/// A state with everything that version 2 added.
fn new_state() -> StateRecord {
    let (name, position) = (Name::new("s", "a"), Cut::from([(SegmentId::new(1, 2), 9)]));
    let mut state = state();
    let mark = MarkRecord { time: 20, position: position.clone(), left: true };
    state.marks.insert(name.clone(), BTreeMap::from([("w".to_owned(), mark)]));
    let consumed = BTreeMap::from([(name.clone(), position)]);
    let group = GroupRecord { id: 1 << 127, generation: 21, config: group_config(), consumed };
    state.groups.insert(name.clone(), group);
    let workflow = Some(TableWorkflow { id: 22, deletes: true });
    let segments = vec![SegmentRecord { id: SegmentId::new(0, 1), low: 0.0, high: 1.0 }];
    let table = TableRecord { id: 23, config: table_config(), segments, next_number: 24, workflow };
    state.tables.insert(name.clone(), table);
    state.retired_tables.insert(name.clone(), RetiredRecord { next_number: 25 });
    for (number, kind) in txn_workflows().into_iter().enumerate() {
        let mut stream = state.streams[&Name::new("s", "w0")].clone();
        stream.workflow = Some(WorkflowRecord { id: 26, kind });
        state.streams.insert(Name::new("s", format!("x{number}")), stream);
    }
    state.txns.insert(name, txns());
    state
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn golden() -> String {
    let mut text = String::new();
    for command in all_commands() {
        let debug = format!("{command:?}");
        let name = debug.split([' ', '(', '{']).next().unwrap();
        let _ = writeln!(text, "{name} {}", hex(&encode_command(STAMP, &command)));
    }
    let _ = writeln!(text, "State {}", hex(&encode_state(&new_state())));
    text
}

#[test]
fn every_record_has_the_bytes_of_the_golden_file() {
    let stored = include_str!("../../testdata/records.golden");
    let now = golden();
    assert_eq!(stored, now, "what is stored would not be read any more: that needs a new version");
}

#[test]
fn what_was_stored_is_read_back() {
    for command in all_commands() {
        let bytes = encode_command(STAMP, &command);
        assert_eq!(decode_command(&bytes), Ok((STAMP, command)));
    }
    assert_eq!(decode_state(&encode_state(&new_state())), Ok(new_state()));
}

#[test]
fn what_version_1_stored_is_still_read() {
    let stored = include_str!("../../testdata/records-v1.golden");
    let mut lines = stored.lines().map(|line| {
        let (_, hex) = line.split_once(' ').unwrap();
        let digits = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect::<Vec<u8>>()
    });
    for command in commands() {
        assert_eq!(decode_command(&lines.next().unwrap()), Ok((STAMP, command)));
    }
    assert_eq!(decode_state(&lines.next().unwrap()), Ok(state()));
    assert_eq!(lines.next(), None);
}

#[test]
fn another_version_and_a_cut_record_are_refused() {
    let mut bytes = encode_command(STAMP, &commands()[0]);
    for cut in 0..bytes.len() {
        assert!(matches!(decode_command(&bytes[..cut]), Err(RecordError::Malformed(_))), "{cut}");
    }
    for found in [0, VERSION + 1] {
        bytes[..2].copy_from_slice(&found.to_le_bytes());
        assert_eq!(decode_command(&bytes), Err(RecordError::Version { found }));
    }
}
