//! The flaws of one job's description.

use std::fmt::Write;

/// A flaw in a job's description. Its text is one line and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFlaw {
    /// The JSON text is a list, a string, a number, or no JSON at all.
    #[error("is no JSON object; write a job as {{\"path\":\"movie.mp4\"}}")]
    NotAnObject,
    /// The JSON text has a mistake.
    #[error("column {column}: {reason}")]
    Syntax {
        /// The column in bytes, from 1.
        column: usize,
        /// The mistake.
        reason: String,
    },
    /// A key that has no meaning.
    #[error("unknown key `{key}`; keys are {KEY_NAMES}; keys that begin with `x-` are ignored")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A key that is given twice.
    #[error("key `{key}` is given twice; keep one of them")]
    RepeatedKey {
        /// The key.
        key: String,
    },
    /// A value of another type.
    #[error("{key}: is {found}; write {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type that the key has.
        expected: &'static str,
        /// The type of the value.
        found: &'static str,
    },
    /// A value outside the limits.
    #[error("{key}: {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// The limit, and a value that would be accepted.
        reason: String,
    },
    /// No file and no URL.
    #[error("names no file; give `path` or `source_url`")]
    NoSource,
    /// A file and a URL.
    #[error("names a file and a URL; give either `path` or `source_url`")]
    TwoSources,
    /// A source in a place that belongs to one file already.
    #[error("`{key}` cannot stand beside a file; remove the key")]
    UnexpectedSource {
        /// The key.
        key: String,
    },
    /// Keys that exclude each other.
    #[error("`{key}` has no effect with `source_url`, because the service fetches the file; remove the key")]
    NotWithUrl {
        /// The key.
        key: &'static str,
    },
}

/// The keys of a manifest, for errors.
const KEY_NAMES: &str = "path, path_bytes, source_url, id, title, description, tags, metadata, private, panoramic, \
                         mp4, language, player_id, video_id, upload_token, mode, chunk_size, priority, sha256";

impl EntryFlaw {
    /// Creates a flaw of the value of `key`.
    pub(crate) fn bad(key: &str, reason: impl Into<String>) -> EntryFlaw {
        EntryFlaw::BadValue { key: shown(key), reason: reason.into() }
    }
}

/// Returns the beginning of `text` on one line, without control characters, for an error.
pub(crate) fn shown(text: &str) -> String {
    // A line of garbage may be a megabyte long, and may hold escape sequences for the terminal.
    const MOST_CHARS: usize = 64;
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MOST_CHARS {
            shown.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
