//! The search for the best settings: the ceilings of the machine, the path to the service, and the bottleneck.
//!
//! [`measure_readers`], [`measure_sealing`] and [`measure_loopback`] measure parts of the machine alone.
//! [`measure_path`] measures the path to the service with 1, 2, 4 and more lanes, inside requests that are under way.
//! [`advise`] combines the results. `search`, `interval`, `chunk_model`, `budget` and `bottleneck` are pure.
//!
//! A measurement of a path creates videos at the service, and deletes them. A process that is killed leaves them behind;
//! [`tuned_videos`] finds them by their mark.

mod advice;
mod bottleneck;
mod budget;
mod ceilings;
mod chunk_model;
mod interval;
mod lane_group;
mod mark;
mod path;
mod report;
mod search;
mod trial;

pub use advice::{TuneAdvice, TuneContext, advise};
pub use bottleneck::TuneBottleneck;
pub use budget::{PathLimits, SpentLimit};
pub use ceilings::{
    Ceiling, CeilingPart, LEAST_READER_BYTES, measure_loopback, measure_readers, measure_sealing,
};
pub use chunk_model::ChunkTiming;
pub use interval::RateInterval;
pub use mark::{SweptVideos, TUNE_KEY, TUNE_VALUE, tuned_videos};
#[doc(hidden)]
pub use path::measure_lanes;
pub use path::measure_path;
pub use report::{PathEnd, PathEvent, PathReport, Rung, UnmeasuredLanes};
pub use search::RungPurpose;
