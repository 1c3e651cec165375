//! The control connections: small JSON requests beside the lanes that carry the files.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;

use crate::api::{Exchange, RateLimit};
use crate::engine::event_log::{AnnouncedDelay, log_throttle};
use crate::error::{Error, ErrorKind, Result};
use crate::pacing::{Class, Pacer, Quota, RequestKind, ServiceHealth, ThrottleReason};
use crate::session::Outcome;
use crate::transport::{AnswerLimit, Dialer, Lane, Patience, TransportError};

/// Idle connections to the service, one request at a time on each.
#[derive(Debug)]
pub(crate) struct Control {
    dialer: Dialer,
    patience: Patience,
    pace: Rc<RefCell<Pacer>>,
    idle: RefCell<Vec<Lane<Full<Bytes>>>>,
}

impl Control {
    pub(crate) fn new(dialer: Dialer, patience: Patience, pace: Rc<RefCell<Pacer>>) -> Control {
        Control { dialer, patience, pace, idle: RefCell::new(Vec::new()) }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let mut lane = match self.take_idle() {
            Some(lane) => lane,
            None => self.dialer.dial().await.map_err(|error| failed_at(&self.dialer, error))?,
        };
        let sent = lane.send(request, &self.patience).await;
        let answer = sent.map_err(|error| failed_at(&self.dialer, error))?;
        self.put_back(lane);
        Ok(answer)
    }

    fn take_idle(&self) -> Option<Lane<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut lane) = idle.pop() {
            if lane.is_open() {
                return Some(lane);
            }
        }
        None
    }

    fn put_back(&self, mut lane: Lane<Full<Bytes>>) {
        let mut idle = self.idle.borrow_mut();
        if lane.is_open() && idle.len() < IDLE_LANES {
            idle.push(lane);
        }
    }

    fn address(&self, request: Request<Bytes>) -> Result<Request<Full<Bytes>>> {
        let unusable = |error: http::Error| {
            Error::new(ErrorKind::InvalidInput, "address the request").with_source(error)
        };
        let (mut head, body) = request.into_parts();
        head.uri = Uri::try_from(self.dialer.path(&head.uri.to_string())).map_err(|e| unusable(e.into()))?;
        let host = HeaderValue::try_from(self.dialer.authority()).map_err(|e| unusable(e.into()))?;
        head.headers.insert(header::HOST, host);
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok(Request::from_parts(head, Full::new(body)))
    }

    /// Waits for the class's turn; the pace says no for at most one window of the service at a time.
    async fn turn(&self, class: Class) {
        let mut told = AnnouncedDelay::default();
        loop {
            let now = Instant::now();
            let Some(held) = self.pace.borrow_mut().delay(class, now) else { return };
            // Of everything else the failed request tells.
            if held.by == ThrottleReason::Budget && told.is_news(held, now) {
                log_throttle(class, held.by, held.until - now);
            }
            tokio::time::sleep_until(held.until.into()).await;
        }
    }
}

impl Exchange for Control {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let Some(class) = class_of(&request) else { return self.send(self.address(request)?).await };
        let mut request = self.address(request)?;
        if class == Class::Reads {
            request.extensions_mut().insert(AnswerLimit(READ_LIMIT_BYTES));
        }
        self.turn(class).await;
        let pass = self.pace.borrow_mut().started(class, RequestKind::First, Instant::now());
        let answer = self.send(request).await;
        let (quota, health) = match &answer {
            Ok(answer) => {
                let rate_limit = RateLimit::from_headers(answer.headers());
                let health = match answer.status().as_u16() {
                    429 => ServiceHealth::Throttling(rate_limit.retry_after),
                    500.. => ServiceHealth::Failing,
                    _ => ServiceHealth::Well,
                };
                (quota_of(&rate_limit), health)
            }
            Err(error) => (None, health_of_error(error)),
        };
        self.pace.borrow_mut().finished(pass, quota, health, Instant::now(), fastrand::f64());
        answer
    }
}

/// The budget that a request draws on; those that authenticate draw on none.
///
/// `/reference/README`, "Rate limiting"
fn class_of(request: &Request<Bytes>) -> Option<Class> {
    match request.uri().path().starts_with("/auth/") {
        true => None,
        false if request.method() == Method::GET => Some(Class::Reads),
        false => Some(Class::Writes),
    }
}

/// What the headers of an answer say, where they say all of it.
pub(crate) fn quota_of(rate_limit: &RateLimit) -> Option<Quota> {
    let within = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Some(Quota {
        per_minute: within(rate_limit.limit?),
        remaining: within(rate_limit.remaining?),
        resets_in: rate_limit.retry_after,
    })
}

/// What an attempt at a chunk says about the service.
pub(crate) fn health_of(outcome: &Outcome) -> ServiceHealth {
    match outcome {
        Outcome::Accepted { .. } => ServiceHealth::Well,
        Outcome::Failed { error, .. } => health_of_error(error),
    }
}

fn health_of_error(error: &Error) -> ServiceHealth {
    match error.kind() {
        ErrorKind::RateLimited => ServiceHealth::Throttling(error.retry_after()),
        ErrorKind::Connect | ErrorKind::Unavailable | ErrorKind::Stalled | ErrorKind::MalformedAnswer => {
            ServiceHealth::Failing
        }
        _ if error.refusal().is_some() => ServiceHealth::Well,
        _ => ServiceHealth::Unknown,
    }
}

/// The error, with the host that the request went to where that tells what to check.
pub(crate) fn failed_at(dialer: &Dialer, error: TransportError) -> Error {
    if matches!(error, TransportError::TlsRefused { .. }) {
        // It names the host, and what the two cannot agree on.
        return Error::from(error);
    }
    let error = Error::from(error);
    match error.kind() {
        kind @ (ErrorKind::Connect
        | ErrorKind::Unavailable
        | ErrorKind::Stalled
        | ErrorKind::MalformedAnswer
        | ErrorKind::WrongProtocol
        | ErrorKind::Untrusted) => error.because(format!("{kind} ({})", dialer.authority())),
        _ => error,
    }
}

/// More idle connections than calls at once are of no use.
const IDLE_LANES: usize = 4;

/// A page of a hundred videos with long descriptions, and a status of ten thousand chunks, are some MiB.
const READ_LIMIT_BYTES: usize = 16 * 1024 * 1024;
