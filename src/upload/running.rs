//! The handles to an upload under way.

use tokio::sync::{broadcast, oneshot, watch};

use crate::engine::handle::engine_ended;
use crate::engine::progress::Progress;
use crate::engine::request::{ReceiptState, StopRequest, Uploaded};
use crate::error::Result;
use crate::session::event::UploadEvent;
use crate::upload::client::Client;
use crate::upload::events::Events;
use crate::upload::progress::ProgressStream;

/// An upload under way. Dropping it cancels the upload.
#[derive(Debug)]
pub struct Running {
    answer: oneshot::Receiver<Result<Uploaded>>,
    progress: watch::Receiver<Progress>,
    events: broadcast::Receiver<UploadEvent>,
    halt: watch::Sender<StopRequest>,
    /// Keeps the engine alive.
    _client: Client,
}

impl Running {
    pub(super) fn new(
        answer: oneshot::Receiver<Result<Uploaded>>,
        progress: watch::Receiver<Progress>,
        events: broadcast::Receiver<UploadEvent>,
        halt: watch::Sender<StopRequest>,
        client: Client,
    ) -> Running {
        Running { answer, progress, events, halt, _client: client }
    }

    /// How far it is, every time it gets further.
    pub fn progress(&self) -> ProgressStream {
        ProgressStream::new(self.progress.clone())
    }

    /// What happens to it: the first time from its beginning, later from now on. A reader that falls more
    /// than [`QUEUE`](crate::session::event::QUEUE) behind loses the oldest, and nothing waits for it.
    pub fn events(&mut self) -> Events {
        let from_now = self.events.resubscribe();
        Events::new(std::mem::replace(&mut self.events, from_now))
    }

    /// How far it is now.
    pub fn current(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Something that can stop or cancel it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper { halt: self.halt.clone() }
    }

    /// Waits for its end. Dropping the future cancels the upload.
    ///
    /// # Errors
    /// As [`Upload::send`](crate::Upload::send).
    pub async fn join(mut self) -> Result<Uploaded> {
        (&mut self.answer).await.map_err(|_| engine_ended())?
    }

    /// [`Running::join`] for programs without an executor.
    ///
    /// # Errors
    /// As [`Upload::send`](crate::Upload::send).
    pub fn join_blocking(self) -> Result<Uploaded> {
        pollster::block_on(self.join())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt.send_replace(StopRequest::Now);
    }
}

/// Confirms that the news of one upload's success has arrived. Dropping it confirms nothing: the journal
/// keeps the upload, for the next run to find it complete.
#[derive(Debug)]
pub struct Receipt {
    news: watch::Sender<ReceiptState>,
    /// Keeps the engine alive, which is who forgets.
    _client: Client,
}

impl Receipt {
    pub(super) fn new(news: watch::Sender<ReceiptState>, client: Client) -> Receipt {
        Receipt { news, _client: client }
    }

    /// Keeps the file and its video in the journal until [`Receipt::confirm`], for a week at most: the same file, sent
    /// again meanwhile, is answered with that video ([`Uploaded::already`]).
    ///
    /// For one of several files that belong together: where the others fail, all of them can be sent again, and what
    /// is there is not sent twice.
    pub fn remember(&self) {
        self.news.send_replace(ReceiptState::Remembered);
    }

    /// The journal may forget the upload: the same file, sent again, goes into another video.
    pub fn confirm(&self) {
        self.news.send_replace(ReceiptState::Confirmed);
    }
}

/// Stops or cancels one upload; a clone is as good.
#[derive(Clone, Debug)]
pub struct Stopper {
    halt: watch::Sender<StopRequest>,
}

impl Stopper {
    /// No further chunk is sent; the upload ends when those under way have their answers.
    pub fn stop(&self) {
        self.halt.send_if_modified(|halt| match halt {
            StopRequest::No => {
                *halt = StopRequest::AfterChunks;
                true
            }
            StopRequest::AfterChunks | StopRequest::Now => false,
        });
    }

    /// Connections under way are closed at once.
    pub fn cancel(&self) {
        self.halt.send_replace(StopRequest::Now);
    }
}
