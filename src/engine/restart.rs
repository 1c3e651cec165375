//! An upload whose file changed under it, and that begins anew.

use tokio::sync::watch;

use crate::engine::job::Job;
use crate::engine::record::Record;
use crate::engine::request::{Destination, Halt, Input, OnChange, Unbegun, UploadRequest};
use crate::error::{Error, ErrorKind, Result};

/// What it takes to begin an upload anew.
pub(crate) struct Again {
    pub(crate) request: UploadRequest,
    pub(crate) halted: watch::Receiver<Halt>,
    pub(crate) restarts: u32,
    /// `true` where the container that was being filled stays, `false` where it is deleted.
    pub(crate) keeps_container: bool,
}

impl Again {
    /// `None` for an upload that is not to begin anew, or cannot: only a file is read twice, only a
    /// container of our own is deleted, and an upload token does not suffice for that.
    pub(crate) fn of(job: &Job) -> Option<Again> {
        let is_asked_for = job.request.on_change == OnChange::Restart;
        if !is_asked_for || !is_for_new_video(&job.request) || job.restarts == MAX_RESTARTS {
            return None;
        }
        Again::with(job, job.restarts + 1, false)
    }

    /// For an upload that an earlier process began and whose chunks are not proved. `None` where it was only to be
    /// continued, or where the bytes that were sent went into a video that was named: its next source needs another.
    pub(crate) fn unproved(job: &Job) -> Option<Again> {
        let names_video = match &job.request.destination {
            None | Some(Destination::NewVideo(_) | Destination::Delegated { video_id: None, .. }) => false,
            Some(Destination::Video(_) | Destination::Delegated { video_id: Some(_), .. }) => true,
        };
        if job.request.unbegun == Unbegun::Refuse || names_video {
            return None;
        }
        let deletes = job.request.on_change == OnChange::Restart && is_for_new_video(&job.request);
        Again::with(job, job.restarts, !deletes)
    }

    /// For an upload that may take up what another upload token began; `None` for one that cannot.
    pub(crate) fn with_own_token(job: &Job) -> Option<Again> {
        let is_delegated = matches!(job.request.destination, Some(Destination::Delegated { .. }));
        if !is_delegated || job.request.unbegun == Unbegun::Refuse {
            return None;
        }
        Again::with(job, job.restarts, false).map(|mut again| {
            again.request.own_token_only = true;
            again
        })
    }

    fn with(job: &Job, restarts: u32, keeps_container: bool) -> Option<Again> {
        let UploadRequest { input, destination, video, mode, chunk_size, expected_bytes, .. } = &job.request;
        let Input::File(path) = input else { return None };
        let request = UploadRequest {
            input: Input::File(path.clone()),
            destination: destination.clone(),
            video: video.clone(),
            mode: *mode,
            chunk_size: *chunk_size,
            expected_bytes: *expected_bytes,
            on_change: job.request.on_change,
            unbegun: Unbegun::Begin,
            own_token_only: job.request.own_token_only,
            again: job.request.again,
            news: job.request.news.clone(),
        };
        Some(Again { request, halted: job.halted.clone(), restarts, keeps_container })
    }

    /// Whether this is the end of an attempt that it was kept for.
    pub(crate) fn suits(&self, error: &Error, is_given_back: bool) -> bool {
        (is_given_back || error.kind() == ErrorKind::SourceChanged) && *self.halted.borrow() == Halt::No
    }
}

fn is_for_new_video(request: &UploadRequest) -> bool {
    matches!(request.destination, None | Some(Destination::NewVideo(_)))
}

/// An upload that begins anew once its container is gone.
pub(crate) struct Restart {
    pub(crate) job: Job,
    /// The container that was being filled, if there is one.
    pub(crate) video_id: Option<String>,
    pub(crate) record: Option<Record>,
    /// How the attempt ended.
    pub(crate) error: Error,
}

impl Restart {
    /// The upload to begin, once it was tried to delete the container. What could not be deleted is told
    /// to the caller: two containers would be one too many.
    pub(crate) fn cleared(self, deleted: Result<()>) -> Option<Box<Job>> {
        let Restart { job, video_id, record, error } = self;
        match deleted {
            Err(refused) if refused.kind() != ErrorKind::NotFound => {
                tracing::warn!(error = %refused, "the container of the file that changed could not be deleted");
                record.into_iter().for_each(Record::abandoned);
                let error = video_id.into_iter().fold(error, Error::with_video_id);
                // The caller may have dropped its future.
                let _ = job.reply.send(Err(error));
                None
            }
            Ok(()) | Err(_) => {
                record.into_iter().for_each(Record::finished);
                Some(Box::new(job))
            }
        }
    }
}

/// A file that is still being written will change again.
const MAX_RESTARTS: u32 = 3;
