//! The server's answer, read whole and bounded, or the reason why there is none.

use std::error::Error;
use std::future::Future;
use std::io;

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::error::TransportError;
use super::limits::{ANSWER_LIMIT_BYTES, AnswerLimit};
use super::peer::Peer;
use super::region::FileFailure;
use super::request_state::RequestState;
use super::tls::{self, TlsStage};

/// Reads the head, then the body.
///
/// A refusal that arrives before the request's last byte stops the request: the server would not read the
/// rest. The body of a refusal may be cut off, since its head is enough.
pub(super) async fn collect(
    reply: impl Future<Output = hyper::Result<Response<Incoming>>>,
    state: &RequestState,
    peer: &Peer,
    AnswerLimit(limit_bytes): AnswerLimit,
) -> Result<Response<Bytes>, TransportError> {
    let (head, mut body) = reply.await.map_err(|error| explain(&error, state, peer))?.into_parts();
    // At the head: an endpoint that answers is the right one, whatever becomes of the body.
    peer.history.note_answer(head.headers.len());
    let refused = !head.status.is_success();
    if refused && !state.is_fully_sent() {
        state.stop_sending();
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            // A frame of trailers has no data.
            Ok(frame) => frame.into_data().unwrap_or_default(),
            // The head of a refusal is enough, and a server that refuses early often resets the connection.
            Err(_) if refused => break,
            Err(error) => return Err(explain(&error, state, peer)),
        };
        // Before the copy: a body without an end must not fill the memory.
        if collected.len() + data.len() > limit_bytes {
            return Err(TransportError::AnswerTooLarge { limit_bytes, sent: state.sent() });
        }
        collected.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, collected.freeze()))
}

/// Returns the reason why hyper failed a request. The recorded errors of file, body and socket are more
/// precise than hyper's own and take precedence.
fn explain(error: &hyper::Error, state: &RequestState, peer: &Peer) -> TransportError {
    if let Some(failure) = state.take_file_failure() {
        return file_failed(failure);
    }
    if let Some(body) = state.take_body_error() {
        return TransportError::Body(body);
    }
    if let Some(tls) = tls::tls_error(error) {
        return tls::refused(&peer.authority, &peer.history, tls, TlsStage::Connected, state.sent());
    }
    let sent = state.sent();
    if error.is_parse_too_large() {
        return TransportError::AnswerTooLarge { limit_bytes: ANSWER_LIMIT_BYTES, sent: state.sent() };
    }
    if let Some(wrong) = wrong_protocol(state, peer) {
        return wrong;
    }
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        _ if error.is_user() => TransportError::Body(describe(error).into()),
        _ if error.is_parse() => {
            TransportError::Malformed { reason: describe(error), wrong_protocol: false, sent }
        }
        Some(cause) => io_failed(cause, state),
        None => ended(state),
    }
}

/// Returns the final error for a peer that does not speak HTTP, at an endpoint that has never answered.
pub(super) fn wrong_protocol(state: &RequestState, peer: &Peer) -> Option<TransportError> {
    let foreign = state.foreign().filter(|_| !peer.history.has_answered())?;
    let sent = state.sent();
    Some(TransportError::Malformed { reason: foreign.to_string(), wrong_protocol: true, sent })
}

fn file_failed(failure: FileFailure) -> TransportError {
    match failure {
        FileFailure::Truncated { offset } => TransportError::FileTruncated { offset },
        FileFailure::Unreadable { offset, reason } => TransportError::FileRead { offset, reason },
    }
}

fn io_failed(error: &io::Error, state: &RequestState) -> TransportError {
    let sent = state.sent();
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => TransportError::Reset { sent },
        io::ErrorKind::UnexpectedEof => ended(state),
        // hyper reports a malformed chunked coding (RFC 9112, section 7.1) as one of these.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            TransportError::Malformed { reason: error.to_string(), wrong_protocol: false, sent }
        }
        kind => TransportError::Lost { reason: copied(error, kind), sent },
    }
}

/// Returns the error of a closed connection. A failed write has consumed the socket's error, so that reading
/// sees a plain end.
pub(super) fn ended(state: &RequestState) -> TransportError {
    let sent = state.sent();
    match state.write_error() {
        None => TransportError::Closed { sent },
        Some(io::ErrorKind::TimedOut) => {
            TransportError::Lost { reason: io::ErrorKind::TimedOut.into(), sent }
        }
        Some(_) => TransportError::Reset { sent },
    }
}

/// Returns hyper's message with that of the cause, which hyper's `Display` leaves out.
fn describe(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Copies an `io::Error`, which is not `Clone`.
fn copied(error: &io::Error, kind: io::ErrorKind) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(kind, error.to_string()),
    }
}
