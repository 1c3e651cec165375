//! Uploads of many files.

pub mod rate;
pub mod totals;
