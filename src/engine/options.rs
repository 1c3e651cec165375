//! The options of one upload: one struct for the builder, the command's flags, the journal and restarts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::api::{NewVideo, Secret};
use crate::engine::size::Size;

/// The options of one upload, without its source.
///
/// An upload goes to a new video, unless [`UploadOptions::video_id`] names an existing one. It uses the client's
/// API key, unless [`UploadOptions::upload_token`] replaces it. The JSON form has the fields of [`NewVideo`] beside
/// the others, and never contains the token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct UploadOptions {
    /// The properties of the video to create. An empty title stands for the file's name. Unused if a video or an
    /// upload token is given.
    #[serde(flatten)]
    pub video: NewVideo,
    /// The id of an existing, empty container to fill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_id: Option<String>,
    /// The upload token, which replaces the API key.
    #[serde(skip_serializing)]
    pub upload_token: Option<Secret>,
    /// The addressing of the chunks on the wire.
    pub mode: Mode,
    /// The chunk size.
    pub chunk_size: ChunkSize,
    /// The approximate length of a stream in bytes, from which its chunk size is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_bytes: Option<u64>,
    /// The reaction to a file that changes while it is being sent.
    pub on_change: OnChange,
}

/// The destination of the file.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// A video that is created for the file; needs an API key.
    NewVideo(Box<NewVideo>),
    /// A container that exists and is empty; needs an API key.
    Video(String),
    /// The account of the upload token; an existing video if `video_id` names one.
    Delegated {
        /// The upload token.
        token: Secret,
        /// The container, if it exists already.
        video_id: Option<String>,
    },
}

impl UploadOptions {
    pub(crate) fn destination(&self) -> Destination {
        match (&self.upload_token, &self.video_id) {
            (Some(token), video_id) => {
                Destination::Delegated { token: token.clone(), video_id: video_id.clone() }
            }
            (None, Some(video_id)) => Destination::Video(video_id.clone()),
            (None, None) => Destination::NewVideo(Box::new(self.video.clone())),
        }
    }

    /// Returns `true` if the upload creates its video with the API key, and may therefore delete it.
    pub(crate) fn is_for_new_video(&self) -> bool {
        self.upload_token.is_none() && self.video_id.is_none()
    }

    /// Returns the options with the file's name as the title if none is set.
    pub(crate) fn titled(&self, file_name: &str) -> UploadOptions {
        let mut options = self.clone();
        if options.video.title.is_empty() {
            options.video.title = file_name.to_owned();
        }
        options
    }
}

/// The addressing of an upload's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// One request up to the chunk size, byte ranges above it, parts when the length is unknown.
    #[default]
    Auto,
    /// One request without `Content-Range`; at most 200 MiB.
    Single,
    /// `Content-Range: bytes A-B/T`.
    Bytes,
    /// `Content-Range: part N/M`.
    Parts,
}

/// The chunk size: `auto`, or a size such as `64MiB` as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ChunkSize {
    /// The size is chosen from the file's length, the number of lanes and the request budget.
    #[default]
    Auto,
    /// This many bytes, between 5 MiB and 200 MiB.
    Bytes(u64),
}

/// The reaction of an upload to a change of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnChange {
    /// The upload ends with [`ErrorKind::SourceChanged`](crate::ErrorKind::SourceChanged).
    #[default]
    Fail,
    /// The upload deletes the video that it created and begins anew with the changed file, three times at most. A
    /// video that was named, or that an upload token fills, is not deleted: the upload fails.
    Restart,
    /// The upload ends as with [`OnChange::Fail`], and a change of attributes, links or name counts as well. Such a
    /// change moves only ctime. Without this option it is reported as
    /// [`UploadEvent::SourceTouched`](crate::UploadEvent::SourceTouched). Every write moves mtime, but a program can
    /// set mtime back.
    Strict,
}

/// The policy for digests of chunks in the journal. A later process compares them with the file to prove that it
/// still has the bytes that were sent.
///
/// Digests are needed if the file's times cannot exclude a change: after a change of attributes, links or name, and
/// on file systems without ctime. Without digests such an upload begins anew. A digest takes 16 bytes per chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checksum {
    /// Keeps digests over TLS, where the bytes pass through this process in any case.
    #[default]
    Auto,
    /// Keeps digests over plain HTTP too, where the process must read the bytes for them.
    Always,
    /// Keeps no digests.
    Never,
}

/// The text is not a value of the option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnknownValue {
    expected: String,
}

/// Gives an option with a fixed set of values its names as text: `Display`, `FromStr` and serde use the same ones.
macro_rules! named_values {
    ($option:ident { $($value:ident: $name:literal),+ $(,)? }) => {
        impl $option {
            /// All values, the default first.
            pub const ALL: &'static [$option] = &[$($option::$value),+];

            /// Returns the name of the value.
            pub fn name(self) -> &'static str {
                match self {
                    $($option::$value => $name),+
                }
            }
        }

        impl fmt::Display for $option {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $option {
            type Err = UnknownValue;

            fn from_str(text: &str) -> Result<$option, UnknownValue> {
                let names = || [$(concat!("`", $name, "`")),+].join(", ");
                let named = $option::ALL.iter().find(|value| value.name() == text);
                named.copied().ok_or_else(|| UnknownValue { expected: format!("one of {}", names()) })
            }
        }

        serde_as_text!($option);
    };
}

/// Serializes a value as its text.
macro_rules! serde_as_text {
    ($option:ident) => {
        impl Serialize for $option {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $option {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$option, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

named_values!(Mode { Auto: "auto", Single: "single", Bytes: "bytes", Parts: "parts" });
named_values!(OnChange { Fail: "fail", Restart: "restart", Strict: "strict" });
named_values!(Checksum { Auto: "auto", Always: "always", Never: "never" });
serde_as_text!(ChunkSize);

impl fmt::Display for ChunkSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkSize::Auto => f.write_str("auto"),
            // Exact, unlike the rounded form of `Size`: the text is read back.
            ChunkSize::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Parses `auto` or a size. The protocol's limits are checked when the upload is planned.
impl FromStr for ChunkSize {
    type Err = UnknownValue;

    fn from_str(text: &str) -> Result<ChunkSize, UnknownValue> {
        if text == "auto" {
            return Ok(ChunkSize::Auto);
        }
        let size = text.parse::<Size>();
        size.map(|Size(bytes)| ChunkSize::Bytes(bytes))
            .map_err(|error| UnknownValue { expected: format!("`auto` or a size; {error}") })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn options_are_read_back_from_their_json_without_the_token() {
        let options = UploadOptions {
            video: NewVideo::new("Summer").tag("t"),
            video_id: Some("vi1".to_owned()),
            upload_token: Some(Secret::new("to1")),
            mode: Mode::Parts,
            chunk_size: ChunkSize::Bytes(6 << 20),
            expected_bytes: Some(7),
            on_change: OnChange::Strict,
        };
        let json = to_value(&options).unwrap();
        let expected = json!({
            "title": "Summer", "tags": ["t"], "video_id": "vi1", "mode": "parts", "chunk_size": "6291456",
            "expected_bytes": 7, "on_change": "strict",
        });
        assert_eq!(json, expected);
        let read = from_value::<UploadOptions>(json).unwrap();
        assert_eq!(read, UploadOptions { upload_token: None, ..options });
    }

    #[test]
    fn metadata_in_a_journal_of_version_0_1_is_read_as_options() {
        let read = from_value::<UploadOptions>(json!({"title": "Summer", "mp4Support": false})).unwrap();
        assert_eq!(
            read,
            UploadOptions { video: NewVideo::new("Summer").without_mp4(), ..Default::default() }
        );
    }

    #[test]
    fn every_value_is_read_back_from_its_name() {
        assert!(Mode::ALL.iter().all(|mode| mode.to_string().parse() == Ok(*mode)));
        assert!(OnChange::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
        assert!(Checksum::ALL.iter().all(|value| value.to_string().parse() == Ok(*value)));
        for size in [ChunkSize::Auto, ChunkSize::Bytes(0), ChunkSize::Bytes(u64::MAX / 2)] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let refused = "ranges".parse::<Mode>().unwrap_err();
        assert_eq!(refused.to_string(), "expected one of `auto`, `single`, `bytes`, `parts`");
        assert!("5X".parse::<ChunkSize>().unwrap_err().to_string().starts_with("expected `auto` or a size"));
    }
}
