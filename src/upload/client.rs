//! The client.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

use crate::api::{
    Api, Credentials, NewVideo, Page, Secret, UploadToken, UploadTokenQuery, Video, VideoPatch, VideoQuery,
    VideoStatus,
};
#[cfg(feature = "bulk")]
use crate::engine::backlog::Backlog;
use crate::engine::command::{DriverTask, EngineCommand};
use crate::engine::control::Control;
use crate::engine::handle::{EngineHandle, engine_ended};
use crate::engine::request::SourceSpec;
use crate::engine::settings::{LaneControl, Settings};
use crate::engine::snapshot::Snapshot;
use crate::engine::stream_input::StreamInput;
use crate::error::Result;
use crate::session::retry::RetryPolicy;
use crate::source::Reader;
use crate::upload::api_calls::{self, ApiCall};
use crate::upload::builder::Upload;

/// Uploads files and asks the service about them.
///
/// A handle: clones share one engine, which ends when the last clone and the last upload are gone.
/// It is [`Send`] and [`Sync`], and its futures run under any executor.
///
/// Dropping the last clone, or the last [`Running`](crate::Running) or [`Receipt`](crate::Receipt) of it, waits
/// for the engine's threads, usually for a moment. A thread that waits for a disk or a network file system which
/// does not answer cannot be ended: after 5 seconds at most it is left behind, and ends once the kernel lets go
/// of it. The memory that its reads fill stays theirs until then.
#[derive(Clone, Debug)]
pub struct Client {
    engine: Arc<EngineHandle>,
    #[cfg(feature = "bulk")]
    backlog: Backlog,
}

/// Collects the [`Settings`] of a [`Client`].
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    settings: Settings,
}

impl ClientBuilder {
    /// Sets the base URL of the service. Default: [`PRODUCTION_URL`](crate::PRODUCTION_URL).
    pub fn endpoint_url(mut self, url: impl Into<String>) -> ClientBuilder {
        self.settings.endpoint_url = url.into();
        self
    }

    /// Sets the API key. Without one, only uploads with an upload token are possible.
    pub fn api_key(mut self, key: impl Into<Secret>) -> ClientBuilder {
        self.settings.credentials = Credentials::ApiKey(key.into());
        self
    }

    /// Adds a PEM file of certificates to trust in addition to the system's.
    pub fn ca_cert(mut self, path: impl AsRef<Path>) -> ClientBuilder {
        self.settings.trust.ca_certs.push(PathBuf::from(path.as_ref()));
        self
    }

    /// Sets the reader of files. Default: chosen by kernel, file and destination.
    pub fn reader(mut self, reader: Reader) -> ClientBuilder {
        self.settings.reader = reader;
        self
    }

    /// Sets the number of connections that carry chunks. Default: 8.
    pub fn lanes(mut self, lanes: usize) -> ClientBuilder {
        self.settings.lanes = lanes;
        self.settings.lane_control = LaneControl::Fixed;
        self
    }

    /// Chooses the number of connections that carry chunks while uploads run, from 1 to `most`.
    pub fn automatic_lanes(mut self, most: usize) -> ClientBuilder {
        self.settings.lanes = most;
        self.settings.lane_control = LaneControl::Automatic;
        self
    }

    /// Changes any setting.
    ///
    /// [`Settings::journal`] resumes uploads across processes. It needs the feature `journal`.
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> ClientBuilder {
        change(&mut self.settings);
        self
    }

    /// Creates the client. Sends nothing.
    ///
    /// # Errors
    /// When a setting cannot work: an address that is no URL, a certificate file that is not there, or two
    /// that contradict each other ([`Settings::check`]).
    pub fn build(self) -> Result<Client> {
        Client::new(self.settings)
    }
}

impl Client {
    /// Returns a builder with the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Creates a client with these settings.
    ///
    /// # Errors
    /// When a setting cannot work: an address that is no URL, a certificate file that is not there, or two
    /// that contradict each other ([`Settings::check`]).
    pub fn new(settings: Settings) -> Result<Client> {
        Ok(Client {
            #[cfg(feature = "bulk")]
            backlog: settings.backlog.clone(),
            engine: Arc::new(EngineHandle::start(settings)?),
        })
    }

    /// Returns the client's [`Settings::backlog`].
    #[cfg(feature = "bulk")]
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Returns a builder for an upload of the file at `path`.
    pub fn upload(&self, path: impl Into<PathBuf>) -> Upload {
        Upload::new(self.engine.clone(), SourceSpec::File(path.into()))
    }

    /// Returns a builder for an upload of everything that `reader` returns until its end, under the name `file_name`.
    ///
    /// The length need not be known; [`Upload::len`] states it. Chunks stay in memory until they are acknowledged,
    /// within [`Settings::buffer_bytes`]. While that memory is in use, nothing is read.
    ///
    /// The reader is called on a thread of its own. A read may block for as long as it likes and cannot be interrupted:
    /// after the upload ended, the thread waits for the last read to return. A panic of the reader fails the upload.
    pub fn upload_reader(
        &self,
        file_name: impl Into<String>,
        reader: impl std::io::Read + Send + 'static,
    ) -> Upload {
        let input = StreamInput::Blocking(Box::new(reader));
        Upload::new(self.engine.clone(), SourceSpec::Stream(file_name.into(), input))
    }

    /// Returns a builder for an upload of everything that `reader` returns until its end, under the name `file_name`.
    ///
    /// As [`Client::upload_reader`], except for the reader's thread: it polls the reader inside a runtime of tokio that
    /// belongs to this upload, so that the caller needs no runtime. A reader that belongs to a runtime of the caller,
    /// such as a socket, needs that runtime to run meanwhile. Dropping the upload ends a read at once. If the reader
    /// returns nothing for [`Timeouts::body`](crate::transport::Timeouts::body), the upload fails with
    /// [`ErrorKind::Stalled`](crate::ErrorKind::Stalled).
    pub fn upload_async_read(
        &self,
        file_name: impl Into<String>,
        reader: impl AsyncRead + Send + 'static,
    ) -> Upload {
        let input = StreamInput::Async(Box::pin(reader));
        Upload::new(self.engine.clone(), SourceSpec::Stream(file_name.into(), input))
    }

    /// Returns a builder for an upload of the pieces of `stream` until its end, under the name `file_name`. Pieces may
    /// have any length. Each is copied once, into the memory of its chunk.
    ///
    /// Polled as the reader of [`Client::upload_async_read`], with the same limits.
    pub fn upload_stream(
        &self,
        file_name: impl Into<String>,
        stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Upload {
        let input = StreamInput::Pieces(Box::pin(stream));
        Upload::new(self.engine.clone(), SourceSpec::Stream(file_name.into(), input))
    }

    /// Returns a builder for an upload of `bytes` under the name `file_name`.
    ///
    /// The bytes are planned like a file, in one request or in ranges, and are not copied. They do not count towards
    /// [`Settings::buffer_bytes`]. A journal records the upload and cannot resume it.
    pub fn upload_bytes(&self, file_name: impl Into<String>, bytes: impl Into<Bytes>) -> Upload {
        Upload::new(self.engine.clone(), SourceSpec::Memory(file_name.into(), bytes.into()))
    }

    /// Returns the numbers of this client at this moment, for monitors and metrics.
    ///
    /// Never waits for the engine and works from any thread, also after the engine has ended. All clones of a client
    /// share the numbers.
    pub fn snapshot(&self) -> Snapshot {
        self.engine.snapshot()
    }

    /// Runs a call on the driver's thread. Dropping the future discards the answer and does not cancel the call.
    async fn call<T: Send + 'static>(&self, call: ApiCall<T>) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let run = move |api: Rc<Api<Control>>, policy: RetryPolicy| -> DriverTask {
            let call = call(api, policy);
            // The send fails if the caller dropped its future.
            Box::pin(async move { drop(reply.send(call.await)) })
        };
        self.engine.command(EngineCommand::DriverCall(Box::new(run))).await?;
        answer.await.map_err(|_| engine_ended())?
    }

    /// Returns the engine's retry policy.
    pub(super) async fn retry_policy(&self) -> Result<RetryPolicy> {
        self.call(api_calls::retry_policy()).await
    }

    /// Waits on the driver's timer, because the caller's executor may have none.
    pub(crate) async fn pause(&self, duration: Duration) -> Result<()> {
        self.call(api_calls::pause(duration)).await
    }
}

/// The service's own calls, repeated on temporary failures as the [`RetryPolicy`] says.
impl Client {
    /// Creates a container for a video.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached. After a lost answer an empty container may be left.
    pub async fn create_video(&self, video: NewVideo) -> Result<Video> {
        self.call(api_calls::create_video(video)).await
    }

    /// Creates a container that can be found by `mark` if the answer is lost. Returns the id of its video.
    ///
    /// `may_exist` is `true` if an earlier call with this mark may have created the container: it is searched for first.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    #[cfg(feature = "bulk")]
    pub(crate) async fn create_marked_video(
        &self,
        video: NewVideo,
        mark: String,
        may_exist: bool,
    ) -> Result<String> {
        self.call(api_calls::create_marked_video(video, mark, may_exist)).await
    }

    /// Returns the description of a video.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn video(&self, video_id: impl Into<String>) -> Result<Video> {
        self.call(api_calls::video(video_id.into())).await
    }

    /// Returns one page of the account's videos.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn videos(&self, query: VideoQuery) -> Result<Page<Video>> {
        self.call(api_calls::videos(query)).await
    }

    /// Returns the video with the mark of an upload, as [`ContainerState::mark`](crate::journal::ContainerState::mark)
    /// gives it: one that was created though the answer was lost.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn marked_video(&self, mark: impl Into<String>) -> Result<Option<String>> {
        self.call(api_calls::marked_video(mark.into())).await
    }

    /// Returns all videos with the mark of an upload, the newest first. More than one is left if two hosts created the
    /// video of one job at the same time.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    #[cfg(feature = "bulk")]
    pub(crate) async fn marked_videos(&self, mark: String) -> Result<Vec<Video>> {
        self.call(api_calls::marked_videos(mark)).await
    }

    /// Returns `true` if the service answers a request for a short list, whatever its answer. Makes one attempt.
    ///
    /// # Errors
    /// When the client has ended.
    #[cfg(feature = "bulk")]
    pub(crate) async fn is_service_reachable(&self) -> Result<bool> {
        self.call(api_calls::is_service_reachable()).await
    }

    /// Changes a video's description.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn update_video(&self, video_id: impl Into<String>, patch: VideoPatch) -> Result<Video> {
        self.call(api_calls::update_video(video_id.into(), patch)).await
    }

    /// Deletes a video.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn delete_video(&self, video_id: impl Into<String>) -> Result<()> {
        self.call(api_calls::delete_video(video_id.into())).await
    }

    /// Returns the upload and encoding status of a video.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn video_status(&self, video_id: impl Into<String>) -> Result<VideoStatus> {
        self.call(api_calls::video_status(video_id.into())).await
    }

    /// Creates an upload token that lives for `ttl`, or for ever.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn create_upload_token(&self, ttl: Option<Duration>) -> Result<UploadToken> {
        self.call(api_calls::create_upload_token(ttl)).await
    }

    /// Returns one page of the account's upload tokens.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn upload_tokens(&self, query: UploadTokenQuery) -> Result<Page<UploadToken>> {
        self.call(api_calls::upload_tokens(query)).await
    }

    /// Fetches the description of an upload token.
    ///
    /// # Errors
    /// When there is no such token, or the service refuses or cannot be reached.
    pub async fn upload_token(&self, token: impl Into<Secret>) -> Result<UploadToken> {
        self.call(api_calls::upload_token(token.into())).await
    }

    /// Deletes an upload token. Uploads with it fail from then on.
    ///
    /// # Errors
    /// When there is no such token, or the service refuses or cannot be reached.
    pub async fn delete_upload_token(&self, token: impl Into<Secret>) -> Result<()> {
        self.call(api_calls::delete_upload_token(token.into())).await
    }
}
