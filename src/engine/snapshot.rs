//! The numbers of a client at one moment.

use serde::Serialize;

use crate::pacing::LaneHold;

/// The numbers of a client at one moment: one consistent reading, since the client was created.
///
/// Counts never decrease, except those of [`LaneCounts`], [`Budget`], [`UploadCounts::queued`],
/// [`UploadCounts::running`], the send queues and the memory in use. The names are those of metrics: monitors, metric exporters and
/// reports that read the same snapshot cannot disagree.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Bytes of files and streams.
    pub bytes: ByteCounts,
    /// Requests that ended, by class. Authentication is not limited by the service and not counted.
    pub requests: ByClass<RequestCounts>,
    /// Attempts after a failure: at chunks, and at the creation of videos. A 429 is no failure.
    pub retries: u64,
    /// Seconds in which requests of a class waited for a limit, a pause that the service requested, or the end of a
    /// failure. Time in which several requests waited counts once.
    pub throttled_seconds: ByClass<f64>,
    /// Connections for chunks, by state.
    pub lanes: LaneCounts,
    /// The reason why the number of lanes in use is kept; `None` if nothing keeps it, and always if it is fixed.
    pub lane_hold: Option<LaneHold>,
    /// The service's request budgets; `None` before its first answer and without a preset.
    pub budgets: ByClass<Option<Budget>>,
    /// Bytes in the send queues of the sockets under way, with heads and TLS records. They are counted as sent, and
    /// the peer's TCP has not acknowledged them yet.
    pub send_queue_bytes: u64,
    /// Bytes of memory that hold chunks of streams.
    pub buffer_bytes: u64,
    /// The limit of that memory in bytes, [`Settings::buffer_bytes`](crate::Settings::buffer_bytes).
    pub buffer_limit_bytes: u64,
    /// Uploads by state.
    pub uploads: UploadCounts,
    /// Records that the journal did not take.
    pub journal_errors: u64,
    /// The bandwidth limit in bytes a second; `None` for no limit.
    pub bandwidth_limit_bytes: Option<u64>,
}

/// Bytes of files and streams. Heads of requests and envelopes are not counted, and neither are chunks that an earlier
/// run has stored. `acknowledged` ≤ `sent` ≤ `read`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ByteCounts {
    /// Read and handed to a connection, with repetitions.
    pub read: u64,
    /// Taken by the sockets, with repetitions.
    pub sent: u64,
    /// Acknowledged by the service.
    pub acknowledged: u64,
    /// Sent again after a failure, or about to be.
    pub resent: u64,
}

/// A value for each class of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByClass<T> {
    /// Chunks and whole files.
    pub uploads: T,
    /// Requests that create, change or delete.
    pub writes: T,
    /// Requests that only read.
    pub reads: T,
}

/// Requests by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Answered with a status below 400.
    pub ok: u64,
    /// Answered with 429.
    pub throttled: u64,
    /// Answered with another status from 400 to 499.
    pub client_error: u64,
    /// Answered with a status from 500 on.
    pub server_error: u64,
    /// Not answered: no connection, a lost connection, a timeout, a source that failed, a cancelled upload.
    pub transport: u64,
}

/// Connections for chunks, by state. `busy`, `idle` and `connecting` add up to
/// [`Settings::lanes`](crate::Settings::lanes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LaneCounts {
    /// With a request.
    pub busy: u64,
    /// Without a request; the connection may be open.
    pub idle: u64,
    /// Connecting for a request.
    pub connecting: u64,
    /// Those of `busy` whose chunk was sent completely: their requests wait for the answer.
    pub answering: u64,
    /// The number in use: lanes that may have a request. With
    /// [`LaneControl::Automatic`](crate::LaneControl::Automatic) it changes while uploads run.
    pub permitted: u64,
}

/// The service's request budget of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Budget {
    /// Requests a minute.
    pub limit: u32,
    /// Requests left in this minute.
    pub left: u32,
    /// Seconds until the budget is whole again.
    pub resets_in_seconds: f64,
}

/// Uploads by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UploadCounts {
    /// Waiting in the client's queue.
    pub queued: u64,
    /// Under way, from opening the source to the result.
    pub running: u64,
    /// Ended with success. A file that an earlier run has uploaded counts too.
    pub done: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Ended early by the caller.
    pub cancelled: u64,
}

impl RequestCounts {
    /// Returns the number of requests that ended.
    pub fn total(&self) -> u64 {
        self.answered() + self.transport
    }

    /// Returns the number of requests that were answered.
    pub fn answered(&self) -> u64 {
        self.ok + self.throttled + self.client_error + self.server_error
    }

    /// Counts a request by the status of its answer; `None` without an answer.
    pub(crate) fn count(&mut self, status: Option<u16>) {
        let counter = match status {
            None => &mut self.transport,
            Some(429) => &mut self.throttled,
            Some(400..500) => &mut self.client_error,
            Some(500..) => &mut self.server_error,
            Some(_) => &mut self.ok,
        };
        *counter += 1;
    }
}
