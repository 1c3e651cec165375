//! The last look at the revision of the store.

use std::time::Instant;

use tokio::sync::Mutex;

/// The last revision that a watcher has read, which all watchers share.
#[derive(Debug, Default)]
pub(super) struct LastLook(pub(super) Mutex<Option<(Instant, u64)>>);
