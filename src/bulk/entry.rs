//! One job's description: its source and the keys of a manifest line or of a sidecar file.
//!
//! Does not know: files of many lines, and their formats. See `manifest`.

mod builder;
mod flaw;
mod keys;
mod record;
mod source;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use builder::{EntryBuilder, is_known};
pub use flaw::EntryFlaw;
pub(crate) use flaw::shown;
pub use keys::EntryKeys;
pub use record::ManifestEntry;
pub use source::ManifestSource;
pub(crate) use source::checked_path;
