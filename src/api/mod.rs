//! api.video's JSON endpoints, spoken over one seam: [`Exchange`].
//!
//! [`Api`] is meant for one thread. Every call is one attempt, except that a 401 which a fresh
//! access token can cure is cured and the call made again, once: a 401 means that nothing was done.
//! Dropping the future of a call abandons it; whether the service had done it by then is unknown.
//! Answers are read with tolerance: any 2xx, unknown keys, nulls and unknown enum values are fine.
//!
//! Does not know: files, chunks, threads, connections, the clock, and whether a call is tried again.

mod advice;
mod auth;
mod call;
mod hygiene;
mod lenient;
mod origin;
mod page;
mod problem;
mod query;
mod rate;
mod redactor;
mod secret;
mod status;
mod upload_answer;
mod upload_tokens;
mod video;
mod video_changes;
mod videos;

use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;

use crate::error::Result;

pub use auth::Credentials;
pub use hygiene::SecretFlaw;
pub use origin::Origin;
pub use page::{Link, Page, Pagination, SortOrder};
pub use problem::refused;
pub use rate::{LONGEST_WAIT, RateLimit};
pub use redactor::Redactor;
pub use secret::Secret;
pub use status::{
    Encoding, EncodingMetadata, Ingest, IngestStatus, Quality, QualityStatus, Received, ReceivedParts,
    ReceivedRange, VideoStatus,
};
pub use upload_answer::{UploadAnswer, delegated_path, source_path};
pub use upload_tokens::{UploadToken, UploadTokenQuery, UploadTokenSort, UploadTokens};
pub use video::{Assets, Metadata, Video, VideoSource};
pub use video_changes::{Clip, NewVideo, SummaryAttribute, VideoPatch, Watermark};
pub use videos::{VideoQuery, VideoSort, Videos};

use auth::Auth;
use call::{Call, Service};

/// One exchange with the service: a request out, its whole answer back.
///
/// The request's URI is a path and a query. `Host`, connections and every bound on waiting and on
/// the answer's length are the exchange's business. Paths, bodies and the `Authorization` header
/// may hold secrets: an exchange does not log them.
pub trait Exchange {
    /// Sends `request` and reads the answer, whatever its status.
    ///
    /// # Errors
    /// When no whole answer came back.
    fn exchange(&self, request: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Bytes>>>;
}

/// The service's JSON endpoints, over the exchange `E`.
#[derive(Debug)]
pub struct Api<E> {
    service: Service<E>,
    auth: Auth,
}

impl<E: Exchange> Api<E> {
    /// The service behind `exchange`, for the holder of `credentials`.
    ///
    /// `redactor` learns the credentials, and each token that the service grants for them. No error holds
    /// one of them.
    pub fn new(exchange: E, credentials: Credentials, origin: Origin, redactor: Redactor) -> Api<E> {
        redactor.add_credentials(&credentials);
        Api { service: Service::new(exchange, origin, redactor), auth: Auth::new(credentials) }
    }

    /// The calls about videos. `now` decides whether an access token is due for renewal.
    pub fn videos(&self, now: Instant) -> Videos<'_, E> {
        Videos { api: self, now }
    }

    /// The calls about upload tokens. `now` decides whether an access token is due for renewal.
    pub fn upload_tokens(&self, now: Instant) -> UploadTokens<'_, E> {
        UploadTokens { api: self, now }
    }

    /// Who is calling, for the requests that are made elsewhere.
    pub fn origin(&self) -> &Origin {
        self.service.origin()
    }

    /// The `Authorization` for one attempt at a request, if the credentials give one.
    ///
    /// Callers that wait for the same token share one renewal. A token is renewed at 80 % of its
    /// life, and goes on being used when that fails for a passing reason.
    ///
    /// # Errors
    /// When a token is needed and could not be obtained.
    pub async fn authorization(&self, now: Instant) -> Result<Option<HeaderValue>> {
        self.auth.authorization(&self.service, now).await
    }

    /// The `Authorization` to use after `used` was answered with 401; `None` when the 401 is final.
    ///
    /// A token is renewed at most once, however many callers come back with it.
    ///
    /// # Errors
    /// When a fresh token could not be obtained.
    pub async fn renew_after_401(&self, used: &HeaderValue, now: Instant) -> Result<Option<HeaderValue>> {
        self.auth.renew_after_401(&self.service, used, now).await
    }

    /// Makes one call with the caller's authority.
    async fn call(&self, call: &Call, now: Instant) -> Result<http::Response<Bytes>> {
        let used = self.authorization(now).await?;
        let refused = match self.service.send(call, used.as_ref()).await {
            Err(refused) if refused.refusal().is_some_and(|refusal| refusal.status == 401) => refused,
            answer => return answer,
        };
        let Some(used) = used else { return Err(refused) };
        match self.renew_after_401(&used, now).await? {
            Some(fresh) => self.service.send(call, Some(&fresh)).await,
            None => Err(refused),
        }
    }
}

#[cfg(test)]
mod scripted;
