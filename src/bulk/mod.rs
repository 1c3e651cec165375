//! Bulk ingestion: many uploads in one process.

pub mod event;
mod runner;
mod shutdown;

pub use event::{ErrorEvent, FileDone, JsonEvent, JsonLine, Planned, ProgressEvent, RunSummary};
pub use runner::{DoneJob, FailedJob, RunnerEvent, RunnerJob, RunnerOptions, Sha256Request, run};
pub use shutdown::{CANCEL_TIMEOUT, Shutdown, ShutdownSignal, ShutdownStage};
