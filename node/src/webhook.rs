//! Tells the outside of conflicts that wait for somebody: one HTTP request each to the webhook of the configuration.
//!
//! The node that leads when a conflict is applied sends it, so that a cluster tells it once. A change of leader in that moment may tell it
//! twice or not at all, and an address that doesn't answer is given up after some tries: a notification is a hint, and `zyflow conflict list` is
//! the list. It carries ids and names, never a text. Nothing waits for it: what can't be sent in time is dropped, with a warning.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use zyflow_machine::id::Revision;
use zyflow_machine::record::{Conflict, Record};
use zyflow_machine::view::View;
use zyflow_raft::{Consensus, Role};
use zyflow_storage::tables::{Interest, News, Row, Subscription, Tables};

/// Tries of one request: with the pauses between them about half a minute, a receiver's restart.
const TRIES_MAX: u32 = 5;

/// First pause between tries; doubled each time.
const PAUSE: Duration = Duration::from_secs(1);

/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read; only its status counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why the webhook can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// It is no address.
    #[error("notify.webhook `{0}` is no address: write http://HOST/PATH or https://HOST/PATH")]
    Address(String),
    /// The system's certificates can't be read.
    #[error("the system's certificates can't be read, which notify.webhook needs for https: install ca-certificates")]
    Roots(#[source] std::io::Error),
}

/// What a notification is made from.
pub struct Notifier {
    tables: Tables,
    consensus: Consensus,
    conflicts: Subscription,
    address: hyper::Uri,
}

impl Notifier {
    /// Sends to `webhook` what is applied from now on.
    ///
    /// # Errors
    /// [`NotifyError::Address`].
    pub fn new(webhook: &str, consensus: Consensus, tables: Tables) -> Result<Self, NotifyError> {
        let wrong = || NotifyError::Address(webhook.to_owned());
        let address: hyper::Uri = webhook.parse().map_err(|_| wrong())?;
        if !matches!(address.scheme_str(), Some("http" | "https")) || address.host().is_none() {
            return Err(wrong());
        }
        let conflicts = tables.subscribe_to(Interest::in_types(&["conflict", "conflict-restored"]));
        Ok(Self { tables, consensus, conflicts, address })
    }

    /// Runs until `stopped`.
    ///
    /// # Errors
    /// [`NotifyError::Roots`].
    pub async fn run(self, stopped: watch::Receiver<bool>) -> Result<(), NotifyError> {
        if self.address.scheme_str() == Some("http") {
            self.run_with(HttpConnector::new(), stopped).await;
            return Ok(());
        }
        let roots = hyper_rustls::HttpsConnectorBuilder::new().with_native_roots().map_err(NotifyError::Roots)?;
        self.run_with(roots.https_only().enable_http1().build(), stopped).await;
        Ok(())
    }

    async fn run_with<C>(mut self, connector: C, mut stopped: watch::Receiver<bool>)
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let client = Client::builder(TokioExecutor::new()).build(connector);
        loop {
            let news = tokio::select! {
                news = self.conflicts.next() => news,
                _ = stopped.wait_for(|is_stopped| *is_stopped) => return,
            };
            match news {
                Some(News::Events { revision, rows }) => {
                    for body in self.bodies(revision, &rows) {
                        tokio::select! {
                            () = send(&client, &self.address, body) => {}
                            _ = stopped.wait_for(|is_stopped| *is_stopped) => return,
                        }
                    }
                }
                Some(News::Behind { missed }) => {
                    warn!(missed, "the webhook is too slow: revisions were not looked at for conflicts");
                }
                None => return,
            }
        }
    }

    /// What to send about one revision; nothing where another node leads.
    fn bodies(&self, revision: Revision, rows: &[Arc<Row>]) -> Vec<Bytes> {
        let open = rows.iter().filter_map(|row| {
            let Some(Record::Conflict(conflict)) = &row.stored.record else { return None };
            conflict.settled.is_none().then_some((row.id, conflict))
        });
        let mut open = open.peekable();
        if open.peek().is_none() || self.consensus.status().role != Role::Leader {
            return Vec::new();
        }
        open.map(|(id, conflict)| {
            let (project, path) = self.names(conflict);
            let body = json!({
                "type": "conflict:opened",
                "revision": revision.0,
                "conflict": id.to_string(),
                "class": format!("{:?}", conflict.class).to_uppercase(),
                "severity": format!("{:?}", conflict.severity()).to_uppercase(),
                "field": conflict.field,
                "author": conflict.author,
                "project": project,
                "change": path,
            });
            Bytes::from(body.to_string())
        })
        .collect()
    }

    /// The names of the project and the change; empty where they are gone or can't be read.
    fn names(&self, conflict: &Conflict) -> (String, String) {
        let record = |id| self.tables.view(None).ok()?.get(id).ok()??.record.clone();
        let Some(Record::Change(change)) = record(conflict.change) else { return Default::default() };
        match record(change.project) {
            Some(Record::Project(project)) => (project.name, change.path),
            _ => (String::new(), change.path),
        }
    }
}

/// Sends one notification, with retries.
async fn send<C>(client: &Client<C, Full<Bytes>>, address: &hyper::Uri, body: Bytes)
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let mut pause = PAUSE;
    let mut reason = String::new();
    for attempt in 1..=TRIES_MAX {
        match timeout(TRY_TIMEOUT, send_once(client, address, body.clone())).await {
            Ok(Ok(())) => return debug!(attempt, "a conflict was told to the webhook"),
            Ok(Err(error)) => reason = error,
            Err(_) => "no answer in time".clone_into(&mut reason),
        }
        if attempt < TRIES_MAX {
            sleep(pause).await;
            pause *= 2;
        }
    }
    warn!(reason, tries = TRIES_MAX, "a conflict couldn't be told to the webhook");
}

async fn send_once<C>(client: &Client<C, Full<Bytes>>, address: &hyper::Uri, body: Bytes) -> Result<(), String>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let request = hyper::Request::post(address.clone())
        .header("content-type", "application/json")
        .header("user-agent", concat!("zyflow/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| crate::checkouts::error_chain(&error))?;
    let status = answer.status();
    // Read to its end, so that the connection can be used again.
    let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    match read {
        _ if !status.is_success() => Err(format!("it answered {status}")),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::sync::Mutex;
    use tokio::net::TcpListener;

    /// A receiver that refuses the first request.
    async fn receiver(seen: Arc<Mutex<Vec<String>>>) -> hyper::Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hook = move |body: String| async move {
            let mut seen = seen.lock().unwrap();
            seen.push(body);
            if seen.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
        };
        let router = Router::new().route("/hook", post(hook));
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/hook").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_refuses_is_asked_again_until_it_takes_it() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let address = receiver(Arc::clone(&seen)).await;
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        send(&client, &address, Bytes::from_static(b"{}")).await;
        assert_eq!(*seen.lock().unwrap(), ["{}", "{}"]);
        let refused = send_once(&client, &"http://127.0.0.1:1/hook".parse().unwrap(), Bytes::new()).await;
        assert!(refused.is_err());
    }
}
