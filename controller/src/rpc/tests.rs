mod groups;
mod txns;
mod watermarks;

use super::*;
use crate::controller::Config;
use crate::record::Workflow;
use crate::segments::Segments;
use crate::testing::MemorySegments;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thalweg_log::testing::{Executor, MemoryDisk, MemoryMetadataLog};
use thalweg_types::id::SegmentId;
use thalweg_types::name::SegmentName;
use thalweg_wire::controller::{
    CreateScopeStatus, CreateStreamStatus, CutOfStream, DeleteScopeStatus, DeleteStreamStatus,
    NodeUri, ScaleAnswer, ScaleState, ScaleStatus, ScalingPolicy, StreamConfig, Successor,
    UpdateStreamStatus,
};

/// A controller's surroundings: they outlive it.
pub(crate) struct World {
    pub(crate) executor: Executor,
    pub(crate) segments: Arc<MemorySegments>,
    log: Mutex<Arc<MemoryMetadataLog>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let log = Mutex::new(MemoryMetadataLog::new());
        Self { executor: Executor::new(1), segments: Arc::default(), log }
    }

    pub(crate) fn start(&self) -> Controller {
        let log = Arc::clone(&self.log.lock().unwrap());
        let segments = Arc::clone(&self.segments) as Arc<dyn Segments>;
        let uri = NodeUri { host: "store.example".into(), port: 12345 };
        let config = Config {
            segment_store: uri.clone(),
            controllers: vec![uri],
            rpc_deadline: Duration::from_secs(30),
            watermark_period: Duration::from_secs(10),
        };
        let env = self.executor.env(&MemoryDisk::default());
        Controller::start(env, log, segments, config).unwrap()
    }

    /// Cuts `controller` off and starts another from what it had stored.
    pub(crate) fn restart(&self, controller: &Controller) -> Controller {
        controller.stop("restart");
        let mut log = self.log.lock().unwrap();
        *log = log.restart();
        drop(log);
        self.start()
    }

    pub(crate) fn ask(&self, of: &Controller, request: Request) -> Result<Response, RpcError> {
        self.executor.run(of.call(request))
    }

    /// A controller with the scope `s`.
    fn with_scope(&self) -> Controller {
        let controller = self.start();
        let made = self.ask(&controller, Request::CreateScope { scope: "s".into() });
        assert_eq!(made, Ok(Response::CreateScope(CreateScopeStatus::Success)));
        controller
    }

    /// A controller with the stream `s/a` of `segments` segments.
    fn with_stream(&self, segments: i32) -> Controller {
        let controller = self.with_scope();
        self.make(&controller, "a", segments);
        controller
    }

    fn make(&self, controller: &Controller, stream: &str, segments: i32) {
        let config = StreamConfig::fixed(StreamName::new("s", stream), segments);
        let made = self.ask(controller, Request::CreateStream(config));
        assert_eq!(made, Ok(Response::CreateStream(CreateStreamStatus::Success)));
    }

    fn current(&self, controller: &Controller) -> Vec<(SegmentId, f64, f64)> {
        match self.ask(controller, Request::GetCurrentSegments(a())) {
            Ok(Response::Segments { segments, .. }) => {
                segments.iter().map(|s| (s.segment, s.low, s.high)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn a() -> StreamName {
    StreamName::new("s", "a")
}

fn id(epoch: i32, number: i32) -> SegmentId {
    SegmentId::new(epoch, number)
}

fn segment(name: &str) -> SegmentName {
    SegmentName::from(name)
}

fn split_first() -> Request {
    let ranges = vec![(0.0, 0.25), (0.25, 0.5)];
    Request::Scale { stream: a(), sealed: vec![id(0, 0)], ranges }
}

#[test]
fn a_stream_has_its_segments_before_anybody_knows_of_it() {
    let world = World::new();
    let controller = world.with_stream(2);
    let want = vec![(id(0, 0), 0.0, 0.5), (id(0, 1), 0.5, 1.0)];
    assert_eq!(world.current(&controller), want);
    let made = ["s/_MARKa/0.#epoch.0", "s/a/0.#epoch.0", "s/a/1.#epoch.0"];
    assert_eq!(world.segments.names(), made);
}

#[test]
fn successors_are_answered_before_the_first_seal_is_sent() {
    let world = World::new();
    let controller = world.with_stream(2);
    let scale = world.ask(&controller, split_first()).unwrap();
    let Response::Scale(ScaleAnswer { status, epoch, segments }) = scale else { panic!() };
    assert_eq!((status, epoch, segments.len()), (ScaleStatus::Started, 0, 2));
    let created = ["create s/a/2.#epoch.1", "create s/a/3.#epoch.1"];
    let commands = world.segments.commands();
    let seal = commands.iter().position(|c| c == "seal s/a/0.#epoch.0");
    let last = commands.iter().rposition(|c| created.contains(&c.as_str())).unwrap();
    assert!(seal.is_none_or(|seal| last < seal), "{commands:?}");
    let after = Request::GetSuccessors { stream: a(), segment: id(0, 0) };
    let Ok(Response::Successors(found)) = world.ask(&controller, after) else { panic!() };
    assert_eq!(found.len(), 2);
    let names_the_old = |s: &Successor| s.predecessors == [id(0, 0)];
    assert!(found.iter().all(names_the_old));
}

#[test]
fn a_scale_that_is_cut_off_anywhere_is_finished_after_the_restart() {
    for failures in 0..12 {
        let world = World::new();
        let controller = world.with_stream(2);
        world.segments.grow(&segment("s/a/0.#epoch.0"), 100);
        // The commands of a scale: two creations, one seal. Each may fail several times.
        world.segments.fail_next(failures);
        let scale = controller.call(split_first());
        assert!(world.executor.run(scale).is_ok());
        let controller = world.restart(&controller);
        let done = Request::CheckScale { stream: a(), epoch: 0 };
        world.executor.run(async {
            while controller.call(done.clone()).await
                != Ok(Response::CheckScale(ScaleState::Success))
            {
                controller.inner.pause(Duration::from_millis(1)).await.unwrap();
            }
        });
        let ids: Vec<_> = world.current(&controller).iter().map(|s| s.0).collect();
        assert_eq!(ids, [id(1, 2), id(1, 3), id(0, 1)]);
        let state = controller.state();
        let stream = state.stream(&Name::new("s", "a")).unwrap();
        assert_eq!(stream.sealed_lengths, BTreeMap::from([(id(0, 0), 100)]));
    }
}

#[test]
fn the_state_after_a_restart_is_the_state_before() {
    let world = World::new();
    let controller = world.with_stream(3);
    world.ask(&controller, Request::SealStream(a())).unwrap();
    world.ask(&controller, Request::DeleteStream(a())).unwrap();
    world.make(&controller, "b", 1);
    let before = controller.state();
    let after = world.restart(&controller).state();
    assert_eq!(before, after);
}

#[test]
fn a_stopped_log_ends_the_controller_and_everybody_who_waits() {
    let world = World::new();
    let controller = world.with_scope();
    world.log.lock().unwrap().fail("disk on fire");
    let asked = world.ask(&controller, Request::CreateScope { scope: "t".into() });
    assert_eq!(asked.unwrap_err().code, Code::Unavailable);
    let ended = world.executor.run(controller.ended());
    assert_eq!(&*ended.reason, "disk on fire");
    let again = world.ask(&controller, Request::CreateScope { scope: "t".into() });
    assert_eq!(again.unwrap_err().code, Code::Unavailable);
}

#[test]
fn a_store_that_never_answers_meets_the_deadline_and_the_work_goes_on() {
    let world = World::new();
    let controller = world.with_scope();
    world.segments.fail_next(u32::MAX);
    let config = StreamConfig::fixed(a(), 1);
    let asked = world.ask(&controller, Request::CreateStream(config.clone()));
    assert_eq!(asked.unwrap_err().code, Code::DeadlineExceeded);
    let exists = world.ask(&controller, Request::CheckStreamExists(a()));
    assert_eq!(exists, Ok(Response::Exists(false)), "nobody sees a stream without segments");
    world.segments.fail_next(0);
    let again = world.ask(&controller, Request::CreateStream(config));
    assert_eq!(again, Ok(Response::CreateStream(CreateStreamStatus::StreamExists)));
}

#[test]
fn numbers_go_on_after_a_deletion() {
    let world = World::new();
    let controller = world.with_stream(2);
    world.ask(&controller, Request::SealStream(a())).unwrap();
    let deleted = world.ask(&controller, Request::DeleteStream(a()));
    assert_eq!(deleted, Ok(Response::DeleteStream(DeleteStreamStatus::Success)));
    assert_eq!(world.segments.names(), Vec::<String>::new());
    let controller = world.restart(&controller);
    world.make(&controller, "a", 1);
    assert_eq!(world.current(&controller), [(id(0, 2), 0.0, 1.0)]);
}

#[test]
fn a_truncation_deletes_what_lies_wholly_before_it_and_nothing_else() {
    let world = World::new();
    let controller = world.with_stream(2);
    world.ask(&controller, split_first()).unwrap();
    let truncate = |cut: &[(SegmentId, i64)]| {
        let cut = CutOfStream { stream: a(), cut: cut.iter().copied().collect() };
        world.ask(&controller, Request::TruncateStream(cut))
    };
    let done = Ok(Response::UpdateStream(UpdateStreamStatus::Success));
    assert_eq!(truncate(&[(id(1, 2), 0), (id(1, 3), 9), (id(0, 1), 5)]), done);
    let left = ["s/_MARKa/0.#epoch.0", "s/a/1.#epoch.0", "s/a/2.#epoch.1", "s/a/3.#epoch.1"];
    assert_eq!(world.segments.names(), left);
    let failed = Ok(Response::UpdateStream(UpdateStreamStatus::Failure));
    assert_eq!(truncate(&[(id(0, 0), 0), (id(0, 1), 5)]), failed, "back across the scale");
    assert_eq!(truncate(&[(id(1, 2), -1), (id(1, 3), 9), (id(0, 1), 5)]), failed);
}

// What ruins a real Pravega is refused, and what it touches works on.

#[test]
fn an_update_to_no_segments_is_refused_and_the_stream_works_on() {
    let world = World::new();
    let controller = world.with_stream(2);
    for segments in [0, -1, i32::MIN] {
        let asked =
            world.ask(&controller, Request::UpdateStream(StreamConfig::fixed(a(), segments)));
        assert_eq!(asked.unwrap_err().code, Code::InvalidArgument);
    }
    let config = StreamConfig { scaling: None, ..StreamConfig::fixed(a(), 1) };
    let asked = world.ask(&controller, Request::UpdateStream(config));
    assert_eq!(asked.unwrap_err().code, Code::InvalidArgument);
    let asked = world.ask(&controller, Request::UpdateStream(StreamConfig::fixed(a(), 3)));
    assert_eq!(asked, Ok(Response::UpdateStream(UpdateStreamStatus::Success)));
    assert_eq!(world.current(&controller).len(), 3);
}

#[test]
fn a_stream_of_no_segments_is_not_made_at_all() {
    let world = World::new();
    let controller = world.with_scope();
    for segments in [0, -1] {
        let config = StreamConfig::fixed(a(), segments);
        let asked = world.ask(&controller, Request::CreateStream(config));
        assert_eq!(asked, Ok(Response::CreateStream(CreateStreamStatus::Failure)));
    }
    let exists = world.ask(&controller, Request::CheckStreamExists(a()));
    assert_eq!(exists, Ok(Response::Exists(false)));
    world.make(&controller, "a", 1);
}

#[test]
fn an_empty_scale_is_refused_and_the_stream_scales_on() {
    let world = World::new();
    let controller = world.with_stream(2);
    let empty = Request::Scale { stream: a(), sealed: Vec::new(), ranges: Vec::new() };
    let Ok(Response::Scale(answer)) = world.ask(&controller, empty) else { panic!() };
    assert_eq!(answer.status, ScaleStatus::Failure);
    let Ok(Response::Scale(answer)) = world.ask(&controller, split_first()) else { panic!() };
    assert_eq!(answer.status, ScaleStatus::Started);
}

#[test]
fn a_scope_that_is_not_empty_loses_nothing_by_being_deleted() {
    let world = World::new();
    let controller = world.with_stream(1);
    let before = controller.state();
    let asked = world.ask(&controller, Request::DeleteScope { scope: "s".into() });
    assert_eq!(asked, Ok(Response::DeleteScope(DeleteScopeStatus::ScopeNotEmpty)));
    assert_eq!(controller.state().record().scopes, before.record().scopes);
    assert_eq!(controller.state().record().streams, before.record().streams);
}

#[test]
fn several_recursive_deletions_at_once_end_and_hold_nobody_up() {
    let world = World::new();
    let controller = world.with_stream(2);
    for scope in ["t", "u"] {
        world.ask(&controller, Request::CreateScope { scope: scope.into() }).unwrap();
        let config = StreamConfig::fixed(StreamName::new(scope, "x"), 2);
        world.ask(&controller, Request::CreateStream(config)).unwrap();
    }
    let gone = Ok(Response::DeleteScope(DeleteScopeStatus::Success));
    world.executor.run(async {
        let delete = |scope: &str| {
            let request = Request::DeleteScopeRecursive { scope: scope.into() };
            let controller = controller.clone();
            async move { controller.call(request).await }
        };
        let seal = controller.call(Request::SealStream(a()));
        let (t, u, again, sealed) = tokio::join!(delete("t"), delete("u"), delete("t"), seal);
        assert_eq!((t, u, again), (gone.clone(), gone.clone(), gone));
        assert_eq!(sealed, Ok(Response::UpdateStream(UpdateStreamStatus::Success)));
    });
    let left = ["s/_MARKa/0.#epoch.0", "s/a/0.#epoch.0", "s/a/1.#epoch.0"];
    assert_eq!(world.segments.names(), left);
}

#[test]
fn a_recursive_deletion_that_is_cut_off_goes_on_after_the_restart() {
    let world = World::new();
    let controller = world.with_stream(2);
    world.segments.fail_next(u32::MAX);
    let delete = Request::DeleteScopeRecursive { scope: "s".into() };
    let asked = world.ask(&controller, delete.clone());
    assert_eq!(asked.unwrap_err().code, Code::DeadlineExceeded);
    let exists = world.ask(&controller, Request::CheckScopeExists { scope: "s".into() });
    assert_eq!(exists, Ok(Response::Exists(false)));
    let controller = world.restart(&controller);
    world.segments.fail_next(0);
    let asked = world.ask(&controller, delete);
    assert_eq!(asked, Ok(Response::DeleteScope(DeleteScopeStatus::Success)));
    assert_eq!(world.segments.names(), Vec::<String>::new());
    let made = world.ask(&controller, Request::CreateScope { scope: "s".into() });
    assert_eq!(made, Ok(Response::CreateScope(CreateScopeStatus::Success)));
}

#[test]
fn of_three_scales_at_once_exactly_one_is_started() {
    let world = World::new();
    let controller = world.with_stream(2);
    let answers = world.executor.run(async {
        let scale = || controller.call(split_first());
        let (x, y, z) = tokio::join!(scale(), scale(), scale());
        [x, y, z]
    });
    let started = |answer: &&Result<Response, RpcError>| {
        let Ok(Response::Scale(answer)) = answer else { panic!("{answer:?}") };
        answer.status == ScaleStatus::Started
    };
    assert_eq!(answers.iter().filter(started).count(), 1);
}

#[test]
fn invented_tokens_and_limits_are_refused_with_their_names() {
    let world = World::new();
    let controller = world.with_scope();
    let lists = [
        Request::ListScopes { token: "x".into() },
        Request::ListStreams { scope: "s".into(), token: "x".into() },
    ];
    for list in lists {
        assert_eq!(world.ask(&controller, list).unwrap_err().code, Code::InvalidArgument);
    }
    let many = StreamConfig {
        scaling: Some(ScalingPolicy::fixed(i32::MAX)),
        ..StreamConfig::fixed(a(), 1)
    };
    let refused = world.ask(&controller, Request::CreateStream(many)).unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
    assert!(refused.message.contains("16384"), "{}", refused.message);
}

#[test]
fn lists_end_with_an_empty_page_and_name_everything_once() {
    let world = World::new();
    let controller = world.with_scope();
    let mut command_state = controller.state();
    let stamp = crate::record::Stamp::default();
    for number in 0..2500 {
        let scope = format!("scope{number}");
        command_state.apply(&Command::CreateScope { scope }, stamp).unwrap();
    }
    let (mut after, mut seen) = (None::<String>, Vec::new());
    loop {
        let page = command_state.list_scopes(after.as_deref(), crate::limits::PAGE_NAMES_MAX);
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 2502);
    assert!(seen.is_sorted_by(|x, y| x < y));
}

#[test]
fn the_companion_goes_with_its_stream_even_while_it_scales() {
    let world = World::new();
    let controller = world.with_stream(1);
    let companion = StreamName::new("s", "_MARKa");
    world.ask(&controller, Request::SealStream(a())).unwrap();
    world.executor.run(async {
        let ranges = vec![(0.0, 0.5), (0.5, 1.0)];
        let scale = Request::Scale { stream: companion, sealed: vec![id(0, 0)], ranges };
        let (scaled, deleted) =
            tokio::join!(controller.call(scale), controller.call(Request::DeleteStream(a())));
        assert!(scaled.is_ok());
        assert_eq!(deleted, Ok(Response::DeleteStream(DeleteStreamStatus::Success)));
    });
    assert_eq!(world.segments.names(), Vec::<String>::new());
    assert!(controller.state().record().streams.is_empty());
}

#[test]
fn nothing_is_under_way_when_an_answer_says_so() {
    let world = World::new();
    let controller = world.with_stream(1);
    let requests = [
        Request::UpdateStream(StreamConfig::fixed(a(), 4)),
        Request::UpdateStream(StreamConfig::fixed(a(), 2)),
        Request::SealStream(a()),
    ];
    for request in requests {
        let done = Ok(Response::UpdateStream(UpdateStreamStatus::Success));
        assert_eq!(world.ask(&controller, request), done);
        let state = controller.state();
        let stream = state.any_stream(&Name::new("s", "a")).unwrap();
        assert_eq!(stream.workflow.as_ref().map(|w| &w.kind), None::<&Workflow>);
    }
}

#[test]
fn whoever_asks_is_told_why_appends_wait() {
    let world = World::new();
    let controller = world.start();
    let ask = || world.ask(&controller, Request::AreAppendsHeld);
    assert_eq!(ask(), Ok(Response::AppendsHeld(None)));
    world.segments.hold(Some("the disk is full"));
    assert_eq!(ask(), Ok(Response::AppendsHeld(Some("the disk is full".into()))));
    world.segments.hold(None);
    assert_eq!(ask(), Ok(Response::AppendsHeld(None)));
}
