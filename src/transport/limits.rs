//! The bounds of an answer.

/// Largest body of an answer, unless its request has an [`AnswerLimit`]. The service's are a few KiB.
pub const ANSWER_LIMIT_BYTES: usize = 1024 * 1024;

/// Most header lines of an answer. Gateways add some to each answer; hyper's default is 100.
pub(super) const HEADER_LINES_LIMIT: usize = 512;

/// An extension of a request that may be answered with a larger body: the bound in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimit(pub usize);
