//! The command line: every subcommand and flag. Values are merged in [`config`](super::config).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ringlift::{Redactor, Secret};

use super::help;
use super::ingest_args::{IngestArgs, SubmitArgs, WorkArgs};
use super::jobs_args::JobsCommand;
use super::page_args::PageArgs;
use super::service_args::ServiceArgs;
use super::tune_args::TuneArgs;
use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, UploadArgs};
use super::values::{self, Size};
use super::video_args::VideoCommand;

/// Upload huge video files to api.video, or to any service with the same upload protocol.
#[derive(Debug, Parser)]
#[command(name = "ringlift", version, max_term_width = 100, after_help = help::SHORT, after_long_help = help::LONG)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Upload files, or standard input as `-`.
    #[command(after_long_help = help::UPLOAD)]
    Upload(Box<UploadArgs>),
    /// Upload many files, each once, however often the command is run.
    #[command(after_long_help = help::INGEST)]
    Ingest(Box<IngestArgs>),
    /// Put jobs into a queue, for `work`.
    #[command(after_long_help = help::SUBMIT)]
    Submit(Box<SubmitArgs>),
    /// Upload the files of a queue until a signal, or until none is left.
    #[command(after_long_help = help::WORK)]
    Work(Box<WorkArgs>),
    /// List, show, retry, cancel and forget the jobs of a queue, and pause its pools.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Resume uploads that a crash, a signal or a failure interrupted.
    #[command(after_long_help = help::RESUME)]
    Resume(ResumeArgs),
    /// Delete the incomplete videos of uploads that cannot be resumed, after confirmation.
    #[command(after_long_help = help::CLEAN)]
    Clean(CleanArgs),
    /// Upload a sample in every mode to a built-in server, and verify what arrived.
    Demo(DemoArgs),
    /// Run a local server that is compatible with api.video.
    #[command(after_long_help = help::SERVE)]
    Serve(ServeArgs),
    /// Measure the machine and the path to a service, and recommend settings.
    #[command(after_long_help = help::TUNE)]
    Tune(TuneArgs),
    /// Show the ingest and encoding status of a video.
    Status(StatusArgs),
    /// Create, list, show, change and delete videos.
    #[command(subcommand)]
    Video(VideoCommand),
    /// Create, list and delete upload tokens, which permit uploads without the API key.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the completion script of a shell.
    #[command(after_long_help = help::COMPLETION)]
    Completion(CompletionArgs),
    /// Print the manual page, or write the pages of all commands to a directory.
    #[command(after_long_help = help::MAN)]
    Man(ManArgs),
}

/// Flags that every command accepts, and what commands need from the environment.
#[derive(Debug, Args)]
pub(super) struct GlobalArgs {
    /// Flags of the commands that talk to the service. Merged by [`command_tree`](super::command_tree).
    #[arg(skip)]
    pub(super) service: ServiceArgs,
    /// Value of APIVIDEO_API_KEY.
    #[arg(skip)]
    pub(super) api_key: Option<Secret>,
    /// Removes secrets from all output.
    #[arg(skip)]
    pub(super) redactor: Redactor,

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
    /// Read defaults from this TOML file; `none` reads no file [default: $XDG_CONFIG_HOME/ringlift/config.toml,
    /// if it exists]
    #[arg(long, global = true, value_name = "FILE", value_parser = values::path_or_nothing(), help_heading = CONFIG)]
    pub(super) config: Option<PathBuf>,
    /// Use the values under `[profile.NAME]` of the config file before its other values
    #[arg(long, global = true, value_name = "NAME", help_heading = CONFIG)]
    pub(super) profile: Option<String>,
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
    /// Also remove uploads that could still be resumed, except those that a process of this host is working on
    #[arg(long)]
    pub(super) all: bool,
    /// Delete the videos that interrupted measurements of `ringlift tune` left at the service, and nothing else; a
    /// measurement that is running loses its videos, too
    #[arg(long, conflicts_with_all = ["all", "journal"])]
    pub(super) tune: bool,
    /// With --tune, also remove the temporary directories that `ringlift tune --data DIR` left in this directory
    #[arg(long, value_name = "DIR", requires = "tune")]
    pub(super) data: Option<PathBuf>,
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
    /// Require the API key in FILE [default: APIVIDEO_API_KEY, or a key that is generated and printed]
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
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

const OUTPUT: &str = "Output";
const CONFIG: &str = "Configuration";
