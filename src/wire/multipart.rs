//! The multipart envelope around a chunk (RFC 7578), with an exact content length.
//!
//! The caller chooses the boundary, so that tests can assert literal bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// The bytes before and after a chunk in a `multipart/form-data` body.
///
/// An optional text field `videoId` comes first, then the part `file` with the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    content_type: String,
    head: Bytes,
    tail: Bytes,
}

impl Envelope {
    /// Creates the envelope of a chunk of the file `file_name`.
    ///
    /// A delegated upload sends `video_id` from its second request on. The id is written unescaped, with control
    /// characters, which no id has, replaced by `_`. In the file's name `"`, CR and LF are percent-encoded as HTML forms do
    /// (RFC 7578, section 4.2 and the HTML standard), so that no name can break out of its header; other control
    /// characters become `_`.
    pub fn new(boundary: &str, file_name: &str, video_id: Option<&str>) -> Envelope {
        // The fixed text of both parts takes less than 256 bytes with a usual boundary and id.
        let mut head = BytesMut::with_capacity(256 + file_name.len());
        if let Some(video_id) = video_id {
            head.put_slice(b"--");
            head.put_slice(boundary.as_bytes());
            head.put_slice(b"\r\nContent-Disposition: form-data; name=\"videoId\"\r\n\r\n");
            head.put_slice(without_controls(video_id).as_bytes());
            head.put_slice(b"\r\n");
        }
        head.put_slice(b"--");
        head.put_slice(boundary.as_bytes());
        head.put_slice(b"\r\nContent-Disposition: form-data; name=\"file\"; filename=\"");
        head.put_slice(escape(file_name).as_bytes());
        head.put_slice(b"\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        Envelope {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            head: head.freeze(),
            // RFC 2046, section 5.1.1: the CRLF before the boundary belongs to the boundary, not to the file.
            tail: Bytes::from(format!("\r\n--{boundary}--\r\n")),
        }
    }

    /// Returns the value of the request's `Content-Type`.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// Returns the bytes before the chunk.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Returns the bytes after the chunk.
    pub fn tail(&self) -> &Bytes {
        &self.tail
    }

    /// Returns the request's `Content-Length` for a chunk of `chunk_len` bytes.
    pub fn content_length(&self, chunk_len: u64) -> u64 {
        self.head.len() as u64 + chunk_len + self.tail.len() as u64
    }
}

/// Replaces control characters, which could end the field. Quotes stay: only header parameters escape them.
fn without_controls(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// Escapes a file name for a header parameter.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            // These three as browsers do it: HTML standard, "multipart/form-data encoding algorithm".
            '"' => escaped.push_str("%22"),
            '\r' => escaped.push_str("%0D"),
            '\n' => escaped.push_str("%0A"),
            c if c.is_control() => escaped.push('_'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_envelope_of_a_container_upload_is_these_bytes() {
        let envelope = Envelope::new("XyZ", "10m.mp4", None);
        assert_eq!(envelope.content_type(), "multipart/form-data; boundary=XyZ");
        assert_eq!(
            envelope.head(),
            "--XyZ\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"10m.mp4\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
        );
        assert_eq!(envelope.tail(), "\r\n--XyZ--\r\n");
        assert_eq!(envelope.content_length(5), (envelope.head().len() + 5 + 11) as u64);
    }

    #[test]
    fn a_delegated_upload_names_its_video_before_the_file() {
        let envelope = Envelope::new("b", "a.mp4", Some("vi4k0jvEUuaTdRAEjQ4Jfrgz"));
        assert_eq!(
            envelope.head(),
            "--b\r\nContent-Disposition: form-data; name=\"videoId\"\r\n\r\n\
             vi4k0jvEUuaTdRAEjQ4Jfrgz\r\n\
             --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp4\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
        );
    }

    #[test]
    fn a_field_holds_the_id_as_it_is() {
        let envelope = Envelope::new("b", "a.mp4", Some("vi\"1%22\r\n--b"));
        let head = std::str::from_utf8(envelope.head()).unwrap();
        assert!(head.contains("name=\"videoId\"\r\n\r\nvi\"1%22__--b\r\n--b\r\n"), "{head}");
    }

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        let envelope = Envelope::new("b", "a\"; x=\"\r\n\r\nmovie\u{0}é.mp4", None);
        let head = std::str::from_utf8(envelope.head()).unwrap();
        assert!(head.contains("filename=\"a%22; x=%22%0D%0A%0D%0Amovie_é.mp4\"\r\n"), "{head}");
    }

    proptest! {
        #[test]
        fn the_head_has_the_same_lines_whatever_the_name(name in any::<String>()) {
            let envelope = Envelope::new("b", &name, None);
            let head = std::str::from_utf8(envelope.head()).unwrap();
            prop_assert_eq!(head.split("\r\n").count(), 5);
            prop_assert_eq!(head.matches('"').count(), 4);
        }
    }
}
