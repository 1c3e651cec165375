//! The proxy of one dialer: the connection through it, and the form of requests to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, PROXY_AUTHORIZATION};
use http::uri::{Parts, Scheme};
use http::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::connect::{self, ConnectError, HEAD_LIMIT_BYTES};
use super::refusal::ProxyRefusal;
use super::setting::{Proxy, ProxyUrl};
use crate::transport::endpoint::Endpoint;
use crate::transport::error::{ProxyFailure, SentProgress, TransportError};
use crate::transport::history::History;
use crate::transport::tls::{self, TlsStage, Trust};

/// The proxy between a dialer and its endpoint.
///
/// An https endpoint is always reached by CONNECT. An http endpoint is reached by CONNECT too, because then the proxy
/// does not inspect requests; if the proxy refuses CONNECT before any tunnel was opened, requests are sent to it in
/// absolute form (RFC 9112, section 3.2.2) for as long as the dialer and its clones exist.
#[derive(Debug)]
pub(in crate::transport) struct Gateway {
    url: Arc<ProxyUrl>,
    /// The configuration of TLS to the proxy itself.
    tls: Option<Arc<ClientConfig>>,
    /// The facts about the proxy, not about the endpoint.
    history: Arc<History>,
    endpoint: Arc<Endpoint>,
    method: Mutex<Method>,
}

/// The way in which the proxy passes on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Undecided,
    Tunnel,
    /// CONNECT was refused, and no request in absolute form has been answered yet.
    AbsoluteUntested,
    Absolute,
}

/// The result of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Opening {
    /// The stream leads to the endpoint.
    Tunnel,
    /// The proxy refuses CONNECT: another connection has to be opened, for requests in absolute form.
    AbsoluteForm,
}

impl Gateway {
    /// Returns the gateway to `endpoint`; `None` if it is reached without a proxy.
    ///
    /// # Errors
    ///
    /// `BadCaCert`, `NoTrust` for an https proxy.
    pub(in crate::transport) fn new(
        proxy: &Proxy,
        endpoint: &Arc<Endpoint>,
        trust: &Trust,
    ) -> Result<Option<Arc<Gateway>>, TransportError> {
        let Some(url) = proxy.url_for(endpoint).cloned() else { return Ok(None) };
        let history = Arc::new(History::default());
        let tls = url.is_tls().then(|| tls::client_config(trust, &history)).transpose()?.map(Arc::new);
        tracing::info!("connecting to {} through the proxy {}", endpoint.authority(), url.authority());
        let (endpoint, method) = (endpoint.clone(), Mutex::new(Method::Undecided));
        Ok(Some(Arc::new(Gateway { url, tls, history, endpoint, method })))
    }

    pub(in crate::transport) fn host(&self) -> &str {
        self.url.host()
    }

    pub(in crate::transport) fn port(&self) -> u16 {
        self.url.port()
    }

    pub(in crate::transport) fn authority(&self) -> &str {
        self.url.authority()
    }

    /// Returns the URL of the proxy without its credentials, and the configuration of TLS to it.
    pub(in crate::transport) fn tls(&self) -> Option<(&Uri, &Arc<ClientConfig>, &History)> {
        self.tls.as_ref().map(|config| (self.url.uri(), config, &*self.history))
    }

    /// Returns `true` if new connections begin with a CONNECT.
    pub(in crate::transport) fn uses_connect(&self) -> bool {
        matches!(self.method(), Method::Undecided | Method::Tunnel)
    }

    /// Opens a tunnel to the endpoint over a connection to the proxy.
    ///
    /// # Errors
    ///
    /// `Proxy`.
    pub(in crate::transport) async fn connect<S>(
        &self,
        stream: &mut S,
        after: Duration,
    ) -> Result<Opening, TransportError>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin,
    {
        let request = self.connect_request();
        let exchange = timeout(after, async { connect::exchange(&mut TokioIo::new(stream), &request).await });
        let refused = match exchange.await {
            Err(_) => return Err(self.failed(ProxyFailure::NoAnswer { after })),
            Ok(Ok(())) => {
                self.history.note_answer(0);
                self.decide(Method::Tunnel);
                return Ok(Opening::Tunnel);
            }
            Ok(Err(error)) => error,
        };
        let ConnectError::Refused(refusal) = refused else {
            return Err(self.failed(self.failure(refused)));
        };
        // A refusal, too, shows that a proxy answers there: later failures may be temporary.
        self.history.note_answer(0);
        // Many proxies open tunnels to port 443 only (RFC 9110, section 9.3.6). Requests to an http endpoint need none.
        let may_fall_back = self.method() != Method::Tunnel && !self.endpoint.is_tls();
        if may_fall_back && refusal.is_of_connect() {
            self.decide(Method::AbsoluteUntested);
            return Ok(Opening::AbsoluteForm);
        }
        Err(self.refused(refusal))
    }

    /// Puts a request into absolute form, with the credentials for the proxy.
    pub(in crate::transport) fn address<B>(&self, request: &mut Request<B>) -> Result<(), TransportError> {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.endpoint.uri().authority().cloned();
        parts.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| TransportError::Body(error.into()))?;
        let authorization = self.url.authorization().map(|value| (PROXY_AUTHORIZATION, value.clone()));
        request.headers_mut().extend(authorization);
        Ok(())
    }

    /// Returns an error if the answer to a request in absolute form is a refusal of the proxy itself.
    ///
    /// A 407 always is. Another refusal is, if it is the proxy's first answer after it refused CONNECT and not a
    /// document of the service.
    pub(in crate::transport) fn check_answer(&self, answer: &Response<Bytes>) -> Result<(), TransportError> {
        let is_json = answer.headers().get(CONTENT_TYPE).is_some_and(|value| {
            value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("json"))
        });
        let refusal = ProxyRefusal::new(answer.status(), answer.headers(), answer.body());
        let is_untested = self.method() == Method::AbsoluteUntested;
        let is_login = answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        if is_login || is_untested && refusal.is_of_connect() && !is_json {
            return Err(self.refused(refusal));
        }
        self.decide(Method::Absolute);
        Ok(())
    }

    /// Returns the error of a failed connection to the proxy.
    pub(in crate::transport) fn unreachable(&self, error: TransportError) -> TransportError {
        self.failed(ProxyFailure::Unreachable(Box::new(error)))
    }

    fn connect_request(&self) -> Vec<u8> {
        // CONNECT always names the port (RFC 9110, section 9.3.6), unlike the endpoint's authority.
        let host = self.endpoint.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target = format!("{host}:{}", self.endpoint.port());
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {AGENT}\r\n");
        let mut request = head.into_bytes();
        if let Some(authorization) = self.url.authorization() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    fn failure(&self, error: ConnectError) -> ProxyFailure {
        match error {
            ConnectError::Refused(refusal) => ProxyFailure::Refused(refusal),
            ConnectError::Io(error) => match tls::tls_error(&error) {
                Some(tls) => ProxyFailure::Unreachable(Box::new(tls::refused(
                    self.authority(),
                    &self.history,
                    tls,
                    TlsStage::Connected,
                    SentProgress::default(),
                ))),
                None => ProxyFailure::Closed,
            },
            ConnectError::Closed => ProxyFailure::Closed,
            ConnectError::HeadTooLarge => ProxyFailure::HeadTooLarge { limit_bytes: HEAD_LIMIT_BYTES },
            ConnectError::Malformed => ProxyFailure::Malformed,
            ConnectError::Foreign(protocol) => {
                let is_final = !self.history.has_answered();
                ProxyFailure::WrongProtocol { reason: protocol.to_string(), is_final }
            }
        }
    }

    fn refused(&self, refusal: ProxyRefusal) -> TransportError {
        let words = refusal.words.map(|words| self.url.hide_secrets(&words));
        self.failed(ProxyFailure::Refused(ProxyRefusal { words, ..refusal }))
    }

    fn failed(&self, failure: ProxyFailure) -> TransportError {
        TransportError::Proxy { proxy: self.authority().to_owned(), failure }
    }

    fn method(&self) -> Method {
        *self.method.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the method, unless it is final.
    fn decide(&self, decided: Method) {
        let mut method = self.method.lock().unwrap_or_else(PoisonError::into_inner);
        // Lanes find out at the same time. A tunnel that was open once is not given up for a later refusal.
        let is_news = match *method {
            Method::Undecided => true,
            Method::AbsoluteUntested => decided == Method::Absolute,
            Method::Tunnel | Method::Absolute => false,
        };
        if !is_news {
            return;
        }
        *method = decided;
        let proxy = self.authority();
        match decided {
            Method::Tunnel => tracing::info!("the proxy {proxy} opens tunnels (CONNECT)"),
            Method::AbsoluteUntested => {
                tracing::info!("the proxy {proxy} refuses CONNECT: sending it requests in absolute form");
            }
            Method::Undecided | Method::Absolute => {}
        }
    }
}

/// The same name as that of the requests to the service. Proxies refuse requests without one.
const AGENT: &str = concat!("ringlift/", env!("CARGO_PKG_VERSION"));
