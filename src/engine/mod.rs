//! The engine of uploads: sessions, lanes, and the thread that drives them.
//!
//! ```text
//!  Client ──commands──> driver thread ──orders──> worker threads (one per core)
//!                       session, journal,          runtime, buffer pool,
//!                       API calls, clock  <─reports── lanes (one connection each)
//! ```
//!
//! The driver owns every [`Session`](crate::session::Session) and makes all decisions; a lane that becomes idle reports, and
//! receives a chunk. Reading bytes and writing requests is left to `source`, `body` and `transport`.

pub(crate) mod backlog;
pub(crate) mod calls;
pub(crate) mod checkpoint;
mod chunk_request;
mod claim;
pub(crate) mod command;
pub(crate) mod control;
pub(crate) mod counters;
pub(crate) mod creation;
mod driver;
pub(crate) mod event;
pub(crate) mod event_log;
pub(crate) mod handle;
mod journal_entry;
mod open_files;
pub(crate) mod options;
pub(crate) mod progress;
mod proof;
mod pulse;
pub(crate) mod receipt;
pub(crate) mod request;
mod restart;
mod resume;
pub(crate) mod settings;
mod shared_journal;
pub(crate) mod size;
pub(crate) mod snapshot;
mod source;
pub(crate) mod stream_input;
mod stream_reader;
mod threads;
mod transfer;
pub(crate) mod upload_record;
pub(crate) mod validate;
mod watchdog;
mod worker;
mod workers;
