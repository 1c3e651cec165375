//! What the handles ask the driver for.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{oneshot, watch};

use crate::api::Api;
use crate::engine::control::Control;
use crate::engine::event_log::Followers;
use crate::engine::progress::Progress;
use crate::engine::request::{Halt, OnProgress, UploadRequest, Uploaded};
use crate::error::Result;
use crate::session::retry::RetryPolicy;

/// What the handles ask for.
pub(crate) enum Command {
    Upload(Box<Job>),
    Call(Call),
}

/// A call of the service's API, run beside the uploads.
pub(crate) type Call = Box<dyn FnOnce(Rc<Api<Control>>, RetryPolicy) -> Task + Send>;

/// Something that runs on the driver's thread.
pub(crate) type Task = LocalBoxFuture<'static, ()>;

/// An upload as it was asked for.
pub(crate) struct Job {
    pub(crate) request: UploadRequest,
    pub(crate) reply: oneshot::Sender<Result<Uploaded>>,
    pub(crate) publish: watch::Sender<Progress>,
    pub(crate) followers: Followers,
    pub(crate) halted: watch::Receiver<Halt>,
    pub(crate) on_progress: Option<OnProgress>,
    /// How often it has begun anew.
    pub(crate) restarts: u32,
    pub(crate) in_vain: InVain,
}

impl Job {
    pub(crate) fn new(
        request: UploadRequest,
        reply: oneshot::Sender<Result<Uploaded>>,
        publish: watch::Sender<Progress>,
        followers: Followers,
        halted: watch::Receiver<Halt>,
        on_progress: Option<OnProgress>,
    ) -> Job {
        Job {
            request,
            reply,
            publish,
            followers,
            halted,
            on_progress,
            restarts: 0,
            in_vain: InVain::default(),
        }
    }
}

/// What earlier attempts at an upload sent in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InVain {
    pub(crate) retries: u32,
    pub(crate) bytes: u64,
}
