//! One source to one destination.

pub mod journal;
