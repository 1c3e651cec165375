//! The part of a job that changes.

use serde::{Deserialize, Serialize};

use super::host_decline::HostDecline;
use super::job_id::OwnerId;
use super::job_state::{JobFailure, JobState};
use super::unix_time::UnixMillis;

/// The number of a claim. A job's epochs only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Returns the epoch of the next claim, at `now`.
    ///
    /// When an older copy of a store comes back, or a store is wiped, epochs are counted again. An epoch that is also a
    /// time was given to no claim before, so that two claims of one process never have the same epoch.
    pub(super) fn next(self, now: UnixMillis) -> Epoch {
        Epoch((self.0 + 1).max(now.get()))
    }
}

/// The part of a job that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRecord {
    /// The state.
    pub state: JobState,
    /// The number of claims. Each claim raises it, so that writes of earlier holders are refused.
    pub epoch: Epoch,
    /// The worker that holds the job, or held it last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<OwnerId>,
    /// Failed attempts since bytes were last acknowledged.
    #[serde(default)]
    pub attempts_without_progress: u32,
    /// Workers that vanished since bytes were last acknowledged.
    #[serde(default)]
    pub lost_workers: u32,
    /// Workers that could not open the file since bytes were last acknowledged.
    #[serde(default)]
    pub declines: u32,
    /// The hosts among them, on a queue that several hosts share: at most three.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) declined_by: Vec<HostDecline>,
    /// The highest number of acknowledged bytes that a checkpoint had.
    #[serde(default)]
    pub acknowledged_bytes: u64,
    /// The number of the last checkpoint of this epoch.
    #[serde(default)]
    pub checkpoint_number: u64,
    /// The last failure, or the reason why the job was set aside, kept while the job waits for another attempt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_failure: Option<JobFailure>,
    /// The number of times that the job began anew, with another video each time.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub restarts: u32,
    /// The time of submission.
    pub submitted_at: UnixMillis,
    /// The time of the first claim.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<UnixMillis>,
    /// The time at which the job reached its final state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<UnixMillis>,
    /// The end of a lease whose holder may not have learned of the cancellation yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_until: Option<UnixMillis>,
    /// Videos that carry the mark of this job beside its own: two workers created one at the same time. An empty one is
    /// deleted, so that these have bytes or could not be examined. At most 16.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub orphans: Vec<String>,
}

impl JobRecord {
    /// Records videos that were left beside the one of the job, and removes those that are gone.
    ///
    /// Needs no lease: the worker that left a video has lost its own.
    pub(crate) fn note_orphans(&mut self, found: &[String], gone: &[String]) {
        self.orphans.retain(|known| !gone.contains(known));
        for video_id in found {
            let is_known = self.orphans.contains(video_id);
            // An id is the service's text: a record has to stay short.
            if !is_known && video_id.len() <= LONGEST_VIDEO_ID && self.orphans.len() < MOST_ORPHANS {
                self.orphans.push(video_id.clone());
            }
        }
    }
}

/// The videos beside a job's own that its record names.
const MOST_ORPHANS: usize = 16;
/// The longest id of a video in a record, in bytes.
const LONGEST_VIDEO_ID: usize = 128;

fn is_zero(number: &u32) -> bool {
    *number == 0
}
