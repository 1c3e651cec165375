//! The settings of a server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault_plan::{FaultPlan, RefusalTiming};
use super::rate_limiter::Limits;

/// The settings of a server. [`ServerSettings::new`] returns defaults that suit tests: a free port of
/// 127.0.0.1, plain HTTP, no limits, no faults.
#[derive(Clone)]
pub struct ServerSettings {
    /// The address to listen on; port 0 selects a free port. An address beyond loopback requires an
    /// `api_key`.
    pub listen: SocketAddr,
    /// The folder for all data, created if missing. Only one server at a time can use it.
    pub data: PathBuf,
    /// The API key; `None` lets the server generate one at the first start with this folder.
    pub api_key: Option<String>,
    /// Plain HTTP or TLS.
    pub tls: TlsMode,
    /// The rate limits.
    pub limits: Limits,
    /// The faults to inject.
    pub faults: FaultPlan,
    /// The lifetime of an access token; 3600 s at the service.
    pub token_lifetime: Duration,
    /// The duration of each of the five stages between a complete upload and a playable video.
    pub ingest_delay: Duration,
    /// The status of a chunk that does not complete the file, from 200 to 299. The service does not document
    /// its status; 201 is assumed.
    pub intermediate_status: u16,
    /// The status of a wrong key or refresh token in `/auth/...`.
    pub wrong_key: WrongKey,
    /// The time at which an upload is refused, if the refusal does not depend on the body.
    pub refusals: RefusalTiming,
    /// The longest pause of a client within a request.
    pub idle: Duration,
    /// The number of threads that serve connections; disk work has its own threads. 0 means 1.
    pub threads: usize,
}

/// Plain HTTP or TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// `http://`
    #[default]
    Off,
    /// `https://`, with a certificate for localhost, the loopback addresses and the listening one,
    /// signed by the folder's own authority in `ca.pem`.
    OwnAuthority,
}

/// The status for a wrong key or refresh token in `/auth/...`. The service's two documents differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WrongKey {
    /// Status 400, as in the OpenAPI description.
    #[default]
    BadRequest,
    /// Status 401, as in the error reference.
    Unauthorized,
}

impl ServerSettings {
    /// Returns the default settings with a data folder.
    pub fn new(data: impl Into<PathBuf>) -> ServerSettings {
        ServerSettings { data: data.into(), ..ServerSettings::default() }
    }
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: PathBuf::from("ringlift-data"),
            api_key: None,
            tls: TlsMode::default(),
            limits: Limits::default(),
            faults: FaultPlan::default(),
            token_lifetime: Duration::from_secs(3600),
            ingest_delay: Duration::from_millis(50),
            intermediate_status: 201,
            wrong_key: WrongKey::default(),
            refusals: RefusalTiming::default(),
            idle: Duration::from_secs(60),
            threads: 2,
        }
    }
}

/// Omits the API key.
impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("tls", &self.tls)
            .field("limits", &self.limits)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}
