//! Uploads huge video files to api.video and to anything that speaks its upload protocol.

pub mod api;
pub mod body;
mod engine;
pub mod error;
pub mod extent;
pub mod journal;
pub mod pacing;
pub mod server;
pub mod session;
pub mod source;
pub mod transport;
pub mod upload;
pub mod wire;

pub use api::{
    Credentials, NewVideo, Page, Secret, UploadToken, UploadTokenQuery, Video, VideoPatch, VideoQuery,
    VideoStatus,
};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use session::event::UploadEvent;
pub use session::retry::RetryPolicy;
pub use source::{Reader, SigbusHandler};
pub use transport::Bandwidth;
pub use upload::{
    Checksum, ChunkSize, Client, ClientBuilder, Events, Mode, OnChange, PRODUCTION_URL, Progress,
    ProgressStream, Receipt, Running, SANDBOX_URL, Settings, Stopper, Upload, Uploaded,
};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
