//! One source to one destination.
