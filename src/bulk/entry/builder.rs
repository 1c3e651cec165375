//! The assembly of a job from keys and values.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::flaw::{EntryFlaw, shown};
use super::keys::EntryKeys;
use super::source::{self, ManifestSource};
use super::values;
use crate::api::Secret;
use crate::bulk::report::{COLUMNS, RowState};

/// The keys and values of one job as they are read.
#[derive(Debug, Default)]
pub(crate) struct EntryBuilder {
    keys: EntryKeys,
    path: Option<String>,
    path_bytes: Option<Vec<u8>>,
    source_url: Option<String>,
    /// The state, if the line is a row of a report.
    state: Option<RowState>,
    has_error: bool,
    /// The keys so far, to find repetitions. A line has few, so that a search is faster than a hash.
    seen: Vec<Box<str>>,
}

/// The JSON text of one job, for [`DeserializeSeed`]: keys go to the builder one by one.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) builder: &'a mut EntryBuilder,
    /// The flaw that ended the reading, because serde carries only texts.
    pub(crate) flaw: &'a mut Option<EntryFlaw>,
}

impl EntryBuilder {
    /// Reads a JSON object.
    pub(crate) fn from_json(json: &[u8]) -> Result<EntryBuilder, EntryFlaw> {
        // Checked here, because serde's error for another type shows the value, which may be a secret.
        if json.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(EntryFlaw::NotAnObject);
        }
        let (mut builder, mut flaw) = (EntryBuilder::default(), None);
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let fields = Fields { builder: &mut builder, flaw: &mut flaw };
        match fields.deserialize(&mut deserializer).and_then(|()| deserializer.end()) {
            Ok(()) => Ok(builder),
            Err(error) => Err(flaw.unwrap_or_else(|| syntax(&error))),
        }
    }

    /// Sets `key`. A `null` leaves the key unset.
    pub(crate) fn set(&mut self, key: &str, value: Value) -> Result<(), EntryFlaw> {
        if self.seen.iter().any(|seen| **seen == *key) {
            return Err(EntryFlaw::RepeatedKey { key: shown(key) });
        }
        self.seen.push(key.into());
        // A `null` does not excuse a key that is misspelled.
        if value.is_null() && is_known(key) {
            return Ok(());
        }
        let keys = &mut self.keys;
        match key {
            "path" => self.path = Some(values::text(key, value)?),
            "path_bytes" => self.path_bytes = Some(decoded(key, values::text(key, value)?)?),
            "source_url" => self.source_url = Some(source::checked_url(values::text(key, value)?)?),
            "id" => keys.id = Some(values::name(key, value, values::MAX_ID_BYTES)?),
            "title" => keys.title = Some(values::text(key, value)?),
            "description" => keys.description = Some(values::text(key, value)?),
            "tags" => keys.tags = Some(values::tags(key, value)?),
            "metadata" => keys.metadata.extend(values::metadata(key, value)?),
            "private" => keys.private = Some(values::switch(key, value)?),
            "panoramic" => keys.panoramic = Some(values::switch(key, value)?),
            "mp4" => keys.mp4 = Some(values::switch(key, value)?),
            "language" => keys.language = Some(values::language(key, value)?),
            "player_id" => keys.player_id = Some(values::name(key, value, values::MAX_ID_BYTES)?),
            "video_id" => keys.video_id = Some(values::name(key, value, values::MAX_ID_BYTES)?),
            "upload_token" => keys.upload_token = Some(token(key, value)?),
            "mode" => keys.mode = Some(values::mode(key, value)?),
            "chunk_size" => keys.chunk_size = Some(values::chunk_size(key, value)?),
            "priority" => keys.priority = Some(values::number(key, value)?),
            "sha256" => keys.sha256 = Some(values::sha256(key, value)?),
            "state" => self.state = Some(state(key, value)?),
            "error_kind" => self.has_error = value.as_str().is_some_and(|kind| !kind.is_empty()),
            _ => return self.set_other(key, value),
        }
        Ok(())
    }

    /// Sets a pair of the video's metadata, or passes over a key without meaning here.
    fn set_other(&mut self, key: &str, value: Value) -> Result<(), EntryFlaw> {
        if let Some(name) = key.strip_prefix("metadata.") {
            let name = values::metadata_key(name)?.to_owned();
            self.keys.metadata.insert(name, values::text(key, value)?);
            Ok(())
        } else if is_known(key) {
            Ok(())
        } else {
            Err(EntryFlaw::UnknownKey { key: shown(key) })
        }
    }

    /// Returns the state of the job, if the line is a row of a report.
    pub(crate) fn state(&self) -> Option<RowState> {
        self.state
    }

    /// Returns `true` if the job of a report's row did not end well.
    ///
    /// A job that failed in an earlier run is reported as skipped, with the kind of its error.
    pub(crate) fn has_failed(&self) -> bool {
        match self.state {
            Some(RowState::Failed | RowState::Cancelled) => true,
            Some(RowState::Skipped) => self.has_error,
            Some(RowState::Done) | None => false,
        }
    }

    /// Returns the source and the keys.
    pub(crate) fn finish(mut self) -> Result<(ManifestSource, EntryKeys), EntryFlaw> {
        if self.state.is_some() {
            // The video of a failed row is known to the journal. As a destination it would have to be empty.
            self.keys.video_id = None;
            self.decode_reported_path()?;
        }
        let path = path(self.path, self.path_bytes)?;
        let source = match (path, self.source_url) {
            (Some(_), Some(_)) => return Err(EntryFlaw::TwoSources),
            (None, None) => return Err(EntryFlaw::NoSource),
            (Some(path), None) => ManifestSource::Path(path),
            (None, Some(url)) => ManifestSource::Url(url),
        };
        let keys = self.keys;
        if source.url().is_some() {
            keys.check_with_url()?;
        }
        Ok((source, keys))
    }

    /// Returns the keys of a file that is known already.
    pub(crate) fn finish_without_source(self) -> Result<EntryKeys, EntryFlaw> {
        let sources = [
            ("path", self.path.is_some()),
            ("path_bytes", self.path_bytes.is_some()),
            ("source_url", self.source_url.is_some()),
            ("state", self.state.is_some()),
        ];
        match sources.into_iter().find(|(_, is_given)| *is_given) {
            Some((key, _)) => Err(EntryFlaw::UnexpectedSource { key: key.to_owned() }),
            None => Ok(self.keys),
        }
    }

    /// A report's column `path` holds an absolute path, a URL that the service fetched, or a `file:` URL for a path
    /// that is no text of one line.
    fn decode_reported_path(&mut self) -> Result<(), EntryFlaw> {
        match self.path.take() {
            Some(url) if source::is_web_url(&url) => self.source_url = Some(source::checked_url(url)?),
            Some(text) if text.is_empty() => {}
            Some(text) => match text.strip_prefix("file://") {
                Some(encoded) => {
                    self.path_bytes = Some(percent_encoding::percent_decode_str(encoded).collect());
                }
                None => self.path = Some(text),
            },
            None => {}
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            // Of any shape: these keys belong to other programs.
            if key.starts_with("x-") {
                map.next_value::<IgnoredAny>()?;
            } else if let Err(flaw) = self.builder.set(&key, map.next_value()?) {
                let error = A::Error::custom(&flaw);
                *self.flaw = Some(flaw);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Returns `true` if a line or a header may have `key`.
pub(crate) fn is_known(key: &str) -> bool {
    const KEYS: [&str; 19] = [
        "path",
        "path_bytes",
        "source_url",
        "id",
        "title",
        "description",
        "tags",
        "metadata",
        "private",
        "panoramic",
        "mp4",
        "language",
        "player_id",
        "video_id",
        "upload_token",
        "mode",
        "chunk_size",
        "priority",
        "sha256",
    ];
    KEYS.contains(&key) || COLUMNS.contains(&key) || key.starts_with("x-") || key.starts_with("metadata.")
}

fn state(key: &str, value: Value) -> Result<RowState, EntryFlaw> {
    let text = values::text(key, value)?;
    text.parse().map_err(|_| {
        let way_out = "a column of another meaning needs a name that begins with `x-`";
        EntryFlaw::bad(
            key,
            format!("`{}` is not one of done, failed, skipped and cancelled; {way_out}", shown(&text)),
        )
    })
}

fn token(key: &str, value: Value) -> Result<Secret, EntryFlaw> {
    Secret::parse(&values::text(key, value)?).map_err(|flaw| EntryFlaw::bad(key, flaw.to_string()))
}

fn decoded(key: &str, base64: String) -> Result<Vec<u8>, EntryFlaw> {
    STANDARD.decode(base64).map_err(|_| EntryFlaw::bad(key, "is no base64 of the path's bytes"))
}

/// Returns the path. Beside its bytes, the text of a path is only for people, but it has to agree.
fn path(text: Option<String>, bytes: Option<Vec<u8>>) -> Result<Option<PathBuf>, EntryFlaw> {
    match (text, bytes) {
        (Some(text), Some(bytes)) if String::from_utf8_lossy(&bytes) != text => Err(EntryFlaw::bad(
            "path_bytes",
            format!("names another file than `path`: {}; remove one of them", shown(&lossy(bytes))),
        )),
        (_, Some(bytes)) => source::checked_path("path_bytes", bytes).map(Some),
        (Some(text), None) => source::checked_path("path", text.into_bytes()).map(Some),
        (None, None) => Ok(None),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    OsString::from_vec(bytes).to_string_lossy().into_owned()
}

/// Removes the position from serde's text, because the line's number is another.
fn syntax(error: &serde_json::Error) -> EntryFlaw {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    EntryFlaw::Syntax { column: error.column(), reason: reason.to_owned() }
}
