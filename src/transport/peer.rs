//! The other end of a lane.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Endpoint;
use super::history::History;
use super::proxy::Gateway;

/// The server that a lane is connected to.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Host and port of the endpoint, or of the proxy that receives requests in absolute form.
    pub(super) authority: String,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) history: Arc<History>,
    /// The proxy that receives requests in absolute form; `None` if the lane leads to the endpoint.
    pub(super) gateway: Option<Arc<Gateway>>,
}
