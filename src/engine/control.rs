//! The control connections: small JSON requests beside the lanes that carry the files.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;

use crate::api::{Exchange, RateLimit};
use crate::engine::counters::Counters;
use crate::engine::event_log::{AnnouncedDelay, log_call_throttle};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::pacing::{Class, Pacer, Quota, RequestKind, ServiceHealth, ThrottleReason};
use crate::session::Outcome;
use crate::transport::{AnswerLimit, Dialer, Lane, Timeouts, TransportError};

/// Idle connections to the service, one request at a time on each.
#[derive(Debug)]
pub(crate) struct Control {
    dialer: Dialer,
    patience: Timeouts,
    pacer: Rc<RefCell<Pacer>>,
    counters: Arc<Counters>,
    /// The pauses that were last logged, by class: each pause is logged once, however many calls wait.
    announced: RefCell<[AnnouncedDelay; 3]>,
    /// Oldest first.
    idle: RefCell<Vec<Lane<Full<Bytes>>>>,
    most_idle: usize,
}

impl Control {
    /// Keeps up to `most_idle` idle connections.
    pub(crate) fn new(
        dialer: Dialer,
        patience: Timeouts,
        pacer: Rc<RefCell<Pacer>>,
        counters: Arc<Counters>,
        most_idle: usize,
    ) -> Control {
        Control {
            dialer,
            patience,
            pacer,
            counters,
            announced: RefCell::default(),
            idle: RefCell::new(Vec::new()),
            most_idle,
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let mut lane = match self.take_idle() {
            Some(lane) => lane,
            None => self.dialer.dial().await.map_err(|error| failed_at(&self.dialer, error))?,
        };
        let sent = lane.send(request, &self.patience).await;
        let answer = sent.map_err(|error| failed_at(&self.dialer, error))?;
        // After an error a late answer may still arrive on the lane, and the next request would take it for its
        // own.
        self.put_back(lane);
        Ok(answer)
    }

    fn take_idle(&self) -> Option<Lane<Full<Bytes>>> {
        let mut idle = self.idle.borrow_mut();
        // The newest first: the service has most likely not closed it yet.
        while let Some(mut lane) = idle.pop() {
            // The service closes idle connections, so a closed lane is dropped.
            if lane.is_open() {
                return Some(lane);
            }
        }
        None
    }

    fn put_back(&self, mut lane: Lane<Full<Bytes>>) {
        let mut idle = self.idle.borrow_mut();
        // The oldest is not used again before the others were: nothing else would notice that it was closed.
        if idle.first_mut().is_some_and(|oldest| !oldest.is_open()) {
            idle.remove(0);
        }
        // After an answer with `Connection: close` the lane is closed (RFC 9112, section 9.6).
        if lane.is_open() && idle.len() < self.most_idle {
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

    /// Waits until the pacer allows a request of this class. Each wait is at most one window of the service.
    pub(crate) async fn turn(&self, class: Class) {
        let mut throttled = None;
        loop {
            let now = Instant::now();
            // The borrow ends before the wait: a borrow across it would panic in the next caller.
            let Some(held) = self.pacer.borrow_mut().wait(class, now) else { return };
            throttled.get_or_insert_with(|| self.counters.throttle_call(class));
            // The failed request has reported every other cause already.
            let is_news = || self.announced.borrow_mut()[class as usize].is_news(held, now);
            if held.by == ThrottleReason::Budget && is_news() {
                log_call_throttle(class, held.by, held.until - now);
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
        let permit = self.pacer.borrow_mut().started(class, RequestKind::First, Instant::now());
        let answer = self.send(request).await;
        self.counters.request_ended(class, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
        let (quota, health) = match &answer {
            Ok(answer) => {
                let rate_limit = RateLimit::from_headers(answer.headers());
                let health = match answer.status().as_u16() {
                    429 => ServiceHealth::Throttling(rate_limit.retry_after),
                    500.. => ServiceHealth::Failing,
                    // A refusal proves that the service works.
                    _ => ServiceHealth::Well,
                };
                (quota_of(&rate_limit), health)
            }
            Err(error) => (None, health_of_error(error)),
        };
        // Also after a failure: a permit that is not returned counts as under way for a minute.
        let now = Instant::now();
        self.pacer.borrow_mut().finished(permit, quota, health, now, fastrand::f64());
        self.counters.set_budget(class, self.pacer.borrow().budget(class, now));
        answer
    }
}

/// Returns the budget that a request draws on; `None` for authentication, which is not limited.
///
/// `/reference/README`, "Rate limiting"
fn class_of(request: &Request<Bytes>) -> Option<Class> {
    if request.uri().path().starts_with("/auth/") {
        None
    } else if request.method() == Method::GET {
        Some(Class::Reads)
    } else {
        Some(Class::Writes)
    }
}

/// Returns the quota in an answer's headers; `None` if the headers are incomplete.
pub(crate) fn quota_of(rate_limit: &RateLimit) -> Option<Quota> {
    // A budget beyond 32 bits limits nothing that one process can send.
    let within = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Some(Quota {
        per_minute: within(rate_limit.limit?),
        remaining: within(rate_limit.remaining?),
        resets_in: rate_limit.retry_after,
    })
}

/// Returns the health of the service that an attempt at a chunk indicates.
pub(crate) fn health_of(outcome: &Outcome) -> ServiceHealth {
    match outcome {
        Outcome::Accepted { .. } => ServiceHealth::Well,
        Outcome::Failed { error, .. } => health_of_error(error),
    }
}

fn health_of_error(error: &Error) -> ServiceHealth {
    match error.kind() {
        ErrorKind::RateLimited => ServiceHealth::Throttling(error.retry_after()),
        // A gateway's page in place of an answer shows that the service behind it is out of reach.
        ErrorKind::Connect | ErrorKind::Unavailable | ErrorKind::Stalled | ErrorKind::MalformedAnswer => {
            ServiceHealth::Failing
        }
        _ if error.refusal().is_some() => ServiceHealth::Well,
        // Cancelled, or a failure of this machine: no evidence about the service.
        _ => ServiceHealth::Unknown,
    }
}

/// Returns the error, with the host of the request if that helps to find the cause.
pub(crate) fn failed_at(dialer: &Dialer, error: TransportError) -> Error {
    if matches!(error, TransportError::TlsRefused { .. } | TransportError::Proxy { .. }) {
        // These errors name the host and the conflict already.
        return Error::from(error);
    }
    let is_cut = matches!(error, TransportError::Closed { .. } | TransportError::Reset { .. });
    let error = Error::from(error);
    // Gateways with a limit on bodies may cut the connection in place of an answer 413.
    if is_cut && dialer.is_cut_at_one_size() {
        let reason = format!("every connection ({}) is cut off at about the same size", dialer.authority());
        return error.because(reason).with_hint(Hint::SmallerChunksInNewUpload);
    }
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

/// The size limit of a read's answer: a page of a hundred videos with long descriptions, or a status of ten thousand
/// chunks, takes some MiB.
const READ_LIMIT_BYTES: usize = 16 * 1024 * 1024;
