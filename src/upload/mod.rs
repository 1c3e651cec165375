//! One source to one destination: the session, its lanes and whoever drives them.
//!
//! ```text
//!  Client ──commands──> driver thread ──orders──> worker threads (one per core)
//!                       session, journal,          runtime, buffer pool,
//!                       API calls, clock  <─reports── lanes (one connection each)
//! ```
//!
//! The driver owns every [`session`] and decides; a lane that falls idle reports and is given a chunk.
//! Does not know: where bytes come from, how requests are written.

mod active;
mod calls;
mod chunks;
mod claim;
mod client;
mod contradiction;
mod control;
mod creation;
mod crew;
mod driver;
mod feed;
pub mod happening;
mod job;
pub mod journal;
pub mod pace;
pub mod progress;
mod proof;
mod pulse;
mod record;
mod restart;
pub mod retry;
mod running;
pub mod session;
mod supplies;
mod threads;
mod watchdog;
mod worker;

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::api::{NewVideo, Secret, Video};
use crate::error::Result;
use crate::source::Reader;
use crate::upload::job::{Command, Halt, Job};
use crate::upload::running::News;
use crate::wire::Addressing;

pub use client::{Client, ClientBuilder, PRODUCTION_URL, SANDBOX_URL, Settings};
pub use contradiction::{LONGEST_TIME, MOST_LANES};
pub use creation::MARK_KEY;
pub use happening::{Happening, Happenings};
pub use progress::{Progress, ProgressStream};
pub use retry::RetryPolicy;
pub use running::{Receipt, Running, Stopper};

/// How a file is cut and addressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One request up to the chunk size, byte ranges above it, parts when the length is unknown.
    #[default]
    Auto,
    /// One request without `Content-Range`; at most 200 MiB.
    Single,
    /// `Content-Range: bytes A-B/T`.
    Bytes,
    /// `Content-Range: part N/M`.
    Parts,
}

/// How large chunks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkSize {
    /// Chosen from the file's length and the number of lanes.
    #[default]
    Auto,
    /// This many bytes, between 5 MiB and 200 MiB.
    Bytes(u64),
}

/// What an upload does when its file changes while it is being sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnChange {
    /// It ends with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged).
    #[default]
    Fail,
    /// It deletes the video that it created and begins anew with the file as it is then, three times at
    /// most. A video that was named, or that an upload token fills, is not deleted: the upload fails.
    Restart,
    /// It ends as with [`OnChange::Fail`], and a change of attributes, links or name counts as well. That moves
    /// ctime alone and is otherwise reported as [`Happening::SourceTouched`]: the kernel moves mtime with every
    /// write, but a program can put mtime back.
    Strict,
}

/// When the journal keeps digests of the chunks, by which a later process proves that a file still has the bytes
/// that were sent.
///
/// They are needed where the file's times cannot tell: after a change of its attributes, links or name, and on file
/// systems that keep no ctime. Without them the upload begins anew then. A digest costs 16 bytes a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// Over TLS, where the bytes pass through this process in any case.
    #[default]
    Auto,
    /// Over plain HTTP too, where the process has to read the bytes for it.
    Always,
    /// None are kept.
    Never,
}

/// What an upload does of which the journal has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Unbegun {
    /// It begins.
    #[default]
    Begin,
    /// It ends with an error: an earlier one was to be continued.
    Refuse,
}

/// Where the file goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Into a video that is created for it; needs an API key.
    NewVideo(Box<NewVideo>),
    /// Into a container that exists and is empty; needs an API key.
    Video(String),
    /// To whoever gave the upload token; into its video when one is named.
    Delegated {
        /// The upload token.
        token: Secret,
        /// The container, when it exists already.
        video_id: Option<String>,
    },
}

/// An upload to be described and then sent.
#[must_use = "an upload does nothing until it is sent"]
#[derive(Debug)]
pub struct Upload {
    client: Client,
    request: UploadRequest,
    on_progress: Option<OnProgress>,
}

/// What to upload, where to and how.
#[derive(Debug)]
pub(crate) struct UploadRequest {
    pub(crate) input: Input,
    pub(crate) destination: Option<Destination>,
    pub(crate) video: NewVideo,
    pub(crate) mode: Mode,
    pub(crate) chunk_size: ChunkSize,
    pub(crate) expected_bytes: Option<u64>,
    pub(crate) on_change: OnChange,
    pub(crate) unbegun: Unbegun,
    /// Whether a session that another upload token began is left alone.
    pub(crate) own_token_only: bool,
    /// Whether it is sent even if an unfinished command uploaded it.
    pub(crate) again: bool,
    /// What the caller does with the news of success, where that is waited for.
    news: Option<watch::Receiver<News>>,
}

/// Where the bytes come from.
pub(crate) enum Input {
    File(PathBuf),
    Reader(String, Box<dyn Read + Send>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::File(path) => f.debug_tuple("File").field(path).finish(),
            Input::Reader(name, _) => f.debug_tuple("Reader").field(name).finish(),
        }
    }
}

pub(crate) struct OnProgress(pub(crate) Box<dyn FnMut(&Progress) + Send>);

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// An upload that the service confirmed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Uploaded {
    /// The video that holds the file.
    pub video_id: String,
    /// The video as the service described it in its last answer, where it did.
    pub video: Option<Video>,
    /// The length of the file.
    pub bytes: u64,
    /// How many chunks it was sent in.
    pub chunks: u32,
    /// How they were named on the wire.
    pub addressing: Addressing,
    /// How the file was read; `None` for a stream.
    pub reader: Option<Reader>,
    /// Attempts that were repetitions.
    pub retries: u32,
    /// Bytes sent again after failures.
    pub resent_bytes: u64,
    /// From the start of the upload to the service's confirmation.
    pub elapsed: Duration,
    /// Whether an earlier upload of the same file was remembered ([`Receipt::remember`]), and nothing was sent now.
    pub already: bool,
}

impl Upload {
    fn new(client: Client, input: Input) -> Upload {
        let request = UploadRequest {
            input,
            destination: None,
            video: NewVideo::default(),
            mode: Mode::Auto,
            chunk_size: ChunkSize::Auto,
            expected_bytes: None,
            on_change: OnChange::Fail,
            unbegun: Unbegun::Begin,
            own_token_only: false,
            again: false,
            news: None,
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

    /// Only goes on with what [`Settings::journal`] has of this upload: where that is nothing, it ends with
    /// [`ErrorKind::Journal`](crate::ErrorKind::Journal) before anything is created or sent.
    pub fn only_if_begun(mut self) -> Upload {
        self.request.unbegun = Unbegun::Refuse;
        self
    }

    /// Keeps the upload in [`Settings::journal`] after it has succeeded until its receipt is confirmed.
    ///
    /// Without that it is forgotten with its last answer, and a process that dies before it has passed the
    /// news on uploads the file once more the next time. With it the next run finds the file complete.
    pub fn with_receipt(mut self) -> (Upload, Receipt) {
        let (sender, news) = watch::channel(News::Untold);
        self.request.news = Some(news);
        let receipt = Receipt::new(sender, self.client.clone());
        (self, receipt)
    }

    /// Sends the file even if [`Settings::journal`] has it as uploaded ([`Receipt::remember`]).
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
        let (followers, happenings) = happening::queue();
        let (halt, halted) = watch::channel(Halt::No);
        let job = Job::new(self.request, reply, publish, followers, halted, self.on_progress);
        self.client.command(Command::Upload(Box::new(job))).await?;
        Ok(Running::new(answer, progress, happenings, halt, self.client))
    }
}
