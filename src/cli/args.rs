//! What may be typed. What it means is decided in [`settings`](super::settings) and in the commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ringlift::Secret;
use ringlift::api::Redactor;

use super::upload_args::{AfterArgs, LaneArgs, TokenArgs, UploadArgs};
use super::values::{self, Size};

/// Uploads huge video files to api.video and to anything that speaks its upload protocol.
#[derive(Debug, Parser)]
#[command(name = "ringlift", version, max_term_width = 100, after_help = PRECEDENCE)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Upload files, or standard input as `-`.
    #[command(after_long_help = UPLOAD_EXAMPLES)]
    Upload(Box<UploadArgs>),
    /// Go on with the uploads that a crash, a signal or a failure ended.
    #[command(after_long_help = RESUME_EXAMPLES)]
    Resume(ResumeArgs),
    /// Delete the videos that ended uploads left behind, asked first, and forget those uploads.
    #[command(after_long_help = CLEAN_EXAMPLES)]
    Clean(CleanArgs),
    /// Upload a sample by every way to a server inside this program, and compare what arrived.
    Demo(DemoArgs),
    /// Run a local server that is compatible with api.video.
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Show what the service has received of a video and made of it.
    Status(StatusArgs),
    /// List, show and delete videos.
    #[command(subcommand)]
    Video(VideoCommand),
    /// Create, list and delete upload tokens, which let others upload without the API key.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the completions of a shell.
    #[command(after_long_help = COMPLETION_EXAMPLES)]
    Completion(CompletionArgs),
    /// Print the manual page, or write the pages of all commands into a directory.
    Man(ManArgs),
}

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where the service is [default: https://ws.api.video]
    #[arg(long, global = true, value_name = "URL", value_parser = values::EndpointUrl, help_heading = SERVICE)]
    pub(super) endpoint_url: Option<String>,
    /// Use the sandbox: videos are cut to 30 s, watermarked, and deleted after a day
    #[arg(long, global = true, conflicts_with = "endpoint_url", help_heading = SERVICE)]
    pub(super) sandbox: bool,
    /// Read the API key from this file rather than from APIVIDEO_API_KEY
    #[arg(long, global = true, value_name = "FILE", help_heading = SERVICE)]
    pub(super) api_key_file: Option<PathBuf>,
    /// What APIVIDEO_API_KEY says.
    #[arg(skip)]
    pub(super) api_key: Option<Secret>,
    /// Takes secrets out of all that is shown.
    #[arg(skip)]
    pub(super) redactor: Redactor,
    /// The variable that names a proxy for the service.
    #[arg(skip)]
    pub(super) proxy_variable: Option<&'static str>,
    /// Trust the certificates in this PEM file, beside the system's
    #[arg(long, global = true, value_name = "FILE", help_heading = SERVICE)]
    pub(super) ca_cert: Vec<PathBuf>,
    /// Send a chunk, or make a call, this many times again after it failed; 0 tries once [default: 10]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000), help_heading = SERVICE)]
    pub(super) retries: Option<u32>,
    /// Give up after this long without any chunk being stored [default: 15m]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::time, help_heading = SERVICE)]
    pub(super) retry_max_time: Option<Duration>,
    /// Give a connection up after this long without a byte moving, and so a file whose disk gives nothing
    /// [default: 1m, 2m for an answer and for a disk]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::patience, help_heading = SERVICE)]
    pub(super) timeout: Option<Duration>,
    /// Give each step of connecting up after this long: the name, the connection, TLS [default: 10s]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::patience, help_heading = SERVICE)]
    pub(super) connect_timeout: Option<Duration>,
    /// Make at most this many requests a second, of whatever kind
    #[arg(long, global = true, value_name = "N", value_parser = values::rate, help_heading = SERVICE)]
    pub(super) tpslimit: Option<f64>,
    /// Give a connection up that is slower than this many bytes a second for half a minute
    #[arg(long, global = true, value_name = "SIZE", help_heading = SERVICE)]
    pub(super) min_speed: Option<Size>,

    /// Write one JSON event a line to standard output; the last one is the summary
    #[arg(long, global = true, help_heading = OUTPUT)]
    pub(super) json: bool,
    /// Show how far it is: `auto` on a terminal only
    #[arg(short = 'P', long, global = true, value_name = "WHEN", default_value = "auto",
          num_args = 0..=1, require_equals = true, default_missing_value = "always", help_heading = OUTPUT)]
    pub(super) progress: ProgressWhen,
    /// Say more on standard error: -v what is chosen, -vv every decision, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = OUTPUT)]
    pub(super) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = OUTPUT)]
    pub(super) quiet: bool,
    /// Take defaults from this TOML file: `chunk-size = "64MiB"`, or under `[upload]`,
    /// which holds for `resume` and `clean` too
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
    /// Only the uploads of these files; all that can be continued unless told
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Show what the journal remembers, and send nothing
    #[arg(long)]
    pub(super) list: bool,
    /// The journal that the uploads were written down in
    /// [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// How long chunks under way may still take after SIGINT, SIGTERM or SIGHUP; a second signal ends them at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    pub(super) grace: Duration,

    // Flattened last: their headings would hold for what follows.
    #[command(flatten)]
    pub(super) token: TokenArgs,
    #[command(flatten)]
    pub(super) lanes: LaneArgs,
    #[command(flatten)]
    pub(super) after: AfterArgs,
}

#[derive(Debug, Args)]
pub(super) struct CleanArgs {
    /// Delete without asking
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Give up what could still be continued, too; only what a process is at is left alone
    #[arg(long)]
    pub(super) all: bool,
    /// The journal that the uploads were written down in
    /// [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The file to upload; a sample is made without one
    pub(super) file: Option<PathBuf>,
    /// How large the sample is
    #[arg(long, value_name = "SIZE", default_value = "1GiB", conflicts_with = "file")]
    pub(super) size: Size,
    /// The directory for the sample and the server's data; all of it is removed at the end
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The address to listen at; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) listen: std::net::SocketAddr,
    /// The directory that keeps what is uploaded
    #[arg(long, value_name = "DIR")]
    pub(super) data: PathBuf,
    /// Serve HTTPS, with a certificate that is written to DIR/ca.pem
    #[arg(long)]
    pub(super) tls: bool,
    /// Go wrong on purpose, as this TOML file says
    #[arg(long, value_name = "PLAN")]
    pub(super) faults: Option<PathBuf>,
    /// Limit the requests a minute as the service does
    #[arg(long, value_name = "WHOSE", default_value = "off")]
    pub(super) limits: ServeLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ServeLimits {
    /// 40 uploads, 40 writes, 100 reads a minute
    Sandbox,
    /// 100 uploads, 200 writes, 500 reads a minute
    Production,
    /// As many as come
    Off,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The video
    pub(super) video_id: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum VideoCommand {
    /// List videos, a page at a time
    List(VideoListArgs),
    /// Show a video
    Get {
        /// The video
        video_id: String,
    },
    /// Delete videos
    Delete {
        /// The videos
        #[arg(required = true)]
        video_id: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct VideoListArgs {
    /// Only videos with this in their title
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,
    /// Only videos with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// Only videos with this metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pub(super) metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PageArgs {
    /// The page to show
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) page: u32,
    /// How many make a page
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) page_size: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create an upload token
    Create {
        /// How long it lives, in whole seconds; for ever unless told
        #[arg(long, value_name = "TIME", value_parser = values::ttl)]
        ttl: Option<Duration>,
    },
    /// List upload tokens, a page at a time
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Delete upload tokens: nobody can upload with them any more
    Delete {
        /// The tokens
        #[arg(required = true)]
        token: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CompletionArgs {
    /// The shell
    pub(super) shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory to write the pages into
    pub(super) dir: Option<PathBuf>,
}

pub(super) const SERVICE: &str = "Service";
pub(super) const OUTPUT: &str = "Output";

const PRECEDENCE: &str = "\
Every flag can be given as an environment variable, --chunk-size as RINGLIFT_CHUNK_SIZE, and in the \
file of --config, as chunk-size. A flag goes before the environment, the environment before the file.
The API key is read from APIVIDEO_API_KEY or from --api-key-file, never from the command line.
Sizes are 1024-based (64MiB, 64M and 64m are the same), times read 90s, 15m, 1h30m.

Exit codes: 0 done, 1 failed for good, 2 usage, 3 no such video, 4 no such file, 5 temporary (the same \
command may succeed later), 6 the file or the video is not as it was, 7 not allowed, 130 SIGINT, 143 SIGTERM.";

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

Only uploads to the service in use are continued (--endpoint-url, --sandbox), each the way it was begun. \
One that was begun with an upload token needs that token.";

const CLEAN_EXAMPLES: &str = "\
Examples:
  ringlift clean
  ringlift clean --yes --json

An upload is left over when nothing can continue it: it was given up, it read standard input, or its file \
has changed. Only videos that an upload created are deleted, never one that --video-id named. A video whose \
creation was not answered is found by its mark.";

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
