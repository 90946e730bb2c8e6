//! The controller's gRPC interface: maps Pravega's messages onto the native ones, and nothing else.
//!
//! [`service`] is one HTTP/2 service. The listener that serves it recognises HTTP/2 by its first bytes, `PRI `.

mod map;
#[cfg(test)]
mod tests;

/// What the build script made of `proto/controller.proto`.
#[allow(warnings, clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("io.pravega.controller.stream.api.grpc.v1");
}

use proto::controller_service_server::{ControllerService, ControllerServiceServer};
use thalweg_controller::Controller;
use thalweg_wire::controller::{Request, Response, RpcError};
use tonic::Status;

/// Answers HTTP/2 requests. Cheap to clone.
pub(crate) type Server = ControllerServiceServer<Service>;

/// The service over `controller`, to be added to a server for HTTP/2.
pub(crate) fn service(controller: Controller) -> Server {
    ControllerServiceServer::new(Service { controller })
}

/// One controller, spoken to in gRPC.
pub(crate) struct Service {
    controller: Controller,
}

impl Service {
    /// Maps the message, asks the controller, maps its answer.
    async fn rpc<M, A>(
        &self,
        message: M,
        request: impl FnOnce(M) -> Result<Request, RpcError>,
        answer: impl FnOnce(Response) -> Option<A>,
    ) -> Result<tonic::Response<A>, Status> {
        let request = request(message).map_err(status)?;
        let response = self.controller.call(request).await.map_err(status)?;
        let answer = answer(response);
        answer
            .map(tonic::Response::new)
            .ok_or_else(|| Status::internal("answer of another request"))
    }
}

fn status(error: RpcError) -> Status {
    Status::new(tonic::Code::from(error.code.number()), error.message)
}

/// Implements the generated trait: one line per method, with its messages and the two functions that map them.
macro_rules! methods {
    ($($name:ident($m:ident: $message:ident) -> $answer:ident = $request:path, $response:expr;)+) => {
        #[tonic::async_trait]
        impl ControllerService for Service {
            $(async fn $name(
                &self,
                $m: tonic::Request<proto::$message>,
            ) -> Result<tonic::Response<proto::$answer>, Status> {
                let $m = $m.into_inner();
                let response = $response;
                self.rpc($m, $request, response).await
            })+
        }
    };
}

use map::{request, response};

methods! {
    get_controller_server_list(m: ServerRequest) -> ServerResponse = request::controllers, response::controllers;
    create_scope(m: ScopeInfo) -> CreateScopeStatus = request::create_scope, response::create_scope;
    delete_scope(m: ScopeInfo) -> DeleteScopeStatus = request::delete_scope, response::delete_scope;
    delete_scope_recursive(m: ScopeInfo) -> DeleteScopeStatus
        = request::delete_scope_recursive, response::delete_scope;
    check_scope_exists(m: ScopeInfo) -> ExistsResponse = request::check_scope_exists, response::exists;
    list_scopes(m: ScopesRequest) -> ScopesResponse = request::list_scopes, response::list_scopes;
    create_stream(m: StreamConfig) -> CreateStreamStatus = request::create_stream, response::create_stream;
    update_stream(m: StreamConfig) -> UpdateStreamStatus = request::update_stream, response::update_stream;
    truncate_stream(m: StreamCut) -> UpdateStreamStatus = request::truncate_stream, response::update_stream;
    seal_stream(m: StreamInfo) -> UpdateStreamStatus = request::seal_stream, response::update_stream;
    delete_stream(m: StreamInfo) -> DeleteStreamStatus = request::delete_stream, response::delete_stream;
    check_stream_exists(m: StreamInfo) -> ExistsResponse = request::check_stream_exists, response::exists;
    get_stream_configuration(m: StreamInfo) -> StreamConfig
        = request::stream_configuration, response::stream_configuration;
    list_streams_in_scope(m: StreamsInScopeRequest) -> StreamsInScopeResponse
        = request::list_streams, response::list_streams;
    list_streams_in_scope_for_tag(m: StreamsInScopeWithTagRequest) -> StreamsInScopeResponse
        = request::list_streams_for_tag, response::list_streams;
    get_current_segments(m: StreamInfo) -> SegmentRanges = request::current_segments, response::segments;
    get_epoch_segments(m: GetEpochSegmentsRequest) -> SegmentRanges
        = request::epoch_segments, response::segments;
    get_segments(m: GetSegmentsRequest) -> SegmentsAtTime = request::head, response::head(m.stream_info.clone());
    get_segments_immediately_following(m: SegmentId) -> SuccessorResponse
        = request::successors, response::successors;
    get_segments_immediatly_following(m: SegmentId) -> SuccessorResponse
        = request::successors, response::successors;
    get_segments_between(m: StreamCutRange) -> StreamCutRangeResponse
        = request::segments_between, response::segments_between(m.stream_info.clone());
    scale(m: ScaleRequest) -> ScaleResponse = request::scale, response::scale;
    check_scale(m: ScaleStatusRequest) -> ScaleStatusResponse = request::check_scale, response::check_scale;
    get_uri(m: SegmentId) -> NodeUri = request::uri, response::uri;
    is_segment_valid(m: SegmentId) -> SegmentValidityResponse
        = request::is_segment_valid, response::segment_valid;
    is_stream_cut_valid(m: StreamCut) -> StreamCutValidityResponse
        = request::is_stream_cut_valid, response::cut_valid;
    create_transaction(m: CreateTxnRequest) -> CreateTxnResponse
        = request::create_transaction, response::create_transaction;
    ping_transaction(m: PingTxnRequest) -> PingTxnStatus = request::ping_transaction, response::ping_transaction;
    commit_transaction(m: TxnRequest) -> TxnStatus = request::commit_transaction, response::end_transaction;
    abort_transaction(m: TxnRequest) -> TxnStatus = request::abort_transaction, response::end_transaction;
    check_transaction_state(m: TxnRequest) -> TxnState
        = request::transaction_state, response::transaction_state;
    list_completed_transactions(m: ListCompletedTxnRequest) -> ListCompletedTxnResponse
        = request::completed_transactions, response::completed_transactions;
    get_delegation_token(m: StreamInfo) -> DelegationToken
        = request::delegation_token, response::delegation_token;
    note_timestamp_from_writer(m: TimestampFromWriter) -> TimestampResponse
        = request::note_timestamp, response::note_timestamp;
    remove_writer(m: RemoveWriterRequest) -> RemoveWriterResponse
        = request::remove_writer, response::remove_writer;
    create_reader_group(m: ReaderGroupConfiguration) -> CreateReaderGroupResponse
        = request::create_reader_group, response::create_reader_group;
    update_reader_group(m: ReaderGroupConfiguration) -> UpdateReaderGroupResponse
        = request::update_reader_group, response::update_reader_group;
    get_reader_group_config(m: ReaderGroupInfo) -> ReaderGroupConfigResponse
        = request::reader_group_config, response::reader_group_config;
    delete_reader_group(m: ReaderGroupInfo) -> DeleteReaderGroupStatus
        = request::delete_reader_group, response::delete_reader_group;
    list_subscribers(m: StreamInfo) -> SubscribersResponse = request::list_subscribers, response::subscribers;
    update_subscriber_stream_cut(m: SubscriberStreamCut) -> UpdateSubscriberStatus
        = request::update_subscriber_cut, response::update_subscriber_cut;
    create_key_value_table(m: KeyValueTableConfig) -> CreateKeyValueTableStatus
        = request::create_table, response::create_table;
    get_current_segments_key_value_table(m: KeyValueTableInfo) -> SegmentRanges
        = request::table_segments, response::segments;
    get_key_value_table_configuration(m: KeyValueTableInfo) -> KeyValueTableConfigResponse
        = request::table_config, response::table_config;
    list_key_value_tables_in_scope(m: KvTablesInScopeRequest) -> KvTablesInScopeResponse
        = request::list_tables, response::list_tables;
    delete_key_value_table(m: KeyValueTableInfo) -> DeleteKvTableStatus
        = request::delete_table, response::delete_table;
}
