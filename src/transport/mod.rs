//! Requests over connections.
//!
//! A [`Dialer`] knows the endpoint and opens [`Lane`]s; a lane is one HTTP/1.1 connection that carries one
//! request at a time. Nothing is spawned: a lane moves while somebody awaits it, and dropping it closes it.
//! Does not know: what a request means, where its body comes from, whether to try again.

mod answer;
mod cookies;
mod dial;
mod endpoint;
mod error;
mod history;
mod lane;
mod limits;
mod metered;
mod peer;
mod protocol;
mod region;
mod request_state;
mod sendfile;
mod socket;
mod throttle;
mod timeouts;
mod tls;

pub use dial::{DialSettings, Dialer};
pub use endpoint::Endpoint;
pub use error::{BoxError, CaCertFlaw, EndpointFlaw, FailedAttempt, SentProgress, TransportError};
pub use lane::Lane;
pub use limits::{ANSWER_LIMIT_BYTES, AnswerLimit};
pub use region::FileRegion;
pub use request_state::SentCounter;
pub use throttle::Bandwidth;
pub use timeouts::{MinSpeed, Timeouts};
pub use tls::Trust;

#[cfg(test)]
mod testing;
