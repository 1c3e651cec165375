//! Everything together: real files, real sockets, the local server, the built command.

mod round_trip;
mod support;
