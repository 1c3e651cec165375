//! The source of a job's bytes.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::flaw::{EntryFlaw, shown};

/// The source of a job's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ManifestSource {
    /// A file on this host.
    Path(PathBuf),
    /// A URL that the service fetches itself.
    Url(String),
}

impl ManifestSource {
    /// Returns the path, or `None` for a URL.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ManifestSource::Path(path) => Some(path),
            ManifestSource::Url(_) => None,
        }
    }

    /// Returns the URL, or `None` for a file.
    pub fn url(&self) -> Option<&str> {
        match self {
            ManifestSource::Path(_) => None,
            ManifestSource::Url(url) => Some(url),
        }
    }

    /// Resolves a relative path against `base`. A URL stays as it is.
    #[must_use]
    pub fn relative_to(self, base: &Path) -> ManifestSource {
        match self {
            ManifestSource::Path(path) => ManifestSource::Path(base.join(path)),
            url => url,
        }
    }
}

/// Checks that `bytes` can name a file. An error calls the path `key`.
pub(crate) fn checked_path(key: &str, bytes: Vec<u8>) -> Result<PathBuf, EntryFlaw> {
    if bytes.is_empty() {
        return Err(EntryFlaw::bad(key, "is empty; name a file"));
    }
    if bytes.contains(&0) {
        return Err(EntryFlaw::bad(key, "has a NUL in it, which no file name has"));
    }
    // The kernel's PATH_MAX counts the NUL at the end.
    if bytes.len() >= MAX_PATH_BYTES {
        let len = bytes.len();
        return Err(EntryFlaw::bad(
            key,
            format!("has {len} bytes; the kernel takes fewer than {MAX_PATH_BYTES}"),
        ));
    }
    if let Some(scheme) = scheme(&bytes) {
        let way_out = "give a URL as `source_url`, http or https";
        return Err(EntryFlaw::bad(key, format!("is a URL ({}://...); {way_out}", shown(scheme))));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Checks that `url` is one that the service can fetch.
pub(super) fn checked_url(url: String) -> Result<String, EntryFlaw> {
    let flaw = |reason: String| Err(EntryFlaw::bad("source_url", reason));
    if url.len() > MAX_URL_BYTES {
        return flaw(format!("has {} bytes; use {MAX_URL_BYTES} or fewer", url.len()));
    }
    if !is_web_url(&url) {
        return flaw("begins with neither http:// nor https://; the service fetches only those".to_owned());
    }
    match url.parse::<http::Uri>() {
        Ok(parsed) if parsed.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        Ok(_) => flaw("names no host".to_owned()),
        Err(error) => flaw(format!("is no URL: {error}")),
    }
}

/// Returns `true` if `text` begins as an http or https URL.
pub(super) fn is_web_url(text: &str) -> bool {
    let begins =
        |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    begins("http://") || begins("https://")
}

/// Returns the scheme of a text of the form `scheme://`.
fn scheme(bytes: &[u8]) -> Option<&str> {
    // Schemes are short, and a path may have 4 KiB.
    let end = bytes.windows(3).take(16).position(|found| found == b"://")?;
    let scheme = std::str::from_utf8(&bytes[..end]).ok()?;
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    is_scheme.then_some(scheme)
}

/// Returns the bytes of `path`.
pub(super) fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// The longest URL: presigned ones take about 2 KiB.
const MAX_URL_BYTES: usize = 8192;
