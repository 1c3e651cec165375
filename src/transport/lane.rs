//! One HTTP/1.1 connection that carries one request at a time.
//!
//! The lane drives hyper's connection inside `send`: no task is spawned, so nothing outlives the lane.

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
use hyper_rustls::MaybeHttpsStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer;
use super::error::{BoxError, TransportError};
use super::limits::{ANSWER_LIMIT_BYTES, AnswerLimit};
use super::metered::{MeteredBody, MeteredStream};
use super::patience::{Patience, Verdict, Watch};
use super::peer::Peer;
use super::region::FileRegion;
use super::request_state::{Meter, SentCounter};
use super::socket::Socket;
use super::tls::{self, Stage};

/// An open connection, kept alive between requests. Dropping it closes it at once.
///
/// Lanes need not be `Send`, and neither do the bodies: a lane lives on the thread that dialed it.
pub struct Lane<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    /// Absent once the lane is closed, and while a request is on its way.
    link: Option<Link<B>>,
    meter: Arc<Meter>,
    peer: Peer,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
}

impl<B> Lane<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) async fn open(
        stream: MaybeHttpsStream<Socket>,
        meter: Arc<Meter>,
        peer: Peer,
    ) -> Result<Lane<B>, TransportError> {
        let kind = match stream {
            MaybeHttpsStream::Http(_) => Kind::Plain,
            MaybeHttpsStream::Https(_) => Kind::Tls,
        };
        let stream = MeteredStream::new(stream, meter.clone());
        let mut builder = http1::Builder::new();
        // RFC 9112, section 5.2: a user agent MUST read a folded line as one with a space.
        builder.allow_obsolete_multiline_headers_in_responses(true);
        if let Some(limit) = peer.history.header_lines_limit() {
            builder.max_headers(limit);
        }
        let (sender, connection) =
            builder.handshake(stream).await.map_err(|_| TransportError::Closed { sent: meter.sent() })?;
        let link = Link { sender, connection, is_over: false, tls_error: None };
        Ok(Lane { link: Some(link), meter, peer, kind })
    }

    /// Sends `request` and collects its answer, whatever its status, with at most
    /// [`ANSWER_LIMIT_BYTES`] of body.
    ///
    /// The target is taken as it is, in origin form; `Host` is added when it is missing, and the endpoint's
    /// cookies. A refusal that comes
    /// while the body still flows stops the body and is returned. A success that comes early is returned once
    /// the rest of the request is sent, for until then the server cannot have it.
    ///
    /// After an error, an early refusal or an answer that says so, the lane is closed. Dropping the future
    /// closes it too: the server may then hold any part of the request, and all of it when
    /// [`sent`](Self::sent) says so.
    ///
    /// # Errors
    ///
    /// Those of [`TransportError`] from `Stalled` on; `Closed` with nothing sent when the lane was closed already.
    pub async fn send(
        &mut self,
        mut request: Request<B>,
        patience: &Patience,
    ) -> Result<Response<Bytes>, TransportError> {
        let mut link = self.link.take().filter(|link| !link.is_over).ok_or_else(closed)?;
        if let Err(closed) = link.wake_up().await {
            return Err(self.explained(closed, link).await);
        }
        let target = request.uri().to_string();
        let Peer { endpoint, history, .. } = &self.peer;
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| endpoint.header().clone());
        headers.extend(history.cookies().header(&target).map(|cookies| (COOKIE, cookies)));
        let answer = match link.exchange(request, &self.meter, patience, &self.peer).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.explained(error, link).await),
        };
        history.cookies().take(answer.headers(), endpoint, &target);
        if link.is_reusable(&self.meter).await {
            self.link = Some(link);
        }
        Ok(answer)
    }

    /// Replaces the loss of the connection by the final reason that the peer gave for it, if it gave one.
    async fn explained(&self, error: TransportError, link: Link<B>) -> TransportError {
        if !matches!(error, TransportError::Closed { .. } | TransportError::Reset { .. }) {
            return error;
        }
        if let Some(wrong) = answer::wrong_protocol(&self.meter, &self.peer) {
            return wrong;
        }
        let Peer { authority, history, .. } = &self.peer;
        let tls = if self.kind == Kind::Tls { link.tls_error().await } else { None };
        let refusal = tls.and_then(|tls| tls::refusal(authority, history, &tls, Stage::Connected));
        refusal.unwrap_or(error)
    }

    /// Whether a request can be sent, as far as this side knows.
    ///
    /// Looks for an end that the server has made since, without waiting; what reached the socket after the
    /// runtime's last turn is found by the next [`send`](Self::send).
    pub fn is_open(&mut self) -> bool {
        if let Some(link) = &mut self.link {
            link.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.link.as_ref().is_some_and(|link| !link.is_over)
    }

    /// The counter of what the present request has sent. It stays the same for all requests of the lane.
    pub fn sent(&self) -> Arc<SentCounter> {
        self.meter.sent_counter()
    }

    /// From the next request on, slices inside `region` are sent from its file. Without effect on TLS lanes.
    pub fn serve_from(&mut self, region: Option<FileRegion>) {
        if self.kind == Kind::Plain {
            self.meter.serve_from(region);
        }
    }

    /// The address at the other end.
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
        f.debug_struct("Lane").field("peer", &self.peer).field("kind", &self.kind).finish_non_exhaustive()
    }
}

struct Link<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    sender: SendRequest<MeteredBody<B>>,
    connection: Connection<MeteredStream<MaybeHttpsStream<Socket>>, MeteredBody<B>>,
    /// The connection has completed and must not be polled again.
    is_over: bool,
    /// The TLS error that ended the connection while no request was there to have it.
    tls_error: Option<rustls::Error>,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    /// Lets the runtime look at its sockets, so that an end the server made while the lane was idle is seen.
    async fn wake_up(&mut self) -> Result<(), TransportError> {
        tokio::task::yield_now().await;
        self.drive_once().await;
        if self.is_over || !self.sender.is_ready() { Err(closed()) } else { Ok(()) }
    }

    async fn exchange(
        &mut self,
        request: Request<B>,
        meter: &Arc<Meter>,
        patience: &Patience,
        peer: &Peer,
    ) -> Result<Response<Bytes>, TransportError> {
        let announced = announced_len(&request);
        let (head, body) = request.into_parts();
        let limit = head.extensions.get().copied().unwrap_or(AnswerLimit(ANSWER_LIMIT_BYTES));
        let body = MeteredBody::new(body, announced, meter.clone())
            .map_err(|wrong| TransportError::Body(wrong.into()))?;
        let reply = self.sender.send_request(Request::from_parts(head, body));
        let mut answer = pin!(answer::collect(reply, meter, peer, limit));
        let mut answered = None;
        let mut timer = Timer::new(*patience, meter);
        poll_fn(|cx| {
            self.drive(cx);
            if answered.is_none()
                && let Poll::Ready(answer) = answer.as_mut().poll(cx)
            {
                answered = Some(answer?);
            }
            match answered.take_if(|_| meter.is_whole() || meter.is_held()) {
                Some(answer) => Poll::Ready(Ok(answer)),
                None if answered.is_some() && (self.is_over || meter.write_error().is_some()) => {
                    Poll::Ready(Err(answer::ended(meter)))
                }
                None => timer.poll(cx, meter).map(Err),
            }
        })
        .await
    }

    /// Whether hyper is ready for another request. It goes idle only when polled after the answer's last byte.
    async fn is_reusable(&mut self, meter: &Meter) -> bool {
        self.drive_once().await;
        meter.is_whole() && !self.is_over && self.sender.is_ready()
    }

    async fn drive_once(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Moves the connection. While a request is under way, its answer has the connection's error.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.is_over
            && let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx)
        {
            self.is_over = true;
            self.tls_error = ended.err().and_then(|error| tls::tls_error(&error).cloned());
        }
    }

    /// The TLS error of a connection that is lost, also one that is still to be read: a write that failed
    /// came before the alert that the peer had sent.
    async fn tls_error(self) -> Option<rustls::Error> {
        if self.tls_error.is_some() {
            return self.tls_error;
        }
        // The runtime has to look at the socket before it is read.
        tokio::task::yield_now().await;
        let mut stream = self.connection.into_parts().io;
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

/// A watch and the alarm that wakes it.
struct Timer {
    watch: Watch,
    alarm: Pin<Box<Sleep>>,
}

impl Timer {
    fn new(patience: Patience, meter: &Meter) -> Timer {
        let now = Instant::now();
        Timer { watch: Watch::new(patience, meter.seen(), now), alarm: Box::pin(sleep_until(now)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, meter: &Meter) -> Poll<TransportError> {
        loop {
            match self.watch.look(meter.seen(), Instant::now()) {
                Err(verdict) => return Poll::Ready(given_up(verdict, meter)),
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

fn given_up(verdict: Verdict, meter: &Meter) -> TransportError {
    let sent = meter.sent();
    match verdict {
        Verdict::Stalled(after) => TransportError::Stalled { after, sent },
        Verdict::BodyStalled(after) => TransportError::BodyStalled { after, sent },
        Verdict::NoAnswer(after) => TransportError::NoAnswer { after, sent },
        Verdict::TooSlow(minimum) => {
            TransportError::TooSlow { minimum_bytes_per_s: minimum.bytes_per_s, window: minimum.window, sent }
        }
    }
}

fn closed() -> TransportError {
    TransportError::Closed { sent: Default::default() }
}

/// What is read of a lost connection: an answer's data before the alert is of no use any more.
const UNREAD_READS: usize = 16;
const UNREAD_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
