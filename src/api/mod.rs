//! api.video's JSON endpoints over one interface to HTTP: [`Exchange`].
//!
//! [`Api`] is meant for one thread. Every call is one attempt, with one exception: after a 401, the access token
//! is renewed if possible and the call is repeated once, because a 401 means that nothing was done.
//! Dropping the future of a call abandons it; the service may have executed the call by then.
//! Answers are read with tolerance: any 2xx, unknown keys, nulls and unknown enum values are accepted.
//!
//! Does not know: files, chunks, threads, connections, the clock, retries.

mod advice;
mod auth;
mod call;
mod credentials;
mod de;
mod endpoints;
mod exchange;
mod known_problems;
mod origin;
mod page;
mod path_builder;
mod problem;
mod rate;
mod redactor;
mod secret;
mod secret_flaw;
mod status;
mod upload_answer;
mod upload_tokens;
mod video;
mod video_changes;
mod videos;

pub use credentials::Credentials;
pub(crate) use endpoints::Api;
pub(crate) use exchange::Exchange;
pub use origin::Origin;
pub use page::{Page, PageLink, Pagination, SortOrder};
pub use problem::refused;
pub(crate) use rate::RateLimit;
pub use redactor::Redactor;
pub use secret::Secret;
pub use secret_flaw::SecretFlaw;
pub use status::{
    Encoding, EncodingMetadata, Ingest, IngestStatus, Quality, QualityStatus, ReceivedContent, ReceivedParts,
    ReceivedRange, VideoStatus,
};
pub(crate) use upload_answer::source_path;
pub(crate) use upload_answer::{UploadAnswer, delegated_path};
pub use upload_tokens::{UploadToken, UploadTokenQuery, UploadTokenSort};
pub use video::{Assets, Metadata, Video, VideoSource};
pub use video_changes::{Clip, NewVideo, SummaryAttribute, VideoPatch, Watermark};
pub use videos::{VideoQuery, VideoSort};

#[cfg(test)]
mod scripted;
