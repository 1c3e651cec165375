//! Restarts of an upload from the beginning, for example after its file changed.

use tokio::sync::watch;

use crate::engine::claim::ClaimedUpload;
use crate::engine::command::UploadCommand;
use crate::engine::journal_entry::JournalEntryGuard;
use crate::engine::options::OnChange;
use crate::engine::request::{IfNotBegun, JournalTerms, SourceSpec, StopRequest, UploadRequest};
use crate::error::{Error, ErrorKind, Result};

/// A copy of an upload's request, made to begin the upload anew.
pub(crate) struct RestartPlan {
    pub(crate) request: UploadRequest,
    pub(crate) halted: watch::Receiver<StopRequest>,
    pub(crate) restarts: u32,
    /// `true` if the container that was being filled stays, `false` if it is deleted.
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
    /// Returns the restarts that the claimed upload may need. Each of them is a copy of the request.
    pub(crate) fn of(command: &UploadCommand, claimed: &ClaimedUpload) -> RestartPlans {
        let entry = claimed.record.entry();
        let is_resumed = claimed.doubt.is_some() || entry.is_some_and(|entry| !entry.is_new());
        // Another host may have sent chunks to the video of its job.
        let may_have_chunks = is_resumed || command.request.job_mark.is_some();
        let is_of_another_token = entry.is_some_and(JournalEntryGuard::is_of_another_token);
        RestartPlans {
            changed: RestartPlan::changed(command),
            unproved: may_have_chunks.then(|| RestartPlan::unproved(command)).flatten(),
            with_own_token: is_of_another_token.then(|| RestartPlan::with_own_token(command)).flatten(),
        }
    }
}

impl RestartPlan {
    /// Returns the restart after a change of the file. Returns `None` if none was requested, or if none is possible:
    /// only a file can be read twice, only a container of our own may be deleted, and an upload token does not permit
    /// deletion.
    fn changed(command: &UploadCommand) -> Option<RestartPlan> {
        let is_asked_for = command.request.options.on_change == OnChange::Restart;
        if !is_asked_for || !command.request.options.is_for_new_video() || command.restarts == MAX_RESTARTS {
            return None;
        }
        RestartPlan::with(command, command.restarts + 1, false)
    }

    /// Returns the restart for chunks of an earlier process that are not proved. Returns `None` if the upload was
    /// only to be continued, or if its video was named: the bytes sent are in that video, and another source needs
    /// another video.
    fn unproved(command: &UploadCommand) -> Option<RestartPlan> {
        let options = &command.request.options;
        if is_only_to_continue(&command.request) || options.video_id.is_some() {
            return None;
        }
        let deletes = options.on_change == OnChange::Restart && options.is_for_new_video();
        RestartPlan::with(command, command.restarts, !deletes)
    }

    /// Returns the restart after the service refuses an upload of another token; `None` if the upload cannot continue
    /// one.
    fn with_own_token(command: &UploadCommand) -> Option<RestartPlan> {
        let is_delegated = command.request.options.upload_token.is_some();
        if !is_delegated || is_only_to_continue(&command.request) {
            return None;
        }
        RestartPlan::with(command, command.restarts, false).map(|mut again| {
            again.request.terms.own_token_only = true;
            again
        })
    }

    fn with(command: &UploadCommand, restarts: u32, keeps_container: bool) -> Option<RestartPlan> {
        let UploadRequest { input, len, options, terms, receipt, .. } = &command.request;
        let SourceSpec::File(path) = input else { return None };
        let request = UploadRequest {
            input: SourceSpec::File(path.clone()),
            len: *len,
            options: options.clone(),
            // By then the entry that was to be continued is removed or given up.
            terms: JournalTerms { if_not_begun: IfNotBegun::Begin, ..*terms },
            // The upload begins anew, with another video.
            checkpoint: None,
            // The mark of the job would find the video that is given up.
            job_mark: None,
            receipt: receipt.clone(),
        };
        Some(RestartPlan { request, halted: command.halted.clone(), restarts, keeps_container })
    }

    /// Returns `true` if the upload ended in a way that this restart is for.
    pub(crate) fn applies_to(&self, error: &Error, is_given_back: bool) -> bool {
        // An upload that was asked to end must not begin again.
        (is_given_back || error.kind() == ErrorKind::SourceChanged)
            && *self.halted.borrow() == StopRequest::No
    }
}

/// Returns `true` if the upload was requested as the continuation of an earlier one, from the journal or a checkpoint.
fn is_only_to_continue(request: &UploadRequest) -> bool {
    request.terms.if_not_begun == IfNotBegun::Refuse || request.checkpoint.is_some()
}

/// An upload that begins anew after its container is deleted.
pub(crate) struct PendingRestart {
    pub(crate) command: UploadCommand,
    /// The container to delete, if there is one.
    pub(crate) video_id: Option<String>,
    pub(crate) journal_entry: Option<JournalEntryGuard>,
    /// The error that ended the attempt.
    pub(crate) error: Error,
}

impl PendingRestart {
    /// Returns the upload to begin after the attempt to delete the container. If the deletion failed, the caller gets
    /// the error instead: the restart would leave a second container.
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

/// The restarts of one upload. A file that is still being written changes every time.
const MAX_RESTARTS: u32 = 3;
