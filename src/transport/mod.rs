//! Requests over connections.
