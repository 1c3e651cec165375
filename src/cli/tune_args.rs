//! Flags of `ringlift tune`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::bandwidth::Timetable;
use super::values::{self, Size};

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Measure the readers on this file of at least 4 MiB, which is dropped from the page cache [default: a generated
    /// sample]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Measure the path to api.video's production service; without a service, a server in this process is used
    #[arg(long)]
    pub(super) production: bool,
    /// Measure the path only, without the readers, the encryption and the loopback
    #[arg(long)]
    pub(super) path_only: bool,
    /// Limit the requests that carry bytes; at most half of what the service has left is used
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) max_requests: u32,
    /// Limit the bytes that are sent
    #[arg(long, value_name = "SIZE", default_value = "2GiB")]
    pub(super) max_bytes: Size,
    /// Limit the time of the measurement of the path
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = values::patience)]
    pub(super) max_time: Duration,
    /// Limit the number of connections to try
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) max_lanes: u32,
    /// Limit the bandwidth, as for `upload`
    #[arg(long, value_name = "LIMIT")]
    pub(super) bwlimit: Option<Timetable>,
    /// Draw the rates into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Write the settings to this new file, for --config
    #[arg(long, value_name = "FILE")]
    pub(super) write_config: Option<PathBuf>,
    /// Set the parent of the temporary directory for samples and the data of the server in this process
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}
