//! The marks of videos that a measurement creates, and their deletion.

use crate::api::{Metadata, NewVideo, VideoQuery};
use crate::error::{ErrorKind, Result};
use crate::upload::Client;

/// The metadata key of every video that a measurement creates. Its value is [`TUNE_VALUE`].
pub const TUNE_KEY: &str = "ringlift-tune";

/// The value of [`TUNE_KEY`].
pub const TUNE_VALUE: &str = "1";

/// The metadata key whose value is different for each measurement.
const RUN_KEY: &str = "ringlift-tune-run";

/// The videos that a deletion found and could not delete, and the number of those that it deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweptVideos {
    /// The ids of the videos that were deleted.
    pub deleted: Vec<String>,
    /// The ids of the videos that are left.
    pub left: Vec<String>,
}

/// Returns the ids of the videos that measurements of any time have left at the client's service, at most 1000.
///
/// The videos of a measurement that is running now are among them.
///
/// # Errors
/// If the service refuses or cannot be reached.
pub async fn tuned_videos(client: &Client) -> Result<Vec<String>> {
    marked_ids(client, TUNE_KEY, TUNE_VALUE).await
}

/// Returns the description of a video of a measurement, by which it can be found again.
pub(super) fn marked_video(run_id: &str) -> NewVideo {
    let entry = |key: &str, value: &str| Metadata { key: key.to_owned(), value: value.to_owned() };
    NewVideo {
        title: "ringlift tune".to_owned(),
        public: Some(false),
        metadata: vec![entry(TUNE_KEY, TUNE_VALUE), entry(RUN_KEY, run_id)],
        ..NewVideo::default()
    }
}

/// Deletes the videos of one measurement: those that are known, and those whose creation had no answer.
pub(super) async fn sweep(client: &Client, run_id: &str, known: Vec<String>) -> SweptVideos {
    let mut swept = SweptVideos::default();
    let mut ids = known;
    // Without the list, the known videos are still deleted.
    let found = marked_ids(client, RUN_KEY, run_id).await.unwrap_or_default();
    ids.extend(found);
    ids.sort_unstable();
    ids.dedup();
    let mut ids = ids.into_iter();
    while let Some(id) = ids.next() {
        match client.delete_video(&id).await {
            Ok(()) => swept.deleted.push(id),
            // A repeated deletion, whose first answer was lost.
            Err(error) if error.kind() == ErrorKind::NotFound => swept.deleted.push(id),
            Err(error) => {
                tracing::debug!("video {id} is left: {error}");
                let is_away = error.kind().is_temporary();
                swept.left.push(id);
                if is_away {
                    // Each further deletion would wait just as long.
                    swept.left.extend(ids);
                    break;
                }
            }
        }
    }
    swept
}

/// Asks for the first page of the measurement's videos, which is empty before its first creation.
pub(super) async fn ask(client: &Client, run_id: &str) -> Result<()> {
    client.videos(marked_query(RUN_KEY, run_id, 1, 1)).await.map(drop)
}

async fn marked_ids(client: &Client, key: &str, value: &str) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for page in 1..=MOST_PAGES {
        let videos = client.videos(marked_query(key, value, page, PAGE_LEN)).await?.data;
        let is_last = (videos.len() as u64) < PAGE_LEN;
        ids.extend(videos.into_iter().map(|video| video.video_id));
        if is_last {
            break;
        }
    }
    Ok(ids)
}

fn marked_query(key: &str, value: &str, page: u64, page_len: u64) -> VideoQuery {
    VideoQuery {
        metadata: vec![(key.to_owned(), value.to_owned())],
        current_page: Some(page),
        page_size: Some(page_len),
        ..VideoQuery::default()
    }
}

/// The largest page of the service.
const PAGE_LEN: u64 = 100;
/// Bounds the list of a service that ignores the query.
const MOST_PAGES: u64 = 10;
