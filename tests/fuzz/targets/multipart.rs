//! The server's multipart reader gives the same result for every split of a body into frames, and it returns the chunk
//! of the client's envelope unchanged for every file name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlift::server::fuzzing::{boundary, parts};
use ringlift::internals::Envelope;

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, body) = input;
    assert_eq!(parts("b", &frames(cut, body)), parts("b", &[body]));
    let (name, chunk) = body.split_at(body.iter().position(|&byte| byte == b'\n').unwrap_or(0));
    let name = String::from_utf8_lossy(name);
    let _ = boundary(&name);
    wrapped(cut, &name, (cut % 2 == 1).then_some("vi4k0jvEUuaTdRAEjQ4Jfrgz"), chunk);
});

/// Splits the body into pieces whose lengths depend on `cut`.
fn frames(cut: u8, mut body: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let len = 1 + usize::from(cut.rotate_left(frames.len() as u32 % 8)) % 40;
        let (frame, rest) = body.split_at(len.min(body.len()));
        frames.push(frame);
        body = rest;
    }
    frames
}

fn wrapped(cut: u8, name: &str, video_id: Option<&str>, chunk: &[u8]) {
    if chunk.windows(5).any(|bytes| bytes == b"\r\n--b") || name.len() > MAX_NAME_BYTES {
        return;
    }
    let envelope = Envelope::new("b", name, video_id);
    assert_eq!(boundary(envelope.content_type()).as_deref(), Some("b"));
    let body = [envelope.head(), chunk, envelope.tail()].concat();
    assert_eq!(body.len() as u64, envelope.content_length(chunk.len() as u64));
    let (parts, ended) = parts("b", &frames(cut, &body)).expect("the client's own");
    assert!(ended);
    assert_eq!(parts.len(), 1 + usize::from(video_id.is_some()));
    if let Some(video_id) = video_id {
        assert_eq!((parts[0].0.as_deref(), &parts[0].2[..]), (Some("videoId"), video_id.as_bytes()));
    }
    let (field, file_name, data) = &parts[parts.len() - 1];
    assert_eq!((field.as_deref(), &data[..]), (Some("file"), chunk));
    assert!(file_name.is_some());
    if name.chars().all(|c| c.is_alphanumeric() || ".-_ \"".contains(c)) {
        assert_eq!(file_name.as_deref(), Some(name));
    }
}

/// The longest file name (NAME_MAX, limits.h(0p)), in bytes of UTF-8 after replacement.
const MAX_NAME_BYTES: usize = 3 * 255;
