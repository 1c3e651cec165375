//! The ceilings of the machine: the largest rates that its parts reach alone.

mod ceiling;
mod loopback;
mod readers;
mod sealing;

pub(super) use ceiling::fastest_reader;
pub use ceiling::{Ceiling, CeilingPart};
pub use loopback::measure_loopback;
pub use readers::{LEAST_READER_BYTES, measure_readers};
pub use sealing::measure_sealing;
