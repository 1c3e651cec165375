//! The public face: a client, uploads that are described and sent, and handles to those under way.

mod builder;
mod client;
mod events;
mod progress;
mod running;

pub use crate::engine::creation::MARK_KEY;
pub use crate::engine::options::{Checksum, ChunkSize, Mode, OnChange, UnknownValue, UploadOptions};
pub use crate::engine::progress::Progress;
pub use crate::engine::request::Uploaded;
pub use crate::engine::settings::{PRODUCTION_URL, SANDBOX_URL, Settings};
pub use crate::engine::size::{NotASize, Size};
pub use crate::engine::validate::{LONGEST_TIME, MOST_LANES};
pub use builder::Upload;
pub use client::{Client, ClientBuilder};
pub use events::Events;
pub use progress::ProgressStream;
pub use running::{Receipt, Running, Stopper};
