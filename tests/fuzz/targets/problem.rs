//! Every answer of a service becomes one line of bounded length, with its status.

#![no_main]

use bytes::Bytes;
use http::{Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use ringlift::{ErrorKind, Redactor};
use ringlift::internals::refused;

fuzz_target!(|input: (u16, &[u8])| {
    let (status, body) = input;
    let Ok(status) = StatusCode::from_u16(300 + status % 300) else { return };
    let mut answer = Response::new(Bytes::copy_from_slice(body));
    *answer.status_mut() = status;
    let error = refused("try", &answer, &Redactor::new());
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.chars().count() < 4000, "{text}");
    let refusal = error.refusal().expect("there was an answer");
    assert_eq!(refusal.status, status.as_u16());
    assert!(
        refusal.problems.len() <= 20 && refusal.problems.iter().all(|problem| problem.problems.is_empty())
    );
    match error.kind() {
        // Only a refusal can state that a chunk or the whole file is already stored.
        ErrorKind::AlreadySent | ErrorKind::AlreadyFilled => {
            assert!(status.is_client_error() && refusal.slug.is_some() || !refusal.problems.is_empty());
        }
        ErrorKind::Unavailable => assert!(status.is_server_error() || [408, 425].contains(&status.as_u16())),
        _ => {}
    }
});
