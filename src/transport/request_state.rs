//! The state of one request, shared by the lane with its body, stream and socket.
//!
//! hyper owns all three and returns none of them, so they share a [`RequestState`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::error::{BoxError, SentProgress};
use super::protocol::ForeignProtocol;
use super::region::{FileFailure, FileRegion};
use super::socket_meter::{SocketCounts, SocketMeter};
use super::timeouts::{RequestSnapshot, WaitPhase};

/// A counter of the bytes of the present request that the connection has accepted. Readable from any thread.
///
/// Counts plaintext: over TLS the bytes may stay in the record buffer for a while.
#[derive(Debug, Default)]
pub struct SentCounter {
    head: AtomicU64,
    body: AtomicU64,
    meter: SocketMeter,
}

impl SentCounter {
    /// Returns the bytes of the request line and the headers.
    pub fn head_bytes(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Returns the bytes of the body.
    pub fn body_bytes(&self) -> u64 {
        self.body.load(Ordering::Relaxed)
    }

    /// Returns the bytes in the socket's send queue, with heads and TLS records: sent, but not acknowledged by the
    /// peer's TCP. 0 if the socket is closed.
    pub fn queued_bytes(&self) -> u64 {
        self.meter.queued_bytes()
    }

    /// Returns the counts of the connection, over all requests.
    pub(crate) fn socket_counts(&self) -> SocketCounts {
        self.meter.counts()
    }

    /// Returns `true` if the connection waits for the bandwidth limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.meter.is_limited()
    }

    /// Starts at zero. Called between requests, so that the bytes of the last one do not count for the next.
    pub fn restart(&self) {
        // Relaxed here and in the readers: the numbers are for progress only.
        self.head.store(0, Ordering::Relaxed);
        self.body.store(0, Ordering::Relaxed);
    }
}

/// The state of one lane's request. Its lock is never contended: all parties run on the lane's thread.
#[derive(Debug, Default)]
pub(super) struct RequestState {
    sent: Arc<SentCounter>,
    inner: Mutex<StateInner>,
    /// The protocol of the connection's first bytes, if it is not HTTP.
    foreign: OnceLock<ForeignProtocol>,
}

#[derive(Debug, Default)]
struct StateInner {
    body: BodyState,
    /// Bytes of the head still to be written; unknown until the first write shows the head.
    head_left: Option<usize>,
    /// `true` if the stream accepted bytes that the socket may not have accepted yet.
    unflushed: bool,
    whole: bool,
    stopped: bool,
    /// The time until which the bandwidth limit blocks the socket.
    throttled_until: Option<Instant>,
    socket_bytes: u64,
    write_error: Option<io::ErrorKind>,
    file_failure: Option<FileFailure>,
    body_error: Option<BoxError>,
    region: Option<FileRegion>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BodyState {
    Sending,
    /// The body was polled and had no frame ready.
    Waiting,
    #[default]
    Ended,
}

impl RequestState {
    /// Returns the counter of sent bytes.
    pub(super) fn sent_counter(&self) -> Arc<SentCounter> {
        self.sent.clone()
    }

    /// Returns the meter of the connection's socket.
    pub(super) fn meter(&self) -> &SocketMeter {
        &self.sent.meter
    }

    /// Returns the progress of the present request.
    pub(super) fn sent(&self) -> SentProgress {
        SentProgress { body_bytes: self.sent.body_bytes(), whole: self.inner().whole }
    }

    /// Returns `true` if the socket has accepted the whole request.
    pub(super) fn is_fully_sent(&self) -> bool {
        self.inner().whole
    }

    /// Returns `true` if a part of the present request was written, but not all of it.
    pub(super) fn is_partly_sent(&self) -> bool {
        let inner = self.inner();
        inner.head_left.is_some() && !inner.whole
    }

    /// Returns a snapshot for the progress monitor.
    pub(super) fn snapshot(&self) -> RequestSnapshot {
        let inner = self.inner();
        let phase = match inner.body {
            _ if inner.whole || inner.stopped => WaitPhase::AwaitingAnswer,
            // Bytes that the socket has not accepted yet are the connection's delay, not the body's.
            BodyState::Waiting if !inner.unflushed => WaitPhase::AwaitingBody,
            _ => inner.throttled_until.map_or(WaitPhase::Sending, WaitPhase::Throttled),
        };
        RequestSnapshot { phase, socket_bytes: inner.socket_bytes }
    }

    /// Stops writing the request, after an early response that makes the rest of the body pointless.
    pub(super) fn stop_sending(&self) {
        self.inner().stopped = true;
    }

    /// Returns `true` if [`stop_sending`](Self::stop_sending) was called for the present request.
    pub(super) fn is_stopped(&self) -> bool {
        self.inner().stopped
    }

    /// Sets the region whose slices the socket sends from the file.
    pub(super) fn set_file_region(&self, region: Option<FileRegion>) {
        self.inner().region = region;
    }

    /// Returns the region set by [`set_file_region`](Self::set_file_region).
    pub(super) fn region(&self) -> Option<FileRegion> {
        self.inner().region.clone()
    }

    /// Records `len` bytes that the socket accepted.
    pub(super) fn socket_wrote(&self, len: usize) {
        self.sent.meter.wrote(len);
        self.inner().socket_bytes += len as u64;
    }

    /// Records the time until which the socket is throttled; `None` if it is not.
    pub(super) fn throttled(&self, until: Option<Instant>) {
        self.inner().throttled_until = until;
    }

    /// Records a failed write to a peer that is gone.
    pub(super) fn write_failed(&self, kind: io::ErrorKind) {
        self.inner().write_error = Some(kind);
    }

    /// Returns the error that stopped writing, if any.
    pub(super) fn write_error(&self) -> Option<io::ErrorKind> {
        self.inner().write_error
    }

    /// Records a failure of the file behind the region.
    pub(super) fn file_failed(&self, failure: FileFailure) {
        self.inner().file_failure = Some(failure);
    }

    /// Takes the failure of the file.
    pub(super) fn take_file_failure(&self) -> Option<FileFailure> {
        self.inner().file_failure.take()
    }

    /// Takes the error of the body.
    pub(super) fn take_body_error(&self) -> Option<BoxError> {
        self.inner().body_error.take()
    }

    /// Returns the protocol of a peer that does not speak HTTP.
    pub(super) fn foreign(&self) -> Option<ForeignProtocol> {
        self.foreign.get().copied()
    }

    pub(super) fn begin(&self, body: BodyState) {
        self.sent.restart();
        let mut inner = self.inner();
        let (region, socket_bytes) = (inner.region.take(), inner.socket_bytes);
        // The region is set before the request begins; the socket's count belongs to the whole connection.
        *inner = StateInner { body, region, socket_bytes, ..StateInner::default() };
    }

    /// Records `len` bytes that the stream accepted, the first of them from a slice of `first` bytes.
    pub(super) fn accepted(&self, first: usize, len: usize) {
        let mut inner = self.inner();
        // hyper writes the whole head as the first slice of a request's first write.
        let head_left = inner.head_left.unwrap_or(first);
        let head = head_left.min(len);
        inner.head_left = Some(head_left - head);
        inner.unflushed = true;
        self.sent.head.fetch_add(head as u64, Ordering::Relaxed);
        self.sent.body.fetch_add((len - head) as u64, Ordering::Relaxed);
    }

    /// Records that the socket accepted everything, and hyper has nothing more to write now.
    pub(super) fn flushed(&self) {
        let mut inner = self.inner();
        inner.unflushed = false;
        // `head_left` too: a flush before the head was written must not count a request without a body as sent.
        inner.whole |= inner.body == BodyState::Ended && inner.head_left == Some(0);
    }

    /// Records the state of the body.
    pub(super) fn set_body(&self, state: BodyState) {
        self.inner().body = state;
    }

    /// Keeps the error of the body for the lane.
    pub(super) fn body_failed(&self, error: BoxError) {
        self.inner().body_error = Some(error);
    }

    /// Records that the peer speaks another protocol than HTTP.
    pub(super) fn set_foreign(&self, foreign: ForeignProtocol) {
        self.foreign.get_or_init(|| foreign);
    }

    fn inner(&self) -> MutexGuard<'_, StateInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
