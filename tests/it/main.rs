//! Integration tests with real files, real sockets, the local server and the built command.

#![allow(unreachable_pub)] // The modules of this one binary share items without exporting them.

mod batch;
mod command;
mod endpoint;
mod environment;
mod events;
mod every_refusal;
mod faults;
mod journal_places;
mod limits;
mod machine;
mod odd_answers;
mod on_change;
mod outputs;
mod progress_display;
mod refusals;
mod resume;
mod resume_command;
mod round_trip;
#[cfg(feature = "cli")]
mod secrets;
mod silent_sources;
mod soak;
mod support;
mod touched;
mod truth;
