//! The handle that programs hold.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::api::{
    Api, Credentials, NewVideo, Origin, Page, Redactor, Secret, UploadToken, UploadTokenQuery, Video,
    VideoPatch, VideoQuery, VideoStatus,
};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Reader, SigbusHandler};
use crate::transport::{Bandwidth, DialSettings, Timeouts, Trust};
use crate::upload::calls::persistently;
use crate::upload::control::Control;
use crate::upload::creation;
use crate::upload::driver;
use crate::upload::job::{Command, Task};
use crate::upload::pace::Caps;
use crate::upload::retry::RetryPolicy;
use crate::upload::threads::{self, Bounded, DRIVER_END, Ending};
use crate::upload::{Checksum, Input, Upload};

/// The service's production address (`/reference/README`).
pub const PRODUCTION_URL: &str = "https://ws.api.video";

/// The service's sandbox: videos are cut to 30 s, watermarked, deleted after a day (`/reference/README`).
pub const SANDBOX_URL: &str = "https://sandbox.api.video";

/// How a client works. Start from [`Settings::default`] or use [`Client::builder`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where the service is, `http` or `https`, with an optional path before its own.
    pub endpoint_url: String,
    /// What proves who asks.
    pub credentials: Credentials,
    /// The secrets that no error holds: the client adds its credentials and the tokens that it is granted. A program
    /// that shares it can take them out of its own output.
    pub redactor: Redactor,
    /// How the requests introduce themselves.
    pub origin: Origin,
    /// Whom to trust over TLS.
    pub trust: Trust,
    /// How connections are made.
    pub dial: DialSettings,
    /// How long to wait for what.
    pub patience: Timeouts,
    /// How often and how long to try.
    pub retry: RetryPolicy,
    /// How files are read.
    pub reader: Reader,
    /// Whose signal SIGBUS is, on which depends how [`Reader::Auto`] reads cached files over TLS.
    pub sigbus: SigbusHandler,
    /// Connections that carry chunks, at least 1.
    pub lanes: usize,
    /// Uploads under way at once, at least 1; further ones wait their turn.
    pub transfers: usize,
    /// Where every container and every acknowledged chunk is written down, so that the same upload can be
    /// taken up after a crash; `None` keeps no journal.
    pub journal: Option<PathBuf>,
    /// When the journal keeps digests of the chunks of files.
    pub checksum: Checksum,
    /// How many requests the caller allows.
    pub caps: Caps,
    /// How many bytes a second all lanes together may send. Keep a clone to change it later.
    pub bandwidth: Bandwidth,
    /// Bytes that chunks of streams may hold in memory, all streams together; what has no room waits. A stream
    /// takes room for a whole chunk when the chunk's first byte is there, and 64 KiB of its own beside it.
    pub buffer_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            endpoint_url: PRODUCTION_URL.to_owned(),
            credentials: Credentials::None,
            redactor: Redactor::new(),
            origin: Origin::default(),
            trust: Trust::default(),
            dial: DialSettings::default(),
            patience: Timeouts::default(),
            retry: RetryPolicy::default(),
            reader: Reader::Auto,
            sigbus: SigbusHandler::Leave,
            lanes: DEFAULT_LANES,
            transfers: DEFAULT_TRANSFERS,
            journal: None,
            checksum: Checksum::Auto,
            caps: Caps::default(),
            bandwidth: Bandwidth::unlimited(),
            buffer_bytes: DEFAULT_BUFFER_BYTES,
        }
    }
}

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
    engine: Arc<Engine>,
}

/// Collects the [`Settings`] of a [`Client`].
#[derive(Clone, Debug, Default)]
pub struct ClientBuilder {
    settings: Settings,
}

impl ClientBuilder {
    /// Where the service is; [`PRODUCTION_URL`] unless told.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> ClientBuilder {
        self.settings.endpoint_url = url.into();
        self
    }

    /// The API key. Without one, only uploads with an upload token are possible.
    pub fn api_key(mut self, key: impl Into<Secret>) -> ClientBuilder {
        self.settings.credentials = Credentials::ApiKey(key.into());
        self
    }

    /// A file with certificates, in PEM, to trust beside the system's.
    pub fn ca_cert(mut self, path: impl AsRef<Path>) -> ClientBuilder {
        self.settings.trust.ca_certs.push(PathBuf::from(path.as_ref()));
        self
    }

    /// How files are read; chosen by looking at kernel, file and destination unless told.
    pub fn reader(mut self, reader: Reader) -> ClientBuilder {
        self.settings.reader = reader;
        self
    }

    /// How many connections carry chunks; 8 unless told.
    pub fn lanes(mut self, lanes: usize) -> ClientBuilder {
        self.settings.lanes = lanes;
        self
    }

    /// Changes any setting.
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> ClientBuilder {
        change(&mut self.settings);
        self
    }

    /// The client. Nothing is sent yet.
    ///
    /// # Errors
    /// When a setting cannot work: an address that is no URL, a certificate file that is not there, or two
    /// that contradict each other ([`Settings::check`]).
    pub fn build(self) -> Result<Client> {
        Client::new(self.settings)
    }
}

impl Client {
    /// Starts with the defaults.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with these settings.
    ///
    /// # Errors
    /// When a setting cannot work: an address that is no URL, a certificate file that is not there, or two
    /// that contradict each other ([`Settings::check`]).
    pub fn new(settings: Settings) -> Result<Client> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let driver = driver::prepare(settings, inbox)?;
        let refused = |error: io::Error| {
            let refused = Error::new(ErrorKind::Internal, "start the driver's thread").with_source(error);
            refused.because("the system refuses what a thread needs").with_advice(NO_ROOM)
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let run = move || driver.run(ready);
        let thread = threads::start("ringlift-driver".to_owned(), run).map_err(refused)?;
        if let Ok(error) = is_ready.recv() {
            return Err(refused(error));
        }
        let engine = Engine { commands: Some(commands), thread: Mutex::new(Some(thread)) };
        Ok(Client { engine: Arc::new(engine) })
    }

    /// An upload of the file at `path`, to be described further and then sent.
    pub fn upload(&self, path: impl Into<PathBuf>) -> Upload {
        Upload::new(self.clone(), Input::File(path.into()))
    }

    /// An upload of everything that `reader` gives until its end, under the name `file_name`.
    ///
    /// The length need not be known; chunks wait in memory until they are acknowledged, within
    /// [`Settings::buffer_bytes`].
    pub fn upload_reader(
        &self,
        file_name: impl Into<String>,
        reader: impl std::io::Read + Send + 'static,
    ) -> Upload {
        Upload::new(self.clone(), Input::Reader(file_name.into(), Box::new(reader)))
    }

    pub(super) async fn command(&self, command: Command) -> Result<()> {
        let commands = self.engine.commands.as_ref().ok_or_else(gone)?;
        commands.send(command).await.map_err(|_| gone())
    }

    /// Runs a call on the driver's thread. Dropping the future gives up its answer, not the call.
    async fn call<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFn(&Api<Control>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let run = move |api: Rc<Api<Control>>, policy: RetryPolicy| -> Task {
            Box::pin(async move {
                let result = persistently(&policy, async || call(&api).await).await;
                // Nobody waits any more when the caller dropped its future.
                let _ = reply.send(result);
            })
        };
        self.command(Command::Call(Box::new(run))).await?;
        answer.await.map_err(|_| gone())?
    }
}

/// The service's own calls, repeated on temporary failures as the [`RetryPolicy`] says.
impl Client {
    /// Creates a container for a video.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached. After a lost answer an empty container may be left.
    pub async fn create_video(&self, video: NewVideo) -> Result<Video> {
        self.call(async move |api| api.videos(Instant::now()).create(&video).await).await
    }

    /// A video's description.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn video(&self, video_id: impl Into<String>) -> Result<Video> {
        let video_id = video_id.into();
        self.call(async move |api| api.videos(Instant::now()).get(&video_id).await).await
    }

    /// One page of the account's videos.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn videos(&self, query: VideoQuery) -> Result<Page<Video>> {
        self.call(async move |api| api.videos(Instant::now()).list(&query).await).await
    }

    /// The video that carries the mark of an upload, as [`Container::mark`](crate::upload::journal::Container::mark)
    /// gives it: one that was created though the answer was lost.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn marked_video(&self, mark: impl Into<String>) -> Result<Option<String>> {
        let mark = mark.into();
        self.call(async move |api| creation::find(api, &mark).await).await
    }

    /// Changes a video's description.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn update_video(&self, video_id: impl Into<String>, patch: VideoPatch) -> Result<Video> {
        let video_id = video_id.into();
        self.call(async move |api| api.videos(Instant::now()).update(&video_id, &patch).await).await
    }

    /// Deletes a video.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn delete_video(&self, video_id: impl Into<String>) -> Result<()> {
        let video_id = video_id.into();
        self.call(async move |api| api.videos(Instant::now()).delete(&video_id).await).await
    }

    /// What the service has received of a video and made of it.
    ///
    /// # Errors
    /// When there is no such video, or the service refuses or cannot be reached.
    pub async fn video_status(&self, video_id: impl Into<String>) -> Result<VideoStatus> {
        let video_id = video_id.into();
        self.call(async move |api| api.videos(Instant::now()).status(&video_id).await).await
    }

    /// Creates an upload token that lives for `ttl`, or for ever.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn create_upload_token(&self, ttl: Option<Duration>) -> Result<UploadToken> {
        self.call(async move |api| api.upload_tokens(Instant::now()).create(ttl).await).await
    }

    /// One page of the account's upload tokens.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn upload_tokens(&self, query: UploadTokenQuery) -> Result<Page<UploadToken>> {
        self.call(async move |api| api.upload_tokens(Instant::now()).list(&query).await).await
    }

    /// Deletes an upload token: nobody can upload with it any more.
    ///
    /// # Errors
    /// When there is no such token, or the service refuses or cannot be reached.
    pub async fn delete_upload_token(&self, token: impl Into<Secret>) -> Result<()> {
        let token = token.into();
        self.call(async move |api| api.upload_tokens(Instant::now()).delete(&token).await).await
    }
}

/// The driver's thread, and the way to it.
#[derive(Debug)]
struct Engine {
    commands: Option<mpsc::Sender<Command>>,
    thread: Mutex<Option<Bounded>>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The driver ends when its commands do.
        self.commands = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread.filter(|thread| !thread.is_current()) else { return };
        match thread.join_until(Instant::now() + DRIVER_END) {
            Ending::Joined => {}
            Ending::Panicked => tracing::error!("the driver's thread panicked"),
            Ending::LeftBehind => tracing::warn!("the driver is left behind: a file system does not answer"),
        }
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Internal, "reach the engine, which has ended")
}

/// In place of the advice that an internal error is a defect: it is the machine.
pub(super) const NO_ROOM: &str = "look at the limits of the process and the machine: open files (`ulimit -n`), threads (`ulimit -u`) and memory";

/// Enough to hide a round trip per chunk on fast links, and few enough for the service's limits.
const DEFAULT_LANES: usize = 8;
/// As many as lanes: a file of one chunk uses one.
const DEFAULT_TRANSFERS: usize = DEFAULT_LANES;
const DEFAULT_BUFFER_BYTES: u64 = 256 << 20;

/// Commands that may wait for the driver; senders wait beyond that.
const COMMANDS: usize = 64;
