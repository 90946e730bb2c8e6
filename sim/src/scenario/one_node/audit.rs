//! Reads a node on a damaged disk: refusals and silence are fine, wrong or silently missing data is not.

use super::client;
use super::events;
use super::stage::Play;
use crate::world::executor;
use crate::world::network::SimNetwork;
use crate::world::rng::Salt;
use std::time::Duration;
use thalweg_wire::controller::{Request, Response, StreamName};

/// How long one stream may take; what takes longer counts as refused.
const STREAM_MAX: Duration = Duration::from_secs(5);

/// Reads every stream once, as far as the node lets it.
pub(super) async fn audit(play: &Play, network: &SimNetwork, number: u64) {
    let (mut host, stage) = client(play, network, &format!("auditor-{number}"), Salt::new(number));
    let names: Vec<_> =
        stage.with(|shared| shared.streams.iter().map(|stream| stream.name.clone()).collect());
    for (stream, name) in names.into_iter().enumerate() {
        let wire_name = StreamName::new(name.scope.as_ref(), name.stream.as_ref());
        let exists = stage.client.controller().call(Request::CheckStreamExists(wire_name));
        if let Some(Ok(Response::Exists(false))) = executor::timeout(STREAM_MAX, exists).await
            && stage.with(|shared| shared.streams[stream].acked() > 0)
        {
            let what = format!("{name} is silently missing on a damaged disk");
            stage.with(|shared| shared.out.violate("I1", what));
            continue;
        }
        let read = events::read_all(&stage, stream, "an auditor");
        match executor::timeout(STREAM_MAX, read).await {
            Some(found) => stage.with(|shared| {
                shared.out.add("audits complete", 1);
                shared.streams[stream].judge_damaged(&found, &mut shared.out);
            }),
            None => stage.count("audits refused", 1),
        }
    }
    host.kill().await;
}
