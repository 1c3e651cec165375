//! Bulk ingestion: each file once, however often a command is run.
//!
//! Manifests, path lists, earlier reports and folders give jobs: one file or URL to be ingested once. A [`JobStore`]
//! keeps jobs and leases each of them to one worker at a time. A [`Report`] has a row for each finished job. The rules
//! of leases and retries are pure functions of the record and the time (`lease`), so that every store behaves alike.
//!
//! Start with [`run`], which uploads a stream of jobs and needs none of the other items.
//!
//! No part of this module opens a terminal, a listener or a connection.

mod absolute_path;
mod after_action;
mod entry;
mod error_event;
mod estimate;
pub mod event;
mod file_stamp;
mod filter;
mod host_decline;
mod ingest;
mod job;
pub(crate) mod job_id;
mod job_record;
mod job_source;
mod job_state;
pub(crate) mod lease;
mod manifest;
mod order;
mod path_list;
pub mod rate;
mod report;
mod runner;
mod shutdown;
mod sidecar;
mod sqlite;
pub(crate) mod store;
pub(crate) mod submission;
mod template;
pub mod totals;
mod unix_time;
mod walk;
mod watch;

pub use after_action::{AfterAction, AfterActionError, AfterOutcome, UnknownAfterAction};
pub use entry::{EntryFlaw, EntryKeys, ManifestEntry, ManifestSource};
pub use error_event::{ErrorEvent, ErrorFields};
pub use estimate::{Bottleneck, Capacity, Estimate, PlannedWork};
pub use event::{
    FileDone, FileSkipped, IngestCounts, JsonEvent, JsonLine, Planned, ProgressEvent, RetryEvent, RunSummary,
};
pub use file_stamp::FileStamp;
pub use filter::{Candidate, Filter, FilterError, FilterTally, GlobFlaw, Verdict};
pub use ingest::{
    CutoffMode, IngestEnd, IngestEvent, IngestInput, IngestJob, IngestOptions, InputFailure, Inputs,
    JobIdCheck, JobPlanner, OrphanFate, PlannedJob, SkippedJob, UnknownCutoffMode, ingest, submit, work,
};
pub use job::{Job, JobSpec};
pub use job_id::{Account, JobId, NameFlaw, OwnerId, Pool};
pub use job_record::{Epoch, JobRecord};
pub use job_source::{ContentStamp, JobSource};
pub use job_state::{JobEnd, JobFailure, JobResult, JobState, JobStateName};
pub use lease::{Lease, LeaseTimer, LostLease};
pub use manifest::{
    LineError, LineFlaw, MAX_LINE_BYTES, Manifest, ManifestError, ManifestFormat, ManifestLine,
    ManifestOptions, RetryRows, UnknownManifestFormat, UnknownRetryRows,
};
pub use order::{OrderBy, SortKey};
pub use report::{COLUMNS, Report, ReportError, ReportFormat, ReportRow, RowState, UnknownRowState};
pub use runner::{DoneJob, FailedJob, RunnerEvent, RunnerJob, RunnerOptions, Sha256Request, run};
pub use shutdown::{CANCEL_TIMEOUT, Shutdown, ShutdownSignal, ShutdownStage};
pub use sidecar::{SidecarError, read_sidecar};
pub use sqlite::{SqliteJobStore, SqliteOptions};
pub use store::{
    ClaimAnswer, ClaimedJob, Cursor, JobCheckpoint, JobCount, JobPage, JobQuery, JobStore, JobStoreError,
    LONGEST_CHECKPOINT, LONGEST_JOB, LONGEST_PAGE, LONGEST_SKIP, MOST_PRESENT, MOST_SUBMITTED, MOST_WATCHERS,
    Presence, PresentWorker, Resubmit, Revision, StoreFuture, StoreProblem, Submission,
};
pub use template::{Template, TemplateError, TemplateValues};
pub use unix_time::UnixMillis;
pub use walk::{FoundFile, VIDEO_EXTENSIONS, Walk, WalkCounts, WalkError, WalkOptions};
pub use watch::{
    MOST_PENDING, MOST_REMEMBERED, PollReason, Watch, WatchError, WatchHandle, WatchNotice, WatchOptions,
    WatchStatus,
};
