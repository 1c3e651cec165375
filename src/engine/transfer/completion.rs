//! The end of an upload: what becomes of its journal entry, and what its caller is told.

use std::mem;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::Transfer;
use crate::engine::command::{UploadCommand, WastedWork};
use crate::engine::event::EngineEvent;
use crate::engine::journal_entry::JournalEntryGuard;
use crate::engine::request::Uploaded;
use crate::engine::restart::{PendingRestart, RestartPlan};
use crate::engine::source::{UploadSource, answered};
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::SourceIdentity;
use crate::session::event::{UploadEvent, Why};
use crate::session::retry::AttemptKind;

/// What is left to do after an upload.
pub(crate) enum TransferEnd {
    Over,
    /// To forget it, once whoever asked has heard of it.
    Unheard(LocalBoxFuture<'static, ()>),
    /// To begin it anew.
    RestartPlan(Box<PendingRestart>),
}

/// The last look at the source.
pub(super) enum Check {
    Due,
    Asked,
    /// With the file as it was found; `None` for what is no file.
    ChunkResult(Result<Option<SourceIdentity>>),
}

impl Transfer {
    /// Answers whoever waits for it, unless it begins anew.
    pub(crate) fn finish(mut self) -> TransferEnd {
        self.publish_progress();
        self.report_events();
        self.cancel.send_replace(true);
        let uploaded = match self.session.take_result() {
            Some(Ok(_)) => {
                let checked = self.take_check();
                self.report_touched();
                let uploaded = checked.map(|found| (self.uploaded(), found));
                uploaded.inspect_err(|_| self.write_down_container())
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Internal, "end an upload that had no end")),
        };
        let is_given_back = uploaded.as_ref().is_err_and(|error| self.is_refused_to_another_token(error));
        if is_given_back {
            let file = &self.file_name;
            tracing::warn!(%file, "the service does not let this upload token go on with another token's video");
            self.journal_entry.take().into_iter().for_each(JournalEntryGuard::given_back);
            self.again = self.with_own_token.take();
        }
        let uploaded = match (uploaded, self.again.take()) {
            (Err(error), Some(again)) if again.suits(&error, is_given_back) => {
                return TransferEnd::RestartPlan(Box::new(self.restart(again, error)));
            }
            (uploaded, _) => uploaded,
        };
        let uploaded = uploaded.map_err(|error| match self.session.video_id() {
            Some(video_id) if self.made_container => {
                let error = error.with_video_id(video_id);
                if self.session.is_incomplete() { error.and_incomplete() } else { error }
            }
            _ => error,
        });
        if self.nothing_was_made()
            && let Some(journal_entry) = &mut self.journal_entry
        {
            journal_entry.withdrawn();
        }
        let end = match (self.journal_entry.take(), &uploaded, self.news.take()) {
            (Some(journal_entry), Ok((uploaded, found)), Some(news)) => TransferEnd::Unheard(Box::pin(
                journal_entry.finished_when(news, uploaded.video_id.clone(), *found),
            )),
            (Some(journal_entry), Ok(_), None) => {
                journal_entry.finished();
                TransferEnd::Over
            }
            (Some(journal_entry), Err(error), _) if !self.may_continue(error) => {
                journal_entry.abandoned();
                TransferEnd::Over
            }
            // Left in the journal for the next run.
            (_, _, _) => TransferEnd::Over,
        };
        // The caller may have dropped its future.
        let _ = self.reply.send(uploaded.map(|(uploaded, _)| uploaded));
        end
    }

    fn restart(self, again: RestartPlan, error: Error) -> PendingRestart {
        let left = self.session.video_id().map(str::to_owned);
        self.event_sink.tell(UploadEvent::BeginsAnew { video_id: left, why: Why::from(&error).message });
        let wasted = WastedWork {
            retries: self.retries(),
            bytes: self.resent_bytes() + self.session.chunks().stored_bytes(),
        };
        // What an upload token began is not ours to delete: it may go on with that token.
        let video_id = self.session.video_id().filter(|_| self.needs_key()).map(str::to_owned);
        let Transfer { reply, publish, on_progress, journal_entry, event_sink, .. } = self;
        let followers = event_sink.into_followers();
        let RestartPlan { request, halted, restarts, keeps_container } = again;
        let command =
            UploadCommand { request, reply, publish, followers, halted, on_progress, restarts, wasted };
        if keeps_container {
            journal_entry.into_iter().for_each(JournalEntryGuard::abandoned);
            return PendingRestart { command, video_id: None, journal_entry: None, error };
        }
        PendingRestart { command, video_id, journal_entry, error }
    }

    /// Whether the service knows no such video for this upload token, which took it up from another. A token of
    /// another account is refused so. What was sent with it before would prove that it is of the same one.
    fn is_refused_to_another_token(&self, error: &Error) -> bool {
        let is_refused = match (error.kind(), error.refusal()) {
            (ErrorKind::NotFound, _) => true,
            (ErrorKind::NotAuthorized, Some(refusal)) => refusal.status == 403,
            (ErrorKind::Refused, Some(refusal)) => refusal.name.as_deref() == Some("videoId"),
            _ => false,
        };
        is_refused && self.journal_entry.as_ref().is_some_and(JournalEntryGuard::is_of_another_token)
    }

    /// Whether the same command, run again, can take up what is there.
    fn may_continue(&self, error: &Error) -> bool {
        self.source.file().is_some() && error.is_resumable()
    }

    /// Whether every attempt at the first chunk of a delegated upload certainly came to nothing.
    fn nothing_was_made(&self) -> bool {
        let chunks = self.session.chunks();
        let never_arrived = chunks.known() == 0 || chunks.record(0).attempt == AttemptKind::First;
        !self.needs_key() && self.session.video_id().is_none() && self.lanes.is_empty() && never_arrived
    }

    /// Whether the source is being looked at for the last time.
    pub(super) fn is_checking_source(&self) -> bool {
        matches!(self.source_check, Check::Asked)
    }

    /// Begins to look whether the file of an upload that ended well is still what it was; `None` where that
    /// need not be known, or is. Looking may take as long as a disk that does not answer.
    pub(crate) fn check_source(
        &mut self,
        id: SessionId,
        silence: Duration,
    ) -> Option<LocalBoxFuture<'static, EngineEvent>> {
        let file = self.source.file().filter(|_| self.session.is_complete())?.clone();
        if !matches!(self.source_check, Check::Due) {
            return None;
        }
        self.source_check = Check::Asked;
        Some(Box::pin(async move {
            let path = file.path().to_owned();
            let check = move || {
                // Taken first: a change after it is not remembered as what was sent.
                let now = file.identity_now()?;
                file.check_unchanged()?;
                Ok(Some(SourceIdentity { ctime_ns: now.ctime_ns, ..SourceIdentity::from(&file) }))
            };
            EngineEvent::Checked(id, answered(path, silence, check).await)
        }))
    }

    /// Whether the file is still what it was.
    pub(crate) fn checked(&mut self, checked: Result<Option<SourceIdentity>>) {
        self.source_check = Check::ChunkResult(checked);
    }

    fn take_check(&mut self) -> Result<Option<SourceIdentity>> {
        match mem::replace(&mut self.source_check, Check::Due) {
            Check::ChunkResult(checked) => checked,
            Check::Due | Check::Asked => Ok(None),
        }
    }

    fn uploaded(&self) -> Uploaded {
        let chunks = self.session.chunks();
        Uploaded {
            video_id: self.session.video_id().unwrap_or_default().to_owned(),
            video: self.video.clone(),
            bytes: chunks.total_bytes().unwrap_or_else(|| chunks.stored_bytes()),
            chunks: chunks.known(),
            addressing: chunks.addressing(),
            reader: match &self.source {
                UploadSource::File { choice, .. } => Some(choice.reader),
                UploadSource::Stream { .. } => None,
            },
            retries: self.retries(),
            resent_bytes: self.resent_bytes(),
            elapsed: self.begun.elapsed(),
            already: false,
        }
    }
}
