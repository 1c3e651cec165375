//! Recognition of files that are plainly no videos.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::escape::visible;

/// Warns about a file whose name and content are those of a text. The upload goes on: the service decides.
pub(super) async fn warn_if_text(path: &Path) {
    if has_video_extension(path) {
        return;
    }
    let file = path.to_owned();
    // A disk that does not respond must not hold up the upload, which has its own time limit and error.
    if let Ok(Ok(true)) = timeout(LOOK_TIMEOUT, spawn_blocking(move || is_text_file(&file))).await {
        let file = path.to_string_lossy();
        tracing::warn!("{}: looks like a text, not like a video; uploading it anyway", visible(&file));
    }
}

fn has_video_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

/// Returns `true` for a regular file that begins like a text. A file that cannot be read is none.
fn is_text_file(path: &Path) -> bool {
    // The bytes that are read from a pipe would be missing in the upload.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    // O_NONBLOCK: the path may lead to a FIFO by now, whose opening would wait for a writer (fifo(7)).
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let read = file.and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    read.is_ok() && is_text(&start)
}

/// Returns `true` for UTF-8 without control characters. Every container of videos begins with a length, a number or
/// a mark that has such characters.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The end may have cut a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.is_empty() && !text.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}'))
}

const EXTENSIONS: [&str; 22] = [
    "3g2", "3gp", "asf", "avi", "f4v", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts",
    "mxf", "ogg", "ogv", "qt", "ts", "vob", "webm", "wmv",
];

/// Enough for the marks of all containers, and a single block of every disk.
const START_BYTES: u64 = 512;

/// Longest time that the look at the file delays its upload.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_recognised_and_containers_are_not() {
        for text in
            [&b"title,path\na,b\n"[..], b"<html>\r\n", "\u{590f}\u{306e}\u{6d77}".as_bytes(), b"caf\xc3"]
        {
            assert!(is_text(text), "{text:?}");
        }
        for other in [
            &b""[..],
            b"\0\0\0\x18ftypmp42",
            b"\x1a\x45\xdf\xa3\x01\0",
            b"RIFF\x24\0\0\0AVI LIST",
            b"OggS\0\x02",
            b"FLV\x01\x05\0\0\0\x09",
            b"\x47\x40\0\x10\0",
            b"\0\0\x01\xba\x44",
            b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
            b"\x06\x0e\x2b\x34\x02\x05",
            b"caf\xe9 au lait",
        ] {
            assert!(!is_text(other), "{other:?}");
        }
    }

    #[test]
    fn the_name_of_a_video_is_enough() {
        assert!(has_video_extension(Path::new("a.MP4")) && has_video_extension(Path::new("/b/c.mkv")));
        assert!(!has_video_extension(Path::new("a.csv")) && !has_video_extension(Path::new("mp4")));
    }

    #[test]
    fn a_pipe_or_a_directory_is_not_read() {
        assert!(!is_text_file(Path::new("/dev/null")) && !is_text_file(Path::new("/")));
    }
}
