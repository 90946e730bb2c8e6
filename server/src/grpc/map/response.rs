//! From responses to Pravega's messages. `None`: the response belongs to another request.
//!
//! Every status of the native protocol has its gRPC number as its position.

use crate::grpc::proto;
use std::collections::BTreeMap;
use thalweg_types::id::SegmentId;
use thalweg_wire::controller::{
    CutOfStream, KeyValueTableConfig, NodeUri, ReaderGroupConfig, Response, RetentionType,
    SegmentRange, StreamConfig, StreamName, TableName, TxnId,
};

/// A sub-message that says of which stream a request was.
type Asked = Option<proto::StreamInfo>;

fn stream(name: StreamName) -> proto::StreamInfo {
    proto::StreamInfo { scope: name.scope, stream: name.stream, access_operation: 0 }
}

fn range(range: SegmentRange) -> proto::SegmentRange {
    let id = segment(&Some(stream(range.stream)), range.segment);
    proto::SegmentRange { segment_id: Some(id), min_key: range.low, max_key: range.high }
}

fn ranges(found: Vec<SegmentRange>) -> Vec<proto::SegmentRange> {
    found.into_iter().map(range).collect()
}

fn segment(of: &Asked, id: SegmentId) -> proto::SegmentId {
    proto::SegmentId { stream_info: of.clone(), segment_id: id.0 }
}

#[expect(clippy::unnecessary_wraps, reason = "a sub-message that must always be present")]
fn token(token: String) -> Option<proto::ContinuationToken> {
    Some(proto::ContinuationToken { token })
}

fn node(node: NodeUri) -> proto::NodeUri {
    proto::NodeUri { endpoint: node.host, port: i32::from(node.port) }
}

fn cut(cut: CutOfStream) -> proto::StreamCut {
    let offsets: BTreeMap<i64, i64> = cut.cut.into_iter().map(|(id, at)| (id.0, at)).collect();
    proto::StreamCut { stream_info: Some(stream(cut.stream)), cut: offsets }
}

fn txn(id: TxnId) -> proto::TxnId {
    proto::TxnId { high_bits: id.high, low_bits: id.low }
}

fn config(config: StreamConfig) -> proto::StreamConfig {
    let scaling = config.scaling.map(|policy| proto::ScalingPolicy {
        scale_type: policy.kind as i32,
        target_rate: policy.target_rate,
        scale_factor: policy.scale_factor,
        min_num_segments: policy.min_segments,
    });
    let retention = config.retention.map(|policy| proto::RetentionPolicy {
        retention_type: match policy.kind {
            RetentionType::Time => 1,
            RetentionType::Size => 2,
        },
        retention_param: policy.param,
        retention_max: policy.max,
    });
    proto::StreamConfig {
        stream_info: Some(stream(config.stream)),
        scaling_policy: scaling,
        retention_policy: retention,
        // Clients take absent tags for an error.
        tags: Some(proto::Tags { tag: config.tags }),
        timestamp_aggregation_timeout: config.timestamp_aggregation_timeout_ms,
        rollover_size_bytes: config.rollover_size_bytes,
    }
}

fn group(config: ReaderGroupConfig) -> proto::ReaderGroupConfiguration {
    proto::ReaderGroupConfiguration {
        scope: config.scope,
        reader_group_name: config.group,
        group_refresh_time_millis: config.refresh_ms,
        automatic_checkpoint_interval_millis: config.checkpoint_interval_ms,
        max_outstanding_checkpoint_request: config.max_outstanding_checkpoints,
        retention_type: config.retention,
        generation: config.generation,
        reader_group_id: config.id,
        starting_stream_cuts: config.starts.into_iter().map(cut).collect(),
        ending_stream_cuts: config.ends.into_iter().map(cut).collect(),
        rollover_size_bytes: config.rollover_size_bytes,
    }
}

fn table(name: TableName) -> proto::KeyValueTableInfo {
    proto::KeyValueTableInfo { scope: name.scope, kvt_name: name.table }
}

fn table_message(config: KeyValueTableConfig) -> proto::KeyValueTableConfig {
    proto::KeyValueTableConfig {
        scope: config.table.scope,
        kvt_name: config.table.table,
        partition_count: config.partitions,
        primary_key_length: config.primary_key_bytes,
        secondary_key_length: config.secondary_key_bytes,
        rollover_size_bytes: config.rollover_size_bytes,
    }
}

/// The head of the stream that was asked for.
pub(in crate::grpc) fn head(of: Asked) -> impl FnOnce(Response) -> Option<proto::SegmentsAtTime> {
    move |response| {
        let Response::Head(found) = response else { return None };
        let location = |(id, offset): (SegmentId, i64)| proto::SegmentLocation {
            segment_id: Some(segment(&of, id)),
            offset,
        };
        let segments = found.into_iter().map(location).collect();
        Some(proto::SegmentsAtTime { segments, delegation_token: String::new() })
    }
}

/// Segments of the stream that was asked for.
pub(in crate::grpc) fn segments_between(
    of: Asked,
) -> impl FnOnce(Response) -> Option<proto::StreamCutRangeResponse> {
    move |response| {
        let Response::SegmentsBetween(found) = response else { return None };
        let segments = found.into_iter().map(|id| segment(&of, id)).collect();
        Some(proto::StreamCutRangeResponse { segments, delegation_token: String::new() })
    }
}

/// Maps one kind of response.
macro_rules! responses {
    ($($name:ident -> $of:ident: $response:pat => $message:expr;)+) => {
        $(
            pub(in crate::grpc) fn $name(response: Response) -> Option<proto::$of> {
                match response {
                    $response => Some($message),
                    _ => None,
                }
            }
        )+
    };
}

/// Maps the responses that are no more than a status.
macro_rules! statuses {
    ($($name:ident -> $of:ident.$field:ident: $response:ident;)+) => {
        responses! {
            $($name -> $of: Response::$response(status) => proto::$of { $field: status as i32 };)+
        }
    };
}

statuses! {
    create_scope -> CreateScopeStatus.status: CreateScope;
    delete_scope -> DeleteScopeStatus.status: DeleteScope;
    create_stream -> CreateStreamStatus.status: CreateStream;
    update_stream -> UpdateStreamStatus.status: UpdateStream;
    delete_stream -> DeleteStreamStatus.status: DeleteStream;
    check_scale -> ScaleStatusResponse.status: CheckScale;
    ping_transaction -> PingTxnStatus.status: PingTransaction;
    end_transaction -> TxnStatus.status: EndTransaction;
    transaction_state -> TxnState.state: TransactionState;
    note_timestamp -> TimestampResponse.result: NoteTimestamp;
    remove_writer -> RemoveWriterResponse.result: RemoveWriter;
    delete_reader_group -> DeleteReaderGroupStatus.status: DeleteReaderGroup;
    update_subscriber_cut -> UpdateSubscriberStatus.status: UpdateSubscriberCut;
    create_table -> CreateKeyValueTableStatus.status: CreateKeyValueTable;
    delete_table -> DeleteKvTableStatus.status: DeleteKeyValueTable;
}

responses! {
    exists -> ExistsResponse: Response::Exists(exists) => proto::ExistsResponse { exists };
    list_scopes -> ScopesResponse: Response::ListScopes { scopes, token: next } => {
        proto::ScopesResponse { scopes, continuation_token: token(next) }
    };
    stream_configuration -> StreamConfig: Response::StreamConfiguration(found) => config(found);
    list_streams -> StreamsInScopeResponse:
        Response::ListStreams { status, streams, token: next } => proto::StreamsInScopeResponse {
            streams: streams.into_iter().map(stream).collect(),
            continuation_token: token(next),
            status: status as i32,
        };
    segments -> SegmentRanges: Response::Segments { segments, token } => proto::SegmentRanges {
        segment_ranges: ranges(segments),
        delegation_token: token,
    };
    successors -> SuccessorResponse: Response::Successors(found) => {
        let entry = |successor: thalweg_wire::controller::Successor| proto::SegmentEntry {
            segment: Some(range(successor.range)),
            value: successor.predecessors.iter().map(|id| id.0).collect(),
        };
        let segments = found.into_iter().map(entry).collect();
        proto::SuccessorResponse { segments, delegation_token: String::new() }
    };
    scale -> ScaleResponse: Response::Scale(answer) => proto::ScaleResponse {
        status: answer.status as i32,
        segments: ranges(answer.segments),
        epoch: answer.epoch,
    };
    uri -> NodeUri: Response::Uri(found) => node(found);
    segment_valid -> SegmentValidityResponse: Response::Valid(response) => {
        proto::SegmentValidityResponse { response }
    };
    cut_valid -> StreamCutValidityResponse: Response::Valid(response) => {
        proto::StreamCutValidityResponse { response }
    };
    create_transaction -> CreateTxnResponse: Response::CreateTransaction { txn: id, segments } => {
        proto::CreateTxnResponse {
            txn_id: Some(txn(id)),
            active_segments: ranges(segments),
            delegation_token: String::new(),
        }
    };
    completed_transactions -> ListCompletedTxnResponse: Response::CompletedTransactions(found) => {
        let one = |(id, committed): (TxnId, bool)| proto::TxnResponse {
            txn_id: Some(txn(id)),
            status: i32::from(!committed),
        };
        proto::ListCompletedTxnResponse { response: found.into_iter().map(one).collect() }
    };
    delegation_token -> DelegationToken: Response::DelegationToken(delegation_token) => {
        proto::DelegationToken { delegation_token }
    };
    create_reader_group -> CreateReaderGroupResponse:
        Response::CreateReaderGroup { status, config } => proto::CreateReaderGroupResponse {
            status: status as i32,
            config: config.map(group),
        };
    update_reader_group -> UpdateReaderGroupResponse:
        Response::UpdateReaderGroup { status, generation } => proto::UpdateReaderGroupResponse {
            status: status as i32,
            generation,
        };
    // A group that is not there has an all-default configuration.
    reader_group_config -> ReaderGroupConfigResponse: Response::ReaderGroupConfig(found) => {
        proto::ReaderGroupConfigResponse {
            status: if found.is_some() { 0 } else { 2 },
            config: Some(found.map(group).unwrap_or_default()),
        }
    };
    subscribers -> SubscribersResponse: Response::Subscribers(found) => {
        proto::SubscribersResponse {
            status: if found.is_some() { 0 } else { 2 },
            subscribers: found.unwrap_or_default(),
        }
    };
    table_config -> KeyValueTableConfigResponse: Response::KeyValueTableConfig(found) => {
        proto::KeyValueTableConfigResponse {
            status: if found.is_some() { 0 } else { 2 },
            config: found.map(table_message),
        }
    };
    list_tables -> KvTablesInScopeResponse:
        Response::ListKeyValueTables { status, tables, token: next } => {
            proto::KvTablesInScopeResponse {
                kvtables: tables.into_iter().map(table).collect(),
                continuation_token: token(next),
                status: status as i32,
            }
        };
    controllers -> ServerResponse: Response::Controllers(found) => proto::ServerResponse {
        node_uri: found.into_iter().map(node).collect(),
    };
}
