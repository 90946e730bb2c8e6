//! The HTTP port: `/health` for supervisors, `/metrics` for Prometheus.

use super::view::{State, View};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use serde::Serialize;
use std::sync::Arc;

/// What `/metrics` answers with.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The pages about `view`.
pub(super) fn router(view: Arc<View>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(&view)));
    let registry = Arc::new(registry);
    Router::new()
        .route("/", get(async || "thalweg: /health, /metrics\n"))
        .route("/health", get(async move || health(&view)))
        .route("/metrics", get(async move || metrics(&registry)))
}

/// The body of `/health`.
#[derive(Serialize)]
struct Health<'a> {
    state: &'static str,
    /// Why it is not serving.
    reason: Option<&'a str>,
    version: &'static str,
    containers: usize,
    segments: usize,
}

/// 200 while everything is served, 503 with the reason otherwise.
fn health(view: &View) -> Response {
    let (status, state, reason) = match view.state() {
        State::Serving => (StatusCode::OK, "serving", None),
        State::Held(reason) => (StatusCode::SERVICE_UNAVAILABLE, "held", Some(reason)),
        State::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", None),
        State::Stopped(reason) => (StatusCode::SERVICE_UNAVAILABLE, "stopped", Some(reason)),
    };
    let health = Health {
        state,
        reason: reason.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        containers: view.containers(),
        segments: view.segments(),
    };
    match serde_json::to_string(&health) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => failed(&error),
    }
}

fn metrics(registry: &Registry) -> Response {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}
