//! The end of an upload: its journal entry and the reply to its caller.

use std::mem;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::Transfer;
use super::end::{CreationState, SourceCheck, TransferEnd};
use crate::engine::command::{UploadCommand, WastedWork};
use crate::engine::counters::CountedEnd;
use crate::engine::event::EngineEvent;
use crate::engine::journal_entry::JournalEntryGuard;
use crate::engine::request::Uploaded;
use crate::engine::restart::{PendingRestart, RestartPlan};
use crate::engine::source::{UploadSource, within_patience};
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::SourceIdentity;
use crate::session::event::{FailureSummary, UploadEvent};
use crate::session::retry::AttemptKind;
use crate::source::{FileIdentity, SourceFile};

impl Transfer {
    /// Replies to the caller, unless the upload begins anew.
    pub(crate) fn finish(mut self) -> TransferEnd {
        self.publish_checkpoint();
        self.publish_progress();
        self.report_events();
        // Lanes still at a chunk of this upload drop it, and workers close its source.
        self.cancel.send_replace(true);
        let uploaded = match self.session.take_result() {
            Some(Ok(_)) => {
                let checked = self.take_check();
                self.report_touched();
                let uploaded = checked.map(|found| (self.uploaded(), found));
                // A container that one request filled is not in the journal yet, and `clean` needs its id.
                uploaded.inspect_err(|_| self.record_own_container())
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Internal, "end an upload that had no end")),
        };
        // The earlier token keeps its progress; this upload starts over with its own token.
        let is_given_back = uploaded.as_ref().is_err_and(|error| self.is_refused_to_another_token(error));
        if is_given_back {
            let file = &self.file_name;
            tracing::warn!(%file, "the service does not let this upload token go on with another token's video");
            self.record.take_entry().into_iter().for_each(JournalEntryGuard::given_back);
            self.plans.changed = self.plans.with_own_token.take();
        }
        let uploaded = match (uploaded, self.plans.changed.take()) {
            (Err(error), Some(again)) if again.applies_to(&error, is_given_back) => {
                return TransferEnd::Restart(Box::new(self.restart(again, error)));
            }
            (uploaded, _) => uploaded,
        };
        let uploaded = uploaded.map_err(|error| self.with_container(error));
        if self.created_nothing() {
            self.record.withdrawn();
        }
        let end = self.end_entry(&uploaded);
        // The end may have changed the checkpoint.
        self.publish_checkpoint();
        self.counters.ended(CountedEnd::of(&uploaded));
        // The caller may have dropped its future.
        let _ = self.reply.send(uploaded.map(|(uploaded, _)| uploaded));
        end
    }

    /// Ends the journal entry as the result requires, or leaves it for the next run.
    fn end_entry(&mut self, uploaded: &Result<(Uploaded, Option<SourceIdentity>)>) -> TransferEnd {
        let (journal_entry, receipt) = (self.record.take_entry(), self.receipt.take());
        let Some(journal_entry) = journal_entry else { return TransferEnd::Over };
        match (uploaded, receipt) {
            // Kept until the receipt is confirmed: a crash before that would send the file again.
            (Ok((uploaded, found)), Some(receipt)) => {
                let finished = journal_entry.finished_when(receipt, uploaded.video_id.clone(), *found);
                return TransferEnd::AwaitsReceipt(Box::pin(finished));
            }
            (Ok(_), None) => journal_entry.finished(),
            // Kept, such an entry would be listed as an upload to resume for ever.
            (Err(_), _) if self.left_nothing() => journal_entry.never_begun(),
            (Err(error), _) if !self.may_continue(error) => journal_entry.abandoned(),
            // Left in the journal for the next run.
            (Err(_), _) => {}
        }
        TransferEnd::Over
    }

    /// Adds the container that this upload created to its error.
    fn with_container(&self, error: Error) -> Error {
        match self.session.video_id() {
            // A container of the caller is no news to the caller, and not this upload's to delete.
            Some(video_id) if self.made_container => {
                let error = error.with_video_id(video_id);
                if self.session.is_incomplete() { error.and_incomplete() } else { error }
            }
            _ => error,
        }
    }

    fn restart(self, again: RestartPlan, error: Error) -> PendingRestart {
        let left = self.session.video_id().map(str::to_owned);
        self.event_sink
            .emit(UploadEvent::BeginsAnew { video_id: left, why: FailureSummary::from(&error).message });
        // The stored bytes too: the new video needs them again.
        let wasted = WastedWork {
            retries: self.retries(),
            bytes: self.resent_bytes() + self.session.chunks().stored_bytes(),
        };
        // The video was begun with another upload token, which may still continue it: keep the video.
        let video_id = self.session.video_id().filter(|_| self.needs_key()).map(str::to_owned);
        let Transfer { reply, publish, on_progress, record, event_sink, .. } = self;
        let (journal_entry, checkpoints) = record.into_parts();
        let followers = event_sink.into_followers();
        let RestartPlan { request, halted, restarts, keeps_container } = again;
        let command = UploadCommand {
            request,
            reply,
            publish,
            followers,
            checkpoints,
            halted,
            on_progress,
            restarts,
            wasted,
        };
        if keeps_container {
            journal_entry.into_iter().for_each(JournalEntryGuard::abandoned);
            // Only an upload to a new video with `OnChange::Restart` may delete the container.
            return PendingRestart { command, video_id: None, journal_entry: None, error };
        }
        PendingRestart { command, video_id, journal_entry, error }
    }

    /// Returns `true` if the service refused this upload token for a video that another token began.
    ///
    /// The service refuses a token of another account in these ways. A chunk already accepted with this token would
    /// prove that both belong to one account.
    fn is_refused_to_another_token(&self, error: &Error) -> bool {
        let is_refused = match (error.kind(), error.refusal()) {
            (ErrorKind::NotFound, _) => true,
            (ErrorKind::NotAuthorized, Some(refusal)) => refusal.status == 403,
            (ErrorKind::Refused, Some(refusal)) => refusal.name.as_deref() == Some("videoId"),
            _ => false,
        };
        is_refused && self.record.entry().is_some_and(JournalEntryGuard::is_of_another_token)
    }

    /// Returns `true` if the same command, run again, can continue this upload.
    fn may_continue(&self, error: &Error) -> bool {
        self.source.file().is_some() && error.is_resumable()
    }

    /// Returns `true` if no attempt at the first chunk of a delegated upload can have created a video.
    fn created_nothing(&self) -> bool {
        let chunks = self.session.chunks();
        // A second attempt means that the first one may have arrived.
        let never_arrived = chunks.known() == 0 || chunks.record(0).attempt == AttemptKind::First;
        !self.needs_key() && self.session.video_id().is_none() && self.lanes.is_empty() && never_arrived
    }

    /// Returns `true` if neither this upload nor an earlier one of its journal entry can have created a video, and
    /// none was named.
    fn left_nothing(&self) -> bool {
        let is_excluded = match self.creation {
            CreationState::NotRequested => self.left_mark.is_none() && self.job_mark.is_none(),
            CreationState::Excluded => true,
            CreationState::Possible => false,
        };
        let is_excluded = if self.needs_key() { is_excluded } else { self.created_nothing() };
        self.session.video_id().is_none() && is_excluded && !self.may_have_orphan
    }

    /// Returns `true` while the final check of the source runs.
    pub(super) fn is_checking_source(&self) -> bool {
        matches!(self.source_check, SourceCheck::Running)
    }

    /// Starts the final check that the file is unchanged. Returns `None` if no check is needed, or if one was made
    /// already.
    ///
    /// The check runs on a blocking thread, and fails when the disk gives no answer for `silence`.
    pub(crate) fn check_source(
        &mut self,
        id: SessionId,
        silence: Duration,
    ) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        let file = self.source.file().filter(|_| self.session.is_complete())?.clone();
        if !matches!(self.source_check, SourceCheck::Due) {
            return None;
        }
        self.source_check = SourceCheck::Running;
        Some(Box::pin(async move {
            let path = file.path().to_owned();
            let check = move || Ok(Some(as_found(&file, &file.check_unchanged()?)));
            EngineEvent::Checked(id, within_patience(path, silence, check).await)
        }))
    }

    /// Takes the check of a chunk that is the whole file for the final check: the lane made it after the answer, and a
    /// second one would cost more system calls than the upload of a small file.
    pub(super) fn take_check_of_whole(&mut self, checked: Option<FileIdentity>) {
        let (Some(file), Some(now)) = (self.source.file(), checked) else { return };
        if self.session.is_complete() && self.session.chunks().known() == 1 {
            self.source_check = SourceCheck::Finished(Ok(Some(as_found(file, &now))));
        }
    }

    /// Takes in the result of the final check.
    pub(crate) fn checked(&mut self, checked: Result<Option<SourceIdentity>>) {
        self.source_check = SourceCheck::Finished(checked);
    }

    fn take_check(&mut self) -> Result<Option<SourceIdentity>> {
        match mem::replace(&mut self.source_check, SourceCheck::Due) {
            SourceCheck::Finished(checked) => checked,
            // Streams and bytes in memory cannot change, so that they have no check.
            SourceCheck::Due | SourceCheck::Running => Ok(None),
        }
    }

    /// Returns the result of the upload. Takes the description of the video.
    fn uploaded(&mut self) -> Uploaded {
        let video = self.video.take();
        let chunks = self.session.chunks();
        Uploaded {
            video_id: self.session.video_id().unwrap_or_default().to_owned(),
            video,
            bytes: chunks.total_bytes().unwrap_or_else(|| chunks.stored_bytes()),
            sent_bytes: chunks.sent_bytes(),
            chunks: chunks.known(),
            addressing: chunks.addressing(),
            reader: match &self.source {
                UploadSource::File { choice, .. } => Some(choice.reader),
                UploadSource::Memory { .. } | UploadSource::Stream { .. } => None,
            },
            retries: self.retries(),
            resent_bytes: self.resent_bytes(),
            elapsed: self.begun.elapsed(),
            already: false,
        }
    }
}

/// Returns the identity of a file that a check found unchanged. Only ctime is new: the check has compared the rest.
fn as_found(file: &SourceFile, now: &FileIdentity) -> SourceIdentity {
    SourceIdentity { ctime_ns: now.ctime_ns, ..SourceIdentity::from(file) }
}
