//! One HTTP/1.1 connection that carries one request at a time.
//!
//! The lane polls hyper's connection inside `send`: no task is spawned, so nothing outlives the lane.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{Request, Response};
use http_body::Body;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper::rt::{Read as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer;
use super::error::{BoxError, TransportError};
use super::limits::{ANSWER_LIMIT_BYTES, AnswerLimit, TLS_SEND_BUFFER_BYTES};
use super::metered::{MeteredBody, MeteredStream};
use super::peer::Peer;
use super::region::FileRegion;
use super::request_state::{RequestState, SentCounter};
use super::timeouts::{ProgressMonitor, TimeoutKind, Timeouts};
use super::tls::{self, LaneStream, TlsStage};

/// An open connection, kept alive between requests. Dropping it closes it at once.
///
/// Lanes need not be `Send`, and neither do the bodies: a lane lives on the thread that dialed it.
pub struct Lane<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    /// `None` once the lane is closed, and during a request.
    connection: Option<HttpConnection<B>>,
    state: Arc<RequestState>,
    peer: Peer,
    is_tls: bool,
}

impl<B> Lane<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) async fn open(
        stream: LaneStream,
        state: Arc<RequestState>,
        peer: Peer,
    ) -> Result<Lane<B>, TransportError> {
        let is_tls = tls::is_encrypted(&stream);
        let stream = MeteredStream::new(stream, state.clone());
        let mut builder = http1::Builder::new();
        // RFC 9112, section 5.2: a user agent MUST read a folded line as one with a space.
        builder.allow_obsolete_multiline_headers_in_responses(true);
        // A body that is read further than TLS takes at once leaves the processor's cache before it is encrypted.
        builder.max_buf_size(TLS_SEND_BUFFER_BYTES);
        if let Some(limit) = peer.history.header_lines_limit() {
            builder.max_headers(limit);
        }
        let (sender, driver) =
            builder.handshake(stream).await.map_err(|_| TransportError::Closed { sent: state.sent() })?;
        let connection = HttpConnection { sender, driver, is_over: false, tls_error: None };
        Ok(Lane { connection: Some(connection), state, peer, is_tls })
    }

    /// Sends `request` and reads the whole answer, whatever its status, with at most
    /// `ANSWER_LIMIT_BYTES` of body.
    ///
    /// The target is given in origin form, and is put into absolute form for a proxy that needs it. `Host` is added if
    /// it is missing, and the endpoint's cookies. A refusal that arrives during the body stops the body and is returned. A success that arrives
    /// early is returned after the rest of the request is sent, because the server cannot have stored it
    /// before.
    ///
    /// After an error, an early refusal or an answer with `Connection: close`, the lane is closed. Dropping
    /// the future closes it too: the server may then have received any part of the request, or all of it.
    ///
    /// # Errors
    ///
    /// `Proxy`, and the variants of `TransportError` from `Stalled` on; `Closed` with nothing sent if the lane was
    /// closed already.
    pub async fn send(
        &mut self,
        mut request: Request<B>,
        timeouts: &Timeouts,
    ) -> Result<Response<Bytes>, TransportError> {
        // Taken out until the request is complete: an error or a dropped future leaves the lane closed.
        let mut connection =
            self.connection.take().filter(|connection| !connection.is_over).ok_or_else(closed)?;
        if let Err(closed) = connection.check_still_open().await {
            return Err(self.with_peer_reason(closed, connection).await);
        }
        let target = request.uri().to_string();
        let Peer { endpoint, history, gateway, .. } = &self.peer;
        let headers = request.headers_mut();
        // HTTP/1.1 requires Host (RFC 9112, section 3.2); hyper's low-level client does not add it.
        headers.entry(HOST).or_insert_with(|| endpoint.header().clone());
        headers.extend(history.cookies().header(&target, Instant::now()).map(|cookies| (COOKIE, cookies)));
        if let Some(gateway) = gateway {
            gateway.address(&mut request)?;
        }
        let answer = match connection.exchange(request, &self.state, timeouts, &self.peer).await {
            Ok(answer) => answer,
            Err(error) => {
                self.note_cut(&error);
                return Err(self.with_peer_reason(error, connection).await);
            }
        };
        if let Some(gateway) = gateway {
            gateway.check_answer(&answer)?;
        }
        history.cut_sizes().note_passed(self.state.sent().body_bytes);
        history.cookies().take(answer.headers(), endpoint, &target, Instant::now());
        if connection.is_reusable(&self.state).await {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    /// Records the size at which a request was cut off, to detect a limit of a firewall or proxy.
    fn note_cut(&self, error: &TransportError) {
        if let TransportError::Closed { sent } | TransportError::Reset { sent } = error
            && !sent.whole
        {
            self.peer.history.cut_sizes().note_cut(sent.body_bytes);
        }
    }

    /// Replaces a lost connection's error by the final reason that the peer gave, if any.
    async fn with_peer_reason(&self, error: TransportError, connection: HttpConnection<B>) -> TransportError {
        if !matches!(error, TransportError::Closed { .. } | TransportError::Reset { .. }) {
            return error;
        }
        if let Some(wrong) = answer::wrong_protocol(&self.state, &self.peer) {
            return wrong;
        }
        let Peer { authority, history, .. } = &self.peer;
        let tls = if self.is_tls { connection.tls_error().await } else { None };
        let refusal = tls.and_then(|tls| tls::refusal(authority, history, &tls, TlsStage::Connected));
        refusal.unwrap_or(error)
    }

    /// Returns `true` if a request can be sent, to this side's knowledge.
    ///
    /// Detects a close by the server without waiting. Data that reached the socket after the runtime's last
    /// turn is detected by the next [`send`](Self::send).
    pub fn is_open(&mut self) -> bool {
        if let Some(connection) = &mut self.connection {
            connection.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.connection.as_ref().is_some_and(|connection| !connection.is_over)
    }

    /// Returns the counter of sent bytes, which is the same for all requests of the lane.
    pub fn sent(&self) -> Arc<SentCounter> {
        self.state.sent_counter()
    }

    /// Sends slices inside `region` from its file, from the next request on. Has no effect on TLS lanes.
    pub fn set_file_region(&mut self, region: Option<FileRegion>) {
        if !self.is_tls {
            self.state.set_file_region(region);
        }
    }

    /// Returns the server's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer.address
    }
}

impl<B> fmt::Debug for Lane<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("peer", &self.peer).field("is_tls", &self.is_tls).finish_non_exhaustive()
    }
}

struct HttpConnection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    sender: SendRequest<MeteredBody<B>>,
    driver: Connection<MeteredStream<LaneStream>, MeteredBody<B>>,
    /// `true` if the driver has completed and must not be polled again.
    is_over: bool,
    /// The TLS error that ended the connection while no request was in flight.
    tls_error: Option<rustls::Error>,
}

impl<B> HttpConnection<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    /// Yields to the runtime once, so that a close by the server during idle time is detected.
    async fn check_still_open(&mut self) -> Result<(), TransportError> {
        tokio::task::yield_now().await;
        self.drive_once().await;
        if self.is_over || !self.sender.is_ready() { Err(closed()) } else { Ok(()) }
    }

    async fn exchange(
        &mut self,
        request: Request<B>,
        state: &Arc<RequestState>,
        timeouts: &Timeouts,
        peer: &Peer,
    ) -> Result<Response<Bytes>, TransportError> {
        let announced = announced_len(&request);
        let (head, body) = request.into_parts();
        let limit = head.extensions.get().copied().unwrap_or(AnswerLimit(ANSWER_LIMIT_BYTES));
        let body = MeteredBody::new(body, announced, state.clone())
            .map_err(|wrong| TransportError::Body(wrong.into()))?;
        let reply = self.sender.send_request(Request::from_parts(head, body));
        let mut answer = pin!(answer::collect(reply, state, peer, limit));
        let mut answered = None;
        let mut timer = Timer::new(*timeouts, state);
        poll_fn(|cx| {
            // The driver first: it delivers the answer that is polled next.
            self.drive(cx);
            if answered.is_none()
                && let Poll::Ready(answer) = answer.as_mut().poll(cx)
            {
                answered = Some(answer?);
            }
            // An early success is kept until the rest of the request is sent; an early refusal stops the request
            // (RFC 9112, section 9.5).
            match answered.take_if(|_| state.is_fully_sent() || state.is_stopped()) {
                Some(answer) => Poll::Ready(Ok(answer)),
                None if answered.is_some() && (self.is_over || state.write_error().is_some()) => {
                    Poll::Ready(Err(answer::ended(state)))
                }
                None => timer.poll(cx, state).map(Err),
            }
        })
        .await
    }

    /// Returns `true` if hyper is ready for another request. It becomes idle only when polled after the
    /// answer's last byte.
    async fn is_reusable(&mut self, state: &RequestState) -> bool {
        self.drive_once().await;
        state.is_fully_sent() && !self.is_over && self.sender.is_ready()
    }

    async fn drive_once(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Polls the driver. During a request, its answer receives the connection's error.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.is_over
            && let Poll::Ready(ended) = Pin::new(&mut self.driver).poll(cx)
        {
            self.is_over = true;
            self.tls_error = ended.err().and_then(|error| tls::tls_error(&error).cloned());
        }
    }

    /// Returns the TLS error of a lost connection, including an unread one: a write may have failed before
    /// the peer's alert was read.
    async fn tls_error(self) -> Option<rustls::Error> {
        if self.tls_error.is_some() {
            return self.tls_error;
        }
        // The runtime has to poll the socket before it can be read.
        tokio::task::yield_now().await;
        let mut stream = self.driver.into_parts().io;
        poll_fn(|cx| {
            for _ in 0..UNREAD_READS {
                let mut bytes = [0; UNREAD_BYTES];
                let mut buf = ReadBuf::new(&mut bytes);
                match Pin::new(&mut stream).poll_read(cx, buf.unfilled()) {
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(tls::tls_error(&error).cloned()),
                    Poll::Ready(Ok(())) | Poll::Pending => break,
                }
            }
            Poll::Ready(None)
        })
        .await
    }
}

/// A progress monitor and the timer that wakes it.
struct Timer {
    monitor: ProgressMonitor,
    alarm: Pin<Box<Sleep>>,
}

impl Timer {
    fn new(timeouts: Timeouts, state: &RequestState) -> Timer {
        let now = Instant::now();
        Timer {
            monitor: ProgressMonitor::new(timeouts, state.snapshot(), now),
            alarm: Box::pin(sleep_until(now)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, state: &RequestState) -> Poll<TransportError> {
        loop {
            match self.monitor.check(state.snapshot(), Instant::now()) {
                Err(kind) => return Poll::Ready(timeout_error(kind, state)),
                Ok(deadline) if deadline != self.alarm.deadline() => self.alarm.as_mut().reset(deadline),
                Ok(_) => {}
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn announced_len<B>(request: &Request<B>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn timeout_error(kind: TimeoutKind, state: &RequestState) -> TransportError {
    let sent = state.sent();
    match kind {
        TimeoutKind::Stalled(after) => TransportError::Stalled { after, sent },
        TimeoutKind::BodyStalled(after) => TransportError::BodyStalled { after, sent },
        TimeoutKind::NoAnswer(after) => TransportError::NoAnswer { after, sent },
        TimeoutKind::TooSlow(minimum) => {
            TransportError::TooSlow { minimum_bytes_per_s: minimum.bytes_per_s, window: minimum.window, sent }
        }
    }
}

fn closed() -> TransportError {
    TransportError::Closed { sent: Default::default() }
}

/// The limits on reading from a lost connection; an answer's data before the alert is dropped.
const UNREAD_READS: usize = 16;
const UNREAD_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
