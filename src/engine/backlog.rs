//! Announcements of uploads that the caller will hand over later.

use std::sync::{Arc, Mutex, PoisonError};

/// Uploads that the caller will start later, announced so that the chunk sizes of all uploads fit into one request
/// budget. Clones share one backlog.
///
/// A program that starts thousands of uploads a few at a time announces the others here: it [adds](Backlog::add) them
/// all, and [removes](Backlog::remove) each one immediately before it starts the upload. Uploads that wait in the
/// client's own queue count without an announcement. An announcement that is never removed only makes chunks larger.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    announced: Arc<Mutex<Announced>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    uploads: u64,
    bytes: u64,
}

impl Backlog {
    /// Announces `uploads` further uploads of `bytes` bytes in all.
    pub fn add(&self, uploads: u64, bytes: u64) {
        self.change(|announced| Announced {
            uploads: announced.uploads.saturating_add(uploads),
            bytes: announced.bytes.saturating_add(bytes),
        });
    }

    /// Removes `uploads` announced uploads of `bytes` bytes in all. More than announced leaves zero.
    pub fn remove(&self, uploads: u64, bytes: u64) {
        self.change(|announced| Announced {
            uploads: announced.uploads.saturating_sub(uploads),
            bytes: announced.bytes.saturating_sub(bytes),
        });
    }

    /// Returns the number of announced uploads.
    pub fn uploads(&self) -> u64 {
        self.read().uploads
    }

    /// Returns the bytes of all announced uploads.
    pub fn bytes(&self) -> u64 {
        self.read().bytes
    }

    fn read(&self) -> Announced {
        // The two numbers are assigned at once, so a panic under the lock leaves nothing incomplete.
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(Announced) -> Announced) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        *announced = change(*announced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_backlog_that_never_falls_below_zero() {
        let backlog = Backlog::default();
        backlog.add(3, 300);
        backlog.clone().remove(1, 100);
        assert_eq!((backlog.uploads(), backlog.bytes()), (2, 200));
        backlog.remove(5, 201);
        assert_eq!((backlog.uploads(), backlog.bytes()), (0, 0));
        backlog.add(1, u64::MAX);
        backlog.add(1, u64::MAX);
        assert_eq!(backlog.bytes(), u64::MAX);
    }
}
