//! From Pravega's messages to requests. A sub-message that is absent is an empty one.

use crate::grpc::proto;
use std::collections::BTreeMap;
use thalweg_types::id::SegmentId;
use thalweg_wire::controller::{
    AccessOperation, Code, CutOfStream, KeyValueTableConfig, ReaderGroupConfig, Request,
    RetentionPolicy, RetentionType, RpcError, ScaleType, ScalingPolicy, StreamConfig, StreamName,
    TableName, TxnId,
};

type Mapped = Result<Request, RpcError>;

/// A commit's timestamp that means "none".
const NO_TIMESTAMP: i64 = i64::MIN;

fn stream(info: Option<proto::StreamInfo>) -> StreamName {
    info.map(|info| StreamName::new(info.scope, info.stream)).unwrap_or_default()
}

fn scope(info: Option<proto::ScopeInfo>) -> String {
    info.map(|info| info.scope).unwrap_or_default()
}

fn token(token: Option<proto::ContinuationToken>) -> String {
    token.map(|token| token.token).unwrap_or_default()
}

fn offsets(map: BTreeMap<i64, i64>) -> BTreeMap<SegmentId, i64> {
    map.into_iter().map(|(id, offset)| (SegmentId(id), offset)).collect()
}

fn cut(cut: proto::StreamCut) -> CutOfStream {
    CutOfStream { stream: stream(cut.stream_info), cut: offsets(cut.cut) }
}

fn txn(id: Option<proto::TxnId>) -> TxnId {
    let id = id.unwrap_or_default();
    TxnId { high: id.high_bits, low: id.low_bits }
}

fn unknown(what: &str, number: i32) -> RpcError {
    RpcError::new(Code::InvalidArgument, format!("{what} {number} is unknown"))
}

fn scaling(policy: proto::ScalingPolicy) -> Result<ScalingPolicy, RpcError> {
    let kind = usize::try_from(policy.scale_type).ok().and_then(|at| ScaleType::ALL.get(at));
    Ok(ScalingPolicy {
        kind: *kind.ok_or_else(|| unknown("scaling policy", policy.scale_type))?,
        target_rate: policy.target_rate,
        scale_factor: policy.scale_factor,
        min_segments: policy.min_num_segments,
    })
}

fn retention(policy: &proto::RetentionPolicy) -> Result<Option<RetentionPolicy>, RpcError> {
    let kind = match policy.retention_type {
        0 => return Ok(None),
        1 => RetentionType::Time,
        2 => RetentionType::Size,
        other => return Err(unknown("retention policy", other)),
    };
    let (param, max) = (policy.retention_param, policy.retention_max);
    Ok(Some(RetentionPolicy { kind, param, max }))
}

fn stream_config(config: proto::StreamConfig) -> Result<StreamConfig, RpcError> {
    let retention = config.retention_policy.as_ref().map(retention).transpose()?;
    Ok(StreamConfig {
        stream: stream(config.stream_info),
        scaling: config.scaling_policy.map(scaling).transpose()?,
        retention: retention.flatten(),
        tags: config.tags.map(|tags| tags.tag).unwrap_or_default(),
        timestamp_aggregation_timeout_ms: config.timestamp_aggregation_timeout,
        rollover_size_bytes: config.rollover_size_bytes,
    })
}

fn group_config(config: proto::ReaderGroupConfiguration) -> ReaderGroupConfig {
    ReaderGroupConfig {
        scope: config.scope,
        group: config.reader_group_name,
        refresh_ms: config.group_refresh_time_millis,
        checkpoint_interval_ms: config.automatic_checkpoint_interval_millis,
        max_outstanding_checkpoints: config.max_outstanding_checkpoint_request,
        retention: config.retention_type,
        generation: config.generation,
        id: config.reader_group_id,
        starts: config.starting_stream_cuts.into_iter().map(cut).collect(),
        ends: config.ending_stream_cuts.into_iter().map(cut).collect(),
        rollover_size_bytes: config.rollover_size_bytes,
    }
}

fn table(info: proto::KeyValueTableInfo) -> TableName {
    TableName { scope: info.scope, table: info.kvt_name }
}

/// An operation that nobody has defined is no more than "not said".
fn access(number: i32) -> AccessOperation {
    let known = usize::try_from(number).ok().and_then(|at| AccessOperation::ALL.get(at));
    known.copied().unwrap_or(AccessOperation::Unspecified)
}

pub(in crate::grpc) fn create_stream(config: proto::StreamConfig) -> Mapped {
    stream_config(config).map(Request::CreateStream)
}

pub(in crate::grpc) fn update_stream(config: proto::StreamConfig) -> Mapped {
    stream_config(config).map(Request::UpdateStream)
}

/// Messages that can always be mapped.
macro_rules! requests {
    ($($name:ident($message:pat => $of:ident) = $request:expr;)+) => {
        $(
            #[allow(clippy::unnecessary_wraps, reason = "one signature for all requests")]
            pub(in crate::grpc) fn $name($message: proto::$of) -> Mapped {
                Ok($request)
            }
        )+
    };
}

requests! {
    controllers(_ => ServerRequest) = Request::GetControllers;
    create_scope(m => ScopeInfo) = Request::CreateScope { scope: m.scope };
    delete_scope(m => ScopeInfo) = Request::DeleteScope { scope: m.scope };
    delete_scope_recursive(m => ScopeInfo) = Request::DeleteScopeRecursive { scope: m.scope };
    check_scope_exists(m => ScopeInfo) = Request::CheckScopeExists { scope: m.scope };
    list_scopes(m => ScopesRequest) = Request::ListScopes { token: token(m.continuation_token) };
    truncate_stream(m => StreamCut) = Request::TruncateStream(cut(m));
    seal_stream(m => StreamInfo) = Request::SealStream(stream(Some(m)));
    delete_stream(m => StreamInfo) = Request::DeleteStream(stream(Some(m)));
    check_stream_exists(m => StreamInfo) = Request::CheckStreamExists(stream(Some(m)));
    stream_configuration(m => StreamInfo) = Request::GetStreamConfiguration(stream(Some(m)));
    list_streams(m => StreamsInScopeRequest) = Request::ListStreams {
        scope: scope(m.scope),
        token: token(m.continuation_token),
    };
    list_streams_for_tag(m => StreamsInScopeWithTagRequest) = Request::ListStreamsForTag {
        scope: scope(m.scope),
        tag: m.tag,
        token: token(m.continuation_token),
    };
    current_segments(m => StreamInfo) = Request::GetCurrentSegments(stream(Some(m)));
    epoch_segments(m => GetEpochSegmentsRequest) = Request::GetEpochSegments {
        stream: stream(m.stream_info),
        epoch: m.epoch,
    };
    head(m => GetSegmentsRequest) = Request::GetHead {
        stream: stream(m.stream_info),
        timestamp: m.timestamp,
    };
    successors(m => SegmentId) = Request::GetSuccessors {
        stream: stream(m.stream_info),
        segment: SegmentId(m.segment_id),
    };
    segments_between(m => StreamCutRange) = Request::GetSegmentsBetween {
        stream: stream(m.stream_info),
        from: offsets(m.from),
        to: offsets(m.to),
    };
    scale(m => ScaleRequest) = Request::Scale {
        stream: stream(m.stream_info),
        sealed: m.sealed_segments.into_iter().map(SegmentId).collect(),
        ranges: m.new_key_ranges.iter().map(|range| (range.start, range.end)).collect(),
    };
    check_scale(m => ScaleStatusRequest) = Request::CheckScale {
        stream: stream(m.stream_info),
        epoch: m.epoch,
    };
    uri(m => SegmentId) = Request::GetUri {
        stream: stream(m.stream_info),
        segment: SegmentId(m.segment_id),
    };
    is_segment_valid(m => SegmentId) = Request::IsSegmentValid {
        stream: stream(m.stream_info),
        segment: SegmentId(m.segment_id),
    };
    is_stream_cut_valid(m => StreamCut) = Request::IsStreamCutValid(cut(m));
    create_transaction(m => CreateTxnRequest) = Request::CreateTransaction {
        stream: stream(m.stream_info),
        lease_ms: m.lease,
    };
    ping_transaction(m => PingTxnRequest) = Request::PingTransaction {
        stream: stream(m.stream_info),
        txn: txn(m.txn_id),
        lease_ms: m.lease,
    };
    commit_transaction(m => TxnRequest) = Request::CommitTransaction {
        stream: stream(m.stream_info),
        txn: txn(m.txn_id),
        writer: m.writer_id,
        timestamp: Some(m.timestamp).filter(|time| *time != NO_TIMESTAMP),
    };
    abort_transaction(m => TxnRequest) = Request::AbortTransaction {
        stream: stream(m.stream_info),
        txn: txn(m.txn_id),
    };
    transaction_state(m => TxnRequest) = Request::CheckTransactionState {
        stream: stream(m.stream_info),
        txn: txn(m.txn_id),
    };
    completed_transactions(m => ListCompletedTxnRequest) = {
        Request::ListCompletedTransactions(stream(m.stream_info))
    };
    delegation_token(m => StreamInfo) = Request::GetDelegationToken {
        access: access(m.access_operation),
        stream: stream(Some(m)),
    };
    note_timestamp(m => TimestampFromWriter) = Request::NoteTimestamp {
        writer: m.writer,
        position: m.position.map(cut).unwrap_or_default(),
        timestamp: m.timestamp,
    };
    remove_writer(m => RemoveWriterRequest) = Request::RemoveWriter {
        writer: m.writer,
        stream: stream(m.stream),
    };
    create_reader_group(m => ReaderGroupConfiguration) = {
        Request::CreateReaderGroup(group_config(m))
    };
    update_reader_group(m => ReaderGroupConfiguration) = {
        Request::UpdateReaderGroup(group_config(m))
    };
    reader_group_config(m => ReaderGroupInfo) = Request::GetReaderGroupConfig {
        scope: m.scope,
        group: m.reader_group,
    };
    delete_reader_group(m => ReaderGroupInfo) = Request::DeleteReaderGroup {
        scope: m.scope,
        group: m.reader_group,
        id: m.reader_group_id,
    };
    list_subscribers(m => StreamInfo) = Request::ListSubscribers(stream(Some(m)));
    update_subscriber_cut(m => SubscriberStreamCut) = Request::UpdateSubscriberCut {
        subscriber: m.subscriber,
        generation: m.generation,
        group_id: m.reader_group_id,
        cut: m.stream_cut.map(cut).unwrap_or_default(),
    };
    create_table(m => KeyValueTableConfig) = Request::CreateKeyValueTable(KeyValueTableConfig {
        table: TableName { scope: m.scope, table: m.kvt_name },
        partitions: m.partition_count,
        primary_key_bytes: m.primary_key_length,
        secondary_key_bytes: m.secondary_key_length,
        rollover_size_bytes: m.rollover_size_bytes,
    });
    table_segments(m => KeyValueTableInfo) = Request::GetKeyValueTableSegments(table(m));
    table_config(m => KeyValueTableInfo) = Request::GetKeyValueTableConfig(table(m));
    list_tables(m => KvTablesInScopeRequest) = Request::ListKeyValueTables {
        scope: scope(m.scope),
        token: token(m.continuation_token),
    };
    delete_table(m => KeyValueTableInfo) = Request::DeleteKeyValueTable(table(m));
}
