//! Handles to a running upload.

use std::sync::Arc;

use tokio::sync::{broadcast, oneshot, watch};

use crate::engine::checkpoint::Checkpoint;
use crate::engine::handle::{EngineHandle, engine_ended};
use crate::engine::progress::Progress;
use crate::engine::receipt::ReceiptState;
use crate::engine::request::{StopRequest, Uploaded};
use crate::error::Result;
use crate::session::event::UploadEvent;
use crate::upload::checkpoints::Checkpoints;
use crate::upload::events::Events;
use crate::upload::progress::ProgressStream;

/// A running upload. Dropping it cancels the upload.
#[derive(Debug)]
pub struct Running {
    answer: oneshot::Receiver<Result<Uploaded>>,
    progress: watch::Receiver<Progress>,
    events: broadcast::Receiver<UploadEvent>,
    checkpoints: watch::Receiver<Option<Checkpoint>>,
    halt: watch::Sender<StopRequest>,
    /// Keeps the engine alive.
    _engine: Arc<EngineHandle>,
}

impl Running {
    pub(super) fn new(
        answer: oneshot::Receiver<Result<Uploaded>>,
        progress: watch::Receiver<Progress>,
        events: broadcast::Receiver<UploadEvent>,
        checkpoints: watch::Receiver<Option<Checkpoint>>,
        halt: watch::Sender<StopRequest>,
        engine: Arc<EngineHandle>,
    ) -> Running {
        Running { answer, progress, events, checkpoints, halt, _engine: engine }
    }

    /// Returns a stream of the progress, with an item for every change.
    pub fn progress(&self) -> ProgressStream {
        ProgressStream::new(self.progress.clone())
    }

    /// Returns a stream of the events: the first call from the beginning of the upload, later calls from now on.
    ///
    /// A reader that falls more than 128 events behind loses the oldest. It does not
    /// slow the upload down.
    pub fn events(&mut self) -> Events {
        let from_now = self.events.resubscribe();
        Events::new(std::mem::replace(&mut self.events, from_now))
    }

    /// Returns a stream of the checkpoints, beginning with the current one if there is one.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.checkpoints.clone())
    }

    /// Returns the current checkpoint. `None` before the file is open, and for an upload of anything but a file.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoints.borrow().clone()
    }

    /// Returns the current progress.
    pub fn current(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Returns a handle that can stop or cancel the upload from another task or thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { halt: self.halt.clone() }
    }

    /// Waits for the end of the upload. Dropping the future cancels the upload.
    ///
    /// # Errors
    /// As [`Upload::send`](crate::Upload::send).
    pub async fn join(mut self) -> Result<Uploaded> {
        // By reference, so that `self` lives until the end: its drop cancels the upload.
        (&mut self.answer).await.map_err(|_| engine_ended())?
    }

    /// Blocks until the end of the upload, for programs without an executor.
    ///
    /// # Errors
    /// As [`Upload::send`](crate::Upload::send).
    pub fn join_blocking(self) -> Result<Uploaded> {
        pollster::block_on(self.join())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The engine may have ended already, which `send_replace` ignores.
        self.halt.send_replace(StopRequest::Now);
    }
}

/// The receipt for one upload's success. If it is dropped unconfirmed, the journal keeps the upload, and the next run
/// finds the file complete.
#[derive(Debug)]
pub struct Receipt {
    news: watch::Sender<ReceiptState>,
    /// Keeps the engine alive, which updates the journal.
    _engine: Arc<EngineHandle>,
}

impl Receipt {
    pub(super) fn new(news: watch::Sender<ReceiptState>, engine: Arc<EngineHandle>) -> Receipt {
        Receipt { news, _engine: engine }
    }

    /// Keeps the file and its video in the journal until [`Receipt::confirm`], for a week at most. An upload of the same
    /// file returns that video meanwhile ([`Uploaded::already`]).
    ///
    /// For one of several files that belong together: if another one fails, all can be sent again, and none is sent
    /// twice.
    pub fn remember(&self) {
        self.news.send_replace(ReceiptState::Remembered);
    }

    /// Lets the journal forget the upload. The same file, sent again, goes into another video.
    pub fn confirm(&self) {
        self.news.send_replace(ReceiptState::Confirmed);
    }
}

/// A handle that stops or cancels one upload. Clones control the same upload.
#[derive(Clone, Debug)]
pub struct Stopper {
    halt: watch::Sender<StopRequest>,
}

impl Stopper {
    /// Stops the upload: no further chunk is sent, and the upload ends when the chunks under way are answered.
    pub fn stop(&self) {
        // A stop must not weaken a cancellation.
        self.halt.send_if_modified(|halt| match halt {
            StopRequest::No => {
                *halt = StopRequest::AfterChunks;
                true
            }
            StopRequest::AfterChunks | StopRequest::Now => false,
        });
    }

    /// Cancels the upload: its connections are closed at once.
    pub fn cancel(&self) {
        self.halt.send_replace(StopRequest::Now);
    }
}
