//! One source to one destination.

pub mod journal;
pub mod pace;
