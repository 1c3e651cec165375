//! Flags of a watch.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::values;

/// The watch on directories.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Watch")]
pub(super) struct WatchArgs {
    /// Go on with the videos that arrive in the directories, until SIGTERM
    #[arg(long, conflicts_with_all = ["dry_run", "strict", "force"])]
    pub(super) watch: bool,
    /// Take a file once it has not changed for this time [default: 10s, on network file systems 30s]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) settle: Option<Duration>,
    /// Take a file only once a file with its name and this suffix exists, such as .done
    #[arg(long, value_name = "SUFFIX")]
    pub(super) done_suffix: Option<OsString>,
    /// Scan the directories this often for files that no event reported
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::patience)]
    pub(super) rescan: Duration,
}
