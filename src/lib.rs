//! Uploads huge video files to api.video and to anything that speaks its upload protocol.

pub mod api;
pub mod body;
pub mod error;
pub mod extent;
pub mod server;
pub mod source;
pub mod transport;
pub mod upload;
pub mod wire;
