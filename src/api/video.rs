//! A video, as the service describes it.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::de::{boolean, id, items, object, skip_unreadable, text, text_or_empty, texts};

/// A video, as the service describes it. Only the id is always present.
///
/// Times are texts as the service writes them: `2024-07-14T23:36:07+00:00`.
/// <https://docs.api.video/reference/api/Videos>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Video {
    /// The id, never empty: `vi` and 21 or 22 letters and digits.
    #[serde(deserialize_with = "id")]
    pub video_id: String,
    /// The title.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The description.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The time of creation.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// The time of publication.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub published_at: Option<String>,
    /// The time of the last change.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// `true` if the video is in the trash, from which it can be restored.
    #[serde(default, deserialize_with = "boolean", skip_serializing_if = "Option::is_none")]
    pub discarded: Option<bool>,
    /// The time when the video was moved to the trash.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<String>,
    /// The time when the video is deleted from the trash.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub deletes_at: Option<String>,
    /// The language, as a two-letter code.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The origin of the language: `api` or `auto`.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub language_origin: Option<String>,
    /// The tags.
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The metadata.
    #[serde(default, deserialize_with = "pairs", skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<Metadata>,
    /// The source of the video.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub source: Option<VideoSource>,
    /// The playback addresses. Present from the creation on, before a byte was uploaded.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub assets: Option<Assets>,
    /// The id of the player.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub player_id: Option<String>,
    /// `true` if the video is public.
    #[serde(default, deserialize_with = "boolean", skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// `true` if the video is panoramic.
    #[serde(default, deserialize_with = "boolean", skip_serializing_if = "Option::is_none")]
    pub panoramic: Option<bool>,
    /// `true` if an MP4 version is available.
    #[serde(default, deserialize_with = "boolean", skip_serializing_if = "Option::is_none")]
    pub mp4_support: Option<bool>,
}

impl Video {
    /// Returns `true` if the video has this metadata entry.
    pub(crate) fn has_metadata(&self, key: &str, value: &str) -> bool {
        self.metadata.iter().any(|pair| pair.key == key && pair.value == value)
    }
}

/// A key and its value in a video's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(default, deserialize_with = "text_or_empty")]
    pub value: String,
}

/// Deserializes pairs from a list or an object, without those that cannot be read.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Metadata>, D::Error> {
    match Value::deserialize(deserializer)? {
        // Not if all keys are numbers: that is a list of PHP with gaps.
        Value::Object(map) if items(Value::Object(map.clone())).is_err() => {
            let pair = |(key, value)| Some(Metadata { key, value: text(value).ok()?? });
            Ok(map.into_iter().filter_map(pair).collect())
        }
        list => Ok(skip_unreadable(list).unwrap_or_default()),
    }
}

/// The source of a video.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VideoSource {
    /// The address; for an upload, the relative `/videos/<id>/source`.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The type, such as `upload` or `liveStream`.
    #[serde(rename = "type", default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// The playback addresses of a video. Those of a private video hold a token, which differs in each answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Assets {
    /// HTML that embeds the player.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub iframe: Option<String>,
    /// The player's address.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub player: Option<String>,
    /// The HLS manifest's address.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub hls: Option<String>,
    /// The thumbnail's address.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<String>,
    /// The MP4 version's address, if available.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub mp4: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_services_description_is_read_and_written_with_its_names() {
        let described = json!({
            "videoId": "vi4blUQJFrYWbaG44NChkH27",
            "createdAt": "2024-07-14T23:36:07+00:00",
            "title": "Maths video",
            "tags": ["maths"],
            "metadata": [{"key": "Author", "value": "John Doe"}],
            "source": {"uri": "/videos/vi4blUQJFrYWbaG44NChkH27/source", "type": "upload"},
            "assets": {"player": "https://embed.api.video/vod/vi4blUQJFrYWbaG44NChkH27"},
            "playerId": "pl45KFKdlddgk654dspkze",
            "public": true,
            "mp4Support": false,
        });
        let video: Video = serde_json::from_value(described.clone()).unwrap();
        assert_eq!(video.metadata, [Metadata { key: "Author".into(), value: "John Doe".into() }]);
        assert_eq!(video.source.as_ref().unwrap().kind.as_deref(), Some("upload"));
        assert_eq!(serde_json::to_value(&video).unwrap(), described);
    }

    #[test]
    fn nulls_unknown_keys_and_missing_fields_are_fine() {
        let video: Video = serde_json::from_value(json!({
            "videoId": "vi1",
            "description": null, "tags": null, "metadata": null, "assets": null, "discardedAt": null,
            "languageOrigin": null, "source": {"uri": null, "liveStream": {"liveStreamId": "li1"}},
            "scheduledAt": "2030-01-01", "somethingNew": {"a": [1]},
        }))
        .unwrap();
        assert_eq!(video.video_id, "vi1");
        assert_eq!((video.tags.len(), video.assets), (0, None));
    }

    #[test]
    fn a_video_without_an_id_is_none() {
        for described in [json!({}), json!({"videoId": ""}), json!({"videoId": null}), json!({"videoId": 5})]
        {
            assert!(serde_json::from_value::<Video>(described.clone()).is_err(), "{described}");
        }
    }
}
