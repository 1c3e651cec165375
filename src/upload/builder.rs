//! An upload that is described step by step and then sent.

use tokio::sync::{oneshot, watch};

use crate::api::{NewVideo, Secret};
use crate::engine::command::{EngineCommand, UploadCommand};
use crate::engine::event_log;
use crate::engine::progress::Progress;
use crate::engine::request::{
    ChunkSize, Destination, IfNotBegun, Mode, OnChange, OnProgress, ReceiptState, SourceSpec, StopRequest,
    UploadRequest, Uploaded,
};
use crate::error::Result;
use crate::upload::client::Client;
use crate::upload::running::{Receipt, Running};

/// An upload to be described and then sent.
#[must_use = "an upload does nothing until it is sent"]
#[derive(Debug)]
pub struct Upload {
    client: Client,
    request: UploadRequest,
    on_progress: Option<OnProgress>,
}

impl Upload {
    pub(super) fn new(client: Client, input: SourceSpec) -> Upload {
        let request = UploadRequest {
            input,
            destination: None,
            video: NewVideo::default(),
            mode: Mode::Auto,
            chunk_size: ChunkSize::Auto,
            expected_bytes: None,
            on_change: OnChange::Fail,
            if_not_begun: IfNotBegun::Begin,
            own_token_only: false,
            again: false,
            receipt: None,
        };
        Upload { client, request, on_progress: None }
    }

    /// The title of the video that is created; the file's name unless told.
    pub fn title(mut self, title: impl Into<String>) -> Upload {
        self.request.video.title = title.into();
        self
    }

    /// Everything about the video that is created.
    pub fn video(mut self, video: NewVideo) -> Upload {
        self.request.video = video;
        self
    }

    /// Fills this container, which exists and is empty.
    pub fn video_id(mut self, video_id: impl Into<String>) -> Upload {
        let video_id = video_id.into();
        self.request.destination = Some(match self.request.destination.take() {
            Some(Destination::Delegated { token, .. }) => {
                Destination::Delegated { token, video_id: Some(video_id) }
            }
            _ => Destination::Video(video_id),
        });
        self
    }

    /// Uploads with an upload token in place of the API key.
    pub fn upload_token(mut self, token: impl Into<Secret>) -> Upload {
        let video_id = match self.request.destination.take() {
            Some(Destination::Video(video_id)) => Some(video_id),
            _ => None,
        };
        self.request.destination = Some(Destination::Delegated { token: token.into(), video_id });
        self
    }

    /// How the file is cut and addressed.
    pub fn mode(mut self, mode: Mode) -> Upload {
        self.request.mode = mode;
        self
    }

    /// How large chunks are.
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> Upload {
        self.request.chunk_size = chunk_size;
        self
    }

    /// About how many bytes a reader will give; chunks grow with it so that their number stays allowed.
    pub fn expected_bytes(mut self, bytes: u64) -> Upload {
        self.request.expected_bytes = Some(bytes);
        self
    }

    /// What happens when the file changes while it is being sent; [`OnChange::Fail`] unless told.
    pub fn on_change(mut self, on_change: OnChange) -> Upload {
        self.request.on_change = on_change;
        self
    }

    /// Only goes on with what [`Settings::journal`](crate::Settings::journal) has of this upload: where that is nothing, it ends with
    /// [`ErrorKind::Journal`](crate::ErrorKind::Journal) before anything is created or sent.
    pub fn only_if_begun(mut self) -> Upload {
        self.request.if_not_begun = IfNotBegun::Refuse;
        self
    }

    /// Keeps the upload in [`Settings::journal`](crate::Settings::journal) after it has succeeded until its receipt is confirmed.
    ///
    /// Without that it is forgotten with its last answer, and a process that dies before it has passed the
    /// news on uploads the file once more the next time. With it the next run finds the file complete.
    pub fn with_receipt(mut self) -> (Upload, Receipt) {
        let (sender, receipt) = watch::channel(ReceiptState::Pending);
        self.request.receipt = Some(receipt);
        let receipt = Receipt::new(sender, self.client.clone());
        (self, receipt)
    }

    /// Sends the file even if [`Settings::journal`](crate::Settings::journal) has it as uploaded ([`Receipt::remember`]).
    pub fn again(mut self) -> Upload {
        self.request.again = true;
        self
    }

    /// Calls back whenever the upload has got further, a few times a second, on the driver's thread.
    /// What it does delays every upload of the client.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress) + Send + 'static) -> Upload {
        self.on_progress = Some(OnProgress(Box::new(callback)));
        self
    }

    /// Sends it, under any executor.
    ///
    /// Dropping the future cancels: connections under way are closed at once. By then the service may
    /// hold an empty or partly filled container.
    ///
    /// # Errors
    /// The source is not there, changed or cannot be read; the plan is outside the protocol's limits;
    /// the service refuses, cannot be reached, or does not confirm. [`Error::video_id`](crate::Error::video_id) names a container
    /// that was created and could not be filled.
    pub async fn send(self) -> Result<Uploaded> {
        self.start().await?.join().await
    }

    /// Sends it and waits, for programs without an executor.
    ///
    /// # Errors
    /// As [`Upload::send`].
    pub fn send_blocking(self) -> Result<Uploaded> {
        pollster::block_on(self.send())
    }

    /// Starts it and gives a handle to watch, stop or await it.
    ///
    /// # Errors
    /// When the upload token cannot be one ([`Secret::parse`]), or the client's engine has ended.
    pub async fn start(mut self) -> Result<Running> {
        if let Some(Destination::Delegated { token, .. }) = &mut self.request.destination {
            *token = token.parsed("upload token")?;
        }
        let (reply, answer) = oneshot::channel();
        let (publish, progress) = watch::channel(Progress::default());
        let (followers, events) = event_log::queue();
        let (halt, halted) = watch::channel(StopRequest::No);
        let job = UploadCommand::new(self.request, reply, publish, followers, halted, self.on_progress);
        self.client.command(EngineCommand::Upload(Box::new(job))).await?;
        Ok(Running::new(answer, progress, events, halt, self.client))
    }
}
