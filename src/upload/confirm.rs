//! Checks after an upload: the ingested size, and the wait for a playable video.

use std::time::{Duration, Instant};

use crate::api::{Quality, QualityStatus, VideoStatus};
use crate::engine::request::Uploaded;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::session::retry::RetryPolicy;
use crate::upload::client::Client;

impl Client {
    /// Compares the size that the service has ingested with the bytes of the upload.
    ///
    /// The service measures the file some time after the upload, so this polls the status, at growing intervals of at
    /// most ten seconds. `timeout` bounds the polling; a request under way at its end is completed, within
    /// [`Settings::retry`](crate::Settings::retry). Dropping the future ends the polling and has no other effect.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] if the sizes differ, [`ErrorKind::Stalled`] after `timeout`, and the errors of
    /// [`Client::video_status`]. Each names the video, which stays at the service.
    pub async fn verify(&self, uploaded: &Uploaded, timeout: Duration) -> Result<()> {
        let video_id = &uploaded.video_id;
        let ingested = self.poll_status(video_id, timeout, VERIFYING, ingested_bytes).await?;
        if ingested == uploaded.bytes {
            return Ok(());
        }
        let reason = format!("{} bytes were sent, but the service has {ingested}", uploaded.bytes);
        Err(Error::new(ErrorKind::Mismatch, VERIFYING).because(reason).with_video_id(video_id))
    }

    /// Waits until the first rendition of a video is ready.
    ///
    /// Polls the status like [`Client::verify`], with the same bounds.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] if every rendition failed to encode, [`ErrorKind::Stalled`] after `timeout`, and the
    /// errors of [`Client::video_status`]. Each names the video, which stays at the service.
    pub async fn wait_until_playable(&self, video_id: &str, timeout: Duration) -> Result<()> {
        match self.poll_status(video_id, timeout, WAITING, encoding).await? {
            EncodingEnd::Playable => Ok(()),
            EncodingEnd::Failed => Err(Error::new(ErrorKind::Mismatch, WAITING)
                .because("every rendition failed to encode: the file may not be a video")
                .with_video_id(video_id)),
        }
    }

    /// Polls the status at growing intervals until `answer` returns `Some`.
    pub(super) async fn poll_status<T>(
        &self,
        video_id: &str,
        timeout: Duration,
        doing: &str,
        answer: impl Fn(&VideoStatus) -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let policy = self.retry_policy().await?;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.video_status(video_id).await {
                Ok(status) => {
                    if let Some(found) = answer(&status) {
                        return Ok(found);
                    }
                }
                // The upload is complete: an error of a gateway or a lagging replica does not question that.
                Err(error) if is_passing(&error, &policy, started.elapsed()) => {}
                Err(error) => return Err(error.with_video_id(video_id)),
            }
            // After the request: a timeout of zero asks once.
            if started.elapsed() >= timeout {
                let waited = humantime::format_duration(timeout);
                let reason = format!("the service has not finished after {waited}");
                let late = Error::new(ErrorKind::Stalled, doing).because(reason).with_video_id(video_id);
                return Err(late.with_hint(Hint::LongerWait));
            }
            self.pause(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Final state of a video's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncodingEnd {
    Playable,
    Failed,
}

fn ingested_bytes(status: &VideoStatus) -> Option<u64> {
    // `null` until the file is complete.
    status.ingest.as_ref()?.filesize
}

/// Returns `None` while the video may still become playable.
pub(super) fn encoding(status: &VideoStatus) -> Option<EncodingEnd> {
    if status.is_playable() {
        return Some(EncodingEnd::Playable);
    }
    let qualities = &status.encoding.as_ref()?.qualities;
    let failed = |quality: &Quality| quality.status == Some(QualityStatus::Failed);
    // The qualities are listed before they are encoded, and one of them is enough to play.
    (!qualities.is_empty() && qualities.iter().all(failed)).then_some(EncodingEnd::Failed)
}

/// Returns `true` if a later request may succeed, `waited` after the first one.
fn is_passing(error: &Error, policy: &RetryPolicy, waited: Duration) -> bool {
    // A replica that lags does not know a video that exists.
    let is_unknown = error.kind() == ErrorKind::NotFound && waited < policy.replica_lag();
    is_unknown || error.is_from_intermediary() && error.kind() == ErrorKind::Refused
}

const VERIFYING: &str = "compare the ingested bytes";
const WAITING: &str = "wait for the video to be playable";
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds the requests that polling takes from the account's limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Refusal;

    fn status(value: serde_json::Value) -> VideoStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_video_never_plays_once_every_rendition_has_failed() {
        let qualities = |states: &[&str]| {
            let of = |state: &&str| json!({"type": "hls", "quality": "720p", "status": state});
            status(
                json!({"encoding": {"playable": false, "qualities": states.iter().map(of).collect::<Vec<_>>()}}),
            )
        };
        assert_eq!(encoding(&qualities(&[])), None);
        assert_eq!(encoding(&qualities(&["failed", "encoding"])), None);
        assert_eq!(encoding(&qualities(&["failed", "failed"])), Some(EncodingEnd::Failed));
        assert_eq!(encoding(&status(json!({"encoding": {"playable": true}}))), Some(EncodingEnd::Playable));
    }

    #[test]
    fn an_unknown_video_is_accepted_only_while_a_replica_may_lag() {
        let policy = RetryPolicy::default();
        let unknown = Error::new(ErrorKind::NotFound, "request the status");
        assert!(is_passing(&unknown, &policy, Duration::ZERO));
        assert!(!is_passing(&unknown, &policy, policy.replica_lag()));
        let page = Refusal { status: 302, ..Refusal::default() };
        let gateway = Error::new(ErrorKind::Refused, "request the status").with_refusal(page);
        assert!(is_passing(&gateway, &policy, Duration::MAX));
        assert!(!is_passing(&Error::new(ErrorKind::NotAuthorized, "x"), &policy, Duration::ZERO));
    }
}
