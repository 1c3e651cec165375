//! The command line: every subcommand and flag. Values are merged in [`config`](super::config).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ringlift::Secret;
use ringlift::api::Redactor;

use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, UploadArgs};
use super::values::{self, Size};

/// Upload huge video files to api.video, or to any service with the same upload protocol.
#[derive(Debug, Parser)]
#[command(name = "ringlift", version, max_term_width = 100, after_help = PRECEDENCE)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Upload files, or standard input as `-`.
    #[command(after_long_help = UPLOAD_EXAMPLES)]
    Upload(Box<UploadArgs>),
    /// Resume uploads that a crash, a signal or a failure interrupted.
    #[command(after_long_help = RESUME_EXAMPLES)]
    Resume(ResumeArgs),
    /// Delete the incomplete videos of uploads that cannot be resumed, after confirmation.
    #[command(after_long_help = CLEAN_EXAMPLES)]
    Clean(CleanArgs),
    /// Upload a sample in every mode to a built-in server, and verify what arrived.
    Demo(DemoArgs),
    /// Run a local server that is compatible with api.video.
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show the ingest and encoding status of a video.
    Status(StatusArgs),
    /// List, show and delete videos.
    #[command(subcommand)]
    Video(VideoCommand),
    /// Create, list and delete upload tokens, which permit uploads without the API key.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the completion script of a shell.
    #[command(after_long_help = COMPLETION_EXAMPLES)]
    Completion(CompletionArgs),
    /// Print the manual page, or write the pages of all commands to a directory.
    Man(ManArgs),
}

/// Flags that every command accepts.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Set the URL of the service [default: https://ws.api.video]
    #[arg(long, global = true, value_name = "URL", value_parser = values::EndpointUrl, help_heading = SERVICE)]
    pub(super) endpoint_url: Option<String>,
    /// Use the sandbox, which cuts videos to 30 s, watermarks them and deletes them after a day
    #[arg(long, global = true, conflicts_with = "endpoint_url", help_heading = SERVICE)]
    pub(super) sandbox: bool,
    /// Read the API key from FILE instead of APIVIDEO_API_KEY
    #[arg(long, global = true, value_name = "FILE", help_heading = SERVICE)]
    pub(super) api_key_file: Option<PathBuf>,
    /// Value of APIVIDEO_API_KEY.
    #[arg(skip)]
    pub(super) api_key: Option<Secret>,
    /// Removes secrets from all output.
    #[arg(skip)]
    pub(super) redactor: Redactor,
    /// Name of the environment variable that sets a proxy for the service.
    #[arg(skip)]
    pub(super) proxy_variable: Option<&'static str>,
    /// Trust the certificates in this PEM file as well as the system's; may be repeated
    #[arg(long, global = true, value_name = "FILE", help_heading = SERVICE)]
    pub(super) ca_cert: Vec<PathBuf>,
    /// Set the number of retries per chunk or API call; 0 disables retries [default: 10]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000), help_heading = SERVICE)]
    pub(super) retries: Option<u32>,
    /// Fail after TIME without a stored chunk [default: 15m]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::time, help_heading = SERVICE)]
    pub(super) retry_max_time: Option<Duration>,
    /// Close a connection after TIME without a byte sent or received, and fail a file after TIME without a
    /// byte read [default: 1m; 2m for a response and for a file]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::patience, help_heading = SERVICE)]
    pub(super) timeout: Option<Duration>,
    /// Limit the time for each step of connecting: DNS, TCP and TLS [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::patience, help_heading = SERVICE)]
    pub(super) connect_timeout: Option<Duration>,
    /// Limit requests of all kinds to N per second [default: no limit]
    #[arg(long, global = true, value_name = "N", value_parser = values::rate, help_heading = SERVICE)]
    pub(super) tpslimit: Option<f64>,
    /// Close a connection that is slower than SIZE per second for 30 seconds [default: no limit]
    #[arg(long, global = true, value_name = "SIZE", help_heading = SERVICE)]
    pub(super) min_speed: Option<Size>,

    /// Write one JSON event per line to standard output; the last one is the summary
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(super) json: bool,
    /// Show the progress; `auto` shows it on a terminal only
    #[arg(short = 'P', long, global = true, value_name = "WHEN", default_value = "auto",
          num_args = 0..=1, require_equals = true, default_missing_value = "always", help_heading = OUTPUT)]
    pub(super) progress: ProgressWhen,
    /// Print a line of progress every TIME if no progress is shown on a terminal; 0 disables it [default: 1m with
    /// -P, else off]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::time, help_heading = OUTPUT)]
    pub(super) stats: Option<Duration>,
    /// Log more to standard error: -v choices, -vv decisions, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = OUTPUT)]
    pub(super) verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = OUTPUT)]
    pub(super) quiet: bool,
    /// Read defaults from this TOML file, such as `chunk-size = "64MiB"`; `resume` and `clean` also use the
    /// section `[upload]`
    #[arg(long, global = true, value_name = "FILE", help_heading = OUTPUT)]
    pub(super) config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressWhen {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Resume the uploads of these files only [default: all that can be resumed]
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// List the uploads in the journal, and send nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Read this journal [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// Set how long active chunks may continue after SIGINT, SIGTERM or SIGHUP; a second signal stops
    /// immediately
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    pub(super) grace: Duration,

    // Flattened last, because a heading applies to every flag after it.
    #[command(flatten)]
    pub(super) token: TokenArgs,
    #[command(flatten)]
    pub(super) lanes: LaneArgs,
    #[command(flatten)]
    pub(super) after: AfterArgs,
}

#[derive(Debug, Args)]
pub(super) struct CleanArgs {
    /// Delete without confirmation
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Also remove uploads that could still be resumed, except those that a process is working on
    #[arg(long)]
    pub(super) all: bool,
    /// Read this journal [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Upload this file instead of a generated sample
    pub(super) file: Option<PathBuf>,
    /// Set the size of the sample
    #[arg(long, value_name = "SIZE", default_value = "1GiB", conflicts_with = "file")]
    pub(super) size: Size,
    /// Set the parent of the temporary directory for the sample and the server's data
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Set the address to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: std::net::SocketAddr,
    /// Set the directory of the stored videos
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Serve HTTPS, and write the CA certificate to DIR/ca.pem
    #[arg(long)]
    pub(super) tls: bool,
    /// Inject faults as described in this TOML file
    #[arg(long, value_name = "PLAN")]
    pub(super) faults: Option<PathBuf>,
    /// Apply the service's rate limits
    #[arg(long, value_name = "SERVICE", default_value = "off")]
    pub(super) limits: ServeLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ServeLimits {
    /// 40 uploads, 40 writes and 100 reads per minute
    Sandbox,
    /// 100 uploads, 200 writes and 500 reads per minute
    Production,
    /// No limit
    Off,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The id of the video
    pub(super) video_id: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum VideoCommand {
    /// List videos, one page at a time
    List(VideoListArgs),
    /// Show a video
    Get {
        /// The id of the video
        video_id: String,
    },
    /// Delete videos
    Delete {
        /// The ids of the videos
        #[arg(required = true)]
        video_id: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct VideoListArgs {
    /// List only videos with TEXT in their title
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,
    /// List only videos with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// List only videos with this metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pub(super) metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PageArgs {
    /// Show page N
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) page: u32,
    /// Set the number of entries per page
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) page_size: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create an upload token
    Create {
        /// Set the lifetime in whole seconds [default: unlimited]
        #[arg(long, value_name = "TIME", value_parser = values::ttl)]
        ttl: Option<Duration>,
    },
    /// List upload tokens, one page at a time
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Delete upload tokens, which makes them invalid
    Delete {
        /// The upload tokens
        #[arg(required = true)]
        token: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell to complete for
    pub(super) shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write the pages of all commands to this directory
    pub(super) dir: Option<PathBuf>,
}

pub(super) const SERVICE: &str = "Service";
pub(super) const OUTPUT: &str = "Output";

const PRECEDENCE: &str = "\
Every flag can also be set by an environment variable (RINGLIFT_CHUNK_SIZE for --chunk-size) and in the \
file of --config (chunk-size). A flag overrides the environment, and the environment overrides the file.
The API key is read from APIVIDEO_API_KEY or --api-key-file, never from the command line.
Sizes are 1024-based (64MiB, 64M and 64m are equal). Times are written as 90s, 15m or 1h30m.

Exit codes: 0 success, 1 permanent failure, 2 usage error, 3 no such video, 4 no such file, 5 temporary \
failure (the same command may succeed later), 6 file or video in an unexpected state, 7 permission denied, \
130 SIGINT, 143 SIGTERM.";

const UPLOAD_EXAMPLES: &str = "\
Examples:
  ringlift upload movie.mp4
  ringlift upload --title 'Summer' --tag travel --metadata camera=7 --private movie.mp4
  ringlift upload --transfers 4 --json *.mp4 | jq -r 'select(.event == \"file_done\").video_id'
  ffmpeg ... -f mp4 -movflags frag_keyframe - | ringlift upload --name live.mp4 --expected-size 20G -
  RINGLIFT_UPLOAD_TOKEN=to... ringlift upload movie.mp4
  ringlift upload --dry-run --mode parts --chunk-size 128M movie.mp4";

const RESUME_EXAMPLES: &str = "\
Examples:
  ringlift resume --list
  ringlift resume
  ringlift resume --journal /var/lib/ingest/journal.db movie.mp4
  RINGLIFT_UPLOAD_TOKEN=to... ringlift resume movie.mp4

Only uploads to the selected service (--endpoint-url, --sandbox) are resumed, each with its original options. \
An upload that was started with an upload token needs that token.";

const CLEAN_EXAMPLES: &str = "\
Examples:
  ringlift clean
  ringlift clean --yes --json

An upload cannot be resumed if it was abandoned, if it read standard input, or if its file has changed. \
Only videos that an upload created are deleted, never a video given by --video-id. A video whose creation \
received no response is found by its mark.";

const SERVE_EXAMPLES: &str = "\
Examples:
  ringlift serve --data /tmp/videos
  ringlift serve --data /tmp/videos --tls --limits sandbox
  ringlift upload --endpoint-url https://localhost:8080 --ca-cert /tmp/videos/ca.pem movie.mp4";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  ringlift completion bash > /etc/bash_completion.d/ringlift
  ringlift completion zsh > \"${fpath[1]}/_ringlift\"
  ringlift completion fish > ~/.config/fish/completions/ringlift.fish";
