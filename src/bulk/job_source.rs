//! Sources of jobs.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::entry::ManifestSource;

/// The place of a job's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StoredSource", into = "StoredSource")]
#[non_exhaustive]
pub enum JobSource {
    /// A file.
    File {
        /// The absolute path. It need not be UTF-8.
        path: PathBuf,
    },
    /// A URL that the service fetches itself.
    Url {
        /// The URL.
        url: String,
    },
}

impl JobSource {
    /// Returns the path or the URL as text, for people and events. A URL has no user and no password in it.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            JobSource::File { path } => path.to_string_lossy(),
            JobSource::Url { url } => without_login(url),
        }
    }
}

/// The source as a manifest or a report names it.
impl From<&JobSource> for ManifestSource {
    fn from(source: &JobSource) -> ManifestSource {
        match source {
            JobSource::File { path } => ManifestSource::Path(path.clone()),
            JobSource::Url { url } => ManifestSource::Url(url.clone()),
        }
    }
}

/// Replaces the user and the password of a URL (RFC 3986, section 3.2.1).
fn without_login(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{rest}").into(),
        None => url.into(),
    }
}

/// The state of a file when its job was submitted. A file with another stamp is another job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentStamp {
    /// The length in bytes.
    pub size: u64,
    /// The time of the last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// The stored form of a source. A path that is not UTF-8 is stored in base64.
#[derive(Serialize, Deserialize)]
struct StoredSource {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path_bytes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    source_url: Option<String>,
}

impl From<JobSource> for StoredSource {
    fn from(source: JobSource) -> StoredSource {
        let (mut path, mut path_bytes, mut source_url) = (None, None, None);
        match source {
            JobSource::Url { url } => source_url = Some(url),
            JobSource::File { path: file } => match file.into_os_string().into_string() {
                Ok(text) => path = Some(text),
                Err(bytes) => {
                    // The text is for persons who read the store; the bytes count.
                    path = Some(bytes.to_string_lossy().into_owned());
                    path_bytes = Some(BASE64_STANDARD.encode(bytes.as_bytes()));
                }
            },
        }
        StoredSource { path, path_bytes, source_url }
    }
}

impl TryFrom<StoredSource> for JobSource {
    type Error = &'static str;

    fn try_from(stored: StoredSource) -> Result<JobSource, &'static str> {
        match (stored.path_bytes, stored.path, stored.source_url) {
            (Some(bytes), _, None) => {
                let bytes = BASE64_STANDARD.decode(bytes).map_err(|_| "the path is not base64")?;
                Ok(JobSource::File { path: OsString::from_vec(bytes).into() })
            }
            (None, Some(path), None) => Ok(JobSource::File { path: path.into() }),
            (None, None, Some(url)) => Ok(JobSource::Url { url }),
            _ => Err("a job has either a path or a URL"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_text_keeps_every_byte() {
        let bytes = b"/films/\xff\xfe.mp4".to_vec();
        let source = JobSource::File { path: OsString::from_vec(bytes).into() };
        let stored = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<JobSource>(&stored).unwrap(), source);
    }
}
