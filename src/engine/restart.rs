//! An upload whose file changed under it, and that begins anew.

use tokio::sync::watch;

use crate::engine::command::UploadCommand;
use crate::engine::journal_entry::JournalEntryGuard;
use crate::engine::request::{Destination, IfNotBegun, OnChange, SourceSpec, StopRequest, UploadRequest};
use crate::error::{Error, ErrorKind, Result};

/// What it takes to begin an upload anew.
pub(crate) struct RestartPlan {
    pub(crate) request: UploadRequest,
    pub(crate) halted: watch::Receiver<StopRequest>,
    pub(crate) restarts: u32,
    /// `true` where the container that was being filled stays, `false` where it is deleted.
    pub(crate) keeps_container: bool,
}

/// The restarts that an upload may need, each with its own cause.
pub(crate) struct RestartPlans {
    /// The restart after the file changed.
    pub(crate) changed: Option<RestartPlan>,
    /// The restart after chunks of an earlier process were not proved.
    pub(crate) unproved: Option<RestartPlan>,
    /// The restart after the service refused an upload that another upload token began.
    pub(crate) with_own_token: Option<RestartPlan>,
}

impl RestartPlans {
    pub(crate) fn of(command: &UploadCommand) -> RestartPlans {
        RestartPlans {
            changed: RestartPlan::changed(command),
            unproved: RestartPlan::unproved(command),
            with_own_token: RestartPlan::with_own_token(command),
        }
    }
}

impl RestartPlan {
    /// `None` for an upload that is not to begin anew, or cannot: only a file is read twice, only a
    /// container of our own is deleted, and an upload token does not suffice for that.
    fn changed(command: &UploadCommand) -> Option<RestartPlan> {
        let is_asked_for = command.request.on_change == OnChange::Restart;
        if !is_asked_for || !is_for_new_video(&command.request) || command.restarts == MAX_RESTARTS {
            return None;
        }
        RestartPlan::with(command, command.restarts + 1, false)
    }

    /// For an upload that an earlier process began and whose chunks are not proved. `None` where it was only to be
    /// continued, or where the bytes that were sent went into a video that was named: its next source needs another.
    fn unproved(command: &UploadCommand) -> Option<RestartPlan> {
        let names_video = match &command.request.destination {
            None | Some(Destination::NewVideo(_) | Destination::Delegated { video_id: None, .. }) => false,
            Some(Destination::Video(_) | Destination::Delegated { video_id: Some(_), .. }) => true,
        };
        if command.request.if_not_begun == IfNotBegun::Refuse || names_video {
            return None;
        }
        let deletes = command.request.on_change == OnChange::Restart && is_for_new_video(&command.request);
        RestartPlan::with(command, command.restarts, !deletes)
    }

    /// For an upload that may take up what another upload token began; `None` for one that cannot.
    fn with_own_token(command: &UploadCommand) -> Option<RestartPlan> {
        let is_delegated = matches!(command.request.destination, Some(Destination::Delegated { .. }));
        if !is_delegated || command.request.if_not_begun == IfNotBegun::Refuse {
            return None;
        }
        RestartPlan::with(command, command.restarts, false).map(|mut again| {
            again.request.own_token_only = true;
            again
        })
    }

    fn with(command: &UploadCommand, restarts: u32, keeps_container: bool) -> Option<RestartPlan> {
        let UploadRequest { input, destination, video, mode, chunk_size, expected_bytes, .. } =
            &command.request;
        let SourceSpec::File(path) = input else { return None };
        let request = UploadRequest {
            input: SourceSpec::File(path.clone()),
            destination: destination.clone(),
            video: video.clone(),
            mode: *mode,
            chunk_size: *chunk_size,
            expected_bytes: *expected_bytes,
            on_change: command.request.on_change,
            if_not_begun: IfNotBegun::Begin,
            own_token_only: command.request.own_token_only,
            again: command.request.again,
            receipt: command.request.receipt.clone(),
        };
        Some(RestartPlan { request, halted: command.halted.clone(), restarts, keeps_container })
    }

    /// Whether this is the end of an attempt that it was kept for.
    pub(crate) fn applies_to(&self, error: &Error, is_given_back: bool) -> bool {
        (is_given_back || error.kind() == ErrorKind::SourceChanged)
            && *self.halted.borrow() == StopRequest::No
    }
}

fn is_for_new_video(request: &UploadRequest) -> bool {
    matches!(request.destination, None | Some(Destination::NewVideo(_)))
}

/// An upload that begins anew once its container is gone.
pub(crate) struct PendingRestart {
    pub(crate) command: UploadCommand,
    /// The container that was being filled, if there is one.
    pub(crate) video_id: Option<String>,
    pub(crate) journal_entry: Option<JournalEntryGuard>,
    /// How the attempt ended.
    pub(crate) error: Error,
}

impl PendingRestart {
    /// The upload to begin, once it was tried to delete the container. What could not be deleted is told
    /// to the caller: two containers would be one too many.
    pub(crate) fn deleted(self, deleted: Result<()>) -> Option<Box<UploadCommand>> {
        let PendingRestart { command, video_id, journal_entry, error } = self;
        match deleted {
            Err(refused) if refused.kind() != ErrorKind::NotFound => {
                tracing::warn!(error = %refused, "the container of the file that changed could not be deleted");
                journal_entry.into_iter().for_each(JournalEntryGuard::abandoned);
                let error = video_id.into_iter().fold(error, Error::with_video_id);
                // The caller may have dropped its future.
                let _ = command.reply.send(Err(error));
                None
            }
            Ok(()) | Err(_) => {
                journal_entry.into_iter().for_each(JournalEntryGuard::finished);
                Some(Box::new(command))
            }
        }
    }
}

/// A file that is still being written will change again.
const MAX_RESTARTS: u32 = 3;
