//! The wait for a video whose content the service fetches itself.

use std::time::Duration;

use crate::api::{IngestStatus, VideoStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::upload::client::Client;
use crate::upload::confirm::{EncodingEnd, encoding};

/// The state of a fetched video that ends the wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchedState {
    /// The service has received and inspected the content.
    #[default]
    Ingested,
    /// The first rendition is ready.
    Playable,
}

impl Client {
    /// Waits until the service has fetched the content of a video that was created with
    /// [`NewVideo::source`](crate::NewVideo::source).
    ///
    /// Polls the status at growing intervals of at most ten seconds. `timeout` bounds the polling; a request under way at
    /// its end is completed. Dropping the future ends the polling, and the service goes on fetching.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if the service could not fetch or encode the content, [`ErrorKind::Stalled`] after
    /// `timeout`, and the errors of [`Client::video_status`]. Each names the video, which stays at the service.
    pub async fn wait_until_fetched(
        &self,
        video_id: &str,
        state: FetchedState,
        timeout: Duration,
    ) -> Result<()> {
        let answer = |status: &VideoStatus| fetched(status, state);
        match self.poll_status(video_id, timeout, FETCHING, answer).await? {
            Ok(()) => Ok(()),
            Err(why) => Err(Error::new(ErrorKind::Refused, FETCHING)
                .because(why)
                .with_video_id(video_id)
                .with_advice("check that the URL is public and leads to a video file")),
        }
    }
}

/// Returns the end of the fetch, a failure with its reason; `None` while the service has not ended it.
fn fetched(status: &VideoStatus, state: FetchedState) -> Option<Result<(), String>> {
    let ingest = status.ingest.as_ref().and_then(|ingest| ingest.status.as_ref());
    match (encoding(status), ingest) {
        // First: a playable video was received, whatever the other field states.
        (Some(EncodingEnd::Playable), _) => Some(Ok(())),
        // The documented states have no failure. A service that reports one uses a word that contains it.
        (_, Some(IngestStatus::Unknown(word)))
            if ["fail", "error"].iter().any(|bad| word.to_lowercase().contains(bad)) =>
        {
            Some(Err(format!("the service reports the ingest status `{word}`")))
        }
        (Some(EncodingEnd::Failed), _) => Some(Err("every rendition failed to encode".to_owned())),
        (None, Some(IngestStatus::Ingested)) if state == FetchedState::Ingested => Some(Ok(())),
        (None, _) => None,
    }
}

const FETCHING: &str = "wait for the service to fetch the video";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_wait_ends_in_the_requested_state_or_with_a_failure() {
        use FetchedState::{Ingested, Playable};
        let fetched = |status: Value, state| fetched(&serde_json::from_value(status).unwrap(), state);
        let ingest = |word: &str| json!({"ingest": {"status": word}});
        assert_eq!(fetched(json!({}), Ingested), None);
        assert_eq!(fetched(ingest("ingesting"), Ingested), None);
        assert_eq!(fetched(ingest("ingested"), Ingested), Some(Ok(())));
        assert_eq!(fetched(ingest("ingested"), Playable), None);
        assert!(matches!(fetched(ingest("failed"), Ingested), Some(Err(_))));
        assert!(matches!(fetched(ingest("ingestError"), Playable), Some(Err(_))));
        let encoding = |playable: bool, status: &str| {
            let qualities = json!([{"quality": "720p", "status": status}]);
            json!({"encoding": {"playable": playable, "qualities": qualities}})
        };
        assert_eq!(fetched(encoding(true, "encoded"), Playable), Some(Ok(())));
        assert!(matches!(fetched(encoding(false, "failed"), Playable), Some(Err(_))));
    }
}
