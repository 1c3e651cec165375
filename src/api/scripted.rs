//! A server on loopback with scripted answers, and an exchange with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::credentials::Credentials;
use super::endpoints::Api;
use super::exchange::Exchange;
use super::origin::Origin;
use super::redactor::Redactor;
use crate::error::{Error, ErrorKind, Result};

/// The server. Stops when it is dropped.
pub(super) struct ScriptedServer {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Response<Bytes>>,
    seen: Vec<Seen>,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    /// Returns method and path: `GET /videos`.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl ScriptedServer {
    /// Starts a server that sends these answers in order.
    pub(super) async fn new(answers: impl IntoIterator<Item = Response<Bytes>>) -> ScriptedServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.into_iter().collect();
        let script = Arc::new(Mutex::new(Script { answers, seen: Vec::new() }));
        let accepting = tokio::spawn(accept(listener, script.clone())).abort_handle();
        ScriptedServer { address, script, accepting }
    }

    pub(super) fn api(&self, credentials: Credentials) -> Api<Loopback> {
        Api::new(Loopback(self.address), credentials, Origin::new(), Redactor::new())
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    /// Returns the method and path of every request that arrived.
    pub(super) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let script = script.clone();
        let service = service_fn(move |request| answer(request, script.clone()));
        connections.spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let seen = Seen { method: head.method, path: head.uri.to_string(), headers: head.headers, body };
    let mut script = script.lock().unwrap();
    script.seen.push(seen);
    let answer = script.answers.pop_front().unwrap_or_else(|| response(599, "the script is at its end"));
    Ok(answer.map(Full::new))
}

/// An exchange that makes a connection for every request.
#[derive(Debug)]
pub(super) struct Loopback(SocketAddr);

impl Exchange for Loopback {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let failed = |kind| Error::new(kind, "exchange");
        match tokio::time::timeout(Duration::from_secs(10), self.attempt(request)).await {
            Ok(answer) => answer.map_err(|cause| failed(ErrorKind::Unavailable).with_source(cause)),
            Err(late) => Err(failed(ErrorKind::Stalled).with_source(late)),
        }
    }
}

impl Loopback {
    async fn attempt(
        &self,
        mut request: Request<Bytes>,
    ) -> std::result::Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        request.headers_mut().insert(header::HOST, self.0.to_string().parse()?);
        let stream = TcpStream::connect(self.0).await?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        tokio::pin!(connection);
        tokio::select! {
            biased;
            answer = exchange => answer,
            ended = &mut connection => Err(format!("the connection ended: {ended:?}").into()),
        }
    }
}

/// Builds an answer.
pub(super) fn response(status: u16, body: impl ToString) -> Response<Bytes> {
    Response::builder().status(status).body(body.to_string().into()).unwrap()
}

/// Returns a fixed time.
pub(super) fn start() -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START
}
