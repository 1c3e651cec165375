//! Uploads huge video files to api.video, and to any service with the same upload protocol.
//!
//! A [`Client`] uploads files and streams in chunks over several connections, retries temporary failures, and
//! resumes interrupted uploads if it has a journal ([`Settings::journal`]). It runs on threads of its own: its
//! futures work under any executor, and the `_blocking` functions need none. All clones of a client share its
//! connections and its request budget.
//!
//! These words have one meaning throughout:
//!
//! - A *container* is a video at the service whose source is not complete yet.
//! - A *chunk* is the part of the source that goes in one request. A plan divides the source into chunks.
//! - A *lane* is one connection that carries chunks.
//! - A *journal* is a file in which a client notes the containers and the acknowledged chunks of its uploads.
//!
//! # Uploading a file
//!
//! ```no_run
//! # fn main() -> ringlift::Result<()> {
//! let client = ringlift::Client::builder().api_key("the API key").build()?;
//! let uploaded = client.upload("movie.mp4").title("Summer").send_blocking()?;
//! println!("{} has {} bytes", uploaded.video_id, uploaded.bytes);
//! # Ok(())
//! # }
//! ```
//!
//! # Following the progress
//!
//! [`Upload::start`] returns a [`Running`] upload. Its progress is a stream, which ends with the upload.
//!
//! ```no_run
//! # async fn example(client: ringlift::Client) -> ringlift::Result<()> {
//! use futures_util::StreamExt;
//!
//! let running = client.upload("movie.mp4").start().await?;
//! let mut progress = running.progress();
//! while let Some(now) = progress.next().await {
//!     println!("{} of {:?} bytes", now.acknowledged_bytes, now.total_bytes);
//! }
//! let uploaded = running.join().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Sources other than files
//!
//! [`Client::upload_reader`], [`Client::upload_async_read`], [`Client::upload_stream`] and [`Client::upload_bytes`]
//! send bytes that are in no file. The length of a stream may be unknown; [`Upload::len`] states it.
//!
//! ```no_run
//! # async fn example(client: ringlift::Client, socket: tokio::net::TcpStream) -> ringlift::Result<()> {
//! let uploaded = client.upload_async_read("live.mp4", socket).title("Live").send().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Resuming with a journal
//!
//! The same call, made again after a crash or an interruption, sends only the missing chunks, into the same video.
//! The journal forgets an upload once the service has confirmed it; [`Upload::with_receipt`] delays that until the
//! program has stored the result.
//!
//! ```no_run
//! # fn main() -> ringlift::Result<()> {
//! let client = ringlift::Client::builder()
//!     .api_key("the API key")
//!     .with(|settings| settings.journal = Some("uploads.journal".into()))
//!     .build()?;
//! let uploaded = client.upload("movie.mp4").send_blocking()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Continuing without a journal
//!
//! A program with a database of its own stores the [`Checkpoint`] of an upload there, and continues from it in another
//! process or on another host.
//!
//! ```no_run
//! # async fn example(client: ringlift::Client, stored: ringlift::Checkpoint) -> ringlift::Result<()> {
//! use futures_util::StreamExt;
//!
//! let running = client.upload("movie.mp4").resume_from(stored).start().await?;
//! let mut checkpoints = running.checkpoints();
//! while let Some(checkpoint) = checkpoints.next().await {
//!     println!("store this: {checkpoint:?}");
//! }
//! let uploaded = running.join().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Many files
//!
//! A client queues uploads by itself: any number may be started at once. [`bulk::run`] is for lists that do not fit into
//! memory, for a shutdown in stages, and for one stream of the events of all files. The rest of [`bulk`] reads manifests
//! and folders, and keeps the state of jobs. [`monitor`] shows a run on a page and as metrics.
//!
//! # Errors
//!
//! An [`Error`] names the operation and the reason on one line. Programs decide by its [`ErrorKind`]; persons read
//! [`Error::advice`]. If the advice names a setting, [`Error::hint`] returns it as a value, and a program with
//! names of its own for its settings can show those instead.
//!
//! ```no_run
//! # async fn example(client: ringlift::Client) {
//! use ringlift::Hint;
//!
//! if let Err(error) = client.upload("movie.mp4").send().await {
//!     eprintln!("{error}");
//!     match error.hint() {
//!         Some(Hint::SmallerChunks) => eprintln!("lower `chunk_mib` in the configuration"),
//!         _ => eprintln!("{}", error.advice().unwrap_or_default()),
//!     }
//!     if error.is_resumable() {
//!         eprintln!("the same upload can be resumed");
//!     }
//! }
//! # }
//! ```
//!
//! # Testing without an account
//!
//! [`server::Server`] implements the service's protocol on loopback, and can inject faults.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ringlift::Client;
//! use ringlift::server::{Server, ServerSettings};
//!
//! let server = Server::start(ServerSettings::new("target/server-data"))?;
//! let client = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).build()?;
//! let uploaded = client.upload("movie.mp4").send_blocking()?;
//! assert!(!uploaded.video_id.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! All of them are enabled by default. With `default-features = false` a program compiles only the client.
//!
//! | Feature | Adds | Without it |
//! |---|---|---|
//! | `journal` | the journal, a SQLite file | [`Settings::journal`] is refused: an interrupted upload is resumed by another process only from a [`Checkpoint`] |
//! | `uring` | the readers [`Reader::Uring`] and [`Reader::Direct`] | [`Reader::Auto`] uses the memory map or plain reads |
//! | `bulk` | jobs, manifests, folders and reports ([`bulk`]); enables `journal` | |
//! | `monitor` | the pages and metrics of a running program ([`monitor`]); enables `bulk` | |
//! | `server` | the local server for tests ([`server`]) | |
//! | `tune` | the measurement of the machine and of a path ([`tune`]); enables `server` and `uring` | |
//! | `cli` | the command; enables the others | |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod api;
mod body;
#[cfg(feature = "bulk")]
pub mod bulk;
mod engine;
mod error;
mod extent;
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub mod fleet;
#[cfg_attr(not(feature = "journal"), path = "journal/left_out.rs")]
pub mod journal;
#[cfg(feature = "monitor")]
pub mod monitor;
mod pacing;
#[cfg(feature = "server")]
pub mod server;
mod session;
mod source;
mod transport;
#[cfg(feature = "tune")]
pub mod tune;
mod upload;
mod usage;
mod wire;

pub use api::{
    Assets, Clip, Credentials, Encoding, EncodingMetadata, Ingest, IngestStatus, Metadata, NewVideo, Origin,
    Page, PageLink, Pagination, Quality, QualityStatus, ReceivedContent, ReceivedParts, ReceivedRange,
    Redactor, Secret, SecretFlaw, SortOrder, SummaryAttribute, UploadToken, UploadTokenQuery,
    UploadTokenSort, Video, VideoPatch, VideoQuery, VideoSort, VideoSource, VideoStatus, Watermark,
};
pub use error::{Error, ErrorKind, Hint, OneLine, Refusal, Result};
pub use extent::Extent;
pub use journal::{ContainerState, CreatedBy};
pub use pacing::{Caps, Class, LaneHold, QuotaPreset, SharedBudget, ThrottleReason, Workload};
pub use session::event::{FailureSummary, STRAY_VIDEO, StatusReason, UploadEvent};
pub use session::retry::{Fate, RetryPolicy};
pub use source::reader::UnknownReader;
pub use source::{FileSha256, HashingReader, Reader, SigbusHandler, SourceError, StreamSha256};
pub use transport::{
    Bandwidth, DialSettings, Endpoint, EndpointFlaw, MinSpeed, NoProxy, Proxy, ProxyFlaw, Timeouts, Trust,
};
pub use upload::{
    Backlog, Budget, ByClass, ByteCounts, Checkpoint, Checkpoints, Checksum, ChunkSize, Client,
    ClientBuilder, Events, FetchedState, LONGEST_TIME, LaneControl, LaneCounts, LeftoverState, MARK_KEY,
    MOST_LANES, Mode, NotASize, OnChange, PRODUCTION_URL, Progress, ProgressStream, Receipt, RequestCounts,
    Running, SANDBOX_URL, Settings, Size, SkipReason, Snapshot, Stopper, UnknownValue, Upload, UploadCounts,
    UploadOptions, Uploaded,
};
pub use usage::{Usage, UsageMeter};
pub use wire::{Addressing, Chunk, Plan, PlanError, StreamAddressing, StreamPlan, limits};

/// Parts of the engine for the benches, the tests and the command of this package. They change without notice.
#[doc(hidden)]
pub mod internals {
    pub use crate::api::refused;
    pub use crate::body::ChunkBody;
    pub use crate::pacing::{
        ChunkSizing, Pacer, Permit, Quota, RequestKind, ServiceHealth, SharedBudgetSource, Start,
        chunk_bytes_for,
    };
    pub use crate::source::{
        AnySource, BufferPool, Choice, Delivery, Environment, MemoryBudget, Reason, Residency, SourceFile,
        Unavailable, probe,
    };
    pub use crate::transport::{Dialer, Lane};
    pub use crate::wire::{ContentRange, Envelope};
}

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
