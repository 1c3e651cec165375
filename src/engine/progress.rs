//! The progress of an upload, in bytes of the file.
//!
//! Three counts differ over time: bytes read from the source, bytes taken by the sockets, and bytes acknowledged by
//! the service. Envelopes and request heads are not counted. No count decreases.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::transport::{SentCounter, SocketCounts};

/// The progress of an upload. All byte counts are bytes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The length of the file; `None` while a stream has not ended.
    pub total_bytes: Option<u64>,
    /// Read from the source and handed to a connection.
    pub read_bytes: u64,
    /// Taken by the sockets.
    pub sent_bytes: u64,
    /// Acknowledged by the service.
    pub acknowledged_bytes: u64,
    /// Stored by an earlier run, and part of the other counts. What this run sent is the difference.
    pub resumed_bytes: u64,
    /// Bytes of the chunks that were sent again after failures, each in full; not part of the other counts. Chunks that
    /// are sent again after 429, or after 401 with renewed credentials, do not count.
    pub resent_bytes: u64,
    /// Chunks acknowledged by the service.
    pub acknowledged_chunks: u32,
    /// Chunks of the file; `None` while a stream has not ended.
    pub total_chunks: Option<u32>,
    /// Attempts that were repetitions.
    pub retries: u32,
    /// The container, once it is known.
    pub video_id: Option<String>,
}

impl Progress {
    /// Takes over newer counts, except those that would decrease. Returns `true` if anything changed.
    pub(crate) fn advance(&mut self, newer: Progress) -> bool {
        let older = self.clone();
        *self = Progress {
            read_bytes: newer.read_bytes.max(older.read_bytes),
            sent_bytes: newer.sent_bytes.max(older.sent_bytes),
            acknowledged_bytes: newer.acknowledged_bytes.max(older.acknowledged_bytes),
            // After a restart the other counts stay, so the difference must not grow by bytes of an earlier run.
            resumed_bytes: newer.resumed_bytes.max(older.resumed_bytes),
            ..newer
        };
        *self != older
    }
}

/// The bytes that one lane has read and sent of its current chunk. The lane writes these counts, the driver reads
/// them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    /// File bytes handed to the connection.
    pub(crate) read: Arc<AtomicU64>,
    sending: Arc<Mutex<Sending>>,
    phase: Arc<AtomicU8>,
}

/// The phase of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LanePhase {
    Idle,
    Connecting,
    Sending,
}

#[derive(Debug, Default)]
struct Sending {
    /// The counter of the connection; a new connection has a new counter.
    counter: Option<Arc<SentCounter>>,
    envelope_head_bytes: u64,
    chunk_bytes: u64,
    /// File bytes read and sent of all earlier chunks.
    earlier: (u64, u64),
    /// The latest connection, also between its requests.
    connection: Option<Arc<SentCounter>>,
    /// The sums of the connections before it.
    former: SocketCounts,
}

impl Sending {
    /// Returns the file bytes that the connection took of the current chunk.
    fn sent_bytes(&self) -> u64 {
        let body = self.counter.as_ref().map_or(0, |counter| counter.body_bytes());
        // The envelope's head and tail are no bytes of the file.
        body.saturating_sub(self.envelope_head_bytes).min(self.chunk_bytes)
    }
}

impl Gauge {
    /// Resets the counts between chunks. The lane is idle from then on.
    pub(crate) fn reset(&self) {
        let mut sending = self.sending();
        let (read, sent) = sending.earlier;
        // Both under the lock, so that no reader of the lifetime counts sees the chunk twice or not at all.
        let earlier = (read + self.read.swap(0, Ordering::Relaxed), sent + sending.sent_bytes());
        let (connection, former) = (sending.connection.take(), sending.former);
        *sending = Sending { earlier, connection, former, ..Sending::default() };
        self.set_phase(LanePhase::Idle);
    }

    pub(crate) fn follow(&self, counter: Arc<SentCounter>, envelope_head_bytes: u64, chunk_bytes: u64) {
        // A kept connection has the count of its last request until the next one begins.
        counter.restart();
        let mut sending = self.sending();
        let Sending { earlier, mut former, .. } = *sending;
        if let Some(last) = sending.connection.take_if(|last| !Arc::ptr_eq(last, &counter)) {
            let last = last.socket_counts();
            former.acked_bytes += last.acked_bytes;
            former.segments += last.segments;
            former.retransmitted += last.retransmitted;
        }
        let connection = Some(counter.clone());
        let counter = Some(counter);
        *sending = Sending { counter, envelope_head_bytes, chunk_bytes, earlier, connection, former };
    }

    /// Returns the counts of all connections of the lane. Round trip and state are those of the latest one.
    pub(crate) fn socket_counts(&self) -> SocketCounts {
        let sending = self.sending();
        let former = sending.former;
        let Some(connection) = &sending.connection else { return former };
        let now = connection.socket_counts();
        SocketCounts {
            acked_bytes: former.acked_bytes + now.acked_bytes,
            segments: former.segments + now.segments,
            retransmitted: former.retransmitted + now.retransmitted,
            ..now
        }
    }

    /// Returns `true` if the connection waits for the bandwidth limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.sending().counter.as_ref().is_some_and(|counter| counter.is_limited())
    }

    /// Returns the file bytes read and sent of all chunks. Neither count decreases.
    pub(crate) fn lifetime_bytes(&self) -> (u64, u64) {
        let sending = self.sending();
        let (read, sent) = sending.earlier;
        // The sent bytes first: bytes are read before they are sent.
        let sent = sent + sending.sent_bytes();
        (read + self.read_bytes(), sent)
    }

    pub(crate) fn set_phase(&self, phase: LanePhase) {
        // Relaxed: for display, and no other memory depends on it.
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> LanePhase {
        match self.phase.load(Ordering::Relaxed) {
            1 => LanePhase::Connecting,
            2 => LanePhase::Sending,
            _ => LanePhase::Idle,
        }
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Returns the file bytes that the connection took.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sending().sent_bytes()
    }

    /// Returns the bytes in the send queue of the lane's socket during a request; 0 between requests.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.sending().counter.as_ref().map_or(0, |counter| counter.queued_bytes())
    }

    /// Returns `true` if the connection took the whole chunk.
    pub(crate) fn is_complete(&self) -> bool {
        self.sent_bytes() == self.sending().chunk_bytes
    }

    /// Returns `true` if the request under way has sent its chunk. A request that has not begun to send has a chunk of
    /// 0 bytes, which is not a sent one.
    pub(crate) fn is_answering(&self) -> bool {
        let sending = self.sending();
        sending.chunk_bytes > 0 && sending.sent_bytes() == sending.chunk_bytes
    }

    /// Returns `true` if the request under way has bytes of its chunk that the connection has not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        let sending = self.sending();
        sending.sent_bytes() < sending.chunk_bytes
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
