//! The progress of an upload as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::engine::progress::Progress;

/// The latest [`Progress`], every time it changed.
///
/// A slow reader misses states in between, never the last one. Ends with the upload.
pub struct ProgressStream {
    changes: Pin<Box<dyn Stream<Item = Progress> + Send + Sync>>,
}

impl ProgressStream {
    pub(super) fn new(receiver: watch::Receiver<Progress>) -> ProgressStream {
        let changes = stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let progress = receiver.borrow_and_update().clone();
            Some((progress, receiver))
        });
        // `unfold` panics when it is polled after its end.
        ProgressStream { changes: Box::pin(changes.fuse()) }
    }
}

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.changes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for ProgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressStream").finish_non_exhaustive()
    }
}
