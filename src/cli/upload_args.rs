//! What may be typed after `ringlift upload`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ringlift::api::{Clip, SummaryAttribute, Watermark};
use ringlift::{Checksum, ChunkSize, Mode, NewVideo, OnChange, Reader, Secret};

use super::bandwidth::Timetable;
use super::values::{self, Count, Size};

#[derive(Debug, Args)]
pub(super) struct UploadArgs {
    /// The files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Write down here what was sent, so that the same command continues after a crash or a signal
    /// [default: ringlift/journal.db in $XDG_STATE_HOME]
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// Keep no journal: every run starts anew
    #[arg(long, conflicts_with = "journal")]
    pub(super) no_journal: bool,
    /// Upload files again that an interrupted command already uploaded
    #[arg(long)]
    pub(super) force: bool,
    /// Print the plan, send nothing and create nothing
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    pub(super) dry_run: bool,
    /// How long chunks under way may still take after SIGINT, SIGTERM or SIGHUP; a second signal ends them at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    pub(super) grace: Duration,

    #[command(flatten)]
    pub(super) description: DescriptionArgs,
    #[command(flatten)]
    pub(super) destination: DestinationArgs,
    #[command(flatten)]
    pub(super) way: WayArgs,
    #[command(flatten)]
    pub(super) after: AfterArgs,
}

/// The video that is created.
#[derive(Debug, Args)]
#[command(next_help_heading = "The video that is created")]
pub(super) struct DescriptionArgs {
    /// Its title [default: the file's name]
    #[arg(long)]
    title: Option<String>,
    /// Its description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    metadata: Vec<(String, String)>,
    /// Let only those watch it who hold a token for it
    #[arg(long)]
    private: bool,
    /// It is a panorama
    #[arg(long)]
    panoramic: bool,
    /// Offer no MP4 file of it
    #[arg(long)]
    no_mp4: bool,
    /// The player that shows it
    #[arg(long, value_name = "ID")]
    player_id: Option<String>,
    /// Its language, as a two-letter code
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Have what is said in it transcribed
    #[arg(long)]
    transcript: bool,
    /// Have it transcribed and summed up; `=abstract` or `=takeaways` to only that
    #[arg(long, value_name = "TO", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    transcript_summary: Vec<Summary>,
    /// Keep only this piece: from and to as hh:mm:ss or seconds, either may be left out
    #[arg(long, value_name = "FROM-TO", value_parser = clip)]
    clip: Option<Clip>,
    /// Draw a watermark: `ID,top=10px,left=50%,width=20%,opacity=80%`
    #[arg(long, value_name = "ID,PLACE", value_parser = watermark)]
    watermark: Option<Watermark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Summary {
    All,
    Abstract,
    Takeaways,
}

impl DescriptionArgs {
    /// The video to create; with an empty title, which means the file's name, unless one was given.
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
        match self.transcript_summary.is_empty() {
            true => video,
            false => video.transcript_summary(self.transcript_summary.iter().filter_map(|to| to.attribute())),
        }
    }
}

impl Summary {
    fn attribute(self) -> Option<SummaryAttribute> {
        match self {
            Summary::All => None,
            Summary::Abstract => Some(SummaryAttribute::Abstract),
            Summary::Takeaways => Some(SummaryAttribute::Takeaways),
        }
    }
}

/// Where the file goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where it goes")]
pub(super) struct DestinationArgs {
    /// Fill this video, which exists and is empty, rather than creating one
    #[arg(long, value_name = "ID")]
    pub(super) video_id: Option<String>,
    #[command(flatten)]
    pub(super) token: TokenArgs,
}

/// What may stand in for the API key.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Use an upload token in place of the API key; others on this machine can read it here,
    /// so prefer RINGLIFT_UPLOAD_TOKEN or --upload-token-file
    #[arg(long, value_name = "TOKEN", conflicts_with = "upload_token_file", value_parser = values::SecretText("upload token"))]
    pub(super) upload_token: Option<Secret>,
    /// Read the upload token from this file
    #[arg(long, value_name = "FILE")]
    pub(super) upload_token_file: Option<PathBuf>,
}

/// How the file is read, cut and sent.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes")]
pub(super) struct WayArgs {
    /// How the file is cut and named on the wire
    #[arg(long, default_value = "auto")]
    pub(super) mode: ModeArg,
    /// How much goes in one request: `auto`, or 5MiB to 200MiB
    #[arg(long, visible_alias = "part-size", value_name = "SIZE", default_value = "auto", value_parser = values::chunk_size)]
    pub(super) chunk_size: ChunkSize,
    #[command(flatten)]
    pub(super) lanes: LaneArgs,
    /// What to do when a file changes while it is being sent: `restart` deletes the video that was created
    /// and begins anew, three times at most; `strict` fails also when only attributes, links or the name change
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub(super) on_change: OnChangeArg,
    /// About how much standard input will give; chunks grow with it, so that their number stays allowed
    #[arg(long, value_name = "SIZE")]
    pub(super) expected_size: Option<Size>,
    /// The file name of standard input [default: stdin]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// The memory for chunks of standard input, which are kept until they are acknowledged; at least one
    /// chunk [default: 256MiB, or a quarter of what this machine or container has where that is less]
    #[arg(long, value_name = "SIZE")]
    pub(super) max_buffer_memory: Option<Size>,
}

/// How much happens at once, and how files are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "How it goes")]
pub(super) struct LaneArgs {
    /// How many lanes, which are connections that carry chunks, over all files: `auto`, or a number
    #[arg(short, long, value_name = "N", default_value = "auto", value_parser = values::count)]
    pub(super) concurrency: Count,
    /// How many files are under way at once
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) transfers: u16,
    /// Send at most so many bytes a second over all files: 10M or 512k (KiB where no unit stands), `off`,
    /// UP:DOWN of which only UP counts, or a timetable in local time: "08:00,512k 18:00,30M 23:00,off",
    /// "Mon-08:00,1M Sat-00:00,off"
    #[arg(long, value_name = "LIMIT")]
    pub(super) bwlimit: Option<Timetable>,
    /// Make at most so many upload requests a minute; chunks whose size is left open grow with it
    #[arg(long, value_name = "N", value_parser = values::rate_a_minute)]
    pub(super) rate: Option<u32>,
    /// How files are read: `auto` asks the kernel and the page cache
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = reader())]
    pub(super) reader: Reader,
    /// Keep digests of the chunks in the journal, by which the next run proves that a file still has the bytes that
    /// were sent, when its times cannot tell: `auto` does so over HTTPS, `=always` (or no value) over HTTP too
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "auto",
        default_missing_value = "always"
    )]
    pub(super) checksum: ChecksumArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ChecksumArg {
    /// Over HTTPS, where the bytes pass through the command in any case
    Auto,
    /// Over HTTP too, where the command has to read them for it
    #[value(alias = "true")]
    Always,
    /// Never: an upload whose file was touched begins anew
    #[value(alias = "false")]
    Never,
}

impl From<ChecksumArg> for Checksum {
    fn from(checksum: ChecksumArg) -> Checksum {
        match checksum {
            ChecksumArg::Auto => Checksum::Auto,
            ChecksumArg::Always => Checksum::Always,
            ChecksumArg::Never => Checksum::Never,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArg {
    /// One request up to the chunk size, byte ranges above it, parts when the length is unknown
    Auto,
    /// One request, up to 200 MiB
    Single,
    /// `Content-Range: bytes A-B/T`
    Bytes,
    /// `Content-Range: part N/M`
    Parts,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Mode {
        match mode {
            ModeArg::Auto => Mode::Auto,
            ModeArg::Single => Mode::Single,
            ModeArg::Bytes => Mode::Bytes,
            ModeArg::Parts => Mode::Parts,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnChangeArg {
    /// Give the upload up
    Fail,
    /// Delete the video and begin anew
    Restart,
    /// Give the upload up, also when only attributes, links or the name change
    Strict,
}

impl From<OnChangeArg> for OnChange {
    fn from(on_change: OnChangeArg) -> OnChange {
        match on_change {
            OnChangeArg::Fail => OnChange::Fail,
            OnChangeArg::Restart => OnChange::Restart,
            OnChangeArg::Strict => OnChange::Strict,
        }
    }
}

/// What happens once the file is there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Once it is there")]
pub(super) struct AfterArgs {
    /// Wait until the video can be watched
    #[arg(long, value_name = "UNTIL")]
    pub(super) wait: Option<Until>,
    /// Ask the service how many bytes it has ingested, and compare
    #[arg(long)]
    pub(super) verify: bool,
    /// How long --wait and --verify ask before they give up
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::time)]
    pub(super) wait_timeout: Duration,
    /// Compute the SHA-256 of what was sent, too
    #[arg(long)]
    pub(super) sha256: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    /// The first rendition is ready
    Playable,
}

fn reader() -> impl TypedValueParser<Value = Reader> {
    PossibleValuesParser::new(["auto", "uring", "direct", "mmap", "pread"])
        .try_map(|name| name.parse::<Reader>())
}

fn clip(text: &str) -> Result<Clip, String> {
    let (from, to) = text.split_once('-').ok_or("write it as FROM-TO, like 00:01:15-00:02:00")?;
    let said = |timecode: &str| (!timecode.is_empty()).then(|| timecode.to_owned());
    Ok(Clip { start_timecode: said(from), end_timecode: said(to) })
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
