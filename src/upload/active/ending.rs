//! The end of an upload: what becomes of its record, and what its caller is told.

use std::mem;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::Active;
use crate::error::{Error, ErrorKind, Result};
use crate::upload::Uploaded;
use crate::upload::driver::Event;
use crate::upload::happening::{Happening, Why};
use crate::upload::job::Job;
use crate::upload::record::Record;
use crate::upload::restart::{Again, InVain, Restart};
use crate::upload::retry::Attempt;
use crate::upload::supplies::{Supplies, answered};
use crate::upload::worker::SessionId;

/// What is left to do after an upload.
pub(in crate::upload) enum End {
    Over,
    /// To forget it, once whoever asked has heard of it.
    Unheard(LocalBoxFuture<'static, ()>),
    /// To begin it anew.
    Again(Box<Restart>),
}

/// The last look at the source.
pub(super) enum Check {
    Due,
    Asked,
    Done(Result<()>),
}

impl Active {
    /// Answers whoever waits for it, unless it begins anew.
    pub(in crate::upload) fn finish(mut self) -> End {
        self.publish_progress();
        self.tell_happenings();
        self.cancel.send_replace(true);
        let uploaded = match self.session.take_result() {
            Some(Ok(_)) => {
                let checked = self.take_check();
                self.tell_touched();
                checked.map(|()| self.uploaded()).inspect_err(|_| self.write_down_container())
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Internal, "end an upload that had no end")),
        };
        let uploaded = match (uploaded, self.again.take()) {
            (Err(error), Some(again)) if again.suits(&error) => {
                return End::Again(Box::new(self.restart(again, error)));
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
            && let Some(record) = &mut self.record
        {
            record.withdrawn();
        }
        let end = match (self.record.take(), &uploaded, self.heard.take()) {
            (Some(record), Ok(_), Some(heard)) => End::Unheard(Box::pin(record.finished_when(heard))),
            (Some(record), Ok(_), None) => {
                record.finished();
                End::Over
            }
            (Some(record), Err(error), _) if !self.may_continue(error) => {
                record.abandoned();
                End::Over
            }
            // Left in the journal for the next run.
            (_, _, _) => End::Over,
        };
        // The caller may have dropped its future.
        let _ = self.reply.send(uploaded);
        end
    }

    fn restart(self, again: Again, error: Error) -> Restart {
        let left = self.session.video_id().map(str::to_owned);
        self.herald.tell(Happening::BeginsAnew { video_id: left, why: Why::from(&error).message });
        let in_vain = InVain {
            retries: self.retries(),
            bytes: self.resent_bytes() + self.session.chunks().stored_bytes(),
        };
        let video_id = self.session.video_id().map(str::to_owned);
        let Active { reply, publish, on_progress, record, herald, .. } = self;
        let followers = herald.into_followers();
        let Again { request, halted, restarts, keeps_container } = again;
        let job = Job { request, reply, publish, followers, halted, on_progress, restarts, in_vain };
        if keeps_container {
            record.into_iter().for_each(Record::abandoned);
            return Restart { job, video_id: None, record: None, error };
        }
        Restart { job, video_id, record, error }
    }

    /// Whether the same command, run again, can take up what is there.
    fn may_continue(&self, error: &Error) -> bool {
        self.supplies.file().is_some() && error.is_resumable()
    }

    /// Whether every attempt at the first chunk of a delegated upload certainly came to nothing.
    fn nothing_was_made(&self) -> bool {
        let chunks = self.session.chunks();
        let never_arrived = chunks.known() == 0 || chunks.record(0).attempt == Attempt::First;
        !self.needs_key() && self.session.video_id().is_none() && self.lanes.is_empty() && never_arrived
    }

    /// Whether the source is being looked at for the last time.
    pub(super) fn is_checking_source(&self) -> bool {
        matches!(self.source_check, Check::Asked)
    }

    /// Begins to look whether the file of an upload that ended well is still what it was; `None` where that
    /// need not be known, or is. Looking may take as long as a disk that does not answer.
    pub(in crate::upload) fn check_source(
        &mut self,
        id: SessionId,
        silence: Duration,
    ) -> Option<LocalBoxFuture<'static, Event>> {
        let file = self.supplies.file().filter(|_| self.session.is_whole())?.clone();
        if !matches!(self.source_check, Check::Due) {
            return None;
        }
        self.source_check = Check::Asked;
        Some(Box::pin(async move {
            let path = file.path().to_owned();
            let check = move || Ok(file.check_unchanged()?);
            Event::Checked(id, answered(path, silence, check).await)
        }))
    }

    /// Whether the file is still what it was.
    pub(in crate::upload) fn checked(&mut self, checked: Result<()>) {
        self.source_check = Check::Done(checked);
    }

    fn take_check(&mut self) -> Result<()> {
        match mem::replace(&mut self.source_check, Check::Due) {
            Check::Done(checked) => checked,
            Check::Due | Check::Asked => Ok(()),
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
            reader: match &self.supplies {
                Supplies::File { choice, .. } => Some(choice.reader),
                Supplies::Stream { .. } => None,
            },
            retries: self.retries(),
            resent_bytes: self.resent_bytes(),
            elapsed: self.begun.elapsed(),
        }
    }
}
