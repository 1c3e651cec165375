//! The builder of an upload.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::api::{NewVideo, Secret};
use crate::engine::checkpoint::Checkpoint;
use crate::engine::command::{EngineCommand, UploadCommand};
use crate::engine::event_log;
use crate::engine::handle::EngineHandle;
use crate::engine::options::{ChunkSize, Mode, OnChange, UploadOptions};
use crate::engine::progress::Progress;
use crate::engine::receipt::ReceiptState;
use crate::engine::request::{
    ContainerGate, IfNotBegun, JobMark, JournalTerms, OnProgress, SourceSpec, StopRequest, UploadRequest,
    Uploaded,
};
use crate::error::Result;
use crate::upload::running::{Receipt, Running};

/// A builder of one upload. Nothing is sent before [`Upload::start`] or [`Upload::send`].
///
/// [`Client::upload`](crate::Client::upload) and the functions beside it return one for a source. By default the upload
/// creates a video with the client's API key, takes the title from the file's name, and chooses the chunks itself.
///
/// - The video: [`title`](Upload::title) or [`video`](Upload::video) for a new one, [`video_id`](Upload::video_id) for one
///   that exists and is empty. [`upload_token`](Upload::upload_token) replaces the API key.
/// - The source: [`len`](Upload::len), [`expected_bytes`](Upload::expected_bytes), [`on_change`](Upload::on_change).
/// - The chunks: [`mode`](Upload::mode), [`chunk_size`](Upload::chunk_size).
/// - Resumption: [`resume_from`](Upload::resume_from), [`only_if_begun`](Upload::only_if_begun),
///   [`with_receipt`](Upload::with_receipt), [`again`](Upload::again).
/// - The start: [`send`](Upload::send) and [`send_blocking`](Upload::send_blocking) return at the upload's end,
///   [`start`](Upload::start) at its beginning, with a handle.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: ringlift::Client, store: impl Fn(&str)) -> ringlift::Result<()> {
/// use ringlift::{ChunkSize, OnChange};
///
/// let (upload, receipt) = client
///     .upload("movie.mp4")
///     .title("Summer")
///     .chunk_size(ChunkSize::Bytes(64 << 20))
///     .on_change(OnChange::Restart)
///     .with_receipt();
/// let uploaded = upload.send().await?;
/// store(&uploaded.video_id);
/// // Until here, a crash would have left the upload in the journal, and the next run would have found it complete.
/// receipt.confirm();
/// # Ok(())
/// # }
/// ```
#[must_use = "an upload does nothing until it is sent"]
#[derive(Debug)]
pub struct Upload {
    engine: Arc<EngineHandle>,
    request: UploadRequest,
    on_progress: Option<OnProgress>,
}

/// Used by the runner of jobs.
#[cfg(feature = "bulk")]
impl Upload {
    /// Returns the options.
    pub(crate) fn described(&self) -> &UploadOptions {
        &self.request.options
    }

    /// Returns the path of the file; `None` for bytes in memory and for a stream.
    pub(crate) fn path(&self) -> Option<&std::path::Path> {
        match &self.request.input {
            SourceSpec::File(path) => Some(path),
            SourceSpec::Memory(..) | SourceSpec::Stream(..) => None,
        }
    }
}

impl Upload {
    pub(super) fn new(engine: Arc<EngineHandle>, input: SourceSpec) -> Upload {
        let (options, terms) = (UploadOptions::default(), JournalTerms::default());
        let request = UploadRequest {
            input,
            len: None,
            options,
            terms,
            checkpoint: None,
            job_mark: None,
            receipt: None,
        };
        Upload { engine, request, on_progress: None }
    }

    /// Sets all options. Call this before the methods that set single options.
    pub fn options(mut self, options: UploadOptions) -> Upload {
        self.request.options = options;
        self
    }

    /// Sets the title of the created video. Default: the file's name.
    pub fn title(mut self, title: impl Into<String>) -> Upload {
        self.request.options.video.title = title.into();
        self
    }

    /// Sets all metadata of the created video.
    pub fn video(mut self, video: NewVideo) -> Upload {
        self.request.options.video = video;
        self
    }

    /// Uploads into this existing, empty container: a video that was created and has no source yet.
    pub fn video_id(mut self, video_id: impl Into<String>) -> Upload {
        self.request.options.video_id = Some(video_id.into());
        self
    }

    /// Uploads with an upload token in place of the API key.
    pub fn upload_token(mut self, token: impl Into<Secret>) -> Upload {
        self.request.options.upload_token = Some(token.into());
        self
    }

    /// Sets the addressing of chunks on the wire. Default: [`Mode::Auto`].
    pub fn mode(mut self, mode: Mode) -> Upload {
        self.request.options.mode = mode;
        self
    }

    /// Sets the chunk size. Default: [`ChunkSize::Auto`].
    pub fn chunk_size(mut self, chunk_size: ChunkSize) -> Upload {
        self.request.options.chunk_size = chunk_size;
        self
    }

    /// Sets the exact length of the source in bytes.
    ///
    /// A stream of known length is planned like a file: it states its total with every chunk, and one that fits into a
    /// chunk goes in one request. The source must end after these bytes. If it has fewer or more of them, the upload
    /// fails with [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), and the video stays incomplete.
    pub fn len(mut self, bytes: u64) -> Upload {
        self.request.len = Some(bytes);
        self
    }

    /// Sets the approximate length of a stream in bytes. Chunks are made large enough for that length, as their number
    /// is limited. [`Upload::len`] states an exact length.
    pub fn expected_bytes(mut self, bytes: u64) -> Upload {
        self.request.options.expected_bytes = Some(bytes);
        self
    }

    /// Sets the reaction to a file that changes while it is being sent. Default: [`OnChange::Fail`].
    pub fn on_change(mut self, on_change: OnChange) -> Upload {
        self.request.options.on_change = on_change;
        self
    }

    /// Resumes the upload only if [`Settings::journal`](crate::Settings::journal) has it. Otherwise the upload ends with
    /// [`ErrorKind::Journal`](crate::ErrorKind::Journal) before anything is created or sent.
    pub fn only_if_begun(mut self) -> Upload {
        self.request.terms.if_not_begun = IfNotBegun::Refuse;
        self
    }

    /// Continues the upload of the same file from a checkpoint ([`Running::checkpoints`]), with or without a journal, from
    /// any path and host. A journal that has the file in another video refuses the checkpoint.
    ///
    /// Only missing chunks are sent. With an API key, the service's status decides which ones are missing, and a video
    /// whose creation was interrupted is searched by its mark before another one is created. An upload that was begun
    /// with an upload token needs a token again. The plan of the checkpoint replaces the mode and the chunk size, and
    /// its metadata is used if none is set here.
    ///
    /// The file must have the length of the file that was sent, and its mtime or digests of all chunks that were sent
    /// ([`Checksum::Always`](crate::Checksum::Always)). Digests are compared with the file before anything is sent.
    /// Another file ends the upload with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged), and a checkpoint
    /// of another service, video or kind of credentials with [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn resume_from(mut self, checkpoint: Checkpoint) -> Upload {
        self.request.checkpoint = Some(Box::new(checkpoint));
        self
    }

    /// Marks the video with `mark`, and looks for a video with that mark before one is created.
    ///
    /// Several hosts that upload the same file under the same mark fill one video. `may_exist` is `true` if another
    /// host may have created the video moments ago: lists may lag, so that the search is repeated after a pause. Unused
    /// for an upload into an existing video or with an upload token. A journal or a checkpoint that names a video comes
    /// before the mark.
    pub fn shared_mark(mut self, mark: impl Into<String>, may_exist: bool) -> Upload {
        let text = mark.into();
        self.request.job_mark =
            Some(JobMark { text, may_exist, has_begun: false, container: None, gate: None });
        self
    }

    /// Names the video that the hosts of a [shared mark](Upload::shared_mark) have agreed on. Unused without a mark.
    ///
    /// The video is preferred if several have the mark. A journal that names another video does not come before this one:
    /// that upload is given up, and its video is left to `clean`.
    pub fn shared_container(mut self, video_id: impl Into<String>) -> Upload {
        if let Some(mark) = &mut self.request.job_mark {
            mark.container = Some(video_id.into());
            // A video that was agreed on exists, though a list may lag.
            mark.may_exist = true;
        }
        self
    }

    /// States that another host had chunks acknowledged in the video that the options name. Unused without a mark.
    #[allow(dead_code)] // Bulk runs use it, which a build may leave out.
    pub(crate) fn begun_elsewhere(mut self) -> Upload {
        if let Some(mark) = &mut self.request.job_mark {
            mark.has_begun = true;
        }
        self
    }

    /// Asks before the first byte is sent to a video that was created, or found by its shared mark. Unused without a mark.
    #[allow(dead_code)] // Bulk runs use it, which a build may leave out.
    pub(crate) fn container_gate(mut self, gate: ContainerGate) -> Upload {
        if let Some(mark) = &mut self.request.job_mark {
            mark.gate = Some(gate);
        }
        self
    }

    /// Keeps a successful upload in [`Settings::journal`](crate::Settings::journal) until its receipt is confirmed.
    ///
    /// Without a receipt the journal forgets the upload with its last answer. If the process then dies before it has
    /// reported the success, the next run uploads the file again. With a receipt the next run finds the file complete.
    pub fn with_receipt(mut self) -> (Upload, Receipt) {
        let (sender, receipt_state) = watch::channel(ReceiptState::Pending);
        self.request.receipt = Some(receipt_state);
        let receipt = Receipt::new(sender, self.engine.clone());
        (self, receipt)
    }

    /// Sends the file even if [`Settings::journal`](crate::Settings::journal) has it as uploaded ([`Receipt::remember`]).
    pub fn again(mut self) -> Upload {
        self.request.terms.again = true;
        self
    }

    /// Sets a callback for progress, called at most a few times a second on the driver's thread. A slow callback
    /// delays every upload of the client.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress) + Send + 'static) -> Upload {
        self.on_progress = Some(OnProgress(Box::new(callback)));
        self
    }

    /// Starts the upload and waits for its end, under any executor.
    ///
    /// Dropping the future cancels the upload: its connections are closed at once. The service may keep an empty or
    /// partly filled container.
    ///
    /// # Errors
    /// The source is not there, changed or cannot be read; the plan is outside the protocol's limits;
    /// the service refuses, cannot be reached, or does not confirm. [`Error::video_id`](crate::Error::video_id) names a container
    /// that was created and could not be filled.
    pub async fn send(self) -> Result<Uploaded> {
        self.start().await?.join().await
    }

    /// Starts the upload and blocks until its end, for programs without an executor.
    ///
    /// # Errors
    /// As [`Upload::send`].
    pub fn send_blocking(self) -> Result<Uploaded> {
        pollster::block_on(self.send())
    }

    /// Starts the upload and returns a handle to watch, stop or await it.
    ///
    /// # Errors
    /// When the upload token cannot be one ([`Secret::parse`]), the options contradict the checkpoint
    /// ([`Upload::resume_from`]), or the client's engine has ended.
    pub async fn start(mut self) -> Result<Running> {
        // A malformed token is refused here, before a source is opened.
        if let Some(token) = &mut self.request.options.upload_token {
            *token = token.parsed("upload token")?;
        }
        if let Some(checkpoint) = &self.request.checkpoint {
            checkpoint.complete(&mut self.request.options)?;
        }
        let (reply, answer) = oneshot::channel();
        let (publish, progress) = watch::channel(Progress::default());
        let (followers, events) = event_log::queue();
        let (halt, halted) = watch::channel(StopRequest::No);
        let (keep, checkpoints) = watch::channel(None);
        let job = UploadCommand::new(self.request, reply, publish, followers, keep, halted, self.on_progress);
        self.engine.command(EngineCommand::Upload(Box::new(job))).await?;
        Ok(Running::new(answer, progress, events, checkpoints, halt, self.engine))
    }
}
