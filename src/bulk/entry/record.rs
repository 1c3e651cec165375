//! One job of a manifest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::builder::{EntryBuilder, Fields};
use super::keys::EntryKeys;
use super::source::{ManifestSource, bytes_of};
use crate::upload::UploadOptions;

/// One job of a manifest.
///
/// Serialized, it is a line of a JSON manifest, without the upload token.
///
/// ```
/// use ringlift::bulk::ManifestEntry;
///
/// let entry: ManifestEntry = serde_json::from_str(r#"{"path":"movie.mp4","tags":["summer"]}"#)?;
/// assert_eq!(entry.keys.tags.as_deref(), Some(&["summer".to_owned()][..]));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ManifestEntry {
    /// The source of the bytes.
    pub source: ManifestSource,
    /// The keys.
    pub keys: EntryKeys,
}

impl ManifestEntry {
    /// Creates a job without keys.
    pub fn new(source: ManifestSource) -> ManifestEntry {
        ManifestEntry { source, keys: EntryKeys::default() }
    }

    /// Sets the keys.
    #[must_use]
    pub fn with_keys(mut self, keys: EntryKeys) -> ManifestEntry {
        self.keys = keys;
        self
    }

    /// Returns `defaults` with this job's keys in their place. A URL becomes the source of the video.
    pub fn over(&self, defaults: &UploadOptions) -> UploadOptions {
        let mut options = self.keys.over(defaults);
        if let Some(url) = self.source.url() {
            options.video.source = Some(url.to_owned());
        }
        options
    }
}

impl<'de> Deserialize<'de> for ManifestEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ManifestEntry, D::Error> {
        let (mut builder, mut flaw) = (EntryBuilder::default(), None);
        Fields { builder: &mut builder, flaw: &mut flaw }.deserialize(deserializer)?;
        let (source, keys) = builder.finish().map_err(D::Error::custom)?;
        Ok(ManifestEntry { source, keys })
    }
}

impl Serialize for ManifestEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.source {
            ManifestSource::Url(url) => map.serialize_entry("source_url", url)?,
            ManifestSource::Path(path) => {
                map.serialize_entry("path", &path.to_string_lossy())?;
                if path.to_str().is_none() {
                    map.serialize_entry("path_bytes", &STANDARD.encode(bytes_of(path)))?;
                }
            }
        }
        let keys = &self.keys;
        let texts = [
            ("id", &keys.id),
            ("title", &keys.title),
            ("description", &keys.description),
            ("language", &keys.language),
            ("player_id", &keys.player_id),
            ("video_id", &keys.video_id),
            ("sha256", &keys.sha256),
        ];
        for (key, text) in texts {
            optional(&mut map, key, text)?;
        }
        for (key, is_set) in [("private", keys.private), ("panoramic", keys.panoramic), ("mp4", keys.mp4)] {
            optional(&mut map, key, &is_set)?;
        }
        optional(&mut map, "tags", &keys.tags)?;
        optional(&mut map, "metadata", &(!keys.metadata.is_empty()).then_some(&keys.metadata))?;
        optional(&mut map, "mode", &keys.mode)?;
        optional(&mut map, "chunk_size", &keys.chunk_size)?;
        optional(&mut map, "priority", &keys.priority)?;
        map.end()
    }
}

fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    key: &str,
    value: &Option<T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}
