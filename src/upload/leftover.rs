//! The decision to delete what an upload left at the service, for commands, restarts and workers alike.

use crate::api::{ReceivedContent, ReceivedRange, VideoStatus};
use crate::error::{ErrorKind, Result};
use crate::extent::Extent;
use crate::journal::{Comparison, Entry, EntrySource, EntryState, SourceIdentity, compare};
use crate::source::SourceFile;
use crate::upload::client::Client;
use crate::wire::Plan;

/// The state of a video that an upload has left, according to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftoverState {
    /// The service has every byte. The video must be kept.
    Complete,
    /// The service lacks bytes.
    Incomplete,
    /// The service has no such video.
    Gone,
}

impl Entry {
    /// Returns `true` if the upload left a video at the service, or may have left one.
    pub fn may_have_video(&self) -> bool {
        self.orphan().is_some() || self.container.mark().is_some()
    }

    /// Returns `true` if no upload will resume this one: it was abandoned, its source was a stream, or its file is
    /// another one now. A file that cannot be opened may come back, for example with its disk.
    ///
    /// Opens the file, and so blocks while its disk does not respond.
    pub fn is_left_over(&self) -> bool {
        match (self.state, &self.key.source) {
            (EntryState::Running { .. } | EntryState::OutOfReach, _) => false,
            (EntryState::Abandoned, _) | (EntryState::Interrupted, EntrySource::Stream) => true,
            (EntryState::Interrupted, EntrySource::File { path, identity }) => {
                // With `true` for the digests: an upload that they may still prove is not left over.
                let is_another = |now| compare(identity, &now, true, true) == Comparison::Another;
                SourceFile::open(path).is_ok_and(|file| is_another(SourceIdentity::from(&file)))
            }
        }
    }
}

impl Client {
    /// Returns the id of the video that an upload has created: the recorded one, or the one with the upload's mark.
    ///
    /// # Errors
    /// As [`Client::marked_video`].
    pub async fn leftover_video(&self, entry: &Entry) -> Result<Option<String>> {
        match (entry.orphan(), entry.container.mark()) {
            (Some(video_id), _) => Ok(Some(video_id.to_owned())),
            (None, Some(mark)) => self.marked_video(mark).await,
            (None, None) => Ok(None),
        }
    }

    /// Returns the state of a video that an upload has left.
    ///
    /// The process may have died after the last byte was stored and before its journal recorded it: only the service
    /// knows. Repeats a "not found" after [`RetryPolicy::grace`](crate::RetryPolicy::grace), because a replica may lag.
    ///
    /// # Errors
    /// As [`Client::video_status`], except for a video that is not found. Names the video.
    pub async fn leftover_state(&self, entry: &Entry, video_id: &str) -> Result<LeftoverState> {
        let mut status = self.video_status(video_id).await;
        if status.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.pause(self.retry_policy().await?.grace).await?;
            status = self.video_status(video_id).await;
        }
        match status {
            Ok(status) if is_complete(&status, entry.plan) => Ok(LeftoverState::Complete),
            Ok(_) => Ok(LeftoverState::Incomplete),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(LeftoverState::Gone),
            Err(error) => Err(error.with_video_id(video_id)),
        }
    }

    /// Deletes the video that an upload has left, unless the service has every byte of it.
    ///
    /// Requests the state again, because another host may have resumed the upload since. The caller must hold the
    /// upload's claim in its journal ([`Journal::take`](crate::journal::Journal::take)), so that no process of this
    /// host fills the video meanwhile. Returns the state before the deletion: [`LeftoverState::Complete`] if the video
    /// was kept.
    ///
    /// # Errors
    /// As [`Client::leftover_state`] and [`Client::delete_video`]. Names the video.
    pub async fn delete_leftover(&self, entry: &Entry, video_id: &str) -> Result<LeftoverState> {
        let state = self.leftover_state(entry, video_id).await?;
        if state != LeftoverState::Incomplete {
            return Ok(state);
        }
        match self.delete_video(video_id).await {
            Ok(()) => Ok(LeftoverState::Incomplete),
            // An attempt whose answer was lost may have deleted it.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(LeftoverState::Gone),
            Err(error) => Err(error.with_video_id(video_id)),
        }
    }
}

/// Returns `true` if every byte has arrived, even if the service has not assembled the file yet.
fn is_complete(status: &VideoStatus, plan: Option<Plan>) -> bool {
    match (status.received(), plan) {
        (ReceivedContent::Everything, _) => true,
        (ReceivedContent::Ranges(ranges), Some(plan)) => {
            let len = |range: &ReceivedRange| Extent::inclusive_len(range.from, range.to);
            let sum = ranges.iter().try_fold(0, |sum: u64, range| sum.checked_add(len(range)?));
            // Deletion is final: a video whose ranges cannot be counted is kept.
            sum.is_none_or(|sum| sum >= plan.len())
        }
        (ReceivedContent::Parts(parts), Some(plan)) => parts.parts.len() as u64 >= u64::from(plan.chunks()),
        (ReceivedContent::Nothing | ReceivedContent::Ranges(_) | ReceivedContent::Parts(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::Addressing;
    use crate::wire::limits::MIN_CHUNK_BYTES;
    use serde_json::json;

    use super::*;

    #[test]
    fn video_with_uncountable_ranges_counts_as_complete() {
        let plan = Plan::new(2 * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES, Addressing::ByteRange).unwrap();
        for (from, to, expected) in [
            (0, MIN_CHUNK_BYTES - 1, false),
            (0, 2 * MIN_CHUNK_BYTES - 1, true),
            (0, u64::MAX, true),
            (1, u64::MAX, true),
            (u64::MAX, u64::MAX, false),
        ] {
            let ranges = json!([{"from": from, "to": to, "total": null}]);
            let status = json!({"ingest": {"status": "uploading", "receivedBytes": ranges}});
            let status = serde_json::from_value(status).unwrap();
            assert_eq!(is_complete(&status, Some(plan)), expected, "{from}-{to}");
        }
    }
}
