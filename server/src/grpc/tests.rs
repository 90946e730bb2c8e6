use super::*;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thalweg_controller::Config;
use thalweg_controller::testing::MemorySegments;
use thalweg_log::testing::{Executor, MemoryDisk, MemoryMetadataLog};
use thalweg_wire::controller::{
    AccessOperation, Code, CreateScopeStatus, CreateStreamStatus, DeleteScopeStatus,
    DeleteStreamStatus, NodeUri, PingStatus, ScaleState, ScaleStatus, ScaleType, StreamConfig,
    StreamName, TxnState, TxnStatus, UpdateStreamStatus, UpdateSubscriberStatus,
};
use tonic::codegen::{Body as _, Service as _, http};

const PATH: &str = "/io.pravega.controller.stream.api.grpc.v1.ControllerService/";
const METHODS: &[&str] = &[
    "getControllerServerList",
    "createScope",
    "deleteScope",
    "deleteScopeRecursive",
    "checkScopeExists",
    "listScopes",
    "createStream",
    "updateStream",
    "truncateStream",
    "sealStream",
    "deleteStream",
    "checkStreamExists",
    "getStreamConfiguration",
    "listStreamsInScope",
    "listStreamsInScopeForTag",
    "getCurrentSegments",
    "getEpochSegments",
    "getSegments",
    "getSegmentsImmediatelyFollowing",
    "getSegmentsImmediatlyFollowing",
    "getSegmentsBetween",
    "scale",
    "checkScale",
    "getURI",
    "isSegmentValid",
    "isStreamCutValid",
    "createTransaction",
    "pingTransaction",
    "commitTransaction",
    "abortTransaction",
    "checkTransactionState",
    "listCompletedTransactions",
    "getDelegationToken",
    "noteTimestampFromWriter",
    "removeWriter",
    "createReaderGroup",
    "updateReaderGroup",
    "getReaderGroupConfig",
    "deleteReaderGroup",
    "listSubscribers",
    "updateSubscriberStreamCut",
    "createKeyValueTable",
    "getCurrentSegmentsKeyValueTable",
    "getKeyValueTableConfiguration",
    "listKeyValueTablesInScope",
    "deleteKeyValueTable",
];

struct World {
    executor: Executor,
    service: ControllerServiceServer<Service>,
}

/// What came back: the message's bytes, or the code and text of an error.
type Answer = Result<Vec<u8>, (i32, String)>;

impl World {
    fn new() -> Self {
        let executor = Executor::new(1);
        let uri = NodeUri { host: "127.0.0.1".into(), port: 12345 };
        let config = Config {
            segment_store: uri.clone(),
            controllers: vec![uri],
            rpc_deadline: Duration::from_secs(30),
            watermark_period: Duration::from_secs(10),
        };
        let controller = Controller::start(
            executor.env(&MemoryDisk::default()),
            MemoryMetadataLog::new(),
            Arc::new(MemorySegments::default()),
            config,
        );
        Self { executor, service: service(controller.unwrap()) }
    }

    /// Sends `message` as a client would, headers and all.
    fn call(&self, method: &str, message: &[u8]) -> Answer {
        let mut body = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        body.extend_from_slice(message);
        let request = http::Request::post(format!("{PATH}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("requestid", "123")
            .body(String::from_utf8(body).expect("short messages of text"))
            .unwrap();
        let mut service = self.service.clone();
        self.executor.run(async move {
            let response = service.call(request).await.unwrap();
            let (head, mut body) = response.into_parts();
            let (mut data, mut trailers) = (Vec::new(), head.headers);
            while let Some(frame) =
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                match frame.unwrap().into_data() {
                    Ok(bytes) => data.extend_from_slice(&bytes),
                    Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
                }
            }
            let text = |name: &str| trailers.get(name).map(|v| v.to_str().unwrap().to_owned());
            let code: i32 = text("grpc-status").expect("every answer has one").parse().unwrap();
            let message = text("grpc-message").unwrap_or_default();
            if code == 0 { Ok(data.split_off(5)) } else { Err((code, message)) }
        })
    }
}

/// A message whose field 1 is `text`.
fn text(text: &str) -> Vec<u8> {
    let mut message = vec![0x0a, u8::try_from(text.len()).unwrap()];
    message.extend_from_slice(text.as_bytes());
    message
}

#[test]
fn every_method_answers_under_its_exact_path() {
    let world = World::new();
    for method in METHODS {
        let answer = world.call(method, &[]);
        let refused = matches!(&answer, Err((12, message)) if message.is_empty());
        assert!(!refused, "{method}: {answer:?}");
    }
    for other in ["CreateScope", "noSuchThing", "getUri"] {
        assert!(matches!(world.call(other, &[]), Err((12, _))), "{other}");
    }
}

#[test]
fn status_zero_travels_as_an_empty_message() {
    let world = World::new();
    assert_eq!(world.call("createScope", &text("s")), Ok(Vec::new()));
    assert_eq!(world.call("createScope", &text("s")), Ok(vec![0x08, 0x02]));
}

#[test]
fn unknown_fields_are_ignored() {
    let world = World::new();
    let mut message = text("_system");
    message.extend_from_slice(b"\x32\x03abc\x18\x05");
    assert_eq!(world.call("checkScopeExists", &message), Ok(vec![0x08, 0x01]));
}

#[test]
fn garbage_is_refused_and_the_service_lives() {
    let world = World::new();
    assert!(world.call("createScope", b"\x0a\x7fshort").is_err());
    assert_eq!(world.call("checkScopeExists", &text("_system")), Ok(vec![0x08, 0x01]));
}

#[test]
fn errors_keep_their_code_and_text() {
    let world = World::new();
    let (code, message) = world.call("checkScopeExists", &[]).unwrap_err();
    assert_eq!(code, tonic::Code::InvalidArgument as i32);
    assert!(message.contains("scope"), "{message}");
}

#[test]
fn statuses_have_the_numbers_of_the_interface() {
    let numbers = [
        (CreateScopeStatus::InvalidScopeName as i32, 3),
        (DeleteScopeStatus::ScopeNotEmpty as i32, 3),
        (CreateStreamStatus::StreamExists as i32, 2),
        (CreateStreamStatus::InvalidStreamName as i32, 4),
        (UpdateStreamStatus::StreamNotFound as i32, 2),
        (UpdateStreamStatus::StreamSealed as i32, 4),
        (DeleteStreamStatus::StreamNotSealed as i32, 3),
        (ScaleStatus::PreconditionFailed as i32, 2),
        (ScaleState::InvalidInput as i32, 2),
        (PingStatus::Committed as i32, 5),
        (PingStatus::Unknown as i32, 7),
        (TxnStatus::TransactionNotFound as i32, 3),
        (TxnState::Open as i32, 1),
        (TxnState::Aborted as i32, 5),
        (UpdateSubscriberStatus::GenerationMismatch as i32, 5),
        (ScaleType::KilobytesPerSecond as i32, 1),
        (AccessOperation::ReadWrite as i32, 5),
    ];
    for (at, (found, wanted)) in numbers.into_iter().enumerate() {
        assert_eq!(found, wanted, "{at}");
    }
}

#[test]
fn a_configuration_comes_back_as_clients_need_it() {
    let config = StreamConfig::fixed(StreamName::new("s", "a"), 2);
    let message = response::stream_configuration(Response::StreamConfiguration(config));
    let message = message.unwrap();
    assert_eq!(message.tags, Some(proto::Tags::default()), "absent tags are an error to clients");
    assert_eq!(message.retention_policy, None);
    assert_eq!(message.scaling_policy.unwrap().min_num_segments, 2);
    let info = message.stream_info.unwrap();
    assert_eq!((info.scope.as_str(), info.stream.as_str()), ("s", "a"));
}

#[test]
fn a_retention_of_type_zero_is_none_and_an_unknown_policy_is_refused() {
    let retention = |retention_type| proto::RetentionPolicy {
        retention_type,
        retention_param: 5,
        retention_max: i64::MAX,
    };
    let config = |retention_type, scale_type| proto::StreamConfig {
        retention_policy: Some(retention(retention_type)),
        scaling_policy: Some(proto::ScalingPolicy { scale_type, ..Default::default() }),
        ..Default::default()
    };
    let Ok(Request::CreateStream(mapped)) = request::create_stream(config(0, 0)) else { panic!() };
    assert_eq!(mapped.retention, None);
    for odd in [config(3, 0), config(-1, 0), config(0, 3), config(0, -1)] {
        assert_eq!(request::create_stream(odd).unwrap_err().code, Code::InvalidArgument);
    }
}

#[test]
fn absent_parts_of_a_message_are_empty_ones() {
    let mapped = request::truncate_stream(proto::StreamCut::default());
    assert_eq!(
        mapped,
        Ok(Request::TruncateStream(thalweg_wire::controller::CutOfStream::default()))
    );
    let mapped = request::commit_transaction(proto::TxnRequest {
        timestamp: i64::MIN,
        ..Default::default()
    });
    let Ok(Request::CommitTransaction { timestamp, .. }) = mapped else { panic!() };
    assert_eq!(timestamp, None);
}

#[test]
fn an_answer_to_another_request_is_no_answer() {
    assert!(response::create_scope(Response::Exists(true)).is_none());
    assert!(response::head(None)(Response::Exists(true)).is_none());
}
