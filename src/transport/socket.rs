//! The socket under hyper. It sends slices of a mapped file by `sendfile(2)`, without reading them in user
//! space.
//!
//! Slices are identified by address. Memory and file alternate in hyper's order. One call makes one system
//! call and returns the bytes that it moved, so a partial write needs no state here.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::request_state::RequestState;
use super::sendfile::{self, Segment, SendFileError};
use super::throttle::{Bandwidth, SocketLimiter};

/// A TCP connection that can send from a file.
///
/// If the peer is gone, writing stays pending instead of failing: a response sent before the reset can still
/// be read, and reading then ends with that response or with the reason.
#[derive(Debug)]
pub(super) struct LaneSocket {
    tcp: TokioIo<TcpStream>,
    state: Arc<RequestState>,
    /// `None` during the TLS handshake, which is not limited.
    limiter: Option<SocketLimiter>,
}

impl LaneSocket {
    pub(super) fn new(tcp: TcpStream, state: Arc<RequestState>) -> LaneSocket {
        state.meter().open(&tcp);
        LaneSocket { tcp: TokioIo::new(tcp), state, limiter: None }
    }

    /// Limits further writes to `bandwidth`.
    pub(super) fn limit_to(&mut self, bandwidth: Bandwidth) {
        self.limiter = Some(SocketLimiter::new(bandwidth));
    }

    /// Returns the number of bytes that may be written now.
    fn poll_limiter(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<usize> {
        let Some(limiter) = &mut self.limiter else { return Poll::Ready(usize::MAX) };
        let was_throttled = limiter.ready_at().is_some();
        let granted = limiter.poll_ready(cx, || bufs.iter().map(|buf| buf.len() as u64).sum());
        self.state.meter().set_limited(granted.is_pending());
        // The monitor must not count the time under the limit as a stall.
        if was_throttled || granted.is_pending() {
            self.state.throttled(limiter.ready_at());
        }
        granted
    }

    fn wrote(&mut self, len: usize) {
        self.state.socket_wrote(len);
        if let Some(limiter) = &mut self.limiter {
            limiter.wrote(len);
        }
    }

    /// Handles a write error other than a full buffer.
    fn on_write_error(&self, error: io::Error) -> Poll<io::Result<usize>> {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut => {
                self.state.write_failed(error.kind());
                // Reading wakes the task, by the answer or by the end of the connection.
                Poll::Pending
            }
            _ => Poll::Ready(Err(error)),
        }
    }

    fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.tcp.inner().as_fd();
        let region = self.state.region();
        match Segment::first(bufs, region.as_ref()) {
            Segment::Memory { slices, has_file_next } => sendfile::send_memory(socket, slices, has_file_next),
            Segment::File { region, slices, len } => {
                sendfile::send_file(socket, region, slices, len).map_err(|failure| self.give_up_file(failure))
            }
        }
    }

    fn give_up_file(&self, error: SendFileError) -> io::Error {
        match error {
            SendFileError::LaneSocket(error) => error,
            SendFileError::File(failure) => {
                self.state.file_failed(failure);
                io::Error::other("the file behind the map failed")
            }
        }
    }
}

/// Resets the connection if its request was cut off (`SO_LINGER`, `socket(7)`): the bytes still in the
/// kernel's buffer would only keep the server waiting for the rest.
impl Drop for LaneSocket {
    fn drop(&mut self) {
        // Before the socket closes: its number may belong to another file afterwards.
        self.state.meter().close(self.tcp.inner());
        if self.state.is_partly_sent() {
            // If the option cannot be set, closing only takes longer.
            let _ = self.tcp.inner().set_zero_linger();
        }
    }
}

impl Read for LaneSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl Write for LaneSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // `Segment::first` needs a first slice that is not empty.
        let Some(start) = bufs.iter().position(|buf| !buf.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        if self.state.write_error().is_some() {
            return Poll::Pending;
        }
        loop {
            // Before the limiter: a full socket must not reserve bandwidth that other lanes can use.
            ready!(self.tcp.inner().poll_write_ready(cx))?;
            let most = ready!(self.poll_limiter(cx, &bufs[start..]));
            let mut cut = IoSlice::new(&[]);
            let bufs = at_most(most, &bufs[start..], &mut cut);
            match self.tcp.inner().try_io(Interest::WRITABLE, || self.send(bufs)) {
                Ok(len) => {
                    self.wrote(len);
                    return Poll::Ready(Ok(len));
                }
                // `try_io` cleared the readiness; the loop waits for the next one.
                Err(full) if full.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.on_write_error(error),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Each write is a system call, so that nothing is left to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Connection for LaneSocket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Returns the slices at the start of `bufs` with at most `most` bytes in total: whole slices, or a part of
/// the first.
fn at_most<'a, 'b: 'a>(most: usize, bufs: &'a [IoSlice<'b>], cut: &'a mut IoSlice<'a>) -> &'a [IoSlice<'a>] {
    if most == usize::MAX {
        return bufs;
    }
    let mut left = most;
    let whole = bufs.iter().take_while(|buf| {
        let fits = buf.len() <= left;
        left -= if fits { buf.len() } else { 0 };
        fits
    });
    match whole.count() {
        0 => {
            *cut = IoSlice::new(&bufs[0][..most]);
            std::slice::from_ref(cut)
        }
        whole => &bufs[..whole],
    }
}

#[cfg(test)]
mod tests;
