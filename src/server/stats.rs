//! Statistics and the request log, for tests and demonstrations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fault_plan::RouteClass;

/// Counters since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Requests by class, including refused ones and those in progress.
    pub requests: BTreeMap<RouteClass, u64>,
    /// Accepted connections.
    pub connections: u64,
    /// Requests whose file was stored, including whole files.
    pub chunks_accepted: u64,
    /// Error responses by slug, including injected ones.
    pub refused: BTreeMap<String, u64>,
    /// Videos created by `POST /videos` and by delegated uploads.
    pub videos_created: u64,
    /// File bytes received, including those of refused and aborted requests.
    pub file_bytes: u64,
    /// Faults that took effect.
    pub faults: u64,
}

/// One request in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLogEntry {
    /// The HTTP method.
    pub method: String,
    /// The path without its query, because the query may contain an upload token.
    pub path: String,
    /// The `Content-Range` header as the client sent it.
    pub content_range: Option<String>,
    /// The status of the response; `None` while the request is in progress, and if the connection ended
    /// without a response.
    pub status: Option<u16>,
}

/// Collects the statistics and the request log of a server.
#[derive(Default)]
pub(super) struct StatsCollector {
    /// Apart from the lock, because every received frame is counted.
    file_bytes: AtomicU64,
    state: Mutex<CollectorState>,
}

#[derive(Default)]
struct CollectorState {
    stats: ServerStats,
    log: VecDeque<RequestLogEntry>,
    /// The number of entries that were removed from the front of the log.
    removed: usize,
}

/// The number of a log entry, counted from 0. The entry may have been removed from the log.
#[derive(Clone, Copy)]
pub(super) struct LogEntryId(usize);

impl StatsCollector {
    pub(super) fn begin(&self, class: RouteClass, log_entry: RequestLogEntry) -> LogEntryId {
        let mut state = self.state();
        *state.stats.requests.entry(class).or_default() += 1;
        if state.log.len() == LOG_ENTRIES {
            state.log.pop_front();
            state.removed += 1;
        }
        state.log.push_back(log_entry);
        LogEntryId(state.removed + state.log.len() - 1)
    }

    pub(super) fn end(&self, LogEntryId(number): LogEntryId, status: u16) {
        let mut state = self.state();
        // The entry may have left the log while its request was under way.
        let index = number.checked_sub(state.removed);
        if let Some(log_entry) = index.and_then(|index| state.log.get_mut(index)) {
            log_entry.status = Some(status);
        }
    }

    pub(super) fn refused(&self, slug: &str) {
        *self.state().stats.refused.entry(slug.to_owned()).or_default() += 1;
    }

    /// Changes the remaining counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut ServerStats)) {
        change(&mut self.state().stats);
    }

    pub(super) fn file_bytes(&self, len: usize) {
        self.file_bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> ServerStats {
        ServerStats { file_bytes: self.file_bytes.load(Ordering::Relaxed), ..self.state().stats.clone() }
    }

    pub(super) fn log(&self) -> Vec<RequestLogEntry> {
        self.state().log.iter().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, CollectorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The largest number of requests in the log.
const LOG_ENTRIES: usize = 16 * 1024;
