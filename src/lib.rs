//! Uploads huge video files to api.video and to anything that speaks its upload protocol.

pub mod api;
pub mod body;
pub mod error;
pub mod extent;
pub mod server;
pub mod source;
pub mod transport;
pub mod upload;
pub mod wire;

pub use api::{
    Credentials, NewVideo, Page, Secret, UploadToken, UploadTokenQuery, Video, VideoPatch, VideoQuery,
    VideoStatus,
};
pub use error::{Error, ErrorKind, Hint, Refusal, Result};
pub use source::{Reader, Sigbus};
pub use transport::Bandwidth;
pub use upload::{
    Checksum, ChunkSize, Client, ClientBuilder, Happening, Happenings, Mode, OnChange, PRODUCTION_URL,
    Progress, ProgressStream, Receipt, RetryPolicy, Running, SANDBOX_URL, Settings, Stopper, Upload,
    Uploaded,
};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
