use super::*;
use proptest::prelude::*;
use std::fmt::Write as _;

/// What the sample messages are filled with.
struct Fill {
    a: String,
    b: String,
    n: i64,
    m: i32,
    x: f64,
    list: Vec<i64>,
}

impl Fill {
    fn stream(&self) -> StreamName {
        StreamName::new(&self.a, &self.b)
    }

    fn table(&self) -> TableName {
        TableName { scope: self.a.clone(), table: self.b.clone() }
    }

    fn segment(&self) -> SegmentId {
        SegmentId(self.n)
    }

    fn map(&self) -> BTreeMap<SegmentId, i64> {
        self.list.iter().map(|id| (SegmentId(*id), id.wrapping_mul(3))).collect()
    }

    fn cut(&self) -> CutOfStream {
        CutOfStream { stream: self.stream(), cut: self.map() }
    }

    fn range(&self) -> SegmentRange {
        SegmentRange { stream: self.stream(), segment: self.segment(), low: self.x, high: 1.0 }
    }

    fn config(&self) -> StreamConfig {
        StreamConfig {
            scaling: Some(ScalingPolicy {
                kind: ScaleType::EventsPerSecond,
                target_rate: self.m,
                scale_factor: 2,
                min_segments: 3,
            }),
            retention: Some(RetentionPolicy { kind: RetentionType::Size, param: self.n, max: 9 }),
            tags: vec![self.b.clone(), self.a.clone()],
            timestamp_aggregation_timeout_ms: self.n,
            rollover_size_bytes: 7,
            ..StreamConfig::fixed(self.stream(), 1)
        }
    }

    fn group(&self) -> ReaderGroupConfig {
        ReaderGroupConfig {
            scope: self.a.clone(),
            group: self.b.clone(),
            refresh_ms: self.n,
            checkpoint_interval_ms: 2,
            max_outstanding_checkpoints: self.m,
            retention: 1,
            generation: 4,
            id: self.a.clone(),
            starts: vec![self.cut()],
            ends: vec![CutOfStream::default(), self.cut()],
            rollover_size_bytes: 5,
        }
    }

    fn table_config(&self) -> KeyValueTableConfig {
        KeyValueTableConfig {
            table: self.table(),
            partitions: self.m,
            primary_key_bytes: 4,
            secondary_key_bytes: 8,
            rollover_size_bytes: self.n,
        }
    }

    fn txn(&self) -> TxnId {
        TxnId { high: self.n, low: 1 }
    }
}

fn stream_requests(f: &Fill) -> Vec<Request> {
    let (scope, token) = (f.a.clone(), f.b.clone());
    vec![
        Request::CreateScope { scope: scope.clone() },
        Request::DeleteScope { scope: scope.clone() },
        Request::DeleteScopeRecursive { scope: scope.clone() },
        Request::CheckScopeExists { scope: scope.clone() },
        Request::ListScopes { token: token.clone() },
        Request::CreateStream(f.config()),
        Request::UpdateStream(f.config()),
        Request::TruncateStream(f.cut()),
        Request::SealStream(f.stream()),
        Request::DeleteStream(f.stream()),
        Request::CheckStreamExists(f.stream()),
        Request::GetStreamConfiguration(f.stream()),
        Request::ListStreams { scope: scope.clone(), token: token.clone() },
        Request::ListStreamsForTag { scope, tag: f.b.clone(), token },
        Request::GetCurrentSegments(f.stream()),
        Request::GetEpochSegments { stream: f.stream(), epoch: f.m },
        Request::GetHead { stream: f.stream(), timestamp: f.n },
        Request::GetSuccessors { stream: f.stream(), segment: f.segment() },
        Request::GetSegmentsBetween { stream: f.stream(), from: f.map(), to: BTreeMap::new() },
        Request::Scale {
            stream: f.stream(),
            sealed: f.list.iter().map(|id| SegmentId(*id)).collect(),
            ranges: vec![(f.x, 1.0)],
        },
        Request::CheckScale { stream: f.stream(), epoch: f.m },
        Request::GetUri { stream: f.stream(), segment: f.segment() },
        Request::IsSegmentValid { stream: f.stream(), segment: f.segment() },
        Request::IsStreamCutValid(f.cut()),
    ]
}

fn other_requests(f: &Fill) -> Vec<Request> {
    let (stream, txn, scope) = (f.stream(), f.txn(), f.a.clone());
    vec![
        Request::CreateTransaction { stream: stream.clone(), lease_ms: f.n },
        Request::PingTransaction { stream: stream.clone(), txn, lease_ms: f.n },
        Request::CommitTransaction {
            stream: stream.clone(),
            txn,
            writer: f.b.clone(),
            timestamp: Some(f.n),
        },
        Request::AbortTransaction { stream: stream.clone(), txn },
        Request::CheckTransactionState { stream: stream.clone(), txn },
        Request::ListCompletedTransactions(f.stream()),
        Request::GetDelegationToken { stream: stream.clone(), access: AccessOperation::Read },
        Request::NoteTimestamp { writer: f.b.clone(), position: f.cut(), timestamp: f.n },
        Request::RemoveWriter { writer: f.b.clone(), stream },
        Request::CreateReaderGroup(f.group()),
        Request::UpdateReaderGroup(f.group()),
        Request::GetReaderGroupConfig { scope: scope.clone(), group: f.b.clone() },
        Request::DeleteReaderGroup { scope: scope.clone(), group: f.b.clone(), id: f.a.clone() },
        Request::ListSubscribers(f.stream()),
        Request::UpdateSubscriberCut {
            subscriber: f.b.clone(),
            generation: f.n,
            group_id: f.a.clone(),
            cut: f.cut(),
        },
        Request::CreateKeyValueTable(f.table_config()),
        Request::GetKeyValueTableSegments(f.table()),
        Request::GetKeyValueTableConfig(f.table()),
        Request::ListKeyValueTables { scope, token: f.b.clone() },
        Request::DeleteKeyValueTable(f.table()),
        Request::GetControllers,
        Request::AreAppendsHeld,
    ]
}

fn stream_responses(f: &Fill) -> Vec<Response> {
    vec![
        Response::CreateScope(CreateScopeStatus::ScopeExists),
        Response::DeleteScope(DeleteScopeStatus::ScopeNotEmpty),
        Response::Exists(true),
        Response::ListScopes { scopes: vec![f.a.clone()], token: f.b.clone() },
        Response::CreateStream(CreateStreamStatus::InvalidStreamName),
        Response::UpdateStream(UpdateStreamStatus::StreamSealed),
        Response::DeleteStream(DeleteStreamStatus::StreamNotSealed),
        Response::StreamConfiguration(f.config()),
        Response::ListStreams {
            status: ListStatus::ScopeNotFound,
            streams: vec![f.stream()],
            token: f.a.clone(),
        },
        Response::Segments { segments: vec![f.range()], token: f.b.clone() },
        Response::Head(f.map().into_iter().collect()),
        Response::Successors(vec![Successor { range: f.range(), predecessors: vec![f.segment()] }]),
        Response::SegmentsBetween(vec![f.segment()]),
        Response::Scale(ScaleAnswer {
            status: ScaleStatus::PreconditionFailed,
            epoch: f.m,
            segments: vec![f.range()],
        }),
        Response::CheckScale(ScaleState::InvalidInput),
        Response::Uri(NodeUri { host: f.a.clone(), port: 12345 }),
        Response::Valid(false),
    ]
}

fn other_responses(f: &Fill) -> Vec<Response> {
    vec![
        Response::CreateTransaction { txn: f.txn(), segments: vec![f.range()] },
        Response::PingTransaction(PingStatus::Unknown),
        Response::EndTransaction(TxnStatus::TransactionNotFound),
        Response::TransactionState(TxnState::Aborted),
        Response::CompletedTransactions(vec![(f.txn(), true)]),
        Response::DelegationToken(f.b.clone()),
        Response::NoteTimestamp(NoteTimestampStatus::InvalidPosition),
        Response::RemoveWriter(RemoveWriterStatus::UnknownWriter),
        Response::CreateReaderGroup {
            status: CreateReaderGroupStatus::Success,
            config: Some(f.group()),
        },
        Response::UpdateReaderGroup {
            status: UpdateReaderGroupStatus::InvalidConfig,
            generation: f.n,
        },
        Response::ReaderGroupConfig(Some(f.group())),
        Response::DeleteReaderGroup(DeleteReaderGroupStatus::GroupNotFound),
        Response::Subscribers(Some(vec![f.a.clone()])),
        Response::UpdateSubscriberCut(UpdateSubscriberStatus::GenerationMismatch),
        Response::CreateKeyValueTable(CreateTableStatus::TableExists),
        Response::KeyValueTableConfig(Some(f.table_config())),
        Response::ListKeyValueTables {
            status: ListStatus::Success,
            tables: vec![f.table()],
            token: f.a.clone(),
        },
        Response::DeleteKeyValueTable(DeleteTableStatus::TableNotFound),
        Response::Controllers(vec![NodeUri { host: f.b.clone(), port: 1 }]),
        Response::AppendsHeld(Some(f.a.clone())),
    ]
}

fn requests(f: &Fill) -> Vec<Request> {
    [stream_requests(f), other_requests(f)].concat()
}

fn responses(f: &Fill) -> Vec<Result<Response, RpcError>> {
    let mut all: Vec<_> =
        [stream_responses(f), other_responses(f)].concat().into_iter().map(Ok).collect();
    all.push(Err(RpcError::new(Code::Unauthenticated, f.b.clone())));
    all
}

fn fixed() -> Fill {
    Fill { a: "sc".into(), b: "st".into(), n: 0x1_0000_0002, m: 7, x: 0.25, list: vec![0, 5] }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn name(debug: &str) -> &str {
    debug.split([' ', '(', '{']).next().unwrap()
}

fn golden() -> String {
    let mut text = String::new();
    for request in requests(&fixed()) {
        let bytes = encode_request(3, &request).unwrap();
        let _ = writeln!(text, "request {} {}", name(&format!("{request:?}")), hex(&bytes));
    }
    for response in responses(&fixed()) {
        let bytes = encode_response(3, &response).unwrap();
        let what = match &response {
            Ok(response) => format!("{response:?}"),
            Err(_) => "RpcError".to_owned(),
        };
        let _ = writeln!(text, "response {} {}", name(&what), hex(&bytes));
    }
    text
}

#[test]
fn every_message_has_the_bytes_of_the_golden_file() {
    let stored = include_str!("../../testdata/controller.golden");
    let now = golden();
    for (stored, now) in stored.lines().zip(now.lines()) {
        assert_eq!(stored, now, "a message's bytes changed: that needs a new version");
    }
    assert_eq!(stored.lines().count(), now.lines().count(), "append the new messages:\n{now}");
}

#[test]
fn every_variant_is_among_the_samples() {
    let index = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    for (i, request) in requests(&fixed()).iter().enumerate() {
        assert_eq!(index(&codec::encode(request)) as usize, i);
    }
    for (i, response) in responses(&fixed()).iter().flatten().enumerate() {
        assert_eq!(index(&codec::encode(response)) as usize, i);
    }
}

#[test]
fn a_record_of_another_kind_or_version_is_refused() {
    let bytes = encode_request(1, &Request::GetControllers).unwrap();
    let (mut record, _) = Record::decode(&bytes).unwrap();
    assert!(matches!(decode_response(&record), Err(MessageError::Kind { .. })));
    record.version = 2;
    assert!(matches!(decode_request(&record), Err(MessageError::Version { found: 2 })));
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_its_sender() {
    let request = Request::ListScopes { token: "x".repeat(RECORD_BYTES_MAX) };
    assert!(matches!(encode_request(1, &request), Err(MessageError::TooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_sent_is_understood(
        a in ".{0,9}", b in ".{0,9}", n: i64, m: i32, x in 0.0..1.0_f64, number: u64,
        list in proptest::collection::vec(any::<i64>(), 0..5),
    ) {
        let fill = Fill { a, b, n, m, x, list };
        for request in requests(&fill) {
            let (record, _) = Record::decode(&encode_request(number, &request).unwrap()).unwrap();
            prop_assert_eq!(record.address, number);
            prop_assert_eq!(decode_request(&record).unwrap(), request);
        }
        for response in responses(&fill) {
            let bytes = encode_response(number, &response).unwrap();
            let (record, _) = Record::decode(&bytes).unwrap();
            prop_assert_eq!(decode_response(&record).unwrap(), response);
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..99)) {
        let kinds = [KIND_REQUEST, KIND_RESPONSE];
        for kind in kinds {
            let record = Record { version: VERSION, kind, address: 0, body: body.clone().into() };
            let _ = (decode_request(&record).is_ok(), decode_response(&record).is_ok());
        }
    }
}
