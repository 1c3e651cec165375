//! The properties of a video that a caller sets, at its creation and later.

use serde::{Deserialize, Serialize};

use super::video::Metadata;

/// A video to be created. The service chooses what is not set.
///
/// `POST /videos`, <https://docs.api.video/reference/api/Videos>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct NewVideo {
    /// The title, the only property that the service requires.
    pub title: String,
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A URL to fetch, or the id of a video to copy, in place of an upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `true` to make the video public; the service's default is `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// `true` if the video is panoramic; the service's default is `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panoramic: Option<bool>,
    /// `true` to create an MP4 version; the service's default is `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4_support: Option<bool>,
    /// The id of the player: `pl...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player_id: Option<String>,
    /// The tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The metadata.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
    /// The piece of the video to keep. Can be set at creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    /// The watermark. Can be set at creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Watermark>,
    /// The language, as a two-letter code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// `true` to transcribe the speech; the service's default is `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<bool>,
    /// `true` to summarize the transcript; the service's default is `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary: Option<bool>,
    /// The parts of the summary; the service's default is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transcript_summary_attributes: Vec<SummaryAttribute>,
}

/// Changes to a video. A field that is not set stays unchanged. Tags and metadata are replaced as a whole.
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
    /// `true` to make the video public.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// `true` if the video is panoramic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub panoramic: Option<bool>,
    /// `true` to create an MP4 version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4_support: Option<bool>,
    /// The player; `Some(None)` removes it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "explicit_null")]
    pub player_id: Option<Option<String>>,
    /// All tags; an empty list removes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// All metadata; an empty list removes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<Metadata>>,
    /// The language, as a two-letter code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// `true` to transcribe the speech.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<bool>,
    /// `true` to summarize the transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary: Option<bool>,
    /// The parts of the summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript_summary_attributes: Option<Vec<SummaryAttribute>>,
}

/// The piece to keep of a video, from one timecode to another: `hh:mm:ss`, or seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clip {
    /// The start; `None` is the video's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timecode: Option<String>,
    /// The end; `None` is the video's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_timecode: Option<String>,
}

/// A watermark and its position: `10px`, `50%` or `initial`; opacity in `%`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watermark {
    /// The id of an existing watermark.
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

/// A part of the summary of a video's transcript.
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
    /// Creates a description with only a title.
    pub fn new(title: impl Into<String>) -> NewVideo {
        NewVideo { title: title.into(), ..NewVideo::default() }
    }

    /// Sets the description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> NewVideo {
        self.description = Some(description.into());
        self
    }

    /// Lets the service fetch the video from a URL, or copy another video by its id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> NewVideo {
        self.source = Some(source.into());
        self
    }

    /// Makes the video private.
    #[must_use]
    pub fn private(mut self) -> NewVideo {
        self.public = Some(false);
        self
    }

    /// Marks the video as panoramic.
    #[must_use]
    pub fn panoramic(mut self) -> NewVideo {
        self.panoramic = Some(true);
        self
    }

    /// Disables the MP4 version.
    #[must_use]
    pub fn without_mp4(mut self) -> NewVideo {
        self.mp4_support = Some(false);
        self
    }

    /// Sets the player.
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

    /// Keeps only this piece of the video.
    #[must_use]
    pub fn clip(mut self, clip: Clip) -> NewVideo {
        self.clip = Some(clip);
        self
    }

    /// Adds a watermark.
    #[must_use]
    pub fn watermark(mut self, watermark: Watermark) -> NewVideo {
        self.watermark = Some(watermark);
        self
    }

    /// Sets the language, as a two-letter code.
    #[must_use]
    pub fn language(mut self, code: impl Into<String>) -> NewVideo {
        self.language = Some(code.into());
        self
    }

    /// Enables the transcription of speech.
    #[must_use]
    pub fn transcript(mut self) -> NewVideo {
        self.transcript = Some(true);
        self
    }

    /// Enables the transcription and a summary with these parts; an empty list means all.
    #[must_use]
    pub fn transcript_summary(mut self, attributes: impl IntoIterator<Item = SummaryAttribute>) -> NewVideo {
        self.transcript_summary = Some(true);
        self.transcript_summary_attributes = attributes.into_iter().collect();
        self.transcript()
    }
}

impl VideoPatch {
    /// Creates a patch without changes.
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

/// Deserializes `null` to `Some(None)`, which differs from an absent field.
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
    fn only_set_fields_are_sent() {
        assert_eq!(to_value(NewVideo::new("A")).unwrap(), json!({"title": "A"}));
        assert_eq!(to_value(VideoPatch::new()).unwrap(), json!({}));
    }

    #[test]
    fn every_field_can_be_set_at_creation() {
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
    fn a_patch_can_remove() {
        let patch = VideoPatch { player_id: Some(None), ..VideoPatch::new().title("B").tags([]) };
        let sent = json!({"title": "B", "playerId": null, "tags": []});
        assert_eq!(to_value(&patch).unwrap(), sent);
        assert_eq!(serde_json::from_value::<VideoPatch>(sent).unwrap(), patch);
    }
}
