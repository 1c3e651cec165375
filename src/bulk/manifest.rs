//! Manifests: lists of jobs as JSON lines, CSV, or paths; an earlier report is one, too.
//!
//! Read as a stream in constant memory. A bad line is an item, not the end.
//!
//! ```no_run
//! use ringlift::bulk::{Manifest, ManifestOptions};
//!
//! let mut manifest = Manifest::open("jobs.csv".as_ref(), &ManifestOptions::default())?;
//! for line in manifest.by_ref() {
//!     match line {
//!         Ok(line) => println!("{}: {:?}", line.number, line.entry.source),
//!         Err(error) => eprintln!("{error}"),
//!     }
//! }
//! println!("{} rows of an earlier report were passed over", manifest.passed_over());
//! # Ok::<(), ringlift::bulk::ManifestError>(())
//! ```

mod csv_rows;
mod error;
mod line_reader;
mod options;
mod reader;
#[cfg(test)]
mod tests;

pub use error::{LineError, LineFlaw, ManifestError};
pub(crate) use line_reader::LineReader;
pub use line_reader::MAX_LINE_BYTES;
pub use options::{ManifestFormat, ManifestOptions, RetryRows, UnknownManifestFormat, UnknownRetryRows};
pub use reader::{Manifest, ManifestLine};
