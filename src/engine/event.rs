//! Everything that reaches the driver beside the reports of the lanes.

use http::HeaderValue;
use tokio::sync::{mpsc, watch};

use crate::engine::creation::Created;
use crate::engine::feed::Filling;
use crate::engine::job::Job;
use crate::engine::proof::Proof;
use crate::engine::request::Halt;
use crate::engine::restart::Restart;
use crate::engine::supplies::Opened;
use crate::engine::worker::SessionId;
use crate::error::Result;
use crate::journal::Identity;
use crate::session::Received;

/// What happened to a session beside its lanes.
pub(crate) enum Event {
    /// Its source was opened and cut, or could not be.
    Opened(SessionId, Box<Job>, Result<Opened>),
    /// Whether its source is at the end what it was.
    Checked(SessionId, Result<Option<Identity>>),
    Created(SessionId, Result<Created>),
    Status(SessionId, Result<Received>),
    Renewed(SessionId, Result<Option<HeaderValue>>),
    Authorized(Result<Option<HeaderValue>>),
    Filled(SessionId, Filling, mpsc::Receiver<Filling>),
    /// Its stream gives nothing more.
    Dried(SessionId),
    Halted(SessionId, Halt, watch::Receiver<Halt>),
    /// The chunks of an earlier process were compared with the file.
    Proved(SessionId, Result<Proof>),
    /// The container of an upload that begins anew is gone, or could not be deleted.
    Cleared(Box<Restart>, Result<()>),
    /// A call beside the uploads ended, or an upload was forgotten.
    Done,
}
