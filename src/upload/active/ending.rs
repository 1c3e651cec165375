//! The end of an upload: what becomes of its record, and what its caller is told.

use futures_util::future::LocalBoxFuture;

use super::Active;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Identity, SourceFile};
use crate::upload::Uploaded;
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
                self.check_source().map(|()| self.uploaded()).inspect_err(|_| self.write_down_container())
            }
            Some(Err(error)) => Err(error),
            None => Err(Error::new(ErrorKind::Internal, "end an upload that had no end")),
        };
        let is_given_back = uploaded.as_ref().is_err_and(|error| self.is_refused_to_another_token(error));
        if is_given_back {
            let file = &self.file_name;
            tracing::warn!(%file, "the service does not let this upload token go on with another token's video");
            self.record.take().into_iter().for_each(Record::given_back);
            self.again = self.with_own_token.take();
        }
        let uploaded = match (uploaded, self.again.take()) {
            (Err(error), Some(again)) if again.suits(&error, is_given_back) => {
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
        let end = match (self.record.take(), &uploaded, self.news.take()) {
            (Some(record), Ok(uploaded), Some(news)) => {
                let video_id = uploaded.video_id.clone();
                End::Unheard(Box::pin(record.finished_when(news, video_id, self.touched())))
            }
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
        tracing::warn!(file = %self.file_name, %error, restart = again.restarts, "beginning anew");
        let in_vain = InVain {
            retries: self.retries(),
            bytes: self.resent_bytes() + self.session.chunks().stored_bytes(),
        };
        // What an upload token began is not ours to delete: it may go on with that token.
        let video_id = self.session.video_id().filter(|_| self.needs_key()).map(str::to_owned);
        let Active { reply, publish, on_progress, record, herald, .. } = self;
        let followers = herald.into_followers();
        let Again { request, halted, restarts } = again;
        let job = Job { request, reply, publish, followers, halted, on_progress, restarts, in_vain };
        Restart { job, video_id, record, error }
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
        is_refused && self.record.as_ref().is_some_and(Record::is_of_another_token)
    }

    /// The file as it is now: its ctime may have moved while it was sent.
    fn touched(&self) -> Option<Identity> {
        SourceFile::open(self.supplies.file()?.path()).ok().map(|file| file.identity())
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
            already: false,
        }
    }
}
