//! The upload of one source to one destination, as a state machine.
//!
//! No I/O and no clock. The driver
//! - reports results through the `handle_*` methods, with the time and a random number,
//! - calls [`Session::poll`] for the next action until it returns `None`,
//! - calls [`Session::next_chunk`] whenever a lane is idle,
//! - calls [`Session::poll`] again at [`Session::next_timeout`].
//!
//! ```text
//!  Creating ──> Sending ──> Confirming ──> Ended
//!                 ^  └──────────┬────────────^
//!  Reconciling ───┘   a failure that no attempt can mend
//! ```
//!
//! A chunk whose answer was lost is `Doubtful`. With an API key the session queries the status twice, a grace
//! period apart, before it sends the chunk again. With an upload token alone it sends the chunk again, and a
//! refusal as "already there" counts as stored.
//!
//! With an API key an upload in more than one request ends with a status question: the length and the
//! received set that the service reports must agree with the source. With an upload token alone every
//! chunk must be acknowledged, and no answer may call the video complete before every chunk was sent.

pub(crate) mod chunks;
pub(crate) mod event;
mod interface;
mod observation;
mod outcome;
mod proof;
pub(crate) mod retry;
mod status;

use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::session::chunks::{ChunkState, Chunks, Last, StartedAttempt};
use crate::session::event::{StatusReason, UploadEvent};
use crate::session::retry::{AttemptKind, RetryPolicy};

pub(crate) use interface::{
    ChunkToSend, Completion, CredentialKind, Outcome, ReceivedSet, Resumed, SessionAction, SessionConfig,
};

/// The state machine.
#[derive(Debug)]
pub(crate) struct Session {
    access: CredentialKind,
    policy: RetryPolicy,
    chunks: Chunks,
    video_id: Option<String>,
    phase: SessionPhase,
    status_query: StatusQuery,
    renewing: Renewal,
    stopping: bool,
    /// The time of the first failure since a chunk was last stored.
    failing_since: Option<Instant>,
    /// `true` if this upload created or filled the container, now or in an earlier run.
    is_ours: bool,
    /// `true` if an earlier process began to fill the container.
    is_resumed: bool,
    /// `true` if the service acknowledged the container in this run.
    acknowledged: bool,
    /// The first "no such video" since the service last acknowledged the container.
    missing_since: Option<Instant>,
    /// `true` if the last status listed missing bytes and no chunk was sent or answered since.
    seen_incomplete: bool,
    /// `true` if a chunk was sent or answered since the status was last queried.
    has_moved_since_query: bool,
    /// [`Completion::Complete`] once an answer called the video complete while that was possible.
    reported: Completion,
    /// The chunk whose answer was the first to call the video complete, possible or not.
    completed_by: Option<u32>,
    /// The failure that last left a chunk in doubt.
    doubt: Option<Error>,
    /// Failed status queries in a row.
    status_failures: u32,
    /// `true` if the credentials were renewed for a status query that has not succeeded since.
    status_renewed: bool,
    /// Status queries since the last chunk was stored.
    confirmations: u32,
    /// Attempts beyond the first of each chunk.
    retries: u32,
    /// The lengths of chunks that are sent again after a failure.
    resent_bytes: u64,
    /// File bytes that an earlier run stored.
    resumed_bytes: u64,
    /// Events not yet returned by [`Session::take_events`]; at most a few for each chunk.
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

/// State of the status query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusQuery {
    No,
    DueAt(Instant),
    Asked,
}

#[derive(Debug)]
enum Renewal {
    No,
    /// Holds the refusal that made a renewal necessary.
    Due(Error),
    Asked(Error),
}

impl Session {
    /// Creates a session that starts at `now`.
    pub(crate) fn new(spec: SessionConfig, now: Instant) -> Session {
        let mut session = Session {
            access: spec.access,
            policy: spec.policy,
            chunks: Chunks::new(spec.cut),
            phase: match (&spec.video_id, spec.access, &spec.resumed) {
                // A status of a video that this session is about to create has nothing to compare.
                (None, CredentialKind::Key, _) => SessionPhase::Creating,
                (Some(_), CredentialKind::Key, Some(_)) => SessionPhase::Reconciling,
                // `/videos/{id}/status` needs the API key, so a token session begins to send at once.
                (_, CredentialKind::Token, _) | (Some(_), CredentialKind::Key, None) => SessionPhase::Sending,
            },
            is_ours: spec.resumed.is_some(),
            is_resumed: spec.resumed.is_some(),
            acknowledged: false,
            missing_since: None,
            seen_incomplete: false,
            has_moved_since_query: false,
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
            resumed_bytes: 0,
            events: Vec::new(),
        };
        if spec.is_shared || spec.resumed.is_some() {
            session.expect_chunks_of_others();
        }
        if let Some(resumed) = &spec.resumed {
            session.restore(resumed);
        }
        match (&session.phase, &spec.resumed) {
            (SessionPhase::Reconciling, _) => session.status_query = StatusQuery::DueAt(now),
            // A token cannot query the status, so the journal is trusted.
            (_, Some(_)) => session.report_resumed(),
            (_, None) => {}
        }
        // A journal or a token session may hold every chunk already, and then no outcome ever comes.
        session.advance(now);
        session
    }

    /// Records that an earlier process or another host may have sent any chunk, so that "already there" explains itself.
    fn expect_chunks_of_others(&mut self) {
        for index in 0..self.chunks.known() {
            self.chunks.record_mut(index).attempt = AttemptKind::Repeated;
        }
    }

    /// Restores the chunks of an earlier process.
    fn restore(&mut self, resumed: &Resumed) {
        let known = self.chunks.known();
        // A journal of another plan may list indexes that this plan does not have.
        for &index in resumed.stored.iter().filter(|&&index| index < known) {
            self.chunks.mark(index, ChunkState::Stored);
        }
        // Until the status answers, the journal is all that is known about earlier runs.
        self.resumed_bytes = self.chunks.stored_bytes();
    }

    /// Returns the next action for the driver. Call until it returns `None`.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<SessionAction> {
        match (&self.phase, self.status_query) {
            (SessionPhase::Ended(_), _) => return Some(SessionAction::Finish),
            // No video exists yet, so there is nothing to wait for.
            (SessionPhase::Creating, _) if self.stopping => self.end(Err(stopped())),
            // An empty stream must not leave an empty video behind.
            (SessionPhase::Creating, _) if self.chunks.known() == 0 => {}
            (SessionPhase::Creating, _) => {
                self.phase = SessionPhase::CreationAsked;
                return Some(SessionAction::Create);
            }
            // A query with credentials that were just refused would be refused too.
            (_, StatusQuery::DueAt(at)) if at <= now && !self.is_renewing() => {
                self.status_query = StatusQuery::Asked;
                self.has_moved_since_query = false;
                self.report_query();
                return Some(SessionAction::AskStatus);
            }
            _ => {}
        }
        if let Renewal::Due(_) = self.renewing {
            // The error moves from `Due` to `Asked`, so it is taken out of its place first.
            let Renewal::Due(error) = std::mem::replace(&mut self.renewing, Renewal::No) else {
                return None;
            };
            self.renewing = Renewal::Asked(error);
            return Some(SessionAction::Renew);
        }
        // Answers in flight may store chunks or create the video, and stopping before them would lose their
        // outcome.
        if self.stopping && self.chunks.in_flight() == 0 && !matches!(self.phase, SessionPhase::CreationAsked)
        {
            self.end(Err(stopped()));
        }
        matches!(self.phase, SessionPhase::Ended(_)).then_some(SessionAction::Finish)
    }

    /// Returns a chunk for an idle lane, or `None` if no chunk may be sent at `now`.
    pub(crate) fn next_chunk(&mut self, now: Instant) -> Option<ChunkToSend> {
        let sending = matches!(self.phase, SessionPhase::Sending) && !self.is_renewing();
        if !sending || self.stopping || self.waits_for_the_first() {
            return None;
        }
        let index = self.chunks.next_ready(now)?;
        self.chunks.mark(index, ChunkState::InFlight);
        self.note_movement();
        let record = self.chunks.record_mut(index);
        let attempt = record.failures + 1;
        record.begun = Some(StartedAttempt { attempt, at: now });
        // The first attempt of a resumed chunk is no retry of this run.
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

    /// Returns `true` if the session can use a lane, now or after a pause.
    pub(crate) fn wants_lane(&self) -> bool {
        let sending = matches!(self.phase, SessionPhase::Sending) && !self.is_renewing() && !self.stopping;
        sending && !self.waits_for_the_first() && self.chunks.waiting() > 0
    }

    /// Returns `true` while the first chunk is in flight: without a video id each request with an upload token
    /// creates another video.
    fn waits_for_the_first(&self) -> bool {
        // With a known id the service accepts chunks concurrently and in any order.
        self.video_id.is_none() && self.chunks.in_flight() > 0
    }

    fn is_renewing(&self) -> bool {
        !matches!(self.renewing, Renewal::No)
    }

    /// Returns the time of the next timeout, later than `now`; `None` if there is none.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        // Nothing may be sent before the renewal ends, and its result wakes the driver.
        if self.is_renewing() {
            return None;
        }
        let status_query = match self.status_query {
            StatusQuery::DueAt(at) => Some(at),
            StatusQuery::No | StatusQuery::Asked => None,
        };
        let pause = match self.phase {
            // Pauses of chunks matter only while chunks may be sent.
            SessionPhase::Sending => self.chunks.next_pause_end(now),
            _ => None,
        };
        status_query.into_iter().chain(pause).min()
    }

    /// Adds the next chunk of a stream.
    pub(crate) fn handle_filled(&mut self, extent: Extent, last: Last) {
        self.chunks.push(extent, last);
    }

    /// Handles the result of [`SessionAction::Create`] if the container exists: another host may have sent chunks to it.
    pub(crate) fn handle_found(&mut self, video_id: String, now: Instant) {
        self.begin_in(video_id);
        if matches!(self.phase, SessionPhase::Sending) {
            self.phase = SessionPhase::Reconciling;
            self.status_query = StatusQuery::DueAt(now);
        }
    }

    /// Handles the result of [`SessionAction::Create`].
    pub(crate) fn handle_created(&mut self, created: Result<String, Error>) {
        match created {
            Ok(video_id) => {
                self.events.push(UploadEvent::Created { video_id: video_id.clone() });
                self.begin_in(video_id);
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn begin_in(&mut self, video_id: String) {
        self.video_id = Some(video_id);
        self.mark_acknowledged();
        // The upload may have been cancelled, or its source have failed, while the video was created.
        if matches!(self.phase, SessionPhase::CreationAsked) {
            self.phase = SessionPhase::Sending;
        }
    }

    /// Ends the session with `error`, for a source that changed or an upload that is cancelled.
    pub(crate) fn handle_failure(&mut self, error: Error) {
        self.end(Err(error));
    }

    /// Stops sending chunks. The session ends once those in flight are answered.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    fn advance(&mut self, now: Instant) {
        if !matches!(self.phase, SessionPhase::Sending) || !self.chunks.all_stored() {
            return;
        }
        // If a proxy strips Content-Range, chunks overwrite each other and every answer calls the video complete.
        // Only the status shows that. A single request has nothing to be overwritten by.
        let is_certain = self.reported == Completion::Complete && self.chunks.known() == 1;
        if self.access == CredentialKind::Token || is_certain {
            return self.end(Ok(self.reported));
        }
        self.phase = SessionPhase::Confirming;
        // A query that is pending or asked answers this question too.
        if self.status_query == StatusQuery::No {
            self.status_query = StatusQuery::DueAt(now);
        }
    }

    /// Records that a chunk arrived, or may arrive: neither the last status nor the answer to a query under way
    /// describes the video any more.
    fn note_movement(&mut self) {
        self.seen_incomplete = false;
        self.has_moved_since_query = true;
    }

    /// Returns `true` once the session has a result.
    fn has_ended(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(_))
    }

    /// Records that the service acknowledged the container and that this upload fills it.
    fn mark_acknowledged(&mut self) {
        self.is_ours = true;
        self.acknowledged = true;
        self.missing_since = None;
    }

    fn end(&mut self, result: Result<Completion, Error>) {
        // The first result counts: answers of other lanes still arrive after the end.
        if !matches!(self.phase, SessionPhase::Ended(_)) {
            self.phase = SessionPhase::Ended(Some(result));
        }
    }

    fn report_resumed(&mut self) {
        let video_id = self.video_id.clone().unwrap_or_default();
        let (chunks, bytes) = (self.chunks.stored(), self.chunks.stored_bytes());
        self.resumed_bytes = bytes;
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
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "send every chunk").because("it was stopped before")
}

#[cfg(test)]
mod tests;
