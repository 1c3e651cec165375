//! Flags of `ringlift ingest`, `ringlift submit` and `ringlift work`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringlift::bulk::{CutoffMode, ManifestFormat, RetryRows};

use super::upload_args::{AfterArgs, ChunkArgs, DescriptionArgs, LaneArgs, TokenArgs};
use super::values::{self, Size};
use super::watch_args::WatchArgs;

#[derive(Debug, Args)]
pub(super) struct IngestArgs {
    #[command(flatten)]
    pub(super) inputs: InputArgs,
    #[command(flatten)]
    pub(super) watch: WatchArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    pub(super) inputs: InputArgs,
}

#[derive(Debug, Args)]
pub(super) struct WorkArgs {
    /// End once no job of the pool is open, in place of waiting for further jobs
    #[arg(long)]
    pub(super) drain: bool,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
    #[command(flatten)]
    pub(super) token: TokenArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The jobs to submit.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// Take these files, and the videos in these directories; the service fetches an http or https URL by itself
    // Not `required_unless_present_any`, which the check of a value from the environment would meet.
    #[arg(value_name = "SOURCE")]
    pub(super) sources: Vec<PathBuf>,
    /// Read jobs from this file: JSON lines, CSV with a header, or an earlier report; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Vec<PathBuf>,
    /// Set the format of the manifests: jsonl or csv [default: by the name]
    #[arg(long, value_name = "FORMAT")]
    pub(super) manifest_format: Option<ManifestFormat>,
    /// Read paths from this file, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) files_from: Vec<PathBuf>,
    /// Read paths from this file, each ended by a NUL; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) files_from0: Vec<PathBuf>,
    /// Retry jobs that failed for good in earlier runs: `failed`, or `all` rows of an earlier report
    #[arg(long, value_name = "WHICH")]
    pub(super) retry: Option<RetryRows>,
    /// Upload files again that are recorded as uploaded
    #[arg(long)]
    pub(super) force: bool,
    /// Print what would be uploaded and how long it takes, and send nothing
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    pub(super) dry_run: bool,
    /// Refuse the whole run if a line or a file of the sources is unusable, or if an include rule matches no file
    #[arg(long)]
    pub(super) strict: bool,
    /// Read keys from movie.json or movie.mp4.json beside each file
    #[arg(long, value_name = "FORMAT")]
    pub(super) sidecar: Option<SidecarFormat>,
    #[command(flatten)]
    pub(super) queue: QueueArgs,
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    #[command(flatten)]
    pub(super) description: DescriptionArgs,
    #[command(flatten)]
    pub(super) token: TokenArgs,
    #[command(flatten)]
    pub(super) chunks: ChunkArgs,
}

/// The work on the jobs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(super) struct RunArgs {
    /// Append a row for each finished job to this file, .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Keep or `delete` files after their upload, or move them by `move:DIR`
    #[arg(long, value_name = "ACTION", default_value = "keep")]
    pub(super) after: OsString,
    /// Set how long active chunks may continue after SIGINT, SIGTERM or SIGHUP; a second signal stops
    /// immediately
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    pub(super) grace: Duration,
    /// Serve a live page and metrics of the run at this address, such as 9000 or 0.0.0.0:9000 [default host:
    /// 127.0.0.1]. Other hosts need the token that is printed
    #[arg(long, value_name = "ADDRESS", value_parser = values::monitor_address)]
    pub(super) monitor: Option<SocketAddr>,
    /// Write metrics to this file once a second, for the textfile collector of node_exporter
    #[arg(long, value_name = "FILE")]
    pub(super) metrics_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) limits: StopArgs,
    #[command(flatten)]
    pub(super) lanes: LaneArgs,
    #[command(flatten)]
    pub(super) check: AfterArgs,
}

/// The job store and the pool in it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub(super) struct QueueArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Use the jobs of this pool: workers that can open the same files [default:
    /// local; with NATS, host:NAME of this host]
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
}

/// The job store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Queue")]
pub(super) struct StoreArgs {
    /// Keep the jobs in this file [default: ringlift/jobs.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) queue: Option<PathBuf>,
    #[cfg(feature = "fleet")]
    #[command(flatten)]
    pub(super) nats: NatsArgs,
    /// Use the jobs of this account [default: a digest of the endpoint and the API key]
    #[arg(long, value_name = "NAME")]
    pub(super) account: Option<String>,
}

/// The servers of a queue that several hosts share.
#[cfg(feature = "fleet")]
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Queue")]
pub(super) struct NatsArgs {
    /// Log in to the NATS servers of --queue with this credentials file
    #[arg(long, value_name = "FILE")]
    pub(super) nats_creds: Option<PathBuf>,
    /// Set the time after which a silent worker loses its files, at the first use of the queue [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) lease: Option<Duration>,
    /// Keep this many copies of each job in the NATS cluster, at the first use of the queue [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(super) replicas: Option<u8>,
}

/// The choice and the order of files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(super) struct SelectionArgs {
    /// Take only files that match this pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(super) include: Vec<String>,
    /// Leave out files that match this pattern; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
    /// Read filter rules from this file: `+ GLOB`, `- GLOB`
    #[arg(long, value_name = "FILE")]
    pub(super) filter_from: Vec<PathBuf>,
    /// Leave out smaller files
    #[arg(long, value_name = "SIZE")]
    pub(super) min_size: Option<Size>,
    /// Leave out larger files
    #[arg(long, value_name = "SIZE")]
    pub(super) max_size: Option<Size>,
    /// Leave out files that changed within this time
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) min_age: Option<Duration>,
    /// Leave out files that did not change within this time
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) max_age: Option<Duration>,
    /// Enter directories down to this depth; 1 is the files directly in a source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_depth: Option<u32>,
    /// Follow symbolic links
    #[arg(long)]
    pub(super) follow_links: bool,
    /// Take files of any extension, not only videos
    #[arg(long)]
    pub(super) all_files: bool,
    /// Upload in this order: name, size or mtime, each with `,desc` for the reverse, or mixed
    #[arg(long, value_name = "ORDER", value_parser = order)]
    pub(super) order_by: Option<ringlift::bulk::OrderBy>,
}

/// The limits that end a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct StopArgs {
    /// End the run after this many bytes
    #[arg(long, value_name = "SIZE")]
    pub(super) max_transfer: Option<Size>,
    /// End the run after this time
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(super) max_duration: Option<Duration>,
    /// Set what becomes of active uploads at a limit: `hard` gives them up, resumable; `soft` completes them;
    /// `cautious` also starts none that would exceed the bytes
    #[arg(long, value_name = "MODE", default_value = "hard")]
    pub(super) cutoff_mode: CutoffMode,
    /// End the run after this many failed files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_errors: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SidecarFormat {
    Json,
}

fn order(text: &str) -> Result<ringlift::bulk::OrderBy, String> {
    use ringlift::bulk::OrderBy;
    let (name, descending) = match text.split_once(',') {
        Some((name, "desc")) => (name, true),
        Some((name, "asc")) => (name, false),
        Some(_) => return Err("write the direction as `,asc` or `,desc`".to_owned()),
        None => (text, false),
    };
    match name {
        "name" => Ok(OrderBy::Name { descending }),
        "size" => Ok(OrderBy::Size { descending }),
        "mtime" => Ok(OrderBy::Mtime { descending }),
        "mixed" => Ok(OrderBy::Mixed),
        _ => Err("use name, size, mtime or mixed".to_owned()),
    }
}
