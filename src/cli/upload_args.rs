//! Flags of `ringlift upload`; some are shared with `ringlift resume`.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ringlift::{
    Checksum, ChunkSize, Clip, Mode, NewVideo, OnChange, Reader, Secret, SummaryAttribute, UnknownValue,
    Watermark,
};

use super::bandwidth::Timetable;
use super::values::{self, Count, Size};

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// Upload these files; `-` is standard input; the service fetches an http or https URL by itself
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Record the upload state in this file, so that the same command resumes after a crash or a signal
    /// [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// Do not keep a journal, so that every run starts from the beginning
    #[arg(long, conflicts_with = "journal")]
    pub(super) no_journal: bool,
    /// Upload files again even if an interrupted command has already uploaded them
    #[arg(long)]
    pub(super) force: bool,
    /// Print the plan without sending or creating anything
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    pub(super) dry_run: bool,
    /// Set how long active chunks may continue after SIGINT, SIGTERM or SIGHUP; a second signal stops
    /// immediately
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    pub(super) grace: Duration,

    #[command(flatten)]
    pub(super) description: DescriptionArgs,
    #[command(flatten)]
    pub(super) destination: DestinationArgs,
    #[command(flatten)]
    pub(super) transfer: TransferArgs,
    #[command(flatten)]
    pub(super) after: AfterArgs,
}

/// Metadata and options of the created video.
#[derive(Debug, Args)]
#[command(next_help_heading = "Video")]
pub(super) struct DescriptionArgs {
    /// Set the title [default: the file's name]
    #[arg(long)]
    pub(super) title: Option<String>,
    /// Set the description
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Add a tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Add metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pub(super) metadata: Vec<(String, String)>,
    /// Make the video private
    #[arg(long)]
    private: bool,
    /// Mark the video as panoramic
    #[arg(long)]
    panoramic: bool,
    /// Disable the MP4 version
    #[arg(long)]
    no_mp4: bool,
    /// Set the player
    #[arg(long, value_name = "ID")]
    player_id: Option<String>,
    /// Set the language as a two-letter code
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Transcribe speech
    #[arg(long)]
    transcript: bool,
    /// Transcribe speech and summarize it; `=abstract` or `=takeaways` selects one kind of summary
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    transcript_summary: Vec<SummaryKind>,
    /// Keep only this part of the video; FROM and TO are hh:mm:ss or seconds, and either may be empty
    #[arg(long, value_name = "FROM-TO", value_parser = clip)]
    clip: Option<Clip>,
    /// Add a watermark, such as `ID,top=10px,left=50%,width=20%,opacity=80%`
    #[arg(long, value_name = "ID,PLACE", value_parser = watermark)]
    watermark: Option<Watermark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SummaryKind {
    All,
    Abstract,
    Takeaways,
}

impl DescriptionArgs {
    /// Returns the video to create. An empty title stands for the file's name.
    pub(super) fn video(&self) -> NewVideo {
        let flag = |given: bool, value: bool| given.then_some(value);
        let mut video = NewVideo::new(self.title.clone().unwrap_or_default());
        video.description = self.description.clone();
        video.tags = self.tag.clone();
        for (key, value) in &self.metadata {
            video = video.metadata(key, value);
        }
        video.public = flag(self.private, false);
        video.panoramic = flag(self.panoramic, true);
        video.mp4_support = flag(self.no_mp4, false);
        video.player_id = self.player_id.clone();
        video.language = self.language.clone();
        video.transcript = flag(self.transcript, true);
        video.clip = self.clip.clone();
        video.watermark = self.watermark.clone();
        // An empty list stands for all parts, and would enable the summary.
        if self.transcript_summary.is_empty() {
            return video;
        }
        video.transcript_summary(self.transcript_summary.iter().filter_map(|kind| kind.attribute()))
    }
}

impl SummaryKind {
    /// Returns the part of the summary, or `None` for all parts.
    pub(super) fn attribute(self) -> Option<SummaryAttribute> {
        match self {
            SummaryKind::All => None,
            SummaryKind::Abstract => Some(SummaryAttribute::Abstract),
            SummaryKind::Takeaways => Some(SummaryAttribute::Takeaways),
        }
    }
}

/// Destination of the files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Destination")]
pub(super) struct DestinationArgs {
    /// Upload to this existing, empty video instead of creating one
    #[arg(long, value_name = "ID")]
    pub(super) video_id: Option<String>,
    #[command(flatten)]
    pub(super) token: TokenArgs,
}

/// Upload token, which replaces the API key.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Use an upload token instead of the API key. Other users of this machine can read it on the command
    /// line: prefer RINGLIFT_UPLOAD_TOKEN or --upload-token-file
    #[arg(long, value_name = "TOKEN", conflicts_with = "upload_token_file", value_parser = values::SecretText("upload token"))]
    pub(super) upload_token: Option<Secret>,
    /// Read the upload token from this file
    #[arg(long, value_name = "FILE")]
    pub(super) upload_token_file: Option<PathBuf>,
}

/// Chunking, reading and sending of the files.
#[derive(Debug, Args)]
#[command(next_help_heading = "Transfer")]
pub(super) struct TransferArgs {
    #[command(flatten)]
    pub(super) chunks: ChunkArgs,
    #[command(flatten)]
    pub(super) lanes: LaneArgs,
    /// Give the approximate length of standard input, from which the chunk size is chosen
    #[arg(long, value_name = "SIZE")]
    pub(super) expected_size: Option<Size>,
    /// Set the file name for standard input [default: stdin]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Limit the memory for unacknowledged chunks of standard input; at least one chunk is buffered [default:
    /// 256MiB, or a quarter of the memory of this machine or container if that is less]
    #[arg(long, value_name = "SIZE")]
    pub(super) max_buffer_memory: Option<Size>,
}

/// Chunking, and the reaction to a file that changes: the options of a single upload.
#[derive(Debug, Args)]
#[command(next_help_heading = "Transfer")]
pub(super) struct ChunkArgs {
    /// Set how the file is split and how chunks are addressed
    #[arg(long, default_value = "auto", value_parser = mode())]
    pub(super) mode: Mode,
    /// Set the chunk size: `auto`, or 5MiB to 200MiB
    #[arg(long, visible_alias = "part-size", value_name = "SIZE", default_value = "auto", value_parser = values::chunk_size)]
    pub(super) chunk_size: ChunkSize,
    /// Set the reaction to a file that changes during the upload: `restart` deletes the created video and
    /// starts again, at most three times; `strict` also fails if only attributes, links or the name change
    #[arg(long, value_name = "ACTION", default_value = "fail", value_parser = on_change())]
    pub(super) on_change: OnChange,
}

/// Concurrency, rate limits and reading, shared by `upload` and `resume`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Transfer")]
pub(super) struct LaneArgs {
    /// Set the number of connections that carry chunks, shared by all files: a number, or `auto` for the smallest number
    /// that is about as fast as the best, found while the upload runs: it starts with 8 and uses at most 32
    #[arg(short, long, value_name = "N", default_value = "auto", value_parser = values::count)]
    pub(super) concurrency: Count,
    /// Set the number of files uploaded at the same time
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) transfers: u16,
    /// Limit the bandwidth of all files together, in bytes per second: 10M or 512k (KiB without a unit),
    /// `off`, UP:DOWN (only UP is used), or a timetable in local time: "08:00,512k 18:00,30M 23:00,off",
    /// "Mon-08:00,1M Sat-00:00,off"
    #[arg(long, value_name = "LIMIT")]
    pub(super) bwlimit: Option<Timetable>,
    /// Limit upload requests to N per minute; automatic chunk sizes grow accordingly [default: no limit]
    #[arg(long, value_name = "N", value_parser = values::rate_a_minute)]
    pub(super) rate: Option<u32>,
    /// Set how files are read; `auto` depends on the kernel and the page cache
    #[arg(long, value_name = "READER", default_value = "auto", value_parser = reader())]
    pub(super) reader: Reader,
    /// Store chunk digests in the journal, so that the next run can prove that a file is unchanged when its
    /// timestamps cannot: `auto` only over HTTPS, `=always` (or no value) also over HTTP
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "auto",
        default_missing_value = "always",
        value_parser = checksum()
    )]
    pub(super) checksum: Checksum,
}

/// Steps after the upload.
#[derive(Debug, Args)]
#[command(next_help_heading = "After upload")]
pub(super) struct AfterArgs {
    /// Wait until the video is playable
    #[arg(long, value_name = "UNTIL")]
    pub(super) wait: Option<Until>,
    /// Compare the ingested size that the service reports with the bytes sent
    #[arg(long)]
    pub(super) verify: bool,
    /// Limit the time for --wait and --verify
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::time)]
    pub(super) wait_timeout: Duration,
    /// Compute and print the SHA-256 of the sent bytes
    #[arg(long)]
    pub(super) sha256: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    /// The first rendition is ready
    Playable,
}

fn mode() -> impl TypedValueParser<Value = Mode> {
    described([
        (
            Mode::Auto,
            "One request up to the chunk size, byte ranges above it, parts if the length is unknown",
        ),
        (Mode::Single, "One request, up to 200 MiB"),
        (Mode::Bytes, "`Content-Range: bytes A-B/T`; without T until the length of standard input is known"),
        (Mode::Parts, "`Content-Range: part N/M`"),
    ])
}

fn on_change() -> impl TypedValueParser<Value = OnChange> {
    described([
        (OnChange::Fail, "Fail the upload"),
        (OnChange::Restart, "Delete the created video and start again"),
        (OnChange::Strict, "Fail, also if only attributes, links or the name change"),
    ])
}

fn checksum() -> impl TypedValueParser<Value = Checksum> {
    let values = [
        (Checksum::Auto, "Store digests over HTTPS, where the bytes pass through this process anyway"),
        (
            Checksum::Always,
            "Store digests over HTTP too, where this process has to read the bytes additionally",
        ),
        (Checksum::Never, "Store no digests; the upload of a touched file starts again"),
    ];
    let named = values.map(|(value, help)| {
        // The values of a flag in a configuration file or the environment.
        let aliases: &[&str] = match value {
            Checksum::Always => &["true"],
            Checksum::Never => &["false"],
            _ => &[],
        };
        PossibleValue::new(value.name()).help(help).aliases(aliases.iter().copied())
    });
    PossibleValuesParser::new(named).try_map(|name| match name.as_str() {
        "true" => Ok(Checksum::Always),
        "false" => Ok(Checksum::Never),
        name => name.parse(),
    })
}

/// Returns a parser for the values of an option, each with its help text.
fn described<T, const N: usize>(values: [(T, &'static str); N]) -> impl TypedValueParser<Value = T>
where
    T: Clone + Display + FromStr<Err = UnknownValue> + Send + Sync + 'static,
{
    let named = values.map(|(value, help)| PossibleValue::new(value.to_string()).help(help));
    PossibleValuesParser::new(named).try_map(|name| name.parse::<T>())
}

fn reader() -> impl TypedValueParser<Value = Reader> {
    PossibleValuesParser::new(["auto", "uring", "direct", "mmap", "pread"])
        .try_map(|name| name.parse::<Reader>())
}

fn clip(text: &str) -> Result<Clip, String> {
    let (from, to) = text.split_once('-').ok_or("write it as FROM-TO, like 00:01:15-00:02:00")?;
    let timecode = |timecode: &str| (!timecode.is_empty()).then(|| timecode.to_owned());
    Ok(Clip { start_timecode: timecode(from), end_timecode: timecode(to) })
}

fn watermark(text: &str) -> Result<Watermark, String> {
    let mut fields = text.split(',');
    let mut watermark =
        Watermark { id: fields.next().unwrap_or_default().to_owned(), ..Watermark::default() };
    for field in fields {
        let (key, value) = values::pair(field)?;
        let place = match key.as_str() {
            "top" => &mut watermark.top,
            "left" => &mut watermark.left,
            "bottom" => &mut watermark.bottom,
            "right" => &mut watermark.right,
            "width" => &mut watermark.width,
            "height" => &mut watermark.height,
            "opacity" => &mut watermark.opacity,
            _ => return Err("use top, left, bottom, right, width, height and opacity".to_owned()),
        };
        *place = Some(value);
    }
    Ok(watermark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_may_leave_either_end_open() {
        let timecode = |text: &str| Some(text.to_owned());
        assert_eq!(clip("1-2"), Ok(Clip { start_timecode: timecode("1"), end_timecode: timecode("2") }));
        assert_eq!(clip("-00:02:00"), Ok(Clip { start_timecode: None, end_timecode: timecode("00:02:00") }));
        assert!(clip("12").is_err());
    }

    #[test]
    fn a_watermark_is_an_id_and_its_place() {
        let drawn = watermark("wm1,top=10px,opacity=80%").unwrap();
        assert_eq!((drawn.id.as_str(), drawn.top.as_deref()), ("wm1", Some("10px")));
        assert!(watermark("wm1,middle=1").is_err());
    }
}
