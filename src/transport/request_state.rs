//! What one request's body, stream and socket tell the lane that drives them.
//!
//! hyper owns all three and hands none back, so they share a [`RequestState`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::error::{BoxError, SentProgress};
use super::protocol::ForeignProtocol;
use super::region::{FileFailure, FileRegion};
use super::timeouts::{Snapshot, WaitPhase};

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
pub(super) struct RequestState {
    sent: Arc<SentCounter>,
    inner: Mutex<StateInner>,
    /// The protocol that the connection's first bytes are of, if that is not HTTP.
    foreign: OnceLock<ForeignProtocol>,
}

#[derive(Debug, Default)]
struct StateInner {
    body: BodyState,
    /// Bytes of the head still to be written; unknown until the first write shows the head.
    head_left: Option<usize>,
    /// Accepted by the stream, and perhaps not yet by the socket.
    unflushed: bool,
    whole: bool,
    stopped: bool,
    /// Until when a limit of ours keeps the socket from taking bytes.
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
    /// Asked for a frame and had none ready.
    Waiting,
    #[default]
    Ended,
}

impl RequestState {
    /// The counter to give out.
    pub(super) fn sent_counter(&self) -> Arc<SentCounter> {
        self.sent.clone()
    }

    /// How far the present request has come.
    pub(super) fn sent(&self) -> SentProgress {
        SentProgress { body_bytes: self.sent.body_bytes(), whole: self.inner().whole }
    }

    /// Whether the socket has accepted the whole request.
    pub(super) fn is_fully_sent(&self) -> bool {
        self.inner().whole
    }

    /// Whether a part of the present request has been written, and not the whole.
    pub(super) fn is_partly_sent(&self) -> bool {
        let inner = self.inner();
        inner.head_left.is_some() && !inner.whole
    }

    /// What the watch has to know.
    pub(super) fn snapshot(&self) -> Snapshot {
        let inner = self.inner();
        let phase = match inner.body {
            _ if inner.whole || inner.stopped => WaitPhase::AwaitingAnswer,
            BodyState::Waiting if !inner.unflushed => WaitPhase::AwaitingBody,
            _ => inner.throttled_until.map_or(WaitPhase::Sending, WaitPhase::Throttled),
        };
        Snapshot { phase, socket_bytes: inner.socket_bytes }
    }

    /// From now on nothing more is written: the answer has made the rest of the request pointless.
    pub(super) fn stop_sending(&self) {
        self.inner().stopped = true;
    }

    /// Whether [`hold`](Self::hold) was called for the present request.
    pub(super) fn is_stopped(&self) -> bool {
        self.inner().stopped
    }

    /// The slices that the socket may take from a file.
    pub(super) fn set_file_region(&self, region: Option<FileRegion>) {
        self.inner().region = region;
    }

    /// What [`set_file_region`](Self::serve_from) was last told.
    pub(super) fn region(&self) -> Option<FileRegion> {
        self.inner().region.clone()
    }

    /// The socket has accepted `len` bytes.
    pub(super) fn socket_wrote(&self, len: usize) {
        self.inner().socket_bytes += len as u64;
    }

    /// Until when the socket may not take bytes; `None` when it may.
    pub(super) fn throttled(&self, until: Option<Instant>) {
        self.inner().throttled_until = until;
    }

    /// Writing to the socket failed because its peer is gone.
    pub(super) fn write_failed(&self, kind: io::ErrorKind) {
        self.inner().write_error = Some(kind);
    }

    /// Why writing stopped, if it did.
    pub(super) fn write_error(&self) -> Option<io::ErrorKind> {
        self.inner().write_error
    }

    /// The file behind the region failed.
    pub(super) fn file_failed(&self, failure: FileFailure) {
        self.inner().file_failure = Some(failure);
    }

    /// The failure of the file, once.
    pub(super) fn take_file_failure(&self) -> Option<FileFailure> {
        self.inner().file_failure.take()
    }

    /// The failure of the body, once.
    pub(super) fn take_body_error(&self) -> Option<BoxError> {
        self.inner().body_error.take()
    }

    /// The protocol that the peer speaks instead of HTTP, if it does.
    pub(super) fn foreign(&self) -> Option<ForeignProtocol> {
        self.foreign.get().copied()
    }

    pub(super) fn begin(&self, body: BodyState) {
        self.sent.restart();
        let mut inner = self.inner();
        let (region, socket_bytes) = (inner.region.take(), inner.socket_bytes);
        *inner = StateInner { body, region, socket_bytes, ..StateInner::default() };
    }

    /// The stream has accepted `len` bytes, the first of them from a slice of `first` bytes.
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

    /// The socket has all that the stream had accepted, and hyper has nothing more for it now.
    pub(super) fn flushed(&self) {
        let mut inner = self.inner();
        inner.unflushed = false;
        inner.whole |= inner.body == BodyState::Ended && inner.head_left == Some(0);
    }

    /// The body has come to this.
    pub(super) fn set_body(&self, state: BodyState) {
        self.inner().body = state;
    }

    /// The body failed.
    pub(super) fn body_failed(&self, error: BoxError) {
        self.inner().body_error = Some(error);
    }

    /// The peer speaks another protocol.
    pub(super) fn set_foreign(&self, foreign: ForeignProtocol) {
        self.foreign.get_or_init(|| foreign);
    }

    fn inner(&self) -> MutexGuard<'_, StateInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
