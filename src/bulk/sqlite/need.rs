//! The needs of requests, which decide the transaction that serves them.

/// The needs of a request, the least one first. A transaction serves the highest of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// The request only reads.
    Read,
    /// The change must survive the process.
    Write,
    /// The change must survive a power failure.
    Disk,
}
