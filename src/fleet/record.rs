//! The stored form of a job.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::projection::Projection;
use crate::bulk::submission::PreparedJob;
use crate::bulk::{Job, JobRecord, JobSpec, JobState, SortKey, UnixMillis};

/// A job as the store keeps it: JSON under one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StoredJob {
    /// The format: [`FORMAT`].
    pub(super) v: i64,
    /// The place in the order of submission: the revision that created the job; 0 in that revision itself, which the
    /// server numbers.
    #[serde(default)]
    pub(super) number: u64,
    /// A random number that identifies the last write. A writer whose answer was lost finds out by it that the write
    /// succeeded.
    #[serde(default)]
    pub(super) write: u64,
    /// The digest of the content that the job stands for, in hex.
    pub(super) content: String,
    /// The sort key in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) sort_key: String,
    pub(super) spec: JobSpec,
    pub(super) record: JobRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<String>,
}

/// The reason why a stored job cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordFlaw {
    /// Another version wrote the record.
    Format(i64),
    /// The record is not what any version writes.
    Damaged,
}

/// The format of a record, of any version.
#[derive(Deserialize)]
struct RecordFormat {
    v: i64,
}

impl StoredJob {
    /// Creates the stored form of a new job.
    pub(super) fn new(job: &PreparedJob, content: &str, now: UnixMillis) -> StoredJob {
        StoredJob {
            v: FORMAT,
            number: 0,
            write: 0,
            content: content.to_owned(),
            sort_key: BASE64_STANDARD.encode(job.spec.sort_key.as_bytes()),
            spec: job.spec.clone(),
            record: JobRecord::new(now),
            checkpoint: None,
        }
    }

    /// Reads the record in the message with the given revision.
    pub(super) fn decode(json: &[u8], revision: u64) -> Result<StoredJob, RecordFlaw> {
        // The format comes first: the fields of a later one may have other types.
        let RecordFormat { v } = serde_json::from_slice(json).map_err(|_| RecordFlaw::Damaged)?;
        if v != FORMAT {
            return Err(RecordFlaw::Format(v));
        }
        let mut job: StoredJob = serde_json::from_slice(json).map_err(|_| RecordFlaw::Damaged)?;
        if job.number == 0 {
            job.number = revision;
        }
        let sort_key = BASE64_STANDARD.decode(&job.sort_key).map_err(|_| RecordFlaw::Damaged)?;
        job.spec.sort_key = SortKey::from_bytes(sort_key);
        Ok(job)
    }

    /// Returns the JSON of the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Nothing in a job fails to serialize: its maps have text as keys.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the fields that the index needs.
    pub(super) fn projection(&self) -> Projection {
        let due = match &self.record.state {
            JobState::Queued { not_before } => *not_before,
            JobState::Running { heartbeat, .. } => *heartbeat,
            _ => UnixMillis::default(),
        };
        Projection {
            number: self.number,
            state: self.record.state.name(),
            pool: self.spec.pool.clone(),
            size: self.spec.stamp.map_or(0, |stamp| stamp.size),
            due,
            priority: self.spec.priority,
            sort_key: self.spec.sort_key.as_bytes().to_vec(),
        }
    }

    pub(super) fn into_job(self) -> Job {
        Job { spec: self.spec, record: self.record, checkpoint: self.checkpoint }
    }
}

/// The format of this version. A record of another one is left alone.
pub(super) const FORMAT: i64 = 1;
