//! Waiting for changes.

use std::time::{Duration, Instant};

use super::failure::{Failure, Trouble};
use super::operations::Engine;
use crate::bulk::Revision;

impl Engine {
    /// Waits until the revision is another one than `seen`. While the server is away, nothing changes.
    pub(super) async fn changed(&self, seen: Revision) -> Result<Revision, Trouble> {
        loop {
            match self.revision().await {
                Ok(revision) if revision != seen => return Ok(revision),
                Ok(_) | Err(Failure::Uncertain(..)) => {}
                Err(failure) => return Err(failure.into()),
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Returns the revision of the store. Asks the server once for all watchers.
    async fn revision(&self) -> Result<Revision, Failure> {
        let mut last = self.last_look.0.lock().await;
        // No watcher receives an answer that is older than half of its own interval.
        let fresh = last.filter(|(at, _)| at.elapsed() < BETWEEN_LOOKS / 2);
        let number = match fresh {
            Some((_, number)) => number,
            None => self.state().await?.last_revision(),
        };
        *last = Some(fresh.unwrap_or((Instant::now(), number)));
        // The revision 0 of callers is before every revision.
        Ok(Revision::new(number + 1))
    }
}

/// A task that ends with its handle.
pub(super) struct AbortOnDrop<T>(pub(super) tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Waits for the task; `None` if it panicked.
    pub(super) async fn join(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The time between two looks, while a caller waits for a change.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
