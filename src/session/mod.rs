//! The upload of one source to one destination, as a state machine.
//!
//! No I/O and no clock. Whoever drives it
//! - tells it what happened by the `handle_*` methods, with the time and a random number,
//! - asks [`Session::poll`] what it must do next until that says `None`,
//! - asks [`Session::next_chunk`] for a chunk whenever a lane is idle,
//! - comes back at [`Session::next_timeout`].
//!
//! ```text
//!  Creating ──> Sending ──> Confirming ──> Ended
//!                 ^  └──────────┬────────────^
//!  Reconciling ───┘   a failure that no attempt can mend
//! ```
//!
//! A chunk whose answer was lost is `Doubtful`: with an API key the service is asked what it holds,
//! twice with a grace period between, before the chunk is sent again. With an upload token alone it
//! is sent again, and a refusal that says "already there" counts as stored.
//!
//! With an API key an upload in more than one request ends with a status question: the length and the
//! received set that the service reports must agree with the source. With an upload token alone every
//! chunk must be acknowledged, and no answer may call the video complete before every chunk was sent.

pub(crate) mod chunks;
pub mod event;
mod interface;
mod outcome;
mod proof;
pub mod retry;
mod status;

use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::session::chunks::{ChunkState, Chunks, Last, StartedAttempt};
use crate::session::event::{StatusReason, UploadEvent};
use crate::session::retry::{AttemptKind, RetryPolicy};

pub use interface::{
    ChunkToSend, Completion, CredentialKind, Outcome, ReceivedSet, Resumed, SessionAction, SessionConfig,
};

/// The state machine.
#[derive(Debug)]
pub struct Session {
    access: CredentialKind,
    policy: RetryPolicy,
    chunks: Chunks,
    video_id: Option<String>,
    phase: SessionPhase,
    status_query: StatusQuery,
    renewing: Renewal,
    stopping: bool,
    /// When the first failure came since a chunk was last stored.
    failing_since: Option<Instant>,
    /// Whether the container was created or filled by this upload, now or in an earlier run.
    is_ours: bool,
    /// Whether an earlier process began to fill the container.
    is_resumed: bool,
    /// Whether the service acknowledged the container in this run.
    acknowledged: bool,
    /// The first "no such video" since the service last acknowledged the container.
    missing_since: Option<Instant>,
    /// Whether the last status said that bytes are missing, and nothing was sent since.
    seen_incomplete: bool,
    /// Whether an answer said that the service holds the complete file, at a moment when that was possible.
    reported: Completion,
    /// The chunk whose answer was the first to say so, possible or not.
    completed_by: Option<u32>,
    /// What last put a chunk in doubt.
    doubt: Option<Error>,
    status_failures: u32,
    /// Whether credentials were renewed for the status's sake since it was last answered.
    status_renewed: bool,
    confirmations: u32,
    retries: u32,
    resent_bytes: u64,
    /// What was not taken by [`Session::take_events`] yet; a few for each chunk at most.
    events: Vec<UploadEvent>,
}

#[derive(Debug)]
enum SessionPhase {
    Creating,
    CreationAsked,
    Reconciling,
    Sending,
    Confirming,
    Ended(Option<Result<Completion, Error>>),
}

/// Where the status question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusQuery {
    No,
    DueAt(Instant),
    Asked,
}

#[derive(Debug)]
enum Renewal {
    No,
    /// The refusal that asks for it.
    Due(Error),
    Asked(Error),
}

impl Session {
    /// A session that begins at `now`.
    pub fn new(spec: SessionConfig, now: Instant) -> Session {
        let mut session = Session {
            access: spec.access,
            policy: spec.policy,
            chunks: Chunks::new(spec.cut),
            phase: match (&spec.video_id, spec.access, &spec.resumed) {
                (None, CredentialKind::Key, _) => SessionPhase::Creating,
                (Some(_), CredentialKind::Key, Some(_)) => SessionPhase::Reconciling,
                (_, CredentialKind::Token, _) | (Some(_), CredentialKind::Key, None) => SessionPhase::Sending,
            },
            is_ours: spec.resumed.is_some(),
            is_resumed: spec.resumed.is_some(),
            acknowledged: false,
            missing_since: None,
            seen_incomplete: false,
            video_id: spec.video_id,
            status_query: StatusQuery::No,
            renewing: Renewal::No,
            stopping: false,
            failing_since: None,
            reported: Completion::Open,
            completed_by: None,
            doubt: None,
            status_failures: 0,
            status_renewed: false,
            confirmations: 0,
            retries: 0,
            resent_bytes: 0,
            events: Vec::new(),
        };
        if let Some(resumed) = &spec.resumed {
            session.restore(resumed);
        }
        match (&session.phase, &spec.resumed) {
            (SessionPhase::Reconciling, _) => session.status_query = StatusQuery::DueAt(now),
            // Nobody can be asked: the journal's word counts.
            (_, Some(_)) => session.report_resumed(),
            (_, None) => {}
        }
        session.advance(now);
        session
    }

    /// An earlier process may have sent any chunk without living to see the answer.
    fn restore(&mut self, resumed: &Resumed) {
        for index in 0..self.chunks.known() {
            self.chunks.record_mut(index).attempt = AttemptKind::Repeated;
        }
        let known = self.chunks.known();
        for &index in resumed.stored.iter().filter(|&&index| index < known) {
            self.chunks.mark(index, ChunkState::Stored);
        }
    }

    /// What must be done next; call until it says `None`.
    pub fn poll(&mut self, now: Instant) -> Option<SessionAction> {
        match (&self.phase, self.status_query) {
            (SessionPhase::Ended(_), _) => return Some(SessionAction::Finish),
            (SessionPhase::Creating, _) if self.stopping => self.end(Err(stopped())),
            // A stream may yet turn out to be empty.
            (SessionPhase::Creating, _) if self.chunks.known() == 0 => {}
            (SessionPhase::Creating, _) => {
                self.phase = SessionPhase::CreationAsked;
                return Some(SessionAction::Create);
            }
            (_, StatusQuery::DueAt(at)) if at <= now && !self.is_renewing() => {
                self.status_query = StatusQuery::Asked;
                self.report_query();
                return Some(SessionAction::AskStatus);
            }
            _ => {}
        }
        if let Renewal::Due(_) = self.renewing {
            let Renewal::Due(error) = std::mem::replace(&mut self.renewing, Renewal::No) else {
                return None;
            };
            self.renewing = Renewal::Asked(error);
            return Some(SessionAction::Renew);
        }
        if self.stopping && self.chunks.in_flight() == 0 && !matches!(self.phase, SessionPhase::CreationAsked)
        {
            self.end(Err(stopped()));
        }
        matches!(self.phase, SessionPhase::Ended(_)).then_some(SessionAction::Finish)
    }

    /// A chunk for an idle lane, if one may be sent at `now`.
    pub fn next_chunk(&mut self, now: Instant) -> Option<ChunkToSend> {
        let sending = matches!(self.phase, SessionPhase::Sending) && !self.is_renewing();
        if !sending || self.stopping || self.waits_for_the_first() {
            return None;
        }
        let index = self.chunks.next_ready(now)?;
        self.chunks.mark(index, ChunkState::InFlight);
        let record = self.chunks.record_mut(index);
        let attempt = record.failures + 1;
        record.begun = Some(StartedAttempt { attempt, at: now });
        if attempt > 1 {
            self.retries += 1;
        }
        Some(ChunkToSend {
            chunk: self.chunks.chunk(index),
            content_range: self.chunks.content_range(index),
            video_id: self.video_id.clone(),
            attempt,
        })
    }

    /// Whether it would take a lane, if not at once then after a pause.
    pub fn wants_lane(&self) -> bool {
        let sending = matches!(self.phase, SessionPhase::Sending) && !self.is_renewing() && !self.stopping;
        sending && !self.waits_for_the_first() && self.chunks.waiting() > 0
    }

    /// Without an id every request of a delegated upload would make another video.
    fn waits_for_the_first(&self) -> bool {
        self.video_id.is_none() && self.chunks.in_flight() > 0
    }

    fn is_renewing(&self) -> bool {
        !matches!(self.renewing, Renewal::No)
    }

    /// Whether it ended well: the service has, and confirmed, every byte.
    pub fn is_complete(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(Some(Ok(_))))
    }

    /// When to poll again though nothing happened: later than `now`, or never.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.is_renewing() {
            return None;
        }
        let status_query = match self.status_query {
            StatusQuery::DueAt(at) => Some(at),
            StatusQuery::No | StatusQuery::Asked => None,
        };
        let pause = match self.phase {
            SessionPhase::Sending => self.chunks.next_pause_end(now),
            _ => None,
        };
        status_query.into_iter().chain(pause).min()
    }

    /// A stream's next chunk is there to be sent.
    pub fn handle_filled(&mut self, extent: Extent, last: Last) {
        self.chunks.push(extent, last);
    }

    /// The container exists, or could not be created.
    pub fn handle_created(&mut self, created: Result<String, Error>) {
        match created {
            Ok(video_id) => {
                self.video_id = Some(video_id);
                self.mark_acknowledged();
                self.phase = SessionPhase::Sending;
            }
            Err(error) => self.end(Err(error)),
        }
    }

    /// The source can no longer be trusted, or the upload is given up: nothing more is sent.
    pub fn handle_failure(&mut self, error: Error) {
        self.end(Err(error));
    }

    /// No new chunk is sent; the session ends when those under way have their answers.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    fn advance(&mut self, now: Instant) {
        if !matches!(self.phase, SessionPhase::Sending) || !self.chunks.all_stored() {
            return;
        }
        // Chunks can overwrite each other, where their Content-Range is lost on the way for example, and every
        // answer calls the video complete then. Only the status tells; one request alone cannot be overwritten.
        let is_certain = self.reported == Completion::Complete && self.chunks.known() == 1;
        if self.access == CredentialKind::Token || is_certain {
            return self.end(Ok(self.reported));
        }
        self.phase = SessionPhase::Confirming;
        if self.status_query == StatusQuery::No {
            self.status_query = StatusQuery::DueAt(now);
        }
    }

    /// Notes that the service knows the container, and that this upload fills it.
    fn mark_acknowledged(&mut self) {
        self.is_ours = true;
        self.acknowledged = true;
        self.missing_since = None;
    }

    fn end(&mut self, result: Result<Completion, Error>) {
        if !matches!(self.phase, SessionPhase::Ended(_)) {
            self.phase = SessionPhase::Ended(Some(result));
        }
    }

    /// Returns `true` when the chunk is stored and a later process may rely on it without sending it again.
    ///
    /// With an upload token only a second "complete" shows that the service lets chunks overwrite each other. A
    /// process that resumes must be able to see both, so the chunk whose answer was the first one is sent again.
    pub fn may_be_journalled(&self, index: u32) -> bool {
        let is_doubtful =
            self.access == CredentialKind::Token && (self.completed_by == Some(index) || self.has_failed());
        self.chunks.is_stored(index) && (self.is_complete() || !is_doubtful)
    }

    /// Whether the service certainly lacks bytes: the last status reported so, or a chunk was never sent whole.
    pub fn is_incomplete(&self) -> bool {
        self.seen_incomplete || !self.chunks.may_hold_all()
    }

    /// The container, once it is known.
    pub fn video_id(&self) -> Option<&str> {
        self.video_id.as_deref()
    }

    /// The chunks and what is known of each.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// What it is at, for people.
    pub fn state(&self) -> &'static str {
        match (&self.phase, self.status_query, &self.renewing) {
            (_, _, Renewal::Due(_) | Renewal::Asked(_)) => "renewing the credentials",
            (SessionPhase::Creating, ..) => "waiting for the first bytes",
            (SessionPhase::CreationAsked, ..) => "creating the video",
            (_, StatusQuery::Asked, _) => "asking what the service has",
            (SessionPhase::Reconciling, ..) => "taking up an earlier upload",
            (SessionPhase::Sending, ..) if self.chunks.in_flight() == 0 => "pausing before the next attempt",
            (SessionPhase::Sending, ..) => "sending",
            (SessionPhase::Confirming, ..) => "waiting for the service's confirmation",
            (SessionPhase::Ended(_), ..) => "ended",
        }
    }

    /// What has happened since this was last asked, oldest first.
    pub fn take_events(&mut self) -> Vec<UploadEvent> {
        std::mem::take(&mut self.events)
    }

    fn report_resumed(&mut self) {
        let video_id = self.video_id.clone().unwrap_or_default();
        let (chunks, bytes) = (self.chunks.stored(), self.chunks.stored_bytes());
        self.events.push(UploadEvent::Resumed { video_id, chunks, bytes });
    }

    fn report_query(&mut self) {
        let reason = match self.phase {
            SessionPhase::Reconciling => StatusReason::Resume,
            SessionPhase::Confirming => StatusReason::Completion,
            _ => StatusReason::LostAnswer,
        };
        let video_id = self.video_id.clone().unwrap_or_default();
        self.events.push(UploadEvent::StatusAsked { video_id, reason });
    }

    /// How many attempts were repetitions.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// How many bytes were sent again, or will be.
    pub fn resent_bytes(&self) -> u64 {
        self.resent_bytes
    }

    /// How it ended; `None` while it has not, and once the result was taken.
    pub fn take_result(&mut self) -> Option<Result<Completion, Error>> {
        match &mut self.phase {
            SessionPhase::Ended(result) => result.take(),
            _ => None,
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "send every chunk").because("it was stopped before")
}

#[cfg(test)]
mod tests;
