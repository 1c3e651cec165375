//! The readings of a session: its result, its events, its numbers, and what a journal may rely on.

use super::{Completion, CredentialKind, Renewal, Session, SessionPhase, StatusQuery};
use crate::error::Error;
use crate::session::chunks::Chunks;
use crate::session::event::UploadEvent;

impl Session {
    /// Returns `true` if the session ended and the service confirmed every byte.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(Some(Ok(_))))
    }

    /// Returns `true` when the chunk is stored and a later process may rely on it without sending it again.
    ///
    /// With an upload token only a second "complete" shows that the service lets chunks overwrite each other. A
    /// process that resumes must be able to see both, so the chunk whose answer was the first one is sent again.
    pub(crate) fn may_be_journalled(&self, index: u32) -> bool {
        // A failed token session cannot check this acknowledgement later, so the next run sends the chunk
        // again.
        let is_doubtful =
            self.access == CredentialKind::Token && (self.completed_by == Some(index) || self.has_failed());
        self.chunks.is_stored(index) && (self.is_complete() || !is_doubtful)
    }

    /// Returns the chunk whose answer called the video complete first, which is journalled with the last one.
    pub(crate) fn first_complete(&self) -> Option<u32> {
        self.completed_by
    }

    /// Returns `true` if the service certainly lacks bytes: the last status listed some as missing, or a chunk was
    /// never sent whole.
    pub(crate) fn is_incomplete(&self) -> bool {
        // A chunk in flight may have arrived since the status listed it as missing.
        self.seen_incomplete && self.chunks.in_flight() == 0 || !self.chunks.may_hold_all()
    }

    /// Returns the video id; `None` until it is known.
    pub(crate) fn video_id(&self) -> Option<&str> {
        self.video_id.as_deref()
    }

    /// Returns the chunks with their states.
    pub(crate) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Describes the current state in words, for messages.
    pub(crate) fn state(&self) -> &'static str {
        match (&self.phase, self.status_query, &self.renewing) {
            (_, _, Renewal::Due(_) | Renewal::Asked(_)) => "renewing the credentials",
            (SessionPhase::Creating, ..) => "waiting for the first bytes",
            (SessionPhase::CreationAsked, ..) => "creating the video",
            (_, StatusQuery::Asked, _) => "checking what was already uploaded",
            (SessionPhase::Reconciling, ..) => "resuming an earlier upload",
            (SessionPhase::Sending, ..) if self.chunks.in_flight() == 0 => "pausing before the next attempt",
            (SessionPhase::Sending, ..) => "sending",
            (SessionPhase::Confirming, ..) => "waiting for the service's confirmation",
            (SessionPhase::Ended(_), ..) => "ended",
        }
    }

    /// Returns the events since the last call, oldest first.
    pub(crate) fn take_events(&mut self) -> Vec<UploadEvent> {
        std::mem::take(&mut self.events)
    }

    /// Returns the number of attempts beyond the first of each chunk.
    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// Returns the lengths of the chunks that were sent again after failures, or are about to be.
    ///
    /// A chunk counts in full for each repetition, whatever part of it the failed attempt had sent. Refusals with 429,
    /// and the first 401 before credentials are renewed, are no failures: they interrupt every upload that is long or
    /// fast enough, often before the body, and neither here nor in [`Session::retries`] do they count.
    pub(crate) fn resent_bytes(&self) -> u64 {
        self.resent_bytes
    }

    /// Returns the file bytes that an earlier run stored.
    pub(crate) fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// Takes the result; `None` before the end, and once it was taken.
    pub(crate) fn take_result(&mut self) -> Option<Result<Completion, Error>> {
        match &mut self.phase {
            SessionPhase::Ended(result) => result.take(),
            _ => None,
        }
    }
}
