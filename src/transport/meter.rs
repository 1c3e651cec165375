//! What one request's body, stream and socket tell the lane that drives them.
//!
//! hyper owns all three and hands none back, so they share a [`Meter`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::Instant;

use super::error::{BoxError, Sent};
use super::opening::{Foreign, OPENING_BYTES, Opening};
use super::patience::{Phase, Seen};
use super::sendfile::{FileFailure, FileRegion};

/// How much of the present request the connection has accepted, readable from any thread.
///
/// Plaintext bytes: over TLS they may wait in the record buffer for a while before they leave.
/// Both counts start again with each request; a chunked body is counted with its framing.
#[derive(Debug, Default)]
pub struct SentCounter {
    head: AtomicU64,
    body: AtomicU64,
}

impl SentCounter {
    /// Bytes of the request line and the headers.
    pub fn head_bytes(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> u64 {
        self.body.load(Ordering::Relaxed)
    }

    fn restart(&self) {
        self.head.store(0, Ordering::Relaxed);
        self.body.store(0, Ordering::Relaxed);
    }
}

/// The ledger of one lane. Its lock is never contended: all parties live on the lane's thread.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: Arc<SentCounter>,
    marks: Mutex<Marks>,
    /// The protocol that the connection's first bytes are of, if that is not HTTP.
    foreign: OnceLock<Foreign>,
}

#[derive(Debug, Default)]
struct Marks {
    body: BodyState,
    /// Bytes of the head still to be written; unknown until the first write shows the head.
    head_left: Option<usize>,
    /// Accepted by the stream, and perhaps not yet by the socket.
    unflushed: bool,
    whole: bool,
    held: bool,
    /// Until when a limit of ours keeps the socket from taking bytes.
    throttled_until: Option<Instant>,
    socket_bytes: u64,
    write_error: Option<io::ErrorKind>,
    file_failure: Option<FileFailure>,
    body_error: Option<BoxError>,
    region: Option<FileRegion>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyState {
    Flowing,
    /// Asked for a frame and had none ready.
    Waiting,
    #[default]
    Ended,
}

impl Meter {
    /// The counter to give out.
    pub(super) fn sent_counter(&self) -> Arc<SentCounter> {
        self.sent.clone()
    }

    /// How far the present request has come.
    pub(super) fn sent(&self) -> Sent {
        Sent { body_bytes: self.sent.body_bytes(), whole: self.marks().whole }
    }

    /// Whether the socket has accepted the whole request.
    pub(super) fn is_whole(&self) -> bool {
        self.marks().whole
    }

    /// Whether a part of the present request has been written, and not the whole.
    pub(super) fn is_broken_off(&self) -> bool {
        let marks = self.marks();
        marks.head_left.is_some() && !marks.whole
    }

    /// What the watch has to know.
    pub(super) fn seen(&self) -> Seen {
        let marks = self.marks();
        let phase = match marks.body {
            _ if marks.whole || marks.held => Phase::AwaitingAnswer,
            BodyState::Waiting if !marks.unflushed => Phase::AwaitingBody,
            _ => marks.throttled_until.map_or(Phase::Flowing, Phase::HeldBack),
        };
        Seen { phase, socket_bytes: marks.socket_bytes }
    }

    /// From now on nothing more is written: the answer has made the rest of the request pointless.
    pub(super) fn hold(&self) {
        self.marks().held = true;
    }

    /// Whether [`hold`](Self::hold) was called for the present request.
    pub(super) fn is_held(&self) -> bool {
        self.marks().held
    }

    /// The slices that the socket may take from a file.
    pub(super) fn serve_from(&self, region: Option<FileRegion>) {
        self.marks().region = region;
    }

    /// What [`serve_from`](Self::serve_from) was last told.
    pub(super) fn region(&self) -> Option<FileRegion> {
        self.marks().region.clone()
    }

    /// The socket has accepted `len` bytes.
    pub(super) fn socket_wrote(&self, len: usize) {
        self.marks().socket_bytes += len as u64;
    }

    /// Until when the socket may not take bytes; `None` when it may.
    pub(super) fn throttled(&self, until: Option<Instant>) {
        self.marks().throttled_until = until;
    }

    /// Writing to the socket failed because its peer is gone.
    pub(super) fn write_failed(&self, kind: io::ErrorKind) {
        self.marks().write_error = Some(kind);
    }

    /// Why writing stopped, if it did.
    pub(super) fn write_error(&self) -> Option<io::ErrorKind> {
        self.marks().write_error
    }

    /// The file behind the region failed.
    pub(super) fn file_failed(&self, failure: FileFailure) {
        self.marks().file_failure = Some(failure);
    }

    /// The failure of the file, once.
    pub(super) fn take_file_failure(&self) -> Option<FileFailure> {
        self.marks().file_failure.take()
    }

    /// The failure of the body, once.
    pub(super) fn take_body_error(&self) -> Option<BoxError> {
        self.marks().body_error.take()
    }

    /// The protocol that the peer speaks instead of HTTP, if it does.
    pub(super) fn foreign(&self) -> Option<Foreign> {
        self.foreign.get().copied()
    }

    fn begin(&self, body: BodyState) {
        self.sent.restart();
        let mut marks = self.marks();
        let (region, socket_bytes) = (marks.region.take(), marks.socket_bytes);
        *marks = Marks { body, region, socket_bytes, ..Marks::default() };
    }

    /// The stream has accepted `len` bytes, the first of them from a slice of `first` bytes.
    fn accepted(&self, first: usize, len: usize) {
        let mut marks = self.marks();
        // hyper writes the whole head as the first slice of a request's first write.
        let head_left = marks.head_left.unwrap_or(first);
        let head = head_left.min(len);
        marks.head_left = Some(head_left - head);
        marks.unflushed = true;
        self.sent.head.fetch_add(head as u64, Ordering::Relaxed);
        self.sent.body.fetch_add((len - head) as u64, Ordering::Relaxed);
    }

    /// The socket has all that the stream had accepted, and hyper has nothing more for it now.
    fn flushed(&self) {
        let mut marks = self.marks();
        marks.unflushed = false;
        marks.whole |= marks.body == BodyState::Ended && marks.head_left == Some(0);
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream under hyper: counts what it accepts, stops when the meter is held, and looks at the first bytes
/// that come back.
pub(super) struct MeteredStream<S> {
    stream: S,
    meter: Arc<Meter>,
    opening: Opening,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(stream: S, meter: Arc<Meter>) -> MeteredStream<S> {
        MeteredStream { stream, meter, opening: Opening::default() }
    }
}

impl<S: Read + Unpin> Read for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.opening.is_decided() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let mut bytes = [0; OPENING_BYTES];
        let room = buf.remaining().min(OPENING_BYTES);
        let mut first = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, first.unfilled()))?;
        if let Some(foreign) = self.opening.look(first.filled()) {
            self.meter.foreign.get_or_init(|| foreign);
        }
        buf.put_slice(first.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for MeteredStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.meter.is_held() {
            return Poll::Pending;
        }
        let first = bufs.iter().map(|buf| buf.len()).find(|len| *len > 0).unwrap_or(0);
        let len = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.meter.accepted(first, len);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.meter.is_held() {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.meter.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body: notes when it waits and when it ends, keeps its error for the lane, and holds it to the
/// length that was announced, for hyper cuts what is too long and says nothing of what is too short.
pub(super) struct MeteredBody<B> {
    body: Pin<Box<B>>,
    /// Bytes to come, when they are known.
    left: Option<u64>,
    meter: Arc<Meter>,
}

impl<B> MeteredBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Begins a request on `meter`, with the `Content-Length` that its head names.
    pub(super) fn new(
        body: B,
        announced: Option<u64>,
        meter: Arc<Meter>,
    ) -> Result<MeteredBody<B>, WrongLength> {
        let exact = body.size_hint().exact();
        if let (Some(announced), Some(len)) = (announced, exact)
            && announced != len
        {
            return Err(WrongLength::Announced { announced, len });
        }
        let body = MeteredBody { body: Box::pin(body), left: announced.or(exact), meter };
        body.meter.begin(body.state());
        Ok(body)
    }

    fn state(&self) -> BodyState {
        if self.is_end_stream() { BodyState::Ended } else { BodyState::Flowing }
    }

    fn settle(&self, state: BodyState) {
        self.meter.marks().body = state;
    }

    fn fail(&self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        self.meter.marks().body_error = Some(error);
        Poll::Ready(Some(Err(BodyFailed)))
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        match self.left.map(|left| left.checked_sub(len)) {
            Some(None) => return self.fail(WrongLength::Long.into()),
            left => self.left = left.flatten(),
        }
        self.settle(self.state());
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&self) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        match self.left {
            Some(missing @ 1..) => self.fail(WrongLength::Short { missing }.into()),
            _ => {
                self.settle(BodyState::Ended);
                Poll::Ready(None)
            }
        }
    }
}

impl<B> Body for MeteredBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        match self.body.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => self.pass(frame),
            Poll::Ready(Some(Err(error))) => self.fail(error.into()),
            Poll::Ready(None) => self.end(),
            Poll::Pending => {
                self.settle(BodyState::Waiting);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.map_or_else(|| self.body.is_end_stream(), |left| left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(|| self.body.size_hint(), SizeHint::with_exact)
    }
}

/// Stands in hyper for the body's own error, which the meter keeps.
#[derive(Debug, thiserror::Error)]
#[error("the request's body failed")]
pub(super) struct BodyFailed;

/// A body that is not as long as its head says.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongLength {
    #[error("the body is {len} bytes long, its Content-Length is {announced}")]
    Announced { announced: u64, len: u64 },
    #[error("the body is longer than announced")]
    Long,
    #[error("the body is {missing} bytes shorter than announced")]
    Short { missing: u64 },
}
