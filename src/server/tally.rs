//! What the server saw, for tests and for whoever watches it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::faults::RouteClass;

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests by what they were for, the refused ones and those under way included.
    pub requests: BTreeMap<RouteClass, u64>,
    /// Connections accepted.
    pub connections: u64,
    /// Requests whose file was recorded, whole files included.
    pub chunks_accepted: u64,
    /// Error answers by slug, injected ones included.
    pub refused: BTreeMap<String, u64>,
    /// Containers created, by `POST /videos` and by delegated uploads.
    pub videos_created: u64,
    /// File bytes received, those of refused and broken requests included.
    pub file_bytes: u64,
    /// Faults that took effect.
    pub faults: u64,
}

/// One request, as the log remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path without its query: that may hold an upload token.
    pub path: String,
    /// The `Content-Range` header as it was sent.
    pub content_range: Option<String>,
    /// What was answered; `None` while under way and when the connection ended without an answer.
    pub status: Option<u16>,
}

/// Where the handlers count.
#[derive(Default)]
pub(super) struct Tallies {
    file_bytes: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    tally: Tally,
    log: VecDeque<Logged>,
    forgotten: usize,
}

/// Names an entry of the log, also when it is no longer in it.
#[derive(Clone, Copy)]
pub(super) struct Entry(usize);

impl Tallies {
    pub(super) fn begin(&self, class: RouteClass, logged: Logged) -> Entry {
        let mut book = self.book();
        *book.tally.requests.entry(class).or_default() += 1;
        if book.log.len() == LOG_ENTRIES {
            book.log.pop_front();
            book.forgotten += 1;
        }
        book.log.push_back(logged);
        Entry(book.forgotten + book.log.len() - 1)
    }

    pub(super) fn end(&self, Entry(number): Entry, status: u16) {
        let mut book = self.book();
        let index = number.checked_sub(book.forgotten);
        if let Some(logged) = index.and_then(|index| book.log.get_mut(index)) {
            logged.status = Some(status);
        }
    }

    pub(super) fn refused(&self, slug: &str) {
        *self.book().tally.refused.entry(slug.to_owned()).or_default() += 1;
    }

    /// Changes the other counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.book().tally);
    }

    pub(super) fn file_bytes(&self, len: usize) {
        self.file_bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    pub(super) fn tally(&self) -> Tally {
        Tally { file_bytes: self.file_bytes.load(Ordering::Relaxed), ..self.book().tally.clone() }
    }

    pub(super) fn log(&self) -> Vec<Logged> {
        self.book().log.iter().cloned().collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests the log remembers.
const LOG_ENTRIES: usize = 16 * 1024;
