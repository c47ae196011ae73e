//! As much of S3 as a backup asks of it, over HTTP on this machine: PUT if absent, GET with a range, HEAD, list. It keeps objects in
//! memory, checks no signature, and counts what it is asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;
use tokio::net::TcpListener;

/// Any date: nobody asks for it.
const MODIFIED: &str = "Thu, 26 Nov 2026 14:00:00 GMT";

/// Objects by `/BUCKET/KEY`.
type Objects = BTreeMap<String, Bytes>;

#[derive(Clone, Default)]
pub struct Bucket {
    objects: Arc<Mutex<Objects>>,
}

impl Bucket {
    /// Serves until the test ends.
    pub async fn serve(&self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(address)
    }

    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(bucket): State<Bucket>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
    let is_list = query.contains("list-type=2");
    match method {
        Method::GET if is_list => list(&bucket.objects(), &path, query),
        Method::GET | Method::HEAD => {
            let Some(object) = bucket.objects().get(&path).cloned() else { return said(StatusCode::NOT_FOUND) };
            let is_head = method == Method::HEAD;
            read(&object, headers.get(header::RANGE).and_then(|range| range.to_str().ok()), is_head)
        }
        Method::PUT => {
            let mut objects = bucket.objects();
            if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "*") && objects.contains_key(&path) {
                return said(StatusCode::PRECONDITION_FAILED);
            }
            objects.insert(path, body);
            with(StatusCode::OK).header(header::ETAG, "\"x\"").body(Body::empty()).expect("a response")
        }
        _ => said(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn with(status: StatusCode) -> axum::http::response::Builder {
    Response::builder().status(status)
}

fn said(status: StatusCode) -> Response {
    let code = if status == StatusCode::NOT_FOUND { "NoSuchKey" } else { "PreconditionFailed" };
    let text = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
    with(status).body(Body::from(text)).expect("a response")
}

fn read(object: &Bytes, range: Option<&str>, is_head: bool) -> Response {
    let bounds = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let bounds = bounds.and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?)));
    let (status, part) = match bounds {
        Some((first, last)) => (StatusCode::PARTIAL_CONTENT, object.slice(first..object.len().min(last + 1))),
        None => (StatusCode::OK, object.clone()),
    };
    let mut response = with(status).header(header::ETAG, "\"x\"").header(header::LAST_MODIFIED, MODIFIED);
    if let Some((first, _)) = bounds {
        let shown = format!("bytes {first}-{}/{}", first + part.len() - 1, object.len());
        response = response.header(header::CONTENT_RANGE, shown);
    }
    if is_head {
        return response.header(header::CONTENT_LENGTH, object.len()).body(Body::empty()).expect("a response");
    }
    response.body(Body::from(part)).expect("a response")
}

fn list(objects: &Objects, bucket: &str, query: &str) -> Response {
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = format!("{}/{}", bucket.trim_end_matches('/'), prefix.replace("%2F", "/"));
    let mut text = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (path, object) in objects.iter().filter(|(path, _)| path.starts_with(&prefix)) {
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_bucket, key)| key);
        let size = object.len();
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "<Contents><Key>{key}</Key><LastModified>2026-11-26T14:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>{size}</Size></Contents>"
        );
    }
    text.push_str("</ListBucketResult>");
    with(StatusCode::OK).header(header::CONTENT_TYPE, "application/xml").body(Body::from(text)).expect("a response")
}
