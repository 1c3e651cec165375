//! The upload protocol as values: chunk plans, `Content-Range`, the multipart envelope, limits.
//!
//! Everything here is arithmetic and text. Does not know: sockets, files, the clock, randomness.

pub mod content_range;
pub mod limits;
pub mod multipart;
pub mod plan;
mod stream_plan;

pub use content_range::{ContentRange, ContentRangeError};
pub use multipart::Envelope;
pub use plan::{Addressing, Chunk, Plan, PlanError};
pub use stream_plan::{StreamAddressing, StreamPlan};
