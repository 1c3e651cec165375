//! The states at the end of an upload.

use futures_util::future::LocalBoxFuture;

use crate::engine::restart::PendingRestart;
use crate::error::Result;
use crate::journal::SourceIdentity;

/// The work that is left for the driver after an upload.
pub(crate) enum TransferEnd {
    Over,
    /// The journal entry stays until the caller confirms the receipt; this future removes the entry then.
    AwaitsReceipt(LocalBoxFuture<'static, ()>),
    /// The upload begins anew.
    Restart(Box<PendingRestart>),
}

/// Knowledge of the container that this upload creates by a request of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CreationState {
    /// No request was made.
    NotRequested,
    /// A request was made. The container may exist.
    Possible,
    /// Every request was refused, or never arrived.
    Excluded,
}

/// The state of the last check of the source.
pub(super) enum SourceCheck {
    Due,
    Running,
    /// The file's identity at the end; `None` for a stream.
    Finished(Result<Option<SourceIdentity>>),
}
