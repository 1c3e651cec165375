//! Options of a monitor, and its limits.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Options of a monitor.
#[derive(Clone)]
#[non_exhaustive]
pub struct MonitorOptions {
    /// The address to listen on; port 0 selects a free port. Beyond loopback, viewers need a token.
    pub listen: SocketAddr,
    /// The token of viewers: 16 to 256 letters, digits, `-` and `_`. `None` generates one beyond loopback, and demands
    /// none on loopback.
    pub token: Option<String>,
    /// Names in `Host` headers to accept besides `localhost`, the name of this machine and IP addresses. A reverse proxy
    /// may need one.
    pub hosts: Vec<String>,
    pub(super) limits: MonitorLimits,
}

impl MonitorOptions {
    /// Creates options for an address, without a token of the caller's choice.
    pub fn new(listen: SocketAddr) -> MonitorOptions {
        MonitorOptions { listen, token: None, hosts: Vec::new(), limits: MonitorLimits::default() }
    }
}

/// Omits the token.
impl fmt::Debug for MonitorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Times and numbers that bound the monitor. Only tests use others than the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct MonitorLimits {
    /// The shortest time between two events.
    pub(super) tick: Duration,
    /// The time without an event after which a comment is sent. Gateways close silent connections after a minute.
    pub(super) ping: Duration,
    /// The time for the head of a request, the time before its first byte included.
    pub(super) head: Duration,
    /// The time in which a connection must take a byte.
    pub(super) write: Duration,
    /// The most open connections; further ones wait in the kernel's backlog.
    pub(super) connections: usize,
    /// The most viewers of the event stream. Fewer than connections: scrapes always find a free one.
    pub(super) viewers: usize,
}

impl Default for MonitorLimits {
    fn default() -> MonitorLimits {
        MonitorLimits {
            tick: Duration::from_millis(250),
            ping: Duration::from_secs(15),
            head: Duration::from_secs(20),
            write: Duration::from_secs(20),
            connections: 64,
            viewers: 32,
        }
    }
}
