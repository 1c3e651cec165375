//! Filters of files by name, size and age, with the rules of rclone.
//!
//! The first rule that matches decides. A file without a matching rule is admitted, unless there is an include rule:
//! then it is excluded. `file.mp4` matches at every depth, `/file.mp4` only directly in the source; `*` and `?` stop
//! at `/`, `**` does not; `{a,b}` are alternatives; `dir/` excludes everything below, and as an include rule it
//! selects no file. Include rules come first, then exclude rules, then lines of a filter, whatever their order.
//!
//! ```
//! use ringlift::bulk::Filter;
//!
//! let filter = Filter::default().line("- /drafts/")?.line("+ *.{mp4,mov}")?.line("- *")?;
//! assert!(filter.admits_name(b"2024/beach.mp4"));
//! assert!(!filter.admits_name(b"drafts/beach.mp4") && !filter.admits_name(b"notes.txt"));
//! # Ok::<(), ringlift::bulk::FilterError>(())
//! ```
//!
//! Not by a glob crate: those know `**` as a whole path element only, and match `?` and classes byte by byte.

mod glob;
mod rules;
mod tally;
#[cfg(test)]
mod tests;

pub use glob::GlobFlaw;
pub use rules::{Candidate, Filter, FilterError, Verdict};
pub use tally::FilterTally;
