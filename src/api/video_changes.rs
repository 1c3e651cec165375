//! What a caller says about a video: at its creation and later.

use serde::{Deserialize, Serialize};

use super::video::Metadata;

/// A video to be created. What is not said is left to the service.
///
/// `POST /videos`, <https://docs.api.video/reference/api/Videos>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct NewVideo {
    /// Its title; the only thing that the service requires.
    pub title: String,
    /// Its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A URL to fetch, or the id of a video to copy, in place of an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether anybody may watch it; the service says yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Whether it is a panorama; the service says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panoramic: Option<bool>,
    /// Whether to offer it as an MP4 file too; the service says yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4_support: Option<bool>,
    /// The player that shows it: `pl...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player_id: Option<String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its metadata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
    /// The piece to keep of it; can be said at creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// A watermark to draw into it; can be said at creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Watermark>,
    /// Its language, as a two-letter code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether to transcribe what is said in it; the service says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<bool>,
    /// Whether to sum it up; the service says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary: Option<bool>,
    /// What to sum it up to; the service gives all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transcript_summary_attributes: Vec<SummaryAttribute>,
}

/// Changes to a video. What is not said stays as it is; tags and metadata are replaced as a whole.
///
/// `PATCH /videos/{videoId}`, <https://docs.api.video/reference/api/Videos>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct VideoPatch {
    /// The title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether anybody may watch it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Whether it is a panorama.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panoramic: Option<bool>,
    /// Whether to offer it as an MP4 file too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4_support: Option<bool>,
    /// The player; `Some(None)` takes it away.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "explicit_null")]
    pub player_id: Option<Option<String>>,
    /// All tags; an empty list takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// All metadata; an empty list takes them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<Metadata>>,
    /// The language, as a two-letter code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether to transcribe what is said in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<bool>,
    /// Whether to sum it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary: Option<bool>,
    /// What to sum it up to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary_attributes: Option<Vec<SummaryAttribute>>,
}

/// The piece to keep of a video, from one timecode to another: `hh:mm:ss`, or seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clip {
    /// Where it starts; the video's start when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timecode: Option<String>,
    /// Where it ends; the video's end when it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_timecode: Option<String>,
}

/// A watermark, and where it is drawn: `10px`, `50%` or `initial`; opacity in `%`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watermark {
    /// The id of a watermark that exists.
    pub id: String,
    /// The distance from the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// The distance from the left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// The distance from the bottom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bottom: Option<String>,
    /// The distance from the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// The width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<String>,
    /// The height.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<String>,
    /// The opacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opacity: Option<String>,
}

/// What a video's transcript is summed up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SummaryAttribute {
    /// A short text.
    Abstract,
    /// A list of the main points.
    Takeaways,
}

impl NewVideo {
    /// A video called `title`, everything else as the service likes it.
    pub fn new(title: impl Into<String>) -> NewVideo {
        NewVideo { title: title.into(), ..NewVideo::default() }
    }

    /// Describes it.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> NewVideo {
        self.description = Some(description.into());
        self
    }

    /// Lets the service fill it: from a URL, or from another video by its id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> NewVideo {
        self.source = Some(source.into());
        self
    }

    /// Lets only those watch it who hold a token.
    #[must_use]
    pub fn private(mut self) -> NewVideo {
        self.public = Some(false);
        self
    }

    /// Says that it is a panorama.
    #[must_use]
    pub fn panoramic(mut self) -> NewVideo {
        self.panoramic = Some(true);
        self
    }

    /// Offers no MP4 file of it.
    #[must_use]
    pub fn without_mp4(mut self) -> NewVideo {
        self.mp4_support = Some(false);
        self
    }

    /// Shows it in this player.
    #[must_use]
    pub fn player(mut self, player_id: impl Into<String>) -> NewVideo {
        self.player_id = Some(player_id.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> NewVideo {
        self.tags.push(tag.into());
        self
    }

    /// Adds a key and its value.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> NewVideo {
        self.metadata.push(Metadata { key: key.into(), value: value.into() });
        self
    }

    /// Keeps only this piece of it.
    #[must_use]
    pub fn clip(mut self, clip: Clip) -> NewVideo {
        self.clip = Some(clip);
        self
    }

    /// Draws a watermark into it.
    #[must_use]
    pub fn watermark(mut self, watermark: Watermark) -> NewVideo {
        self.watermark = Some(watermark);
        self
    }

    /// Says its language, as a two-letter code.
    #[must_use]
    pub fn language(mut self, code: impl Into<String>) -> NewVideo {
        self.language = Some(code.into());
        self
    }

    /// Has what is said in it transcribed.
    #[must_use]
    pub fn transcript(mut self) -> NewVideo {
        self.transcript = Some(true);
        self
    }

    /// Has it transcribed and summed up to these; without any, to all.
    #[must_use]
    pub fn transcript_summary(mut self, attributes: impl IntoIterator<Item = SummaryAttribute>) -> NewVideo {
        self.transcript_summary = Some(true);
        self.transcript_summary_attributes = attributes.into_iter().collect();
        self.transcript()
    }
}

impl VideoPatch {
    /// No change yet; its fields are public.
    pub fn new() -> VideoPatch {
        VideoPatch::default()
    }

    /// Changes the title.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> VideoPatch {
        self.title = Some(title.into());
        self
    }

    /// Changes the description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> VideoPatch {
        self.description = Some(description.into());
        self
    }

    /// Replaces all tags.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = String>) -> VideoPatch {
        self.tags = Some(tags.into_iter().collect());
        self
    }

    /// Replaces all metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: impl IntoIterator<Item = Metadata>) -> VideoPatch {
        self.metadata = Some(metadata.into_iter().collect());
        self
    }
}

/// A `null` that is said is not the same as nothing.
fn explicit_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn only_what_was_said_is_sent() {
        assert_eq!(to_value(NewVideo::new("A")).unwrap(), json!({"title": "A"}));
        assert_eq!(to_value(VideoPatch::new()).unwrap(), json!({}));
    }

    #[test]
    fn everything_can_be_said_at_creation() {
        let clip = Clip { start_timecode: Some("00:01:15".into()), end_timecode: None };
        let watermark = Watermark { id: "wm1".into(), top: Some("10px".into()), ..Watermark::default() };
        let video = NewVideo::new("A")
            .description("d")
            .source("https://example.com/a.mp4")
            .private()
            .panoramic()
            .without_mp4()
            .player("pl1")
            .tag("t")
            .metadata("k", "v")
            .clip(clip)
            .watermark(watermark)
            .language("no")
            .transcript_summary([SummaryAttribute::Takeaways]);
        let sent = json!({
            "title": "A", "description": "d", "source": "https://example.com/a.mp4", "public": false,
            "panoramic": true, "mp4Support": false, "playerId": "pl1", "tags": ["t"],
            "metadata": [{"key": "k", "value": "v"}], "clip": {"startTimecode": "00:01:15"},
            "watermark": {"id": "wm1", "top": "10px"}, "language": "no", "transcript": true,
            "transcriptSummary": true, "transcriptSummaryAttributes": ["takeaways"],
        });
        assert_eq!(to_value(&video).unwrap(), sent);
        assert_eq!(serde_json::from_value::<NewVideo>(sent).unwrap(), video);
    }

    #[test]
    fn a_change_can_take_away() {
        let patch = VideoPatch { player_id: Some(None), ..VideoPatch::new().title("B").tags([]) };
        let sent = json!({"title": "B", "playerId": null, "tags": []});
        assert_eq!(to_value(&patch).unwrap(), sent);
        assert_eq!(serde_json::from_value::<VideoPatch>(sent).unwrap(), patch);
    }
}
