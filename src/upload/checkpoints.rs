//! The checkpoints of an upload as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::engine::checkpoint::Checkpoint;

/// The latest [`Checkpoint`], every time it changed: before the request that creates the video, with the video's id,
/// and with each acknowledged chunk.
///
/// A slow reader misses states in between, never the last one. A checkpoint reaches the reader while the upload goes on:
/// a process that dies before it has stored a checkpoint continues from an older one. With an API key that costs a
/// status request; with an upload token, chunks may be sent again. A video that was being created then may stay behind;
/// only a journal is written before each request. Ends with the upload. Yields nothing for an upload of anything but a
/// file.
pub struct Checkpoints {
    changes: Pin<Box<dyn Stream<Item = Checkpoint> + Send + Sync>>,
}

impl Checkpoints {
    pub(super) fn new(mut receiver: watch::Receiver<Option<Checkpoint>>) -> Checkpoints {
        // The current checkpoint is the first item; `changed` alone would wait for the next one.
        receiver.mark_changed();
        let changes = stream::unfold(receiver, |mut receiver| async move {
            loop {
                receiver.changed().await.ok()?;
                let latest = receiver.borrow_and_update().clone();
                if let Some(checkpoint) = latest {
                    return Some((checkpoint, receiver));
                }
            }
        });
        // `unfold` panics when it is polled after its end.
        Checkpoints { changes: Box::pin(changes.fuse()) }
    }
}

impl Stream for Checkpoints {
    type Item = Checkpoint;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Checkpoint>> {
        self.changes.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints").finish_non_exhaustive()
    }
}
