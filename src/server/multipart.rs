//! An incremental parser of multipart bodies (RFC 2046, section 5.1; RFC 7578).
//!
//! The parser takes frames and returns events; it performs no I/O. Part data is returned as slices of the
//! frames. The bytes buffered between frames are bounded: less than a delimiter inside a part,
//! [`MAX_HEAD_BYTES`] between parts.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::{self, Finder};

/// An event of the parser.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MultipartEvent {
    Part(PartHead),
    Data(Bytes),
    PartEnd,
    /// The closing delimiter; all bytes after it are ignored.
    End,
}

/// The headers of a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) name: Option<String>,
    pub(super) file_name: Option<String>,
}

/// A syntax error in a multipart body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("a boundary is followed by neither a line end nor `--`")]
    BrokenBoundary,
    #[error("the headers of a part are longer than the limit of {MAX_HEAD_BYTES} bytes")]
    HeadTooLong,
    #[error("the headers of a part are not UTF-8")]
    HeadNotText,
}

/// The parser. A delimiter includes the line end before the boundary, so the parser starts as if a line end
/// preceded the body.
pub(super) struct MultipartParser {
    delimiter: Finder<'static>,
    state: ParserState,
    buffer: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ParserState {
    Preamble,
    AfterBoundary,
    Head,
    Data,
    Ended,
}

impl MultipartParser {
    pub(super) fn new(boundary: &str) -> MultipartParser {
        let delimiter = format!("\r\n--{boundary}");
        MultipartParser {
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            state: ParserState::Preamble,
            buffer: Bytes::from_static(b"\r\n"),
        }
    }

    /// Adds a frame. Call [`MultipartParser::next`] until it returns `None` before adding the next frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        // The usual case: without a rest of the last frame nothing is copied.
        if self.buffer.is_empty() {
            self.buffer = frame;
        } else {
            let mut joined = BytesMut::with_capacity(self.buffer.len() + frame.len());
            joined.extend_from_slice(&self.buffer);
            joined.extend_from_slice(&frame);
            self.buffer = joined.freeze();
        }
    }

    /// Returns the next event; `None` until another frame is pushed.
    pub(super) fn next(&mut self) -> Result<Option<MultipartEvent>, MultipartError> {
        loop {
            let advanced = match self.state {
                ParserState::Preamble => self.preamble(),
                ParserState::AfterBoundary => match self.after_boundary()? {
                    Some(ParserState::Ended) => return Ok(Some(MultipartEvent::End)),
                    advanced => advanced.is_some(),
                },
                ParserState::Head => return self.head(),
                ParserState::Data => return Ok(self.data()),
                ParserState::Ended => {
                    self.buffer.clear();
                    return Ok(None);
                }
            };
            if !advanced {
                return Ok(None);
            }
        }
    }

    fn preamble(&mut self) -> bool {
        match self.delimiter.find(&self.buffer) {
            Some(at) => {
                self.buffer.advance(at + self.delimiter.needle().len());
                self.state = ParserState::AfterBoundary;
                true
            }
            None => {
                // The preamble is discarded, except for bytes that may begin the first delimiter.
                let kept = self.partial_delimiter_len();
                self.buffer.advance(self.buffer.len() - kept);
                false
            }
        }
    }

    fn after_boundary(&mut self) -> Result<Option<ParserState>, MultipartError> {
        if self.buffer.len() >= 2 && self.buffer.starts_with(b"--") {
            self.state = ParserState::Ended;
            return Ok(Some(self.state));
        }
        // RFC 2046, section 5.1.1: transport padding may follow a boundary.
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        // Bounds the buffer, because the RFC does not limit the padding.
        if padding > MAX_HEAD_BYTES {
            return Err(MultipartError::BrokenBoundary);
        }
        let rest = &self.buffer[padding..];
        if rest.starts_with(b"\r\n") {
            self.buffer.advance(padding);
            self.state = ParserState::Head;
            return Ok(Some(self.state));
        }
        // The frame may end between CR and LF, or between the two dashes.
        let may_continue = rest.is_empty() || rest == b"\r" || self.buffer == b"-".as_slice();
        if may_continue { Ok(None) } else { Err(MultipartError::BrokenBoundary) }
    }

    /// Parses the headers of a part. They start with the line end of the boundary, so empty headers are `CRLF
    /// CRLF` too.
    fn head(&mut self) -> Result<Option<MultipartEvent>, MultipartError> {
        let Some(end) = memmem::find(&self.buffer, HEAD_END).filter(|end| *end <= MAX_HEAD_BYTES) else {
            // The last bytes may be the beginning of the empty line.
            if self.buffer.len() >= MAX_HEAD_BYTES + HEAD_END.len() {
                return Err(MultipartError::HeadTooLong);
            }
            return Ok(None);
        };
        let head = self.buffer.split_to(end + HEAD_END.len());
        let text = std::str::from_utf8(&head).map_err(|_| MultipartError::HeadNotText)?;
        self.state = ParserState::Data;
        Ok(Some(MultipartEvent::Part(PartHead::parse(text))))
    }

    fn data(&mut self) -> Option<MultipartEvent> {
        match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.buffer.advance(self.delimiter.needle().len());
                self.state = ParserState::AfterBoundary;
                Some(MultipartEvent::PartEnd)
            }
            Some(at) => Some(MultipartEvent::Data(self.buffer.split_to(at))),
            None => {
                let len = self.buffer.len() - self.partial_delimiter_len();
                (len > 0).then(|| MultipartEvent::Data(self.buffer.split_to(len)))
            }
        }
    }

    /// Returns the number of bytes at the end that may begin a delimiter.
    fn partial_delimiter_len(&self) -> usize {
        let needle = self.delimiter.needle();
        // A whole delimiter would have been found.
        let longest = self.buffer.len().min(needle.len() - 1);
        let tail = &self.buffer[self.buffer.len() - longest..];
        (0..longest).find(|at| needle.starts_with(&tail[*at..])).map_or(0, |at| longest - at)
    }
}

impl PartHead {
    fn parse(head: &str) -> PartHead {
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let Some(disposition) = disposition else { return PartHead::default() };
        // RFC 6266, section 4.3: `filename*` takes precedence.
        let extended = parameter(disposition, "filename*").and_then(|value| decode_extended(&value));
        let plain = parameter(disposition, "filename").map(|value| unescape(&value));
        PartHead {
            name: parameter(disposition, "name").map(|value| unescape(&value)),
            file_name: extended.or(plain),
        }
    }
}

/// Returns the boundary of a `Content-Type`, quoted or not; `None` if it is not `multipart/form-data`.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    // RFC 2046, section 5.1.1: 1 to 70 characters.
    parameter(&format!(";{parameters}"), "boundary").filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// Returns the value of `; name=value` or `; name="value"`.
///
/// Older clients do not escape quotes inside a quoted value, so only a quote before `;` or the end closes the
/// value.
fn parameter(header: &str, name: &str) -> Option<String> {
    let mut rest = &header[header.find(';')? + 1..];
    loop {
        let (found, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => split_quoted(quoted),
            None => {
                let (value, after) = value.split_once(';').unwrap_or((value, ""));
                (value.trim(), after)
            }
        };
        if found.trim().eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = after;
    }
}

fn split_quoted(quoted: &str) -> (&str, &str) {
    for (at, _) in quoted.match_indices('"') {
        let after = quoted[at + 1..].trim_start();
        // The last quote closes the value even after a backslash, with which a folder's path may end.
        if quoted[..at].ends_with('\\') && !after.is_empty() {
            continue;
        }
        if after.is_empty() || after.starts_with(';') {
            return (&quoted[..at], after.trim_start_matches(';'));
        }
    }
    (quoted, "")
}

/// Reverts the two escapes of clients: backslashes, and the three percent-encoded bytes of HTML forms.
fn unescape(value: &str) -> String {
    let value = value.replace("\\\"", "\"").replace("\\\\", "\\");
    // HTML forms encode these three bytes of a name, and no others.
    value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// Decodes an extended value like `UTF-8''na%C3%AFve.mp4` (RFC 8187, section 3.2).
fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    Some(percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

/// The largest size of a part's headers.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The empty line that ends the headers.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The functions that the fuzz targets call.
#[cfg(fuzzing)]
pub mod fuzzing {
    use bytes::Bytes;

    use crate::server::multipart::{self, HEAD_END, MAX_HEAD_BYTES, MultipartEvent, MultipartParser};

    /// Returns the name, file name and data of each part, and `true` if the closing delimiter was found.
    ///
    /// # Errors
    /// Returns the message of the parser's error.
    #[allow(clippy::type_complexity)]
    pub fn parts(
        boundary: &str,
        frames: &[&[u8]],
    ) -> Result<(Vec<(Option<String>, Option<String>, Vec<u8>)>, bool), String> {
        let mut parser = MultipartParser::new(boundary);
        let (mut parts, mut ended) = (Vec::new(), false);
        for frame in frames {
            parser.push(Bytes::copy_from_slice(frame));
            while let Some(event) = parser.next().map_err(|error| error.to_string())? {
                match event {
                    MultipartEvent::Part(head) => parts.push((head.name, head.file_name, Vec::new())),
                    MultipartEvent::Data(data) => parts.last_mut().unwrap().2.extend_from_slice(&data),
                    MultipartEvent::PartEnd => {}
                    MultipartEvent::End => ended = true,
                }
            }
            assert!(parser.buffer.len() < MAX_HEAD_BYTES + HEAD_END.len());
        }
        Ok((parts, ended))
    }

    /// Returns the boundary of a `Content-Type`.
    pub fn boundary(content_type: &str) -> Option<String> {
        multipart::boundary(content_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Part = (PartHead, Vec<u8>);

    /// Parses a body in frames of `frame_len` bytes into parts, and returns `true` if the closing delimiter
    /// was found.
    fn read(boundary: &str, body: &[u8], frame_len: usize) -> Result<(Vec<Part>, bool), MultipartError> {
        let mut parser = MultipartParser::new(boundary);
        let mut parts = Vec::new();
        let mut ended = false;
        for frame in body.chunks(frame_len) {
            parser.push(Bytes::copy_from_slice(frame));
            while let Some(event) = parser.next()? {
                match event {
                    MultipartEvent::Part(head) => parts.push((head, Vec::new())),
                    MultipartEvent::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    MultipartEvent::PartEnd => {}
                    MultipartEvent::End => ended = true,
                }
            }
            assert!(parser.buffer.len() <= MAX_HEAD_BYTES + HEAD_END.len() + frame_len);
        }
        Ok((parts, ended))
    }

    #[test]
    fn two_parts_are_found_in_frames_of_any_length() {
        let body = b"ignored\r\n--XyZ\r\nContent-Disposition: form-data; name=\"videoId\"\r\n\r\nvi1\r\n\
            --XyZ  \r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.mp4\"\r\n\
            Content-Type: video/mp4\r\nContent-Length: 9\r\n\r\n\r\n--Xy\r\n-\r\n--XyZ--\r\nepilogue";
        for frame_len in 1..body.len() {
            let (parts, ended) = read("XyZ", body, frame_len).unwrap();
            assert!(ended);
            assert_eq!(parts.len(), 2);
            assert_eq!((parts[0].0.name.as_deref(), &parts[0].1[..]), (Some("videoId"), &b"vi1"[..]));
            assert_eq!(parts[1].0.file_name.as_deref(), Some("a.mp4"));
            assert_eq!(parts[1].1, b"\r\n--Xy\r\n-");
        }
    }

    #[test]
    fn a_truncated_body_has_no_end_event() {
        let body =
            b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n12345\r\n--b";
        let (parts, ended) = read("b", body, 7).unwrap();
        assert_eq!((parts.len(), ended), (1, false));
    }

    #[test]
    fn a_part_may_have_no_data_or_no_headers() {
        let body =
            b"--b\r\nContent-Disposition: form-data; name=f; filename=\"\"\r\n\r\n\r\n--b\r\n\r\nx\r\n--b--";
        let (parts, ended) = read("b", body, 3).unwrap();
        assert!(ended);
        assert_eq!((parts[0].0.file_name.as_deref(), parts[0].1.len()), (Some(""), 0));
        assert_eq!(parts[1], (PartHead::default(), b"x".to_vec()));
    }

    #[test]
    fn endless_headers_are_refused() {
        let body = [b"--b\r\nX: ".as_slice(), &[b'x'; 2 * MAX_HEAD_BYTES]].concat();
        assert_eq!(read("b", &body, 1000).unwrap_err(), MultipartError::HeadTooLong);
        assert_eq!(read("b", b"--bc\r\n", 1).unwrap_err(), MultipartError::BrokenBoundary);
        assert!(read("b", &vec![b'x'; 1 << 20], 4096).unwrap().0.is_empty());
    }

    #[test]
    fn length_limits_do_not_depend_on_the_frames() {
        for len in MAX_HEAD_BYTES - 3..MAX_HEAD_BYTES + 3 {
            let head = [b"--b\r\nX:".as_slice(), &vec![b'x'; len - 4], b"\r\n\r\n\r\n--b--"].concat();
            let padding = [b"--b".as_slice(), &vec![b' '; len], b"\r\n\r\nx\r\n--b--"].concat();
            for body in [head, padding] {
                let at_once = read("b", &body, body.len());
                assert_eq!(at_once.is_ok(), len <= MAX_HEAD_BYTES, "{len}: {at_once:?}");
                assert_eq!(read("b", &body, 1).is_ok(), at_once.is_ok(), "{len}");
            }
        }
    }

    #[test]
    fn file_names_of_known_clients_are_parsed() {
        for (header, expected) in [
            (r#"form-data; name="file"; filename="a.mp4""#, "a.mp4"),
            (r#"form-data; name=file; filename=a.mp4"#, "a.mp4"),
            (r#"form-data; filename="a\"b.mp4"; name="file""#, "a\"b.mp4"),
            (r#"form-data; name="file"; filename="a"b.mp4""#, "a\"b.mp4"),
            (r#"form-data; name="file"; filename="a%22;b.mp4""#, "a\";b.mp4"),
            (r#"form-data; name="file"; filename="é;x=1.mp4""#, "é;x=1.mp4"),
            (r#"form-data; name = file ; filename=" a ""#, " a "),
            (r#"form-data; name="file"; filename*=utf-8''%C3%A9.mp4"#, "é.mp4"),
        ] {
            let head = PartHead::parse(&format!("\r\nContent-Disposition: {header}\r\n\r\n"));
            assert_eq!(head.file_name.as_deref(), Some(expected), "{header}");
            assert_eq!(head.name.as_deref(), Some("file"), "{header}");
        }
    }

    #[test]
    fn the_boundary_may_be_quoted() {
        for content_type in [
            "multipart/form-data; boundary=XyZ",
            "Multipart/Form-Data;boundary=\"XyZ\"",
            "multipart/form-data; charset=utf-8; Boundary=XyZ",
        ] {
            assert_eq!(boundary(content_type).as_deref(), Some("XyZ"), "{content_type}");
        }
        for content_type in
            ["multipart/form-data", "multipart/form-data; boundary=", "text/plain; boundary=b"]
        {
            assert_eq!(boundary(content_type), None, "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_returned_in_frames_of_any_length(
            data in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'b'), any::<u8>()], 0..200),
            frame_len in 1usize..50,
        ) {
            prop_assume!(memmem::find(&data, b"\r\n--bb").is_none());
            let body = [b"--bb\r\nContent-Disposition: form-data; filename=a\r\n\r\n".as_slice(), &data, b"\r\n--bb--\r\n"].concat();
            let (parts, ended) = read("bb", &body, frame_len).unwrap();
            prop_assert!(ended);
            prop_assert_eq!(&parts[0].1, &data);
        }
    }
}
