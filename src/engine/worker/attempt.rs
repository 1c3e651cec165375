//! The result of one attempt at a chunk.

use bytes::Bytes;
use http::Response;

use crate::api::{RateLimit, UploadAnswer, Video};
use crate::engine::chunk_request::ChunkRequest;
use crate::error::{Error, ErrorKind};
use crate::session::retry::Fate;
use crate::session::{Completion, Outcome};
use crate::source::{AnySource, FileIdentity, Source};

/// The result of an attempt at a chunk.
pub(super) struct AttemptResult {
    pub(super) outcome: Outcome,
    /// The status of the answer; `None` without an answer.
    pub(super) status: Option<u16>,
    pub(super) video: Option<Box<Video>>,
    pub(super) rate_limit: Option<RateLimit>,
    /// The file's identity after the answer, if the service has accepted the chunk.
    pub(super) checked: Option<FileIdentity>,
}

impl AttemptResult {
    pub(super) fn failed(error: Error, fate: Fate) -> AttemptResult {
        AttemptResult {
            outcome: Outcome::Failed { error, fate },
            status: None,
            video: None,
            rate_limit: None,
            checked: None,
        }
    }

    pub(super) fn answered(
        answer: &Response<Bytes>,
        order: &ChunkRequest,
        source: &AnySource,
    ) -> AttemptResult {
        let rate_limit = RateLimit::from_headers(answer.headers());
        let status = Some(answer.status().as_u16());
        let answer = UploadAnswer::read(answer, &order.redactor).and_then(|answer| {
            // A page that could not be read was replaced by zeros, and a changed file may have sent mixed bytes. The
            // answer counts only if neither happened.
            source.check()?;
            let checked = order.chunk_source.check_unchanged()?;
            Ok((answer, checked))
        });
        let (outcome, video, checked) = match answer {
            Ok((UploadAnswer { video_id, complete, .. }, checked)) => {
                let completion = if complete.is_some() { Completion::Complete } else { Completion::Open };
                (Outcome::Accepted { video_id, completion }, complete.map(Box::new), checked)
            }
            Err(error) => {
                // An acknowledgement that cannot be read is one all the same. A refusal stores nothing, and a changed
                // file ends the upload whatever the service has.
                let fate = match error.kind() {
                    ErrorKind::MalformedAnswer => Fate::Unknown,
                    _ => Fate::NotStored,
                };
                (Outcome::Failed { error: error.doing(&order.doing), fate }, None, None)
            }
        };
        AttemptResult { outcome, status, video, rate_limit: Some(rate_limit), checked }
    }
}
