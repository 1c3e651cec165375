//! Everything together: real files, real sockets, the local server, the built command.

#![allow(unreachable_pub)] // One binary: its modules share without exporting.

mod command;
mod every_refusal;
mod faults;
mod happenings;
mod limits;
mod machine;
mod odd_answers;
mod on_change;
mod refusals;
mod resume;
mod resume_command;
mod round_trip;
#[cfg(feature = "cli")]
mod secrets;
mod soak;
mod support;
