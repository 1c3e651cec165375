//! A multipart body taken apart while it arrives (RFC 2046, section 5.1; RFC 7578).
//!
//! Frames go in, events come out; nobody here reads a socket. Part data is handed on as slices of the
//! frames it came in, and what is kept between frames is bounded: less than a delimiter inside a part,
//! [`MAX_HEAD_BYTES`] between parts.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::{self, Finder};

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Part(PartHead),
    Data(Bytes),
    PartEnd,
    /// The closing delimiter: whatever follows is ignored.
    End,
}

/// What stands above a part's data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) name: Option<String>,
    pub(super) file_name: Option<String>,
}

/// Why it cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MultipartError {
    #[error("a boundary is followed by neither a line end nor `--`")]
    BrokenBoundary,
    #[error("the headers of a part are longer than the limit of {MAX_HEAD_BYTES} bytes")]
    HeadTooLong,
    #[error("the headers of a part are not UTF-8")]
    HeadNotText,
}

/// The reader. A boundary belongs to the line end before it, so the body is read as if one preceded it.
pub(super) struct Parser {
    delimiter: Finder<'static>,
    stage: Stage,
    held: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preamble,
    AfterBoundary,
    Head,
    Data,
    Ended,
}

impl Parser {
    pub(super) fn new(boundary: &str) -> Parser {
        let delimiter = format!("\r\n--{boundary}");
        Parser {
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            stage: Stage::Preamble,
            held: Bytes::from_static(b"\r\n"),
        }
    }

    /// Adds what arrived. Ask [`Parser::next`] until it has nothing more before adding again.
    pub(super) fn push(&mut self, frame: Bytes) {
        if self.held.is_empty() {
            self.held = frame;
        } else {
            let mut joined = BytesMut::with_capacity(self.held.len() + frame.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(&frame);
            self.held = joined.freeze();
        }
    }

    /// The next event; `None` until more is pushed.
    pub(super) fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            let moved = match self.stage {
                Stage::Preamble => self.preamble(),
                Stage::AfterBoundary => match self.after_boundary()? {
                    Some(Stage::Ended) => return Ok(Some(Event::End)),
                    moved => moved.is_some(),
                },
                Stage::Head => return self.head(),
                Stage::Data => return Ok(self.data()),
                Stage::Ended => {
                    self.held.clear();
                    return Ok(None);
                }
            };
            if !moved {
                return Ok(None);
            }
        }
    }

    fn preamble(&mut self) -> bool {
        match self.delimiter.find(&self.held) {
            Some(at) => {
                self.held.advance(at + self.delimiter.needle().len());
                self.stage = Stage::AfterBoundary;
                true
            }
            None => {
                let kept = self.delimiter_begun();
                self.held.advance(self.held.len() - kept);
                false
            }
        }
    }

    fn after_boundary(&mut self) -> Result<Option<Stage>, MultipartError> {
        if self.held.len() >= 2 && self.held.starts_with(b"--") {
            self.stage = Stage::Ended;
            return Ok(Some(self.stage));
        }
        let padding = self.held.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if padding > MAX_HEAD_BYTES {
            return Err(MultipartError::BrokenBoundary);
        }
        let rest = &self.held[padding..];
        if rest.starts_with(b"\r\n") {
            self.held.advance(padding);
            self.stage = Stage::Head;
            return Ok(Some(self.stage));
        }
        let may_go_on = rest.is_empty() || rest == b"\r" || self.held == b"-".as_slice();
        match may_go_on {
            true => Ok(None),
            false => Err(MultipartError::BrokenBoundary),
        }
    }

    /// Starts at the boundary's line end, so that an empty head is `CRLF CRLF` as well.
    fn head(&mut self) -> Result<Option<Event>, MultipartError> {
        let Some(end) = memmem::find(&self.held, HEAD_END).filter(|end| *end <= MAX_HEAD_BYTES) else {
            // Its end may have begun.
            if self.held.len() >= MAX_HEAD_BYTES + HEAD_END.len() {
                return Err(MultipartError::HeadTooLong);
            }
            return Ok(None);
        };
        let head = self.held.split_to(end + HEAD_END.len());
        let text = std::str::from_utf8(&head).map_err(|_| MultipartError::HeadNotText)?;
        self.stage = Stage::Data;
        Ok(Some(Event::Part(PartHead::read(text))))
    }

    fn data(&mut self) -> Option<Event> {
        match self.delimiter.find(&self.held) {
            Some(0) => {
                self.held.advance(self.delimiter.needle().len());
                self.stage = Stage::AfterBoundary;
                Some(Event::PartEnd)
            }
            Some(at) => Some(Event::Data(self.held.split_to(at))),
            None => {
                let len = self.held.len() - self.delimiter_begun();
                (len > 0).then(|| Event::Data(self.held.split_to(len)))
            }
        }
    }

    /// How many bytes at the end may be the beginning of a delimiter.
    fn delimiter_begun(&self) -> usize {
        let needle = self.delimiter.needle();
        let longest = self.held.len().min(needle.len() - 1);
        let tail = &self.held[self.held.len() - longest..];
        (0..longest).find(|at| needle.starts_with(&tail[*at..])).map_or(0, |at| longest - at)
    }
}

impl PartHead {
    fn read(head: &str) -> PartHead {
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
        });
        let Some(disposition) = disposition else { return PartHead::default() };
        let extended = parameter(disposition, "filename*").and_then(|value| decode_extended(&value));
        let plain = parameter(disposition, "filename").map(|value| unescape(&value));
        PartHead {
            name: parameter(disposition, "name").map(|value| unescape(&value)),
            file_name: extended.or(plain),
        }
    }
}

/// The boundary in a `Content-Type`, quoted or not; `None` when it is not `multipart/form-data`.
pub(super) fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    // RFC 2046, section 5.1.1: 1 to 70 characters.
    parameter(&format!(";{parameters}"), "boundary").filter(|boundary| (1..=70).contains(&boundary.len()))
}

/// The value of `; name=value` or `; name="value"`.
///
/// Older clients leave quotes inside a quoted value as they are, so only a quote before `;` or the end
/// closes it.
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
        if quoted[..at].ends_with('\\') && !after.is_empty() {
            continue;
        }
        if after.is_empty() || after.starts_with(';') {
            return (&quoted[..at], after.trim_start_matches(';'));
        }
    }
    (quoted, "")
}

/// The two ways in which clients escape: backslashes, and the three bytes of HTML forms.
fn unescape(value: &str) -> String {
    let value = value.replace("\\\"", "\"").replace("\\\\", "\\");
    value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// `UTF-8''na%C3%AFve.mp4` (RFC 8187, section 3.2).
fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    Some(percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

/// The longest head of a part.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// An empty line.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What the fuzz targets see of it.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::*;

    /// Name, file name and data of each part of a body that arrives in these frames, and whether it ended.
    ///
    /// # Errors
    /// Why it cannot be read on.
    #[allow(clippy::type_complexity)]
    pub fn parts(
        boundary: &str,
        frames: &[&[u8]],
    ) -> Result<(Vec<(Option<String>, Option<String>, Vec<u8>)>, bool), String> {
        let mut parser = Parser::new(boundary);
        let (mut parts, mut ended) = (Vec::new(), false);
        for frame in frames {
            parser.push(Bytes::copy_from_slice(frame));
            while let Some(event) = parser.next().map_err(|error| error.to_string())? {
                match event {
                    Event::Part(head) => parts.push((head.name, head.file_name, Vec::new())),
                    Event::Data(data) => parts.last_mut().unwrap().2.extend_from_slice(&data),
                    Event::PartEnd => {}
                    Event::End => ended = true,
                }
            }
            assert!(parser.held.len() < MAX_HEAD_BYTES + HEAD_END.len());
        }
        Ok((parts, ended))
    }

    /// The boundary in a `Content-Type`.
    pub fn boundary(content_type: &str) -> Option<String> {
        super::boundary(content_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Part = (PartHead, Vec<u8>);

    /// Everything a body says when it arrives in frames of `frame_len` bytes: heads with their data.
    fn read(boundary: &str, body: &[u8], frame_len: usize) -> Result<(Vec<Part>, bool), MultipartError> {
        let mut parser = Parser::new(boundary);
        let mut parts = Vec::new();
        let mut ended = false;
        for frame in body.chunks(frame_len) {
            parser.push(Bytes::copy_from_slice(frame));
            while let Some(event) = parser.next()? {
                match event {
                    Event::Part(head) => parts.push((head, Vec::new())),
                    Event::Data(data) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Event::PartEnd => {}
                    Event::End => ended = true,
                }
            }
            assert!(parser.held.len() <= MAX_HEAD_BYTES + HEAD_END.len() + frame_len);
        }
        Ok((parts, ended))
    }

    #[test]
    fn two_parts_are_found_whatever_the_frames() {
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
    fn a_body_without_its_end_does_not_end() {
        let body =
            b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n12345\r\n--b";
        let (parts, ended) = read("b", body, 7).unwrap();
        assert_eq!((parts.len(), ended), (1, false));
    }

    #[test]
    fn a_part_without_data_or_without_headers_is_a_part() {
        let body =
            b"--b\r\nContent-Disposition: form-data; name=f; filename=\"\"\r\n\r\n\r\n--b\r\n\r\nx\r\n--b--";
        let (parts, ended) = read("b", body, 3).unwrap();
        assert!(ended);
        assert_eq!((parts[0].0.file_name.as_deref(), parts[0].1.len()), (Some(""), 0));
        assert_eq!(parts[1], (PartHead::default(), b"x".to_vec()));
    }

    #[test]
    fn headers_without_end_are_not_collected() {
        let body = [b"--b\r\nX: ".as_slice(), &[b'x'; 2 * MAX_HEAD_BYTES]].concat();
        assert_eq!(read("b", &body, 1000).unwrap_err(), MultipartError::HeadTooLong);
        assert_eq!(read("b", b"--bc\r\n", 1).unwrap_err(), MultipartError::BrokenBoundary);
        assert!(read("b", &vec![b'x'; 1 << 20], 4096).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_too_long_does_not_depend_on_the_frames() {
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
    fn file_names_are_read_as_clients_write_them() {
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
            let head = PartHead::read(&format!("\r\nContent-Disposition: {header}\r\n\r\n"));
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
        fn any_bytes_come_back_whatever_the_frames(
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
