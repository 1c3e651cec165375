//! One source to one destination: the session, its lanes and the thread that drives them.
//!
//! ```text
//!  Client ──commands──> driver thread ──orders──> worker threads (one per core)
//!                       session, journal,          runtime, buffer pool,
//!                       API calls, clock  <─reports── lanes (one connection each)
//! ```
//!
//! The driver owns every [`Session`](crate::session::Session) and decides; a lane that falls idle reports and is given a chunk.
//! Does not know: where bytes come from, how requests are written.

mod active;
pub(crate) mod calls;
mod claim;
pub(crate) mod contradiction;
pub(crate) mod control;
pub(crate) mod creation;
mod crew;
mod driver;
pub(crate) mod event;
pub(crate) mod event_log;
mod feed;
pub(crate) mod handle;
pub(crate) mod job;
pub(crate) mod progress;
mod proof;
mod pulse;
mod record;
pub(crate) mod request;
mod restart;
pub(crate) mod settings;
mod supplies;
mod threads;
mod watchdog;
mod worker;
