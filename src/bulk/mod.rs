//! Bulk ingestion: each file once, however often a command is run.
//!
//! Reads jobs from manifests, path lists, earlier reports and folders, and writes a report with a row for each
//! finished job. No part of this module opens a terminal, a listener or a connection.

mod after_action;
mod entry;
mod estimate;
mod file_stamp;
mod filter;
mod manifest;
mod path_list;
mod report;
mod sidecar;
mod template;
mod walk;

pub use after_action::{AfterAction, AfterActionError, AfterOutcome, UnknownAfterAction};
pub use entry::{EntryFlaw, EntryKeys, EntrySource, ManifestEntry};
pub use estimate::{Bottleneck, Capacity, Estimate, Workload};
pub use file_stamp::FileStamp;
pub use filter::{Candidate, Filter, FilterError, FilterTally, GlobFlaw, Verdict};
pub use manifest::{
    LineError, LineFlaw, MAX_LINE_BYTES, Manifest, ManifestError, ManifestFormat, ManifestLine,
    ManifestOptions, RetryRows, UnknownManifestFormat, UnknownRetryRows,
};
pub use report::{COLUMNS, Report, ReportError, ReportFormat, ReportRow, RowState, UnknownRowState};
pub use sidecar::{SidecarError, read_sidecar};
pub use template::{Template, TemplateError, TemplateValues};
pub use walk::{FoundFile, VIDEO_EXTENSIONS, Walk, WalkCounts, WalkError, WalkOptions};
