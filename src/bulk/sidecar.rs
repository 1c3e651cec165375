//! Sidecar files: `movie.json` or `movie.mp4.json` beside `movie.mp4`, with the keys of a manifest line.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::entry::{EntryBuilder, EntryFlaw, EntryKeys};

/// A sidecar file that cannot be used. It fails the job of its file only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// There are two sidecar files.
    #[error("{} and {}: both describe the file; remove one of them", .first.display(), .second.display())]
    Two {
        /// One of them.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// The sidecar is a folder, a FIFO or a device.
    #[error("{}: is no regular file", .path.display())]
    NotRegular {
        /// The path of the sidecar.
        path: PathBuf,
    },
    /// The sidecar cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable {
        /// The path of the sidecar.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The sidecar is larger than 1 MiB.
    #[error("{}: is larger than {MAX_SIDECAR_BYTES} bytes", .path.display())]
    TooLarge {
        /// The path of the sidecar.
        path: PathBuf,
    },
    /// The sidecar's content has a flaw.
    #[error("{}: {flaw}", .path.display())]
    Flaw {
        /// The path of the sidecar.
        path: PathBuf,
        /// The flaw.
        flaw: EntryFlaw,
    },
}

/// Reads the sidecar file of `film`. Returns `None` if there is none.
///
/// The keys have precedence over defaults, and a manifest's keys have precedence over them: see [`EntryKeys::or`].
///
/// # Errors
/// If there are two, or if the sidecar cannot be read or has a flaw.
pub fn read_sidecar(film: &Path) -> Result<Option<EntryKeys>, SidecarError> {
    let mut longer = OsString::from(film);
    longer.push(".json");
    let longer = PathBuf::from(longer);
    let shorter = film.with_extension("json");
    // A file `movie.json` is not its own sidecar.
    let has_shorter = shorter != film && shorter != longer && exists(&shorter);
    match (has_shorter, exists(&longer)) {
        (true, true) => Err(SidecarError::Two { first: shorter, second: longer }),
        (true, false) => read(shorter).map(Some),
        (false, true) => read(longer).map(Some),
        (false, false) => Ok(None),
    }
}

/// A broken link exists, too: it is an error rather than no sidecar.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn read(path: PathBuf) -> Result<EntryKeys, SidecarError> {
    let json = match bytes(&path) {
        Ok(Some(json)) => json,
        Ok(None) => return Err(SidecarError::NotRegular { path }),
        Err(source) => return Err(SidecarError::Unreadable { path, source }),
    };
    if json.len() as u64 > MAX_SIDECAR_BYTES {
        return Err(SidecarError::TooLarge { path });
    }
    // Some editors begin UTF-8 with a byte order mark, which a reader may skip (RFC 8259, section 8.1).
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&json);
    let keys = EntryBuilder::from_json(json).and_then(EntryBuilder::finish_without_source);
    keys.map_err(|flaw| SidecarError::Flaw { path, flaw })
}

/// Returns at most one byte more than permitted; `None` if the path is no regular file.
fn bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Before the opening, which would wait for the writer of a FIFO.
    if !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut json = Vec::new();
    File::open(path)?.take(MAX_SIDECAR_BYTES + 1).read_to_end(&mut json)?;
    Ok(Some(json))
}

const MAX_SIDECAR_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let film = folder.path().join("movie.mp4");
        (folder, film)
    }

    #[test]
    fn either_name_gives_the_keys_of_the_film() {
        for name in ["movie.json", "movie.mp4.json"] {
            let (folder, film) = folder();
            assert!(read_sidecar(&film).unwrap().is_none());
            let json = "\u{feff}{\n  \"title\": \"Summer\",\n  \"private\": true\n}\n";
            fs::write(folder.path().join(name), json).unwrap();
            let keys = read_sidecar(&film).unwrap().unwrap();
            assert_eq!((keys.title.as_deref(), keys.private), (Some("Summer"), Some(true)));
        }
    }

    #[test]
    fn two_sidecars_are_an_error_that_names_both() {
        let (folder, film) = folder();
        fs::write(folder.path().join("movie.json"), "{}").unwrap();
        fs::write(folder.path().join("movie.mp4.json"), "{}").unwrap();
        let error = read_sidecar(&film).unwrap_err().to_string();
        assert!(error.contains("movie.json and ") && error.contains("movie.mp4.json"), "{error}");
    }

    #[test]
    fn a_broken_sidecar_names_its_file_and_its_flaw() {
        let (folder, film) = folder();
        let sidecar = folder.path().join("movie.json");
        for (json, flaw) in [
            ("", "no JSON object"),
            ("{\"titel\":1}", "unknown key `titel`"),
            ("{\"path\":\"other.mp4\"}", "`path` cannot stand"),
            ("{\"language\":\"english\"}", "two-letter"),
            ("{\"upload_token\":\"to do\"}", "white space"),
        ] {
            fs::write(&sidecar, json).unwrap();
            let error = read_sidecar(&film).unwrap_err().to_string();
            assert!(error.contains("movie.json") && error.contains(flaw), "{error}");
            assert!(!error.contains("to do"), "{error}");
        }
        fs::write(&sidecar, vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(matches!(read_sidecar(&film), Err(SidecarError::TooLarge { .. })));
    }

    #[test]
    fn a_sidecar_that_is_no_file_is_never_opened() {
        let (folder, film) = folder();
        let sidecar = folder.path().join("movie.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &sidecar, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(read_sidecar(&film), Err(SidecarError::NotRegular { .. })));
        fs::remove_file(&sidecar).unwrap();
        std::os::unix::fs::symlink("gone", &sidecar).unwrap();
        assert!(matches!(read_sidecar(&film), Err(SidecarError::Unreadable { .. })));
    }

    #[test]
    fn a_json_file_is_not_its_own_sidecar() {
        let folder = tempfile::tempdir().unwrap();
        let film = folder.path().join("movie.json");
        fs::write(&film, "not JSON").unwrap();
        assert!(read_sidecar(&film).unwrap().is_none());
    }
}
