//! The options of an ingestion.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::api::Secret;
use crate::bulk::after_action::AfterAction;
use crate::bulk::job_id::{Account, OwnerId, Pool};
use crate::bulk::runner::RunnerOptions;
use crate::bulk::store::Resubmit;

/// The options of an ingestion.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IngestOptions {
    /// The pool whose jobs are worked on.
    pub pool: Pool,
    /// The identity of this process.
    pub owner: OwnerId,
    /// The account of a queue that other hosts work on, too; `None` for a queue of this host. Videos carry a mark that
    /// every host derives from the job, and are searched for before they are created.
    pub shared_account: Option<Account>,
    /// The time without an answer of the service after which a run lets its jobs go for other workers, of which it rests a
    /// quarter before it probes the service, by default two minutes. Only for a queue that other hosts work on, too.
    pub service_patience: Duration,
    /// The time for which a run waits for a job store that does not answer, by default ten minutes. Only for a queue that
    /// other hosts work on, too.
    pub store_patience: Duration,
    /// The clock of the store's records and of the report.
    pub clock: fn() -> SystemTime,
    /// The uploads under way, and the checks after each.
    pub runner: RunnerOptions,
    /// The treatment of jobs that the store has already. Rows of an earlier report are always retried.
    pub resubmit: Resubmit,
    /// The token of the jobs that were submitted with it. The store keeps only its digest.
    pub upload_token: Option<Secret>,
    /// The fate of a file once the service has confirmed it.
    pub after: AfterAction,
    /// The number of bytes to send, after which the run ends.
    pub max_transfer: Option<u64>,
    /// The duration after which the run ends.
    pub max_duration: Option<Duration>,
    /// The number of failed jobs that ends the run; at least 1.
    pub max_errors: Option<u64>,
    /// The treatment of the uploads under way when one of the three limits is reached.
    pub cutoff: CutoffMode,
    /// `true` if the run waits for the next attempt of jobs that failed for the moment, though no other job is open. The
    /// wait takes up to ten minutes.
    pub waits_for_attempts: bool,
    /// `true` if jobs are claimed only after all were submitted, so that their order holds for all of them.
    pub waits_for_inputs: bool,
    /// `true` if the run waits for further jobs once no job of the pool is open, until a shutdown is requested. Such a run,
    /// and one with a watch among its inputs, also waits while another process locks the file of the store.
    pub waits_for_jobs: bool,
    /// `true` if the SHA-256 of every file is computed, not only of those whose manifest has one to compare.
    pub has_sha256: bool,
}

impl IngestOptions {
    /// Creates the options of a process that keeps files and has no limits.
    pub fn new(pool: Pool, owner: OwnerId, clock: fn() -> SystemTime) -> IngestOptions {
        IngestOptions {
            pool,
            owner,
            shared_account: None,
            service_patience: SERVICE_PATIENCE,
            store_patience: STORE_PATIENCE,
            clock,
            runner: RunnerOptions::default(),
            resubmit: Resubmit::Keep,
            upload_token: None,
            after: AfterAction::Keep,
            max_transfer: None,
            max_duration: None,
            max_errors: None,
            cutoff: CutoffMode::Hard,
            waits_for_attempts: false,
            waits_for_inputs: false,
            waits_for_jobs: false,
            has_sha256: false,
        }
    }
}

/// The time that a service or a network takes to restart, twice.
const SERVICE_PATIENCE: Duration = Duration::from_secs(120);
/// The longest lease: no job of this run is still its own after a longer outage.
const STORE_PATIENCE: Duration = Duration::from_secs(600);

/// The treatment of the uploads under way when a limit of the run is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CutoffMode {
    /// They are given up, and can be resumed.
    #[default]
    Hard,
    /// They are completed.
    Soft,
    /// They are completed, and no upload begins that would exceed the limit of bytes.
    Cautious,
}

/// The text is not a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use hard, soft or cautious")]
pub struct UnknownCutoffMode;

impl FromStr for CutoffMode {
    type Err = UnknownCutoffMode;

    fn from_str(text: &str) -> Result<CutoffMode, UnknownCutoffMode> {
        match text.to_ascii_lowercase().as_str() {
            "hard" => Ok(CutoffMode::Hard),
            "soft" => Ok(CutoffMode::Soft),
            "cautious" => Ok(CutoffMode::Cautious),
            _ => Err(UnknownCutoffMode),
        }
    }
}
