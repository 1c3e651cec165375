//! The size limits of an answer, and of a body on its way to TLS.

/// Largest body of an answer, unless its request has an [`AnswerLimit`]. The service's are a few KiB.
pub(crate) const ANSWER_LIMIT_BYTES: usize = 1024 * 1024;

/// Most header lines of an answer. Gateways add some to each answer; hyper's default is 100.
pub(super) const HEADER_LINES_LIMIT: usize = 512;

/// Encrypted bytes that wait for the socket: sixteen full records, sent by one `sendmsg` each time it has room.
pub(super) const TLS_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// A request extension that sets another limit for the answer's body, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerLimit(pub usize);
