//! Reader groups, key-value tables and marks, as clients see them.

use super::*;
use thalweg_wire::controller::{
    CreateReaderGroupStatus, CreateTableStatus, DeleteReaderGroupStatus, DeleteTableStatus,
    KeyValueTableConfig, NoteTimestampStatus, ReaderGroupConfig, RemoveWriterStatus, TableName,
    UpdateReaderGroupStatus, UpdateSubscriberStatus,
};

const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

fn group_of(streams: &[&str], retention: i32) -> ReaderGroupConfig {
    let start = |stream: &&str| CutOfStream {
        stream: StreamName::new("s", *stream),
        ..CutOfStream::default()
    };
    ReaderGroupConfig {
        scope: "s".into(),
        group: "g".into(),
        refresh_ms: 3000,
        checkpoint_interval_ms: 30_000,
        max_outstanding_checkpoints: 3,
        retention,
        generation: 0,
        id: NO_ID.into(),
        starts: streams.iter().map(start).collect(),
        ends: Vec::new(),
        rollover_size_bytes: 0,
    }
}

fn make_group(
    world: &World,
    controller: &Controller,
    config: ReaderGroupConfig,
) -> ReaderGroupConfig {
    match world.ask(controller, Request::CreateReaderGroup(config)) {
        Ok(Response::CreateReaderGroup {
            status: CreateReaderGroupStatus::Success,
            config: Some(config),
        }) => config,
        other => panic!("{other:?}"),
    }
}

fn subscribers(world: &World, controller: &Controller) -> Vec<String> {
    match world.ask(controller, Request::ListSubscribers(a())) {
        Ok(Response::Subscribers(Some(found))) => found,
        other => panic!("{other:?}"),
    }
}

fn table(partitions: i32, primary: i32, secondary: i32) -> KeyValueTableConfig {
    KeyValueTableConfig {
        table: TableName { scope: "s".into(), table: "k".into() },
        partitions,
        primary_key_bytes: primary,
        secondary_key_bytes: secondary,
        rollover_size_bytes: 0,
    }
}

#[test]
fn a_group_has_its_stream_when_it_is_answered_and_both_go_together() {
    let world = World::new();
    let controller = world.with_stream(1);
    world.segments.fail_next(3);
    let made = make_group(&world, &controller, group_of(&["a"], 1));
    assert_eq!(made.generation, 0);
    assert_ne!(made.id, NO_ID);
    assert!(world.segments.names().contains(&"s/_RGg/0.#epoch.0".to_owned()));
    assert_eq!(subscribers(&world, &controller), ["s/g"]);
    let controller = world.restart(&controller);
    let again = ReaderGroupConfig { retention: 0, ..group_of(&["a"], 0) };
    assert_eq!(make_group(&world, &controller, again), made, "what is stored, not what is asked");
    let delete = Request::DeleteReaderGroup { scope: "s".into(), group: "g".into(), id: made.id };
    let gone = Ok(Response::DeleteReaderGroup(DeleteReaderGroupStatus::Success));
    assert_eq!(world.ask(&controller, delete), gone);
    assert_eq!(subscribers(&world, &controller), Vec::<String>::new());
    assert_eq!(world.segments.names(), ["s/_MARKa/0.#epoch.0", "s/a/0.#epoch.0"]);
}

#[test]
fn a_group_that_would_hold_the_data_of_no_stream_is_refused_and_leaves_nothing() {
    let world = World::new();
    let controller = world.with_stream(1);
    let asked = world.ask(&controller, Request::CreateReaderGroup(group_of(&["none"], 1)));
    let status = CreateReaderGroupStatus::Failure;
    assert_eq!(asked, Ok(Response::CreateReaderGroup { status, config: None }));
    assert!(controller.state().record().groups.is_empty());
    assert!(controller.state().any_stream(&Name::new("s", "_RGg")).is_none());
    // Another scope's stream is as good as any.
    world.ask(&controller, Request::CreateScope { scope: "t".into() }).unwrap();
    let config = ReaderGroupConfig { scope: "t".into(), ..group_of(&["a"], 2) };
    make_group(&world, &controller, config);
    assert_eq!(subscribers(&world, &controller), ["t/g"]);
}

#[test]
fn of_two_updates_with_one_generation_the_second_is_refused() {
    let world = World::new();
    let controller = world.with_stream(1);
    let made = make_group(&world, &controller, group_of(&["a"], 1));
    let update = Request::UpdateReaderGroup(ReaderGroupConfig { retention: 0, ..made });
    let (status, generation) = (UpdateReaderGroupStatus::Success, 1);
    let done = Ok(Response::UpdateReaderGroup { status, generation });
    assert_eq!(world.ask(&controller, update.clone()), done);
    let (status, generation) = (UpdateReaderGroupStatus::InvalidConfig, 0);
    let refused = Ok(Response::UpdateReaderGroup { status, generation });
    assert_eq!(world.ask(&controller, update), refused);
    assert_eq!(subscribers(&world, &controller), Vec::<String>::new());
}

#[test]
fn a_stream_made_anew_knows_nothing_of_what_was_consumed_or_marked_before() {
    let world = World::new();
    let controller = world.with_stream(1);
    let made = make_group(&world, &controller, group_of(&["a"], 1));
    let consume = |controller: &Controller, number, at| {
        let cut = CutOfStream { stream: a(), cut: BTreeMap::from([(id(0, number), at)]) };
        let (subscriber, group_id) = ("s/g".to_owned(), made.id.clone());
        let request = Request::UpdateSubscriberCut { subscriber, generation: 0, group_id, cut };
        world.ask(controller, request)
    };
    let mark = |controller: &Controller, timestamp| {
        let position = CutOfStream { stream: a(), cut: BTreeMap::new() };
        let writer = "w".to_owned();
        world.ask(controller, Request::NoteTimestamp { writer, position, timestamp })
    };
    let consumed = Ok(Response::UpdateSubscriberCut(UpdateSubscriberStatus::Success));
    let noted = Ok(Response::NoteTimestamp(NoteTimestampStatus::Success));
    assert_eq!(consume(&controller, 0, 9), consumed);
    let backwards = Ok(Response::UpdateSubscriberCut(UpdateSubscriberStatus::CutNotValid));
    assert_eq!(consume(&controller, 0, 8), backwards);
    assert_eq!(mark(&controller, 9), noted);
    let early = Ok(Response::NoteTimestamp(NoteTimestampStatus::InvalidTime));
    assert_eq!(mark(&controller, 8), early);
    world.ask(&controller, Request::SealStream(a())).unwrap();
    world.ask(&controller, Request::DeleteStream(a())).unwrap();
    world.make(&controller, "a", 1);
    assert_eq!(consume(&controller, 1, 0), consumed);
    assert_eq!(mark(&controller, 8), noted);
}

#[test]
fn a_writer_that_left_may_begin_anew() {
    let world = World::new();
    let controller = world.with_stream(1);
    let mark = |timestamp| {
        let position = CutOfStream { stream: a(), cut: BTreeMap::from([(id(0, 0), timestamp)]) };
        let request = Request::NoteTimestamp { writer: "w".into(), position, timestamp };
        match world.ask(&controller, request) {
            Ok(Response::NoteTimestamp(status)) => status,
            other => panic!("{other:?}"),
        }
    };
    let leave = Request::RemoveWriter { writer: "w".into(), stream: a() };
    let left = |status| Ok(Response::RemoveWriter(status));
    assert_eq!(world.ask(&controller, leave.clone()), left(RemoveWriterStatus::UnknownWriter));
    assert_eq!(mark(9), NoteTimestampStatus::Success);
    assert_eq!(world.ask(&controller, leave), left(RemoveWriterStatus::Success));
    assert_eq!(mark(8), NoteTimestampStatus::Success);
    assert_eq!(mark(7), NoteTimestampStatus::InvalidTime);
}

#[test]
fn a_table_has_its_segments_before_anybody_knows_of_it_and_its_numbers_never_come_back() {
    let world = World::new();
    let controller = world.with_scope();
    let create = |controller: &Controller, partitions| {
        world.ask(controller, Request::CreateKeyValueTable(table(partitions, 4, 4)))
    };
    let made = Ok(Response::CreateKeyValueTable(CreateTableStatus::Success));
    world.segments.fail_next(u32::MAX);
    let late = create(&controller, 2);
    assert_eq!(late.unwrap_err().code, Code::DeadlineExceeded);
    let name = TableName { scope: "s".into(), table: "k".into() };
    let asked = world.ask(&controller, Request::GetKeyValueTableConfig(name.clone()));
    assert_eq!(asked, Ok(Response::KeyValueTableConfig(None)));
    let controller = world.restart(&controller);
    world.segments.fail_next(0);
    let exists = Ok(Response::CreateKeyValueTable(CreateTableStatus::TableExists));
    assert_eq!(create(&controller, 2), exists);
    assert_eq!(world.segments.names(), ["s/k_kvtable/0.#epoch.0", "s/k_kvtable/1.#epoch.0"]);
    let gone = Ok(Response::DeleteKeyValueTable(DeleteTableStatus::Success));
    assert_eq!(world.ask(&controller, Request::DeleteKeyValueTable(name)), gone);
    assert_eq!(create(&controller, 1), made);
    assert_eq!(world.segments.names(), ["s/k_kvtable/2.#epoch.0"]);
}

#[test]
fn keys_that_no_table_segment_takes_are_refused_at_once() {
    let world = World::new();
    let controller = world.with_scope();
    for (primary, secondary) in [(257, 0), (200, 57), (8192, 0), (4096, 4096), (i32::MAX, 1)] {
        let asked =
            world.ask(&controller, Request::CreateKeyValueTable(table(1, primary, secondary)));
        assert_eq!(asked.unwrap_err().code, Code::InvalidArgument, "{primary} {secondary}");
    }
    let asked = world.ask(&controller, Request::CreateKeyValueTable(table(1, 200, 56)));
    assert_eq!(asked, Ok(Response::CreateKeyValueTable(CreateTableStatus::Success)));
}

#[test]
fn groups_and_tables_hold_their_scope_and_go_with_it() {
    let world = World::new();
    let controller = world.with_stream(1);
    make_group(&world, &controller, group_of(&["a"], 1));
    world.ask(&controller, Request::CreateKeyValueTable(table(2, 4, 0))).unwrap();
    let asked = world.ask(&controller, Request::DeleteScope { scope: "s".into() });
    assert_eq!(asked, Ok(Response::DeleteScope(DeleteScopeStatus::ScopeNotEmpty)));
    world.segments.fail_next(5);
    let asked = world.ask(&controller, Request::DeleteScopeRecursive { scope: "s".into() });
    assert_eq!(asked, Ok(Response::DeleteScope(DeleteScopeStatus::Success)));
    assert_eq!(world.segments.names(), Vec::<String>::new());
    let state = controller.state();
    assert!(state.record().groups.is_empty() && state.record().tables.is_empty());
}
