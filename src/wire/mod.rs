//! The upload protocol as values: chunk plans, `Content-Range`, the multipart envelope, limits.
//!
//! Everything here is arithmetic and text. Does not know: sockets, files, the clock, randomness.

pub(crate) mod content_range;
pub mod limits;
pub(crate) mod multipart;
pub(crate) mod plan;
mod stream_plan;

pub use content_range::ContentRange;
pub use multipart::Envelope;
pub use plan::{Addressing, Chunk, Plan, PlanError};
pub use stream_plan::{StreamAddressing, StreamPlan};
