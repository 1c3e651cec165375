//! The stream and the body under hyper, which record their progress in the request's state.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use super::error::BoxError;
use super::protocol::{DETECTION_BYTES, ProtocolDetector};
use super::request_state::{BodyState, RequestState};

/// The stream under hyper. It counts accepted bytes, stops writing when the request is stopped, and inspects
/// the first bytes received.
pub(super) struct MeteredStream<S> {
    stream: S,
    state: Arc<RequestState>,
    detector: ProtocolDetector,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(stream: S, state: Arc<RequestState>) -> MeteredStream<S> {
        MeteredStream { stream, state, detector: ProtocolDetector::default() }
    }
}

impl<S: Read + Unpin> Read for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.detector.is_decided() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        // hyper's cursor can be filled but not read, so the first bytes pass through memory of this function.
        let mut bytes = [0; DETECTION_BYTES];
        let room = buf.remaining().min(DETECTION_BYTES);
        let mut first = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, first.unfilled()))?;
        if let Some(foreign) = self.detector.check(first.filled()) {
            self.state.set_foreign(foreign);
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
        // An error would make hyper drop the connection, and with it the answer that stopped the request.
        if self.state.is_stopped() {
            return Poll::Pending;
        }
        let first = bufs.iter().map(|buf| buf.len()).find(|len| *len > 0).unwrap_or(0);
        let len = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.state.accepted(first, len);
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.is_stopped() {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body. It records waits and its end, keeps its error for the lane, and checks the announced
/// length: hyper truncates a body that is too long and does not report one that is too short.
pub(super) struct MeteredBody<B> {
    body: Pin<Box<B>>,
    /// The bytes that remain, if the length is known.
    left: Option<u64>,
    state: Arc<RequestState>,
}

impl<B> MeteredBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Starts a request on `state`, with the `Content-Length` of its head.
    pub(super) fn new(
        body: B,
        announced: Option<u64>,
        state: Arc<RequestState>,
    ) -> Result<MeteredBody<B>, WrongLength> {
        let exact = body.size_hint().exact();
        if let (Some(announced), Some(len)) = (announced, exact)
            && announced != len
        {
            return Err(WrongLength::Announced { announced, len });
        }
        let body = MeteredBody { body: Box::pin(body), left: announced.or(exact), state };
        body.state.begin(body.state());
        Ok(body)
    }

    fn state(&self) -> BodyState {
        if self.is_end_stream() { BodyState::Ended } else { BodyState::Sending }
    }

    fn set_state(&self, state: BodyState) {
        self.state.set_body(state);
    }

    fn fail(&self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        self.state.body_failed(error);
        Poll::Ready(Some(Err(BodyFailed)))
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        // hyper would silently cut a longer body at its Content-Length.
        match self.left.map(|left| left.checked_sub(len)) {
            Some(None) => return self.fail(WrongLength::Long.into()),
            left => self.left = left.flatten(),
        }
        self.set_state(self.state());
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&self) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        match self.left {
            Some(missing @ 1..) => self.fail(WrongLength::Short { missing }.into()),
            _ => {
                self.set_state(BodyState::Ended);
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
                self.set_state(BodyState::Waiting);
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

/// The error that hyper receives; the body's own error is kept in the request's state.
#[derive(Debug, thiserror::Error)]
#[error("the request's body failed")]
pub(super) struct BodyFailed;

/// A body whose length differs from the announced one.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongLength {
    #[error("the body is {len} bytes long, its Content-Length is {announced}")]
    Announced { announced: u64, len: u64 },
    #[error("the body is longer than announced")]
    Long,
    #[error("the body is {missing} bytes shorter than announced")]
    Short { missing: u64 },
}
