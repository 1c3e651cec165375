//! The upload of one source to one destination, as a state machine.
//!
//! No I/O and no clock. Whoever drives it
//! - tells it what happened by the `handle_*` methods, with the time and a roll of the dice,
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
mod outcome;
mod proof;
pub mod retry;
mod status;
mod words;

use std::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::session::chunks::{Begun, Chunks, Last, State};
use crate::session::event::{Happening, Inquiry};
use crate::session::retry::{Attempt, RetryPolicy};

pub use words::{Access, Action, Completion, Dispatch, Outcome, Received, Resumed, Spec};

/// The state machine.
#[derive(Debug)]
pub struct Session {
    access: Access,
    policy: RetryPolicy,
    chunks: Chunks,
    video_id: Option<String>,
    phase: Phase,
    asking: Asking,
    renewing: Renewing,
    stopping: bool,
    /// When the first failure came since a chunk was last stored.
    trouble: Option<Instant>,
    /// Whether the container was created or filled by this upload, now or in an earlier run.
    is_ours: bool,
    /// Whether an earlier process began to fill the container.
    is_resumed: bool,
    /// Whether the service acknowledged the container in this run.
    seen_alive: bool,
    /// The first "no such video" since the service last acknowledged the container.
    missing_since: Option<Instant>,
    /// Whether the last status said that bytes are missing, and nothing was sent since.
    seen_incomplete: bool,
    /// Whether an answer said that the service holds the whole file, at a moment when that was possible.
    said: Completion,
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
    /// What was not taken by [`Session::take_happenings`] yet; a few for each chunk at most.
    happenings: Vec<Happening>,
}

#[derive(Debug)]
enum Phase {
    Creating,
    CreationAsked,
    Reconciling,
    Sending,
    Confirming,
    Ended(Option<Result<Completion, Error>>),
}

/// Where the status question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    DueAt(Instant),
    Asked,
}

#[derive(Debug)]
enum Renewing {
    No,
    /// The refusal that asks for it.
    Due(Error),
    Asked(Error),
}

impl Session {
    /// A session that begins at `now`.
    pub fn new(spec: Spec, now: Instant) -> Session {
        let mut session = Session {
            access: spec.access,
            policy: spec.policy,
            chunks: Chunks::new(spec.cut),
            phase: match (&spec.video_id, spec.access, &spec.resumed) {
                (None, Access::Key, _) => Phase::Creating,
                (Some(_), Access::Key, Some(_)) => Phase::Reconciling,
                (_, Access::Token, _) | (Some(_), Access::Key, None) => Phase::Sending,
            },
            is_ours: spec.resumed.is_some(),
            is_resumed: spec.resumed.is_some(),
            seen_alive: false,
            missing_since: None,
            seen_incomplete: false,
            video_id: spec.video_id,
            asking: Asking::No,
            renewing: Renewing::No,
            stopping: false,
            trouble: None,
            said: Completion::Open,
            completed_by: None,
            doubt: None,
            status_failures: 0,
            status_renewed: false,
            confirmations: 0,
            retries: 0,
            resent_bytes: 0,
            happenings: Vec::new(),
        };
        if let Some(resumed) = &spec.resumed {
            session.take_up(resumed);
        }
        match (&session.phase, &spec.resumed) {
            (Phase::Reconciling, _) => session.asking = Asking::DueAt(now),
            // Nobody can be asked: the journal's word counts.
            (_, Some(_)) => session.say_resumed(),
            (_, None) => {}
        }
        session.advance(now);
        session
    }

    /// An earlier process may have sent any chunk without living to see the answer.
    fn take_up(&mut self, resumed: &Resumed) {
        for index in 0..self.chunks.known() {
            self.chunks.record_mut(index).attempt = Attempt::Repeated;
        }
        let known = self.chunks.known();
        for &index in resumed.stored.iter().filter(|&&index| index < known) {
            self.chunks.mark(index, State::Stored);
        }
    }

    /// What must be done next; call until it says `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Action> {
        match (&self.phase, self.asking) {
            (Phase::Ended(_), _) => return Some(Action::Finish),
            (Phase::Creating, _) if self.stopping => self.end(Err(stopped())),
            // A stream may yet turn out to be empty.
            (Phase::Creating, _) if self.chunks.known() == 0 => {}
            (Phase::Creating, _) => {
                self.phase = Phase::CreationAsked;
                return Some(Action::Create);
            }
            (_, Asking::DueAt(at)) if at <= now && !self.is_renewing() => {
                self.asking = Asking::Asked;
                self.say_asked();
                return Some(Action::AskStatus);
            }
            _ => {}
        }
        if let Renewing::Due(_) = self.renewing {
            let Renewing::Due(error) = std::mem::replace(&mut self.renewing, Renewing::No) else {
                return None;
            };
            self.renewing = Renewing::Asked(error);
            return Some(Action::Renew);
        }
        if self.stopping && self.chunks.in_flight() == 0 && !matches!(self.phase, Phase::CreationAsked) {
            self.end(Err(stopped()));
        }
        matches!(self.phase, Phase::Ended(_)).then_some(Action::Finish)
    }

    /// A chunk for an idle lane, if one may be sent at `now`.
    pub fn next_chunk(&mut self, now: Instant) -> Option<Dispatch> {
        let sending = matches!(self.phase, Phase::Sending) && !self.is_renewing();
        if !sending || self.stopping || self.waits_for_the_first() {
            return None;
        }
        let index = self.chunks.next_ready(now)?;
        self.chunks.mark(index, State::InFlight);
        let record = self.chunks.record_mut(index);
        let attempt = record.failures + 1;
        record.begun = Some(Begun { attempt, at: now });
        if attempt > 1 {
            self.retries += 1;
        }
        Some(Dispatch {
            chunk: self.chunks.chunk(index),
            content_range: self.chunks.content_range(index),
            video_id: self.video_id.clone(),
            attempt,
        })
    }

    /// Whether it would take a lane, if not at once then after a pause.
    pub fn wants_lane(&self) -> bool {
        let sending = matches!(self.phase, Phase::Sending) && !self.is_renewing() && !self.stopping;
        sending && !self.waits_for_the_first() && self.chunks.waiting() > 0
    }

    /// Without an id every request of a delegated upload would make another video.
    fn waits_for_the_first(&self) -> bool {
        self.video_id.is_none() && self.chunks.in_flight() > 0
    }

    fn is_renewing(&self) -> bool {
        !matches!(self.renewing, Renewing::No)
    }

    /// Whether it ended well: the service has, and confirmed, every byte.
    pub fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Ended(Some(Ok(_))))
    }

    /// When to poll again though nothing happened: later than `now`, or never.
    pub fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.is_renewing() {
            return None;
        }
        let asking = match self.asking {
            Asking::DueAt(at) => Some(at),
            Asking::No | Asking::Asked => None,
        };
        let pause = match self.phase {
            Phase::Sending => self.chunks.next_pause_end(now),
            _ => None,
        };
        asking.into_iter().chain(pause).min()
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
                self.see_alive();
                self.phase = Phase::Sending;
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
        if !matches!(self.phase, Phase::Sending) || !self.chunks.all_stored() {
            return;
        }
        // Chunks can overwrite each other, where their Content-Range is lost on the way for example, and every
        // answer calls the video complete then. Only the status tells; one request alone cannot be overwritten.
        let is_certain = self.said == Completion::Complete && self.chunks.known() == 1;
        if self.access == Access::Token || is_certain {
            return self.end(Ok(self.said));
        }
        self.phase = Phase::Confirming;
        if self.asking == Asking::No {
            self.asking = Asking::DueAt(now);
        }
    }

    /// Notes that the service knows the container, and that this upload fills it.
    fn see_alive(&mut self) {
        self.is_ours = true;
        self.seen_alive = true;
        self.missing_since = None;
    }

    fn end(&mut self, result: Result<Completion, Error>) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(Some(result));
        }
    }

    /// Returns `true` when the chunk is stored and a later process may rely on it without sending it again.
    ///
    /// With an upload token only a second "complete" shows that the service lets chunks overwrite each other. A
    /// process that resumes must be able to see both, so the chunk whose answer was the first one is sent again.
    pub fn may_be_journalled(&self, index: u32) -> bool {
        let is_doubtful =
            self.access == Access::Token && (self.completed_by == Some(index) || self.has_failed());
        self.chunks.is_stored(index) && (self.is_whole() || !is_doubtful)
    }

    /// Whether the service certainly lacks bytes: the last status said so, or a chunk was never sent whole.
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
        match (&self.phase, self.asking, &self.renewing) {
            (_, _, Renewing::Due(_) | Renewing::Asked(_)) => "renewing the credentials",
            (Phase::Creating, ..) => "waiting for the first bytes",
            (Phase::CreationAsked, ..) => "creating the video",
            (_, Asking::Asked, _) => "asking what the service has",
            (Phase::Reconciling, ..) => "taking up an earlier upload",
            (Phase::Sending, ..) if self.chunks.in_flight() == 0 => "pausing before the next attempt",
            (Phase::Sending, ..) => "sending",
            (Phase::Confirming, ..) => "waiting for the service's confirmation",
            (Phase::Ended(_), ..) => "ended",
        }
    }

    /// What has happened since this was last asked, oldest first.
    pub fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    fn say_resumed(&mut self) {
        let video_id = self.video_id.clone().unwrap_or_default();
        let (chunks, bytes) = (self.chunks.stored(), self.chunks.stored_bytes());
        self.happenings.push(Happening::Resumed { video_id, chunks, bytes });
    }

    fn say_asked(&mut self) {
        let reason = match self.phase {
            Phase::Reconciling => Inquiry::Resume,
            Phase::Confirming => Inquiry::Completion,
            _ => Inquiry::LostAnswer,
        };
        let video_id = self.video_id.clone().unwrap_or_default();
        self.happenings.push(Happening::StatusAsked { video_id, reason });
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
            Phase::Ended(result) => result.take(),
            _ => None,
        }
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "send every chunk").because("it was stopped before")
}

#[cfg(test)]
mod tests;
