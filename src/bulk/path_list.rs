//! The lines of a list of paths.

use std::path::PathBuf;

use crate::bulk::entry::{EntryFlaw, checked_path};

/// Returns the path of `line`, in bytes as they are; `None` if the line is empty.
///
/// `is_text` is `true` for lines of text, which an editor may have ended with a carriage return too.
pub(crate) fn path(line: &[u8], is_text: bool) -> Result<Option<PathBuf>, EntryFlaw> {
    let line = if is_text { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    if line.is_empty() {
        return Ok(None);
    }
    if is_text && line.contains(&0) {
        return Err(EntryFlaw::bad(
            "path",
            "has a NUL in it; if NULs separate the paths, the manifest's format is `paths0`",
        ));
    }
    checked_path("path", line.to_vec()).map(Some)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_line_end_of_windows_is_no_part_of_the_path() {
        assert_eq!(path(b"a b.mp4\r", true), Ok(Some("a b.mp4".into())));
        assert_eq!(path(b"a.mp4\r", false), Ok(Some("a.mp4\r".into())));
        assert_eq!(path(b"\r", true), Ok(None));
    }

    #[test]
    fn a_path_keeps_every_byte_and_every_space() {
        let name = b" #caf\xe9 ;.mp4 ";
        assert_eq!(path(name, true).unwrap().unwrap().as_os_str().as_bytes(), name);
        assert_eq!(path(b"a\nb.mp4", false), Ok(Some("a\nb.mp4".into())));
    }

    #[test]
    fn a_list_of_the_other_kind_is_named() {
        assert!(path(b"a.mp4\0b.mp4", true).unwrap_err().to_string().contains("NULs separate the paths"));
        assert!(path(&[b'a'; 5000], true).unwrap_err().to_string().contains("4096"));
        assert!(path(b"https://example.com/a.mp4", true).unwrap_err().to_string().contains("source_url"));
    }
}
