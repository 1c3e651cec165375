//! Reports: a row for each finished job, as CSV or JSON lines. A report is a manifest, too.
//!
//! Each row is one line, appended by one write under a lock and synchronized to disk before
//! [`append`](Report::append) returns. A row that a crash cut off is removed when the report is opened again.
//!
//! Every value is text of one line. A path that is no such text is written as a `file:` URL in CSV, and in JSON it has
//! its bytes in base64 beside it, in `path_bytes`. A text that a spreadsheet would take for a formula gets an
//! apostrophe before it, except paths and ids, which are read back.

mod error;
mod file;
mod format;
mod job_row;
mod row;
mod state;
#[cfg(test)]
mod tests;

pub use error::ReportError;
pub(super) use file::LOCK_TIMEOUT;
pub use file::Report;
pub use format::ReportFormat;
pub use row::{COLUMNS, ReportRow};
pub use state::{RowState, UnknownRowState};
