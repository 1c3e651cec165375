//! The key of a session: service, source and destination.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::identity::SourceIdentity;

/// The service, source and destination of a session. Two uploads with the same key are the same upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The service's base URL. It must not contain a secret.
    pub endpoint: String,
    /// The source of the bytes.
    pub source: EntrySource,
    /// The destination of the bytes.
    pub destination: EntryDestination,
}

/// The source of a session's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntrySource {
    /// A file, which a later process can find again.
    File {
        /// The path of the file when the session was last claimed.
        path: PathBuf,
        /// The device, inode number, length and times of the file.
        identity: SourceIdentity,
    },
    /// A stream. It ends with its process, so its session is never resumed.
    Stream,
}

/// The destination of a session's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryDestination {
    /// A container that the session creates.
    NewVideo,
    /// A container that the user named.
    Video {
        /// The id of the container.
        video_id: String,
    },
    /// A container that the service creates for an upload token.
    Token(TokenDigest),
    /// A container that the user named, filled with an upload token.
    TokenAndVideo {
        /// The digest of the upload token.
        token: TokenDigest,
        /// The id of the container.
        video_id: String,
    },
}

/// The SHA-256 of an upload token. It identifies the token and does not reveal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDigest([u8; 32]);

impl EntrySource {
    /// Returns the identity of the file; `None` for a stream.
    pub(super) fn identity(&self) -> Option<&SourceIdentity> {
        match self {
            EntrySource::File { identity, .. } => Some(identity),
            EntrySource::Stream => None,
        }
    }

    /// Returns the path of the file; an empty path for a stream.
    pub(super) fn path(&self) -> &Path {
        match self {
            EntrySource::File { path, .. } => path,
            EntrySource::Stream => Path::new(""),
        }
    }
}

impl EntryDestination {
    /// Returns `true` if both are the same destination, whatever their upload tokens are.
    pub(super) fn is_same_but_for_the_token(&self, other: &EntryDestination) -> bool {
        use EntryDestination::{Token, TokenAndVideo};
        match (self, other) {
            (Token(_), Token(_)) => true,
            (TokenAndVideo { video_id: one, .. }, TokenAndVideo { video_id: two, .. }) => one == two,
            (one, two) => one == two,
        }
    }
}

impl TokenDigest {
    /// Returns the digest of `token`.
    pub fn of(token: &str) -> TokenDigest {
        TokenDigest(sha256(token.as_bytes()))
    }
}

/// Returns the SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
