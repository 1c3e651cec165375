//! The pipeline of bulk ingestion: inputs, the job store, uploads, the actions after them, and the report.
//!
//! The job store decides what is done. The client's journal decides what was sent of a file that is not done: it is
//! written before each request, and keeps a finished upload until the store has recorded the end of its job. A process
//! that dies in between finds the file complete in the journal, and sends nothing twice.

mod background;
mod claim_waits;
mod deferred_jobs;
mod deferred_rows;
mod driver;
mod event;
mod examiner;
mod fetched;
mod finish;
mod ingest_job;
mod input_failure;
mod inputs;
mod job_id_check;
mod job_rows;
mod leases;
mod options;
mod orphans;
mod outage;
mod planned_job;
mod planner;
mod queued_work;
mod report_writer;
mod seen_ids;
mod service_watch;
mod shared;
mod signed_url;
mod state;
mod store_wait;
mod submit;
mod submitter;
mod work;

pub use driver::{ingest, work};
pub use event::{IngestEnd, IngestEvent, OrphanFate, SkippedJob};
pub use ingest_job::IngestJob;
pub use input_failure::InputFailure;
pub use inputs::{IngestInput, Inputs};
pub use job_id_check::JobIdCheck;
pub use options::{CutoffMode, IngestOptions, UnknownCutoffMode};
pub use planned_job::PlannedJob;
pub use planner::JobPlanner;
pub use submit::submit;
