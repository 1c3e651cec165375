//! The limits of every client on a machine, for comparisons and tests: a [`Sink`] that takes bytes at the lowest cost
//! that the kernel allows, and bare loops that send or read a file ([`limits`]).

pub mod limits;
mod sink;

pub use sink::{Scheme, Sink, Tally};
