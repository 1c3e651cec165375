//! Everything that reaches the driver beside the reports of the lanes.

use http::HeaderValue;
use tokio::sync::{mpsc, watch};

use crate::engine::command::UploadCommand;
use crate::engine::creation::Created;
use crate::engine::proof::Proof;
use crate::engine::request::StopRequest;
use crate::engine::restart::PendingRestart;
use crate::engine::source::OpenedSource;
use crate::engine::stream_reader::StreamEvent;
use crate::engine::worker::SessionId;
use crate::error::Result;
use crate::journal::SourceIdentity;
use crate::session::ReceivedSet;

/// What happened to a session beside its lanes.
pub(crate) enum EngineEvent {
    /// Its source was opened and cut, or could not be.
    OpenedSource(SessionId, Box<UploadCommand>, Result<OpenedSource>),
    /// Whether its source is at the end what it was.
    Checked(SessionId, Result<Option<SourceIdentity>>),
    Created(SessionId, Result<Created>),
    Status(SessionId, Result<ReceivedSet>),
    Renewed(SessionId, Result<Option<HeaderValue>>),
    Authorized(Result<Option<HeaderValue>>),
    Filled(SessionId, StreamEvent, mpsc::Receiver<StreamEvent>),
    /// Its stream gives nothing more.
    Dried(SessionId),
    Halted(SessionId, StopRequest, watch::Receiver<StopRequest>),
    /// The chunks of an earlier process were compared with the file.
    Proved(SessionId, Result<Proof>),
    /// The container of an upload that begins anew is gone, or could not be deleted.
    Cleared(Box<PendingRestart>, Result<()>),
    /// A call beside the uploads ended, or an upload was forgotten.
    ChunkResult,
}
