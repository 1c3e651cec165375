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

/// The state of the last check of the source.
pub(super) enum SourceCheck {
    Due,
    Running,
    /// The file's identity at the end; `None` for a stream.
    Finished(Result<Option<SourceIdentity>>),
}
