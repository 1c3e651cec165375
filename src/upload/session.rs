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

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::upload::chunks::{Chunks, Cut, Last, State};
use crate::upload::retry::{Attempt, Fate, RetryPolicy, Verdict, judge};
use crate::wire::{Addressing, Chunk, ContentRange};

/// What the credentials allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An API key: containers can be created, their status can be asked.
    Key,
    /// An upload token alone: the first chunk makes the video, nothing can be asked.
    Token,
}

/// Where an earlier process left off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The indexes of the chunks that were acknowledged.
    pub stored: Vec<u32>,
}

/// What a session is to do.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How the bytes become chunks.
    pub cut: Cut,
    /// What the credentials allow.
    pub access: Access,
    /// The container, when there is one already.
    pub video_id: Option<String>,
    /// Present when an earlier process began to fill the container.
    pub resumed: Option<Resumed>,
    /// How often and how long to try.
    pub policy: RetryPolicy,
}

/// What one attempt at one chunk came to.
#[derive(Debug)]
pub enum Outcome {
    /// The service took the chunk.
    Accepted {
        /// The container that it went into.
        video_id: String,
        /// Whether the service said that the set is complete.
        completion: Completion,
    },
    /// It did not, or it is not known.
    Failed {
        /// What happened.
        error: Error,
        /// What is known of the chunk.
        fate: Fate,
    },
}

/// Whether an answer said that the service holds the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It does.
    Complete,
    /// Chunks are missing, or it did not say.
    Open,
}

/// What the service says it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Stored byte ranges.
    pub extents: Vec<Extent>,
    /// Stored part numbers, counted from 1.
    pub parts: Vec<u32>,
    /// The length of the ingested file, once it is known.
    pub file_bytes: Option<u64>,
    /// Whether the upload is over for the service.
    pub complete: bool,
}

/// What the driver must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the container, then call [`Session::handle_created`].
    Create,
    /// Ask for the container's status, then call [`Session::handle_status`].
    AskStatus,
    /// Renew the credentials, then call [`Session::handle_renewed`].
    Renew,
    /// Take the result by [`Session::take_result`]; lanes that still send may be stopped.
    Finish,
}

/// A chunk for a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The chunk.
    pub chunk: Chunk,
    /// Its name on the wire; `None` for a single request.
    pub content_range: Option<ContentRange>,
    /// The container; `None` for the first chunk of a delegated upload.
    pub video_id: Option<String>,
    /// Counted from 1.
    pub attempt: u32,
}

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
    /// Whether the service said that it holds the whole file.
    said: Completion,
    /// What last put a chunk in doubt.
    doubt: Option<Error>,
    status_failures: u32,
    /// Whether credentials were renewed for the status's sake since it was last answered.
    status_renewed: bool,
    confirmations: u32,
    retries: u32,
    resent_bytes: u64,
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
            video_id: spec.video_id,
            asking: Asking::No,
            renewing: Renewing::No,
            stopping: false,
            trouble: None,
            said: Completion::Open,
            doubt: None,
            status_failures: 0,
            status_renewed: false,
            confirmations: 0,
            retries: 0,
            resent_bytes: 0,
        };
        if let Some(resumed) = &spec.resumed {
            session.take_up(resumed);
        }
        if matches!(session.phase, Phase::Reconciling) {
            session.asking = Asking::DueAt(now);
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
        let record = self.chunks.record(index);
        if record.failures > 0 {
            self.retries += 1;
        }
        Some(Dispatch {
            chunk: self.chunks.chunk(index),
            content_range: self.chunks.content_range(index),
            video_id: self.video_id.clone(),
            attempt: record.failures + 1,
        })
    }

    /// Without an id every request of a delegated upload would make another video.
    fn waits_for_the_first(&self) -> bool {
        self.video_id.is_none() && self.chunks.in_flight() > 0
    }

    fn is_renewing(&self) -> bool {
        !matches!(self.renewing, Renewing::No)
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
                self.phase = Phase::Sending;
            }
            Err(error) => self.end(Err(error)),
        }
    }

    /// What an attempt at the chunk at `index` came to.
    pub fn handle_outcome(&mut self, index: u32, outcome: Outcome, now: Instant, roll: f64) {
        match outcome {
            Outcome::Accepted { video_id, completion } => self.accept(index, video_id, completion),
            Outcome::Failed { error, fate } => self.fail(index, error, fate, now, roll),
        }
        self.advance(now);
    }

    fn accept(&mut self, index: u32, video_id: String, completion: Completion) {
        match &self.video_id {
            Some(ours) if *ours != video_id => {
                let doing = format!("send chunk {index} of {ours}");
                let reason = format!("the service stored it in another video, {video_id}");
                return self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
            }
            Some(_) => {}
            None => self.video_id = Some(video_id),
        }
        self.store(index);
        if completion == Completion::Complete {
            self.said = Completion::Complete;
        }
    }

    fn store(&mut self, index: u32) {
        self.chunks.mark(index, State::Stored);
        let record = self.chunks.record_mut(index);
        record.renewed = false;
        record.shown = false;
        self.trouble = None;
    }

    fn fail(&mut self, index: u32, error: Error, fate: Fate, now: Instant, roll: f64) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let may_ask = self.may_ask();
        self.trouble.get_or_insert(now);
        let record = self.chunks.record_mut(index);
        let verdict = judge(&error, fate, record.attempt);
        if fate == Fate::Unknown {
            record.attempt = Attempt::Repeated;
        }
        let shown = std::mem::take(&mut record.shown);
        match verdict {
            Verdict::GiveUp => self.end(Err(error)),
            _ if shown => self.store(index),
            Verdict::Again => self.send_again(index, error, now, roll),
            Verdict::Throttled(delay) => self.hold_back(index, delay, error, now, roll),
            Verdict::AskFirst if may_ask => self.doubt(index, error, now),
            Verdict::AskFirst => self.send_again(index, error, now, roll),
            Verdict::AlreadyThere if may_ask => self.doubt(index, error, now),
            Verdict::AlreadyThere => self.store(index),
            Verdict::Renew if record.renewed => self.end(Err(error)),
            Verdict::Renew => {
                record.renewed = true;
                self.chunks.mark(index, State::Waiting(None));
                self.renew(error);
            }
        }
    }

    fn renew(&mut self, refusal: Error) {
        if !self.is_renewing() {
            self.renewing = Renewing::Due(refusal);
        }
    }

    fn may_ask(&self) -> bool {
        self.access == Access::Key && self.video_id.is_some()
    }

    fn send_again(&mut self, index: u32, error: Error, now: Instant, roll: f64) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        let failures = record.failures;
        let pause = self.policy.pause(failures, roll);
        if failures > self.policy.retries || self.out_of_time(now + pause) {
            return self.end(Err(error.after_attempts(failures)));
        }
        self.resent_bytes += self.chunks.record(index).extent.len();
        self.chunks.mark(index, State::Waiting(Some(now + pause)));
    }

    fn hold_back(&mut self, index: u32, delay: Option<Duration>, error: Error, now: Instant, roll: f64) {
        let until = now + self.policy.after_throttle(delay, roll);
        if self.out_of_time(until) {
            return self.end(Err(error));
        }
        self.chunks.mark(index, State::Waiting(Some(until)));
    }

    fn out_of_time(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|since| now.saturating_duration_since(since) > self.policy.max_time)
    }

    fn doubt(&mut self, index: u32, error: Error, now: Instant) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        self.doubt = Some(error);
        self.chunks.mark(index, State::Doubtful { looks: 0 });
        if self.asking == Asking::No {
            self.asking = Asking::DueAt(now);
        }
    }

    /// What the service holds, or why it could not be asked.
    pub fn handle_status(&mut self, status: Result<Received, Error>, now: Instant, roll: f64) {
        self.asking = Asking::No;
        match status {
            Ok(received) => {
                self.status_failures = 0;
                self.status_renewed = false;
                self.compare(&received, now);
            }
            Err(error) => self.status_failed(error, now, roll),
        }
        self.advance(now);
    }

    fn status_failed(&mut self, error: Error, now: Instant, roll: f64) {
        self.trouble.get_or_insert(now);
        let at = match judge(&error, Fate::NotStored, Attempt::First) {
            Verdict::Throttled(delay) => now + self.policy.after_throttle(delay, roll),
            Verdict::Again if self.status_failures < self.policy.retries => {
                self.status_failures += 1;
                now + self.policy.pause(self.status_failures, roll)
            }
            Verdict::Renew if !self.status_renewed => {
                self.status_renewed = true;
                self.asking = Asking::DueAt(now);
                return self.renew(error);
            }
            _ => return self.end(Err(error)),
        };
        match self.out_of_time(at) {
            true => self.end(Err(error)),
            false => self.asking = Asking::DueAt(at),
        }
    }

    fn compare(&mut self, received: &Received, now: Instant) {
        if received.complete {
            return self.end(self.check_length(received));
        }
        match self.phase {
            Phase::Reconciling => self.reconcile(received),
            Phase::Confirming => self.look_for_lost_chunks(received, now),
            _ => self.resolve_doubts(received, now),
        }
    }

    /// A container that is full though with other bytes is not ours.
    fn check_length(&self, received: &Received) -> Result<Completion, Error> {
        match (received.file_bytes, self.chunks.total_bytes()) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                let reason = format!("the service ingested {theirs} bytes and the source has {ours}");
                Err(Error::new(ErrorKind::Mismatch, "confirm the whole file").because(reason))
            }
            _ => Ok(Completion::Complete),
        }
    }

    /// After a restart the service's word is the truth, even where it lost what it had acknowledged.
    fn reconcile(&mut self, received: &Received) {
        for (index, shown) in self.shown(received) {
            match shown {
                true => self.store(index),
                false => self.chunks.mark(index, State::Waiting(None)),
            }
        }
        self.phase = Phase::Sending;
    }

    /// A chunk that waits may turn out to be there as well: an earlier attempt took its time.
    fn resolve_doubts(&mut self, received: &Received, now: Instant) {
        for (index, shown) in self.shown(received) {
            match self.chunks.record(index).state {
                State::Waiting(_) | State::Doubtful { .. } if shown => self.store(index),
                State::Doubtful { looks } if looks + 1 < LOOKS => {
                    self.chunks.mark(index, State::Doubtful { looks: looks + 1 });
                    self.asking = Asking::DueAt(now + self.policy.grace);
                }
                State::Doubtful { .. } => self.send_absent(index, now),
                State::InFlight => self.chunks.record_mut(index).shown = shown,
                State::Waiting(_) | State::Stored => {}
            }
        }
    }

    /// The service does not have it after all.
    fn send_absent(&mut self, index: u32, now: Instant) {
        let failures = self.chunks.record(index).failures;
        if failures > self.policy.retries || self.out_of_time(now) {
            let error = self.doubt.take().unwrap_or_else(unconfirmed);
            return self.end(Err(error.after_attempts(failures)));
        }
        self.resent_bytes += self.chunks.record(index).extent.len();
        self.chunks.mark(index, State::Waiting(None));
    }

    /// Every chunk was acknowledged and still the service waits: it may need time, or have lost some.
    fn look_for_lost_chunks(&mut self, received: &Received, now: Instant) {
        self.confirmations += 1;
        self.trouble.get_or_insert(now);
        let lost: Vec<u32> =
            self.shown(received).filter(|(_, shown)| !shown).map(|(index, _)| index).collect();
        let listed = !received.extents.is_empty() || !received.parts.is_empty();
        if listed && !lost.is_empty() && self.confirmations.is_multiple_of(LOOKS) {
            self.phase = Phase::Sending;
            self.confirmations = 0;
            for index in lost {
                let record = self.chunks.record_mut(index);
                record.failures += 1;
                record.attempt = Attempt::Repeated;
                self.send_absent(index, now);
            }
            return;
        }
        if self.confirmations > CONFIRMATIONS || self.out_of_time(now) {
            return self.end(Err(unconfirmed()));
        }
        self.asking = Asking::DueAt(now + self.policy.pause(self.confirmations, 1.0));
    }

    /// Every chunk, and whether the status shows it; a single request's never is.
    fn shown(&self, received: &Received) -> impl Iterator<Item = (u32, bool)> + use<> {
        let mut parts = received.parts.clone();
        parts.sort_unstable();
        let stored = union(&received.extents);
        let shown = |index| match self.chunks.addressing() {
            Addressing::Single => false,
            Addressing::ByteRange => {
                let extent = self.chunks.record(index).extent;
                let at = stored.partition_point(|stored| stored.end() < extent.end());
                stored.get(at).is_some_and(|stored| stored.contains(extent))
            }
            Addressing::Part => parts.binary_search(&(index + 1)).is_ok(),
        };
        let shown: Vec<bool> = (0..self.chunks.known()).map(shown).collect();
        (0..).zip(shown)
    }

    /// The credentials were renewed, or could not be.
    pub fn handle_renewed(&mut self, renewed: Result<(), Error>) {
        let refusal = match std::mem::replace(&mut self.renewing, Renewing::No) {
            Renewing::Due(error) | Renewing::Asked(error) => error,
            Renewing::No => return,
        };
        if renewed.is_err() {
            self.end(Err(refusal));
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
        match (self.said, self.access) {
            (Completion::Complete, _) => self.end(Ok(Completion::Complete)),
            (Completion::Open, Access::Token) => self.end(Ok(Completion::Open)),
            (Completion::Open, Access::Key) => {
                self.phase = Phase::Confirming;
                if self.asking == Asking::No {
                    self.asking = Asking::DueAt(now);
                }
            }
        }
    }

    fn end(&mut self, result: Result<Completion, Error>) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(Some(result));
        }
    }

    /// The container, once it is known.
    pub fn video_id(&self) -> Option<&str> {
        self.video_id.as_deref()
    }

    /// The chunks and what is known of each.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
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

/// Extents that touch become one: a service may list them as it likes.
fn union(extents: &[Extent]) -> Vec<Extent> {
    let mut sorted = extents.to_vec();
    sorted.sort_unstable();
    let mut union: Vec<Extent> = Vec::new();
    for extent in sorted {
        match union.last_mut() {
            Some(last) if extent.offset() <= last.end() => {
                *last = Extent::new(last.offset(), extent.end().max(last.end()) - last.offset());
            }
            _ => union.push(extent),
        }
    }
    union
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "send every chunk").because("it was stopped before")
}

fn unconfirmed() -> Error {
    Error::new(ErrorKind::Unavailable, "confirm the whole file")
        .because("the service took every chunk and still waits for some")
}

/// How often the service is asked for a chunk whose answer was lost before it counts as absent.
const LOOKS: u32 = 2;

/// How often the service is asked whether the file is whole, with growing pauses between.
const CONFIRMATIONS: u32 = 12;

#[cfg(test)]
mod tests;
