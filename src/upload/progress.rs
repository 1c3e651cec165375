//! The progress of an upload as a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::watch;

use crate::engine::progress::Progress;

/// The latest [`Progress`], every time it changed.
///
/// A slow reader misses states in between, never the last one. Ends with the upload.
#[derive(Debug)]
pub struct ProgressStream {
    changes: Pin<Box<Changes>>,
}

impl ProgressStream {
    pub(super) fn new(receiver: watch::Receiver<Progress>) -> ProgressStream {
        ProgressStream { changes: Box::pin(Changes(next_change(receiver))) }
    }
}

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        let Poll::Ready((receiver, progress)) = self.changes.0.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        self.changes.0 = next_change(receiver);
        Poll::Ready(progress)
    }
}

type NextChange = Pin<Box<dyn Future<Output = (watch::Receiver<Progress>, Option<Progress>)> + Send + Sync>>;

struct Changes(NextChange);

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changes")
    }
}

fn next_change(mut receiver: watch::Receiver<Progress>) -> NextChange {
    Box::pin(async move {
        let progress = match receiver.changed().await {
            Ok(()) => Some(receiver.borrow_and_update().clone()),
            Err(_) => None,
        };
        (receiver, progress)
    })
}
