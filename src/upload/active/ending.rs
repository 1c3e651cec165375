//! The end of an upload: what becomes of its record, and what its caller is told.

use futures_util::future::LocalBoxFuture;

use super::Active;
use crate::error::{Error, ErrorKind, Result};
use crate::upload::Uploaded;
use crate::upload::happening::{Happening, Why};
use crate::upload::job::Job;
use crate::upload::record::Record;
use crate::upload::restart::{Again, InVain, Restart};
use crate::upload::retry::Attempt;
use crate::upload::supplies::Supplies;

/// What is left to do after an upload.
pub(in crate::upload) enum End {
    Over,
    /// To forget it, once whoever asked has heard of it.
    Unheard(LocalBoxFuture<'static, ()>),
    /// To begin it anew.
    Again(Box<Restart>),
}

impl Active {
    /// Answers whoever waits for it, unless it begins anew.
    pub(in crate::upload) fn finish(mut self) -> End {
        self.publish_progress();
        self.tell_happenings();
        self.cancel.send_replace(true);
        let uploaded = match self.session.take_result() {
            Some(Ok(_)) => {
                let checked = self.check_source();
                self.report_touched();
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
            Some(video_id) if self.made_container => error.with_video_id(video_id),
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
        self.supplies.file().is_some() && error.kind().is_resumable()
    }

    /// Whether every attempt at the first chunk of a delegated upload certainly came to nothing.
    fn nothing_was_made(&self) -> bool {
        let chunks = self.session.chunks();
        let never_arrived = chunks.known() == 0 || chunks.record(0).attempt == Attempt::First;
        !self.needs_key() && self.session.video_id().is_none() && self.lanes.is_empty() && never_arrived
    }

    fn check_source(&self) -> Result<()> {
        match self.supplies.file() {
            Some(file) => Ok(file.check_unchanged()?),
            None => Ok(()),
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
