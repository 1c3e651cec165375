//! Uploads huge video files to api.video, and to any service with the same upload protocol.
//!
//! A [`Client`] uploads files and streams in chunks over several connections, retries temporary failures, and
//! resumes interrupted uploads if it has a journal ([`Settings::journal`]). It runs on threads of its own: its
//! futures work under any executor, and the `_blocking` functions need none.
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

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod api;
pub mod body;
pub mod bulk;
mod engine;
pub mod error;
pub mod extent;
pub mod journal;
pub mod monitor;
pub mod pacing;
pub mod server;
pub mod session;
pub mod source;
pub mod transport;
pub mod upload;
mod usage;
pub mod wire;

pub use api::{
    Credentials, NewVideo, Page, Secret, UploadToken, UploadTokenQuery, Video, VideoPatch, VideoQuery,
    VideoStatus,
};
pub use error::{Error, ErrorKind, Hint, Refusal, Result};
pub use journal::{ContainerState, CreatedBy};
pub use session::event::UploadEvent;
pub use session::retry::RetryPolicy;
pub use source::{Reader, SigbusHandler};
pub use transport::Bandwidth;
pub use upload::{
    Backlog, Checkpoint, Checkpoints, Checksum, ChunkSize, Client, ClientBuilder, Events, FetchedState, Mode,
    OnChange, PRODUCTION_URL, Progress, ProgressStream, Receipt, Running, SANDBOX_URL, Settings, Size,
    Snapshot, Stopper, Upload, UploadOptions, Uploaded,
};
pub use usage::{Usage, UsageMeter};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
