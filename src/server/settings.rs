//! How a server is set up.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::faults::{FaultPlan, RefusalTiming};
use super::rate::Limits;

/// How a server is set up. [`Settings::new`] gives one that suits tests: a free port of 127.0.0.1, plain
/// HTTP, no limits, no faults.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one. Beyond loopback only with an `api_key`.
    pub listen: SocketAddr,
    /// The folder that holds everything, made when missing. One server at a time.
    pub data: PathBuf,
    /// The API key; without one the server makes its own at the first start with this folder.
    pub api_key: Option<String>,
    /// Plain HTTP or TLS.
    pub tls: TlsMode,
    /// The rate limits.
    pub limits: Limits,
    /// What goes wrong on purpose.
    pub faults: FaultPlan,
    /// How long an access token lives; 3600 s at the service.
    pub token_lifetime: Duration,
    /// How long each stage of a finished upload lasts, from `uploading` on to playable: five of them.
    pub ingest_delay: Duration,
    /// The status of a chunk that does not complete the set; from 200 to 299. The service's is undocumented,
    /// 201 presumed.
    pub intermediate_status: u16,
    /// The status of a wrong key or refresh token in `/auth/...`.
    pub wrong_key: WrongKey,
    /// When an upload is refused whose refusal needs no body.
    pub refusals: RefusalTiming,
    /// How long a client may pause within a request.
    pub idle: Duration,
    /// How many threads serve connections; disk work has its own.
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

/// How a wrong key or refresh token is answered in `/auth/...`: the two documents differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WrongKey {
    /// 400, as in the OpenAPI description.
    #[default]
    BadRequest,
    /// 401, as in the error reference.
    Unauthorized,
}

impl Settings {
    /// The defaults, with a folder.
    pub fn new(data: impl Into<PathBuf>) -> Settings {
        Settings { data: data.into(), ..Settings::default() }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
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

/// Without the API key.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("tls", &self.tls)
            .field("limits", &self.limits)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}
