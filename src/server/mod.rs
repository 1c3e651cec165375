//! The local api.video-compatible server.
