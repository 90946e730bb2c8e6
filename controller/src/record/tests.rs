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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn golden() -> String {
    let mut text = String::new();
    for command in commands() {
        let debug = format!("{command:?}");
        let name = debug.split([' ', '(', '{']).next().unwrap();
        let _ = writeln!(text, "{name} {}", hex(&encode_command(STAMP, &command)));
    }
    let _ = writeln!(text, "State {}", hex(&encode_state(&state())));
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
    for command in commands() {
        let bytes = encode_command(STAMP, &command);
        assert_eq!(decode_command(&bytes), Ok((STAMP, command)));
    }
    assert_eq!(decode_state(&encode_state(&state())), Ok(state()));
}

#[test]
fn another_version_and_a_cut_record_are_refused() {
    let mut bytes = encode_command(STAMP, &commands()[0]);
    for cut in 0..bytes.len() {
        assert!(matches!(decode_command(&bytes[..cut]), Err(RecordError::Malformed(_))), "{cut}");
    }
    bytes[0] = 2;
    assert_eq!(decode_command(&bytes), Err(RecordError::Version { found: 2 }));
}
