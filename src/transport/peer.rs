//! The other end of a lane.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::history::History;

/// The server that a lane is connected to.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) authority: String,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) history: Arc<History>,
}
