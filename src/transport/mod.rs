//! HTTP requests over connections.
//!
//! A [`Dialer`] opens [`Lane`]s to one endpoint, directly or through a [`Proxy`]. A lane is one HTTP/1.1 connection
//! that carries one request at a time. No task is spawned: a lane makes progress only while its future is polled, and dropping it
//! closes the connection. Does not depend on the meaning of a request, the origin of its body, or retries.

mod answer;
mod cookies;
mod cut_sizes;
mod dial;
mod endpoint;
mod error;
mod history;
mod lane;
mod limits;
mod metered;
mod peer;
mod protocol;
mod proxy;
mod region;
mod request_state;
mod retry_after;
mod sendfile;
mod socket;
mod socket_meter;
mod throttle;
mod timeouts;
mod tls;

pub use dial::{DialSettings, Dialer};
pub use endpoint::Endpoint;
pub use error::EndpointFlaw;
#[cfg(test)]
pub(crate) use error::FailedAttempt;
pub(crate) use error::{ProxyFailure, TransportError};
pub use lane::Lane;
pub(crate) use limits::AnswerLimit;
pub use proxy::{NoProxy, Proxy, ProxyFlaw};
pub(crate) use proxy::{ProxyLogin, ProxyRefusal};
pub(crate) use region::FileRegion;
pub(crate) use request_state::SentCounter;
pub(crate) use retry_after::requested_wait;
pub(crate) use socket_meter::SocketCounts;
pub use throttle::Bandwidth;
pub use timeouts::{MinSpeed, Timeouts};
pub use tls::Trust;
#[allow(unused_imports)] // Only the fleet uses the first one, which a build may leave out.
pub(crate) use tls::{bare_client_config, tls_error};

#[cfg(test)]
mod testing;
