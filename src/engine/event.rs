//! The driver's events other than lane reports.

use futures_util::future::LocalBoxFuture;
use http::HeaderValue;
use tokio::sync::{mpsc, watch};

use crate::engine::command::UploadCommand;
use crate::engine::creation::{Created, CreationFailure};
use crate::engine::proof::Proof;
use crate::engine::request::StopRequest;
use crate::engine::restart::PendingRestart;
use crate::engine::source::OpenedSource;
use crate::engine::stream_reader::StreamEvent;
use crate::engine::worker::SessionId;
use crate::error::Result;
use crate::journal::SourceIdentity;
use crate::session::ReceivedSet;

/// An event of a session or of the engine, other than a lane report.
pub(crate) enum EngineEvent {
    /// The source was opened and planned, or could not be.
    OpenedSource(SessionId, Box<UploadCommand>, Result<OpenedSource>),
    /// The final check of the source has ended.
    Checked(SessionId, Result<Option<SourceIdentity>>),
    Created(SessionId, Result<Created, CreationFailure>),
    Status(SessionId, Result<ReceivedSet>),
    Renewed(SessionId, Result<Option<HeaderValue>>),
    Authorized(Result<Option<HeaderValue>>),
    StreamRead(SessionId, StreamEvent, mpsc::Receiver<StreamEvent>),
    /// The stream has no more chunks.
    StreamEnded(SessionId),
    StopRequested(SessionId, StopRequest, watch::Receiver<StopRequest>),
    /// The chunks of an earlier process were compared with the file.
    Proved(SessionId, Result<Proof>),
    /// The container of an upload that begins anew is deleted, or could not be deleted.
    RestartCleaned(Box<PendingRestart>, Result<()>),
    /// A task without a result for the driver has ended.
    TaskDone,
}

/// Waits for the next chunk of a stream, or for its end.
pub(crate) fn next_stream_event(
    id: SessionId,
    mut inbox: mpsc::Receiver<StreamEvent>,
) -> LocalBoxFuture<'static, EngineEvent> {
    Box::pin(async move {
        match inbox.recv().await {
            Some(stream_event) => EngineEvent::StreamRead(id, stream_event, inbox),
            None => EngineEvent::StreamEnded(id),
        }
    })
}

/// Waits until the stop request changes.
pub(crate) fn next_stop_request(
    id: SessionId,
    mut halted: watch::Receiver<StopRequest>,
) -> LocalBoxFuture<'static, EngineEvent> {
    Box::pin(async move {
        // Also returns for a request before this wait: nothing has marked it as seen.
        let halt = match halted.changed().await {
            Ok(()) => *halted.borrow_and_update(),
            // The upload's handle was dropped, which cancels the upload.
            Err(_) => StopRequest::Now,
        };
        EngineEvent::StopRequested(id, halt, halted)
    })
}
