//! The plain HTTP port: `/metrics`, `/healthz`, `/readyz`. It shows no contents of any project and takes no input.
//!
//! `/healthz` says whether the process should be restarted, `/readyz` whether it should be sent requests. Neither asks
//! other nodes, so a slow peer never makes this node look ill.

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the port answers from.
pub trait Probe: Send + Sync + 'static {
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> String;
    /// Why the node isn't ready, or `None` if it is.
    fn unready(&self) -> Option<String>;
}

/// Serves the port until `shutdown` turns true.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    probe: Arc<dyn Probe>,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(probe);
    let stopped = async move {
        // An error means that the sender is gone, which is a stop too.
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

async fn metrics(State(probe): State<Arc<dyn Probe>>) -> impl IntoResponse {
    ([("content-type", "text/plain; version=0.0.4")], probe.metrics())
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> impl IntoResponse {
    match probe.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
