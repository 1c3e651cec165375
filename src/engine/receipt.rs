//! The receipt of a successful upload.

/// The state of the caller's receipt for a successful upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiptState {
    /// The caller has not received the result.
    Pending,
    /// The caller has received the result, but the larger work that it belongs to is not over.
    Remembered,
    /// The caller has received the result.
    Confirmed,
}
