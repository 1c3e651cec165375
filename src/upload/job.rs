//! What the handles ask the driver for.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{oneshot, watch};

use crate::api::Api;
use crate::error::Result;
use crate::upload::control::Control;
use crate::upload::happening::Followers;
use crate::upload::restart::InVain;
use crate::upload::retry::RetryPolicy;
use crate::upload::{OnProgress, Progress, UploadRequest, Uploaded};

/// What the handles ask for.
pub(super) enum Command {
    Upload(Box<Job>),
    Call(Call),
}

/// A call of the service's API, run beside the uploads.
pub(super) type Call = Box<dyn FnOnce(Rc<Api<Control>>, RetryPolicy) -> Task + Send>;

/// Something that runs on the driver's thread.
pub(super) type Task = LocalBoxFuture<'static, ()>;

/// An upload as it was asked for.
pub(super) struct Job {
    pub(super) request: UploadRequest,
    pub(super) reply: oneshot::Sender<Result<Uploaded>>,
    pub(super) publish: watch::Sender<Progress>,
    pub(super) followers: Followers,
    pub(super) halted: watch::Receiver<Halt>,
    pub(super) on_progress: Option<OnProgress>,
    /// How often it has begun anew.
    pub(super) restarts: u32,
    pub(super) in_vain: InVain,
}

impl Job {
    pub(super) fn new(
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

/// Whether an upload is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    No,
    /// When the chunks under way have their answers.
    AfterChunks,
    Now,
}
