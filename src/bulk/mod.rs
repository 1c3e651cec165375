//! Bulk ingestion: many uploads in one process.

mod error_event;
pub mod event;
mod runner;
mod shutdown;

pub use error_event::{ErrorEvent, ErrorFields};
pub use event::{FileDone, JsonEvent, JsonLine, Planned, ProgressEvent, RetryEvent, RunSummary};
pub use runner::{DoneJob, FailedJob, RunnerEvent, RunnerJob, RunnerOptions, Sha256Request, run};
pub use shutdown::{CANCEL_TIMEOUT, Shutdown, ShutdownSignal, ShutdownStage};
