mod txns;

use super::*;
use crate::record::{ConfigRecord, ScalingKind, Step, WorkflowRecord};
use proptest::prelude::*;
use thalweg_types::id::SegmentId;

const STAMP: Stamp = Stamp { clock_ms: 5, wall_ms: 7 };

fn name() -> Name {
    Name::new("s", "a")
}

#[expect(clippy::needless_pass_by_value, reason = "tests build each command in place")]
fn apply(state: &mut State, command: Command) -> Result<Outcome, Refusal> {
    let outcome = state.apply(&command, STAMP);
    state.check();
    outcome
}

/// The workflow under way, advanced by one step.
fn advance(state: &mut State, name: &Name) -> bool {
    let found = state.any_stream(name).and_then(|stream| stream.workflow.clone());
    let Some(WorkflowRecord { id: workflow, kind }) = found else { return false };
    let (step, lengths) = (kind.step(), BTreeMap::new());
    apply(state, Command::Advance { name: name.clone(), workflow, step, lengths }).unwrap();
    true
}

fn with_stream(segments: u32) -> State {
    let mut state = State::genesis();
    apply(&mut state, Command::CreateScope { scope: "s".into() }).unwrap();
    let config = ConfigRecord::fixed(segments);
    apply(&mut state, Command::CreateStream { name: name(), config }).unwrap();
    advance(&mut state, &name());
    advance(&mut state, &Name::new("s", "_MARKa"));
    state
}

fn stream(state: &State) -> &StreamRecord {
    state.any_stream(&name()).unwrap()
}

fn ids(segments: &[SegmentRecord]) -> Vec<(i32, i32)> {
    segments.iter().map(|s| (s.id.epoch(), s.id.number())).collect()
}

fn scale(sealed: &[(i32, i32)], ranges: &[(f64, f64)]) -> Command {
    let sealed = sealed.iter().map(|(epoch, number)| SegmentId::new(*epoch, *number)).collect();
    Command::Scale { name: name(), sealed, ranges: ranges.to_vec() }
}

#[test]
fn nobody_sees_a_stream_before_its_segments_are_made_nor_when_it_is_going() {
    let mut state = State::genesis();
    apply(&mut state, Command::CreateScope { scope: "s".into() }).unwrap();
    let create = Command::CreateStream { name: name(), config: ConfigRecord::fixed(1) };
    apply(&mut state, create.clone()).unwrap();
    assert!(state.stream(&name()).is_none());
    assert_eq!(apply(&mut state, create.clone()), Err(Refusal::Busy));
    assert!(state.list_streams("s", None, None, 9).is_empty());
    advance(&mut state, &name());
    assert!(state.stream(&name()).is_some());
    assert_eq!(apply(&mut state, create), Err(Refusal::StreamExists));
    apply(&mut state, Command::Delete { name: name(), force: true }).unwrap();
    assert!(state.stream(&name()).is_none());
}

#[test]
fn the_active_epoch_changes_only_when_the_old_segments_are_sealed() {
    let mut state = with_stream(2);
    apply(&mut state, scale(&[(0, 0)], &[(0.25, 0.5), (0.0, 0.25)])).unwrap();
    assert!(stream(&state).successors(SegmentId::new(0, 0)).is_empty(), "nothing is made yet");
    advance(&mut state, &name());
    assert_eq!(ids(stream(&state).current()), [(0, 0), (0, 1)]);
    assert_eq!(stream(&state).successors(SegmentId::new(0, 0)).len(), 2);
    advance(&mut state, &name());
    assert_eq!(ids(stream(&state).current()), [(1, 2), (1, 3), (0, 1)]);
    assert!(!advance(&mut state, &name()));
}

#[test]
fn a_late_advance_changes_nothing() {
    let mut state = with_stream(2);
    apply(&mut state, scale(&[(0, 0)], &[(0.0, 0.5)])).unwrap();
    let workflow = stream(&state).workflow.as_ref().unwrap().id;
    let late = |workflow, step| {
        let lengths = BTreeMap::new();
        Command::Advance { name: name(), workflow, step, lengths }
    };
    let before = state.clone();
    for command in [
        late(workflow + 1, Step::ScaleCreate),
        late(workflow, Step::ScaleSeal),
        late(workflow, Step::Delete),
    ] {
        assert_eq!(apply(&mut state, command), Err(Refusal::Stale));
        assert_eq!(state, before);
    }
    advance(&mut state, &name());
    assert_eq!(apply(&mut state, late(workflow, Step::ScaleCreate)), Err(Refusal::Stale));
}

#[test]
fn numbers_go_on_over_scope_and_stream() {
    let mut state = with_stream(3);
    apply(&mut state, Command::BeginDeleteScope { scope: "s".into() }).unwrap();
    for gone in [Name::new("s", "_MARKa"), name()] {
        apply(&mut state, Command::Delete { name: gone.clone(), force: true }).unwrap();
        advance(&mut state, &gone);
    }
    let id = state.record().scopes["s"].id;
    apply(&mut state, Command::FinishDeleteScope { scope: "s".into(), id }).unwrap();
    apply(&mut state, Command::CreateScope { scope: "s".into() }).unwrap();
    let config = ConfigRecord::fixed(1);
    apply(&mut state, Command::CreateStream { name: name(), config }).unwrap();
    assert_eq!(ids(stream(&state).current()), [(0, 3)]);
    assert_eq!(ids(state.any_stream(&Name::new("s", "_MARKa")).unwrap().current()), [(0, 1)]);
}

#[test]
fn a_segment_that_overlaps_the_cut_in_part_stays() {
    let mut state = with_stream(2);
    apply(&mut state, scale(&[(0, 0), (0, 1)], &[(0.0, 0.3), (0.3, 1.0)])).unwrap();
    while advance(&mut state, &name()) {}
    apply(&mut state, scale(&[(1, 3)], &[(0.3, 0.5), (0.5, 1.0)])).unwrap();
    while advance(&mut state, &name()) {}
    // 0.0 covers [0, .5], 2.5 covers [.5, 1]: 1.3 lies behind the one and before the other.
    let cut = Cut::from([(SegmentId::new(0, 0), 4), (SegmentId::new(2, 5), 0)]);
    assert!(stream(&state).is_cut(&cut));
    let gone = stream(&state).wholly_before(&cut);
    assert_eq!(gone.into_iter().collect::<Vec<_>>(), [SegmentId::new(0, 1)]);
}

#[test]
fn a_refused_command_leaves_everything_as_it_was() {
    let mut state = with_stream(2);
    let before = state.clone();
    let refused = [
        Command::CreateScope { scope: "s".into() },
        Command::DeleteScope { scope: "s".into() },
        Command::DeleteScope { scope: "none".into() },
        Command::FinishDeleteScope { scope: "s".into(), id: 1 },
        Command::CreateStream { name: name(), config: ConfigRecord::fixed(1) },
        Command::UpdateStream { name: Name::new("s", "b"), config: ConfigRecord::fixed(1) },
        Command::Delete { name: name(), force: false },
        Command::Truncate { name: name(), cut: Cut::new() },
        Command::Truncate { name: name(), cut: Cut::from([(SegmentId::new(9, 9), 0)]) },
        scale(&[], &[]),
        scale(&[(0, 0), (0, 0)], &[(0.0, 0.5)]),
        scale(&[(0, 9)], &[(0.0, 0.5)]),
        scale(&[(0, 0), (0, 1)], &[(0.0, 1.0)]),
        scale(&[(0, 0)], &[(0.0, f64::NAN)]),
        scale(&[(0, 0)], &[(0.0, 0.3), (0.25, 0.5)]),
        scale(&[(0, 0)], &[(0.5, 0.0)]),
    ];
    for command in refused {
        assert!(apply(&mut state, command.clone()).is_err(), "{command:?}");
        assert_eq!(state, before, "{command:?}");
    }
}

#[test]
fn segment_numbers_that_run_out_are_a_refusal() {
    let mut record = with_stream(1).record().clone();
    record.streams.get_mut(&name()).unwrap().next_number = i32::MAX;
    let mut state = State::restore(record);
    let refused = apply(&mut state, scale(&[(0, 0)], &[(0.0, 1.0)]));
    assert!(matches!(refused, Err(Refusal::TooMany { .. })), "{refused:?}");
}

/// What a property test does next.
#[derive(Clone, Debug)]
enum Act {
    Split(usize, f64),
    Merge(usize),
    Update(u32, bool),
    Truncate(usize, i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let one = prop_oneof![
        (0..8_usize, 0.01..0.99_f64).prop_map(|(at, part)| Act::Split(at, part)),
        (0..8_usize).prop_map(Act::Merge),
        (1..6_u32, any::<bool>()).prop_map(|(count, fixed)| Act::Update(count, fixed)),
        (0..8_usize, 0..9_i64).prop_map(|(epoch, at)| Act::Truncate(epoch, at)),
    ];
    proptest::collection::vec(one, 0..12)
}

fn command(stream: &StreamRecord, act: &Act) -> Command {
    let current = stream.current();
    match act {
        Act::Split(at, part) => {
            let SegmentRecord { id, low, high } = current[at % current.len()];
            let middle = low + (high - low) * part;
            let ranges = vec![(low, middle), (middle, high)];
            Command::Scale { name: name(), sealed: vec![id], ranges }
        }
        Act::Merge(at) => {
            let at = at % current.len();
            let pair = &current[at..(at + 2).min(current.len())];
            let ranges = vec![(pair[0].low, pair[pair.len() - 1].high)];
            Command::Scale { name: name(), sealed: pair.iter().map(|s| s.id).collect(), ranges }
        }
        Act::Update(count, fixed) => {
            let mut config = ConfigRecord::fixed(*count);
            if !fixed {
                config.scaling.kind = ScalingKind::EventsPerSecond;
            }
            Command::UpdateStream { name: name(), config }
        }
        Act::Truncate(epoch, at) => {
            let epoch = &stream.epochs[epoch % stream.epochs.len()];
            let cut = epoch.segments.iter().map(|s| (s.id, *at)).collect();
            Command::Truncate { name: name(), cut }
        }
    }
}

proptest! {
    #[test]
    fn every_segment_is_followed_by_segments_that_cover_its_keys(acts in acts()) {
        let mut state = with_stream(1);
        for act in &acts {
            let next = command(stream(&state), act);
            let _ = apply(&mut state, next);
            while advance(&mut state, &name()) {}
        }
        let stream = stream(&state);
        let open: Vec<_> = stream.open().iter().map(|s| s.id).collect();
        for segment in stream.epochs.iter().flat_map(|epoch| &epoch.segments) {
            let after = stream.successors(segment.id);
            prop_assert_eq!(after.is_empty(), open.contains(&segment.id));
            let Some((first, _)) = after.first() else { continue };
            let (last, _) = &after[after.len() - 1];
            prop_assert!(first.low <= segment.low && last.high >= segment.high);
            prop_assert!(after.windows(2).all(|w| w[0].0.high.to_bits() == w[1].0.low.to_bits()));
            prop_assert!(after.iter().all(|(_, before)| before.contains(&segment.id)));
        }
        prop_assert_eq!(stream.between(None, None).unwrap().len(), {
            let all = stream.epochs.iter().flat_map(|epoch| &epoch.segments).map(|s| s.id);
            all.collect::<std::collections::BTreeSet<_>>().len()
        });
    }

    #[test]
    fn a_snapshot_is_the_state(acts in acts()) {
        let mut state = with_stream(2);
        for act in &acts {
            let next = command(stream(&state), act);
            let _ = apply(&mut state, next);
            advance(&mut state, &name());
        }
        let bytes = crate::record::encode_state(state.record());
        let record = crate::record::decode_state(&bytes).unwrap();
        prop_assert_eq!(State::restore(record), state);
    }
}
