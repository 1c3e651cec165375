//! Flags of `ringlift video`.

use std::time::Duration;

use clap::{Args, Subcommand};
use ringlift::{Metadata, SortOrder, VideoPatch, VideoSort};

use super::help;
use super::page_args::PageArgs;
use super::upload_args::{DescriptionArgs, SummaryKind, Until};
use super::values;

#[derive(Debug, Subcommand)]
pub(super) enum VideoCommand {
    /// Create a video, empty or from a URL that the service fetches
    #[command(after_long_help = help::VIDEO_CREATE)]
    Create(Box<VideoCreateArgs>),
    /// List videos, one page at a time or all
    #[command(after_long_help = help::VIDEO_LIST)]
    List(VideoListArgs),
    /// Show a video
    Get {
        /// The id of the video
        video_id: String,
    },
    /// Change the properties of a video
    #[command(after_long_help = help::VIDEO_UPDATE)]
    Update(Box<VideoUpdateArgs>),
    /// Delete videos and their content, after confirmation
    Delete {
        /// The ids of the videos
        #[arg(required = true)]
        video_id: Vec<String>,
        /// Delete without confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct VideoCreateArgs {
    /// Let the service fetch the video from this http or https URL, or copy the video with this id
    #[arg(long, value_name = "URL|ID")]
    pub(super) source: Option<String>,
    /// Return as soon as the service has accepted the source, instead of waiting until it is fetched
    #[arg(long, requires = "source")]
    pub(super) no_wait: bool,
    /// Wait until the video is playable
    #[arg(long, value_name = "UNTIL", requires = "source", conflicts_with = "no_wait")]
    pub(super) wait: Option<Until>,
    /// Limit the time for the wait
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::time)]
    pub(super) wait_timeout: Duration,
    #[command(flatten)]
    pub(super) description: DescriptionArgs,
}

#[derive(Debug, Args)]
pub(super) struct VideoListArgs {
    /// List only videos with TEXT in their title
    #[arg(long, value_name = "TEXT")]
    pub(super) title: Option<String>,
    /// List only videos with TEXT in their description
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// List only videos with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Vec<String>,
    /// List only videos with this metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pub(super) metadata: Vec<(String, String)>,
    /// Sort by `title`, `created`, `published` or `updated`; with `,desc` in descending order
    #[arg(long, value_name = "KEY[,desc]", value_parser = sort_key)]
    pub(super) sort_by: Option<(VideoSort, SortOrder)>,
    /// List all pages
    #[arg(long, conflicts_with_all = ["page", "page_size"])]
    pub(super) all: bool,
    /// List at most N videos, over as many pages as needed
    #[arg(long, value_name = "N", conflicts_with_all = ["page", "page_size"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

fn sort_key(text: &str) -> Result<(VideoSort, SortOrder), String> {
    let (key, order) = text.split_once(',').unwrap_or((text, "asc"));
    let key = match key.to_ascii_lowercase().as_str() {
        "title" => VideoSort::Title,
        "created" | "createdat" => VideoSort::CreatedAt,
        "published" | "publishedat" => VideoSort::PublishedAt,
        "updated" | "updatedat" => VideoSort::UpdatedAt,
        _ => return Err("use title, created, published or updated".to_owned()),
    };
    match order.to_ascii_lowercase().as_str() {
        "asc" => Ok((key, SortOrder::Asc)),
        "desc" => Ok((key, SortOrder::Desc)),
        _ => Err("write the order after the key as `,asc` or `,desc`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(super) struct VideoUpdateArgs {
    /// The id of the video
    pub(super) video_id: String,
    #[command(flatten)]
    changes: ChangeArgs,
}

/// Heading of the flags that change a video, which only the command line sets.
pub(super) const CHANGES: &str = "Changes";

#[derive(Debug, Args)]
#[command(next_help_heading = CHANGES)]
struct ChangeArgs {
    /// Set the title
    #[arg(long)]
    title: Option<String>,
    /// Set the description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Remove the description
    #[arg(long, conflicts_with = "description")]
    no_description: bool,
    /// Replace all tags; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Remove all tags
    #[arg(long, conflicts_with = "tag")]
    no_tags: bool,
    /// Replace all metadata; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    metadata: Vec<(String, String)>,
    /// Remove all metadata
    #[arg(long, conflicts_with = "metadata")]
    no_metadata: bool,
    /// Make the video public
    #[arg(long)]
    public: bool,
    /// Make the video private
    #[arg(long, conflicts_with = "public")]
    private: bool,
    /// Mark the video as panoramic
    #[arg(long)]
    panoramic: bool,
    /// Remove the mark as panoramic
    #[arg(long, conflicts_with = "panoramic")]
    no_panoramic: bool,
    /// Enable the MP4 version
    #[arg(long)]
    mp4: bool,
    /// Disable the MP4 version
    #[arg(long, conflicts_with = "mp4")]
    no_mp4: bool,
    /// Set the player
    #[arg(long, value_name = "ID")]
    player_id: Option<String>,
    /// Remove the player, so that the default one applies
    #[arg(long, conflicts_with = "player_id")]
    no_player: bool,
    /// Set the language as a two-letter code
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Transcribe speech
    #[arg(long)]
    transcript: bool,
    /// Do not transcribe speech
    #[arg(long, conflicts_with_all = ["transcript", "transcript_summary"])]
    no_transcript: bool,
    /// Transcribe speech and summarize it; `=abstract` or `=takeaways` selects one kind of summary
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    transcript_summary: Vec<SummaryKind>,
    /// Do not summarize the transcript
    #[arg(long, conflicts_with = "transcript_summary")]
    no_transcript_summary: bool,
}

impl VideoUpdateArgs {
    /// Returns the changes; without any, the default patch.
    pub(super) fn patch(&self) -> VideoPatch {
        let changes = &self.changes;
        let choice = |yes: bool, no: bool| if yes || no { Some(yes) } else { None };
        let mut patch = VideoPatch::new();
        patch.title = changes.title.clone();
        patch.description = changes.description.clone().or(changes.no_description.then(String::new));
        patch.tags = list(&changes.tag, changes.no_tags);
        let pair = |(key, value): &(String, String)| Metadata { key: key.clone(), value: value.clone() };
        patch.metadata = list(&changes.metadata.iter().map(pair).collect::<Vec<_>>(), changes.no_metadata);
        patch.public = choice(changes.public, changes.private);
        patch.panoramic = choice(changes.panoramic, changes.no_panoramic);
        patch.mp4_support = choice(changes.mp4, changes.no_mp4);
        patch.player_id = changes.player_id.clone().map(Some).or(changes.no_player.then_some(None));
        patch.language = changes.language.clone();
        let summarizes = !changes.transcript_summary.is_empty();
        // A summary needs a transcript.
        patch.transcript = choice(changes.transcript || summarizes, changes.no_transcript);
        patch.transcript_summary = choice(summarizes, changes.no_transcript_summary);
        if summarizes {
            let kinds = changes.transcript_summary.iter().filter_map(|kind| kind.attribute());
            patch.transcript_summary_attributes = list(&kinds.collect::<Vec<_>>(), false);
        }
        patch
    }
}

/// Returns the new list, an empty one to remove all, or `None` to leave the old one.
fn list<T: Clone>(items: &[T], is_cleared: bool) -> Option<Vec<T>> {
    (is_cleared || !items.is_empty()).then(|| items.to_vec())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{json, to_value};

    use super::*;
    use crate::cli::args::{Cli, CliCommand};

    fn patch(flags: &str) -> serde_json::Value {
        let line = format!("ringlift video update vi1 {flags}");
        match Cli::parse_from(line.split_whitespace()).command {
            CliCommand::Video(VideoCommand::Update(args)) => to_value(args.patch()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_property_of_a_patch_can_be_set_and_removed() {
        assert_eq!(patch(""), json!({}));
        let all = "--title T --description D --tag a --tag b --metadata k=v --public --panoramic --mp4 --player-id pl1 \
                   --language fr --transcript-summary=abstract";
        let expected = json!({
            "title": "T", "description": "D", "tags": ["a", "b"], "metadata": [{"key": "k", "value": "v"}],
            "public": true, "panoramic": true, "mp4Support": true, "playerId": "pl1", "language": "fr",
            "transcript": true, "transcriptSummary": true, "transcriptSummaryAttributes": ["abstract"],
        });
        assert_eq!(patch(all), expected);
        let none = "--no-description --no-tags --no-metadata --private --no-panoramic --no-mp4 --no-player \
                    --no-transcript --no-transcript-summary";
        let expected = json!({
            "description": "", "tags": [], "metadata": [], "public": false, "panoramic": false,
            "mp4Support": false, "playerId": null, "transcript": false, "transcriptSummary": false,
        });
        assert_eq!(patch(none), expected);
    }

    #[test]
    fn a_property_cannot_be_set_and_removed_at_once() {
        for flags in
            ["--tag a --no-tags", "--public --private", "--player-id p --no-player", "--mp4 --no-mp4"]
        {
            let line = format!("ringlift video update vi1 {flags}");
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{flags}");
        }
    }

    #[test]
    fn sort_keys_have_an_order() {
        assert_eq!(sort_key("title"), Ok((VideoSort::Title, SortOrder::Asc)));
        assert_eq!(sort_key("created,desc"), Ok((VideoSort::CreatedAt, SortOrder::Desc)));
        assert_eq!(sort_key("updatedAt,ASC"), Ok((VideoSort::UpdatedAt, SortOrder::Asc)));
        assert!(sort_key("size").is_err() && sort_key("title,down").is_err() && sort_key("").is_err());
    }
}
