//! Flags of the commands that talk to the service.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringlift::Proxy;

use super::values::{self, Size};

/// Flags that select the service and limit the exchange with it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = SERVICE)]
pub(super) struct ServiceArgs {
    /// Set the URL of the service [default: https://ws.api.video]
    #[arg(long, value_name = "URL", value_parser = values::EndpointUrl)]
    pub(super) endpoint_url: Option<String>,
    /// Use the sandbox, which cuts videos to 30 s, watermarks them and deletes them after a day
    #[arg(long, conflicts_with = "endpoint_url")]
    pub(super) sandbox: bool,
    /// Read the API key from FILE instead of APIVIDEO_API_KEY
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Connect through the HTTP proxy at URL, or directly with `none` [default: HTTPS_PROXY, http_proxy or
    /// ALL_PROXY, unless NO_PROXY exempts the service]
    #[arg(long, value_name = "URL", value_parser = values::ProxyUrlOrNone)]
    pub(super) proxy: Option<Proxy>,
    /// Trust the certificates in this PEM file as well as the system's, for the service and for a tls:// queue; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    pub(super) ca_cert: Vec<PathBuf>,
    /// Set the number of retries per chunk or API call; 0 disables retries [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(super) retries: Option<u32>,
    /// Fail after TIME without a stored chunk [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) retry_max_time: Option<Duration>,
    /// Close a connection after TIME without a byte sent or received, and fail a file after TIME without a
    /// byte read [default: 1m; 2m for a response and for a file]
    #[arg(long, value_name = "TIME", value_parser = values::patience)]
    pub(super) timeout: Option<Duration>,
    /// Limit the time for each step of connecting: DNS, TCP and TLS [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::patience)]
    pub(super) connect_timeout: Option<Duration>,
    /// Limit requests of all kinds to N per second [default: no limit]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    pub(super) tpslimit: Option<f64>,
    /// Close a connection that is slower than SIZE per second for 30 seconds [default: no limit]
    #[arg(long, value_name = "SIZE")]
    pub(super) min_speed: Option<Size>,
}

/// Heading of the service flags.
pub(super) const SERVICE: &str = "Service";
