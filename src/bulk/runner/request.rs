//! The request for a run: its jobs and its options.

use std::time::Duration;

use crate::bulk::shutdown::ShutdownSignal;
use crate::source::StreamSha256;
use crate::upload::Upload;

/// One upload of a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunnerJob<K> {
    /// The caller's name for the job, returned with every event. Cloned for each.
    pub key: K,
    /// The upload: source and options.
    pub upload: Upload,
    /// The SHA-256 to compute.
    pub sha256: Sha256Request,
    /// The shutdown of this job alone; `None` if only the shutdown of the run ends the job.
    pub shutdown: Option<ShutdownSignal>,
}

impl<K> RunnerJob<K> {
    /// Creates a job without a digest.
    pub fn new(key: K, upload: Upload) -> RunnerJob<K> {
        RunnerJob { key, upload, sha256: Sha256Request::None, shutdown: None }
    }

    /// Sets the digest to compute.
    pub fn with_sha256(self, sha256: Sha256Request) -> RunnerJob<K> {
        RunnerJob { sha256, ..self }
    }

    /// Lets `shutdown` end the upload in place of the shutdown of the run. The caller forwards the stages of the latter.
    pub fn with_shutdown(self, shutdown: ShutdownSignal) -> RunnerJob<K> {
        RunnerJob { shutdown: Some(shutdown), ..self }
    }
}

/// The SHA-256 to compute with an upload.
#[derive(Debug, Default)]
pub enum Sha256Request {
    /// No digest.
    #[default]
    None,
    /// The digest of the file, read a second time: while it is being sent, or after the upload if the upload may
    /// restart with a changed file ([`OnChange::Restart`](crate::OnChange::Restart)).
    File,
    /// The digest of the stream that the upload reads.
    Stream(StreamSha256),
}

/// The options of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunnerOptions {
    /// Number of uploads under way, from 1. More than [`Settings::transfers`](crate::Settings::transfers): the rest
    /// waits in the engine, so that the next one starts without delay. Default: 16, twice the default transfers.
    pub concurrent: usize,
    /// `true` to compare the ingested size with the bytes sent, after each upload.
    pub verify: bool,
    /// `true` to wait after each upload until its video is playable.
    pub wait_until_playable: bool,
    /// Limit of each of the two waits. Default: one hour.
    pub wait_timeout: Duration,
    /// Time without a byte after which the computation of a digest fails. Default: one minute.
    pub digest_silence: Duration,
    /// `true` if all jobs with an upload token have the same one: its refusal ends the run.
    pub has_one_token: bool,
}

impl Default for RunnerOptions {
    fn default() -> RunnerOptions {
        RunnerOptions {
            concurrent: 16,
            verify: false,
            wait_until_playable: false,
            wait_timeout: Duration::from_secs(3600),
            digest_silence: Duration::from_secs(60),
            has_one_token: false,
        }
    }
}
