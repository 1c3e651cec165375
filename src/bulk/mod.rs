//! Bulk ingestion: jobs, and the stores that keep them.
//!
//! A job is one file or URL to be ingested once. A [`JobStore`] keeps jobs and leases each of them to one worker at a
//! time. The rules of leases and retries are pure functions of the record and the time (`lease`), so that every store
//! behaves alike.
//!
//! Depends on no terminal, no listener and no clock: the caller passes the time.

mod job;
mod job_id;
mod job_record;
mod job_source;
mod job_state;
mod lease;
mod order;
mod sqlite;
mod store;
mod unix_time;

pub use job::{Job, JobSpec};
pub use job_id::{Account, JobId, NameFlaw, OwnerId, Pool};
pub use job_record::{Epoch, JobRecord};
pub use job_source::{FileStamp, JobSource};
pub use job_state::{JobEnd, JobFailure, JobResult, JobState, JobStateName};
pub use lease::{Lease, LeaseTimer, LostLease};
pub use order::{OrderBy, SortKey};
pub use sqlite::{SqliteJobStore, SqliteOptions};
pub use store::{
    Checkpoint, ClaimAnswer, ClaimedJob, Cursor, JobCount, JobPage, JobQuery, JobStore, JobStoreError,
    LONGEST_CHECKPOINT, LONGEST_JOB, LONGEST_PAGE, MOST_SUBMITTED, MOST_WATCHERS, Resubmit, Revision,
    StoreFuture, StoreProblem, Submission,
};
pub use unix_time::UnixMillis;
