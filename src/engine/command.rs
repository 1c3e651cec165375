//! The commands from the handles to the driver.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{oneshot, watch};

use crate::api::Api;
use crate::engine::control::Control;
use crate::engine::event_log::Followers;
use crate::engine::progress::Progress;
use crate::engine::request::{OnProgress, StopRequest, UploadRequest, Uploaded};
use crate::engine::upload_record::CheckpointSender;
use crate::error::Result;
use crate::session::retry::RetryPolicy;

/// A command from a handle.
pub(crate) enum EngineCommand {
    Upload(Box<UploadCommand>),
    DriverCall(DriverCall),
}

/// A call of the service's API, run beside the uploads.
pub(crate) type DriverCall = Box<dyn FnOnce(Rc<Api<Control>>, RetryPolicy) -> DriverTask + Send>;

/// A future that runs on the driver's thread.
pub(crate) type DriverTask = LocalBoxFuture<'static, ()>;

/// An upload to begin, with the channels to its caller.
pub(crate) struct UploadCommand {
    pub(crate) request: UploadRequest,
    pub(crate) reply: oneshot::Sender<Result<Uploaded>>,
    pub(crate) publish: watch::Sender<Progress>,
    pub(crate) followers: Followers,
    pub(crate) checkpoints: CheckpointSender,
    pub(crate) halted: watch::Receiver<StopRequest>,
    pub(crate) on_progress: Option<OnProgress>,
    /// The number of restarts so far.
    pub(crate) restarts: u32,
    pub(crate) wasted: WastedWork,
}

impl UploadCommand {
    pub(crate) fn new(
        request: UploadRequest,
        reply: oneshot::Sender<Result<Uploaded>>,
        publish: watch::Sender<Progress>,
        followers: Followers,
        checkpoints: CheckpointSender,
        halted: watch::Receiver<StopRequest>,
        on_progress: Option<OnProgress>,
    ) -> UploadCommand {
        UploadCommand {
            request,
            reply,
            publish,
            followers,
            checkpoints,
            halted,
            on_progress,
            restarts: 0,
            wasted: WastedWork::default(),
        }
    }
}

/// The repeated work of earlier attempts at an upload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WastedWork {
    pub(crate) retries: u32,
    pub(crate) bytes: u64,
}
