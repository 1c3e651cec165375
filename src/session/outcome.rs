//! What the session makes of an attempt at a chunk.

use std::time::{Duration, Instant};

use super::{Completion, CredentialKind, Outcome, Renewal, Session, SessionPhase, StatusQuery};
use crate::error::{Error, ErrorKind};
use crate::session::chunks::{ChunkState, IfAbsent, StartedAttempt};
use crate::session::event::{UploadEvent, Why};
use crate::session::retry::{AttemptKind, Fate, RetryDecision, judge};

impl Session {
    /// What an attempt at the chunk at `index` came to.
    pub fn handle_outcome(&mut self, index: u32, outcome: Outcome, now: Instant, jitter: f64) {
        self.seen_incomplete = false;
        match outcome {
            Outcome::Accepted { video_id, completion } => self.accept(index, video_id, completion, now),
            Outcome::Failed { error, fate } => self.fail(index, error, fate, now, jitter),
        }
        self.advance(now);
    }

    fn accept(&mut self, index: u32, video_id: String, completion: Completion, now: Instant) {
        match &self.video_id {
            Some(ours) if *ours != video_id => {
                let doing = format!("send chunk {} to video {ours}", index + 1);
                let reason = format!("the service stored it in another video, {video_id}");
                return self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
            }
            Some(_) => {}
            None => self.video_id = Some(video_id),
        }
        self.mark_acknowledged();
        self.store(index, now);
        if completion == Completion::Complete {
            self.completed_by.get_or_insert(index);
            self.check_completion(index);
        }
    }

    /// Believes an answer that calls the video complete only if the service can hold every other chunk.
    ///
    /// The service's specification shows a complete video in every answer, so an early one is no error where the
    /// status can be asked in the end. An upload token cannot ask.
    fn check_completion(&mut self, index: u32) {
        // One chunk completes a video. A second one shows that the first answer was wrong.
        let is_first = self.reported == Completion::Open || self.access == CredentialKind::Key;
        if is_first && self.chunks.may_hold_all_but(index) {
            self.reported = Completion::Complete;
        } else if self.access == CredentialKind::Token {
            let doing = format!("send chunk {} to video {}", index + 1, self.video_id().unwrap_or_default());
            let reason = "the service called the video complete before it can have had every chunk, \
                          and an upload token cannot ask what it holds";
            self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
        }
    }

    /// The service has it from this run.
    pub(super) fn store(&mut self, index: u32, now: Instant) {
        self.mark_stored(index);
        self.report_done(index, now);
    }

    /// The service has it.
    pub(super) fn mark_stored(&mut self, index: u32) {
        self.chunks.mark(index, ChunkState::Stored);
        let record = self.chunks.record_mut(index);
        record.renewed = false;
        record.seen_in_status = false;
        record.intercepted = 0;
        self.failing_since = None;
    }

    pub(super) fn report_done(&mut self, index: u32, now: Instant) {
        let record = self.chunks.record(index);
        let (bytes, begun) =
            (record.extent.len(), record.begun.unwrap_or(StartedAttempt { attempt: 1, at: now }));
        let elapsed = now.saturating_duration_since(begun.at);
        self.events.push(UploadEvent::ChunkDone { index, bytes, attempt: begun.attempt, elapsed });
    }

    pub(super) fn report_retry(&mut self, index: u32, why: Why, fate: Fate, delay: Duration) {
        let attempt = self.chunks.record(index).begun.map_or(1, |begun| begun.attempt);
        let index = Some(index);
        self.events.push(UploadEvent::Retry { index, attempt, why, delay, fate });
    }

    /// Reacts to a failed attempt at a chunk.
    ///
    /// | verdict | with an API key | with an upload token alone |
    /// |---|---|---|
    /// | may be stored | asks the status | sends again; a refusal as "already sent" counts as stored |
    /// | already there, explained or not | asks the status | stored, in a video that this upload made |
    /// | no such video | sends again for a while, then ends resumable | the same |
    /// | not stored | sends again after a pause | the same |
    /// | credentials refused | renews them once, then sends again | ends |
    fn fail(&mut self, index: u32, error: Error, fate: Fate, now: Instant, jitter: f64) {
        if matches!(self.phase, SessionPhase::Ended(_)) {
            return;
        }
        let may_ask = self.may_ask();
        self.failing_since.get_or_insert(now);
        let record = self.chunks.record_mut(index);
        let verdict = judge(&error, fate, record.attempt);
        // A gateway that answers 502 or 504 may have delivered the request before it gave up waiting.
        if fate == Fate::Unknown || error.is_from_intermediary() {
            record.attempt = AttemptKind::Repeated;
        }
        let seen_in_status = std::mem::take(&mut record.seen_in_status);
        if fate == Fate::Unknown && self.video_id.is_none() && error.kind() != ErrorKind::Cancelled {
            self.events.push(UploadEvent::StrayVideo);
        }
        match verdict {
            RetryDecision::GiveUp => self.end(Err(error)),
            // A status listed the chunk while this attempt was under way: an earlier attempt stored it.
            _ if seen_in_status => self.store(index, now),
            RetryDecision::Again => self.send_again(index, error, fate, now, jitter),
            RetryDecision::AgainBriefly if record.intercepted == BRIEF_RETRIES => {
                self.give_up_after(index, error)
            }
            RetryDecision::AgainBriefly => {
                record.intercepted += 1;
                self.send_again(index, error, fate, now, jitter);
            }
            RetryDecision::Throttled(delay) => self.throttle(index, delay, error, now, jitter),
            RetryDecision::Later(delay) => self.postpone(index, delay, error, fate, now, jitter),
            RetryDecision::AlreadyThere if may_ask && error.kind() == ErrorKind::AlreadyFilled => {
                self.doubt(index, error, IfAbsent::GiveUpLate, now)
            }
            RetryDecision::AskFirst | RetryDecision::AlreadyThere if may_ask => {
                self.doubt(index, error, IfAbsent::SendAgain, now)
            }
            RetryDecision::AskFirst => self.send_again(index, error, fate, now, jitter),
            // Another client filled a container that is not ours: there is nothing to confirm.
            RetryDecision::Disputed if !self.is_ours => self.end(Err(error)),
            // An earlier process may have sent other bytes: such a chunk counts as a first attempt until it is proved.
            RetryDecision::Disputed if self.is_resumed && !may_ask => self.end(Err(error)),
            RetryDecision::Disputed if may_ask => self.doubt(index, error, IfAbsent::GiveUp, now),
            RetryDecision::AlreadyThere | RetryDecision::Disputed => self.believe_refusal(index, error, now),
            RetryDecision::Missing => self.wait_for_video(index, error, fate, now, jitter),
            RetryDecision::Renew if record.renewed => self.end(Err(error)),
            RetryDecision::Renew => {
                record.renewed = true;
                self.chunks.mark(index, ChunkState::Waiting(None));
                self.report_retry(index, Why::from(&error), fate, Duration::ZERO);
                self.renew(error);
            }
        }
    }

    /// Takes "already there" for an acknowledgement, where no status can be asked.
    ///
    /// A filled video holds every chunk. If one was never sent, the video was filled with something else.
    fn believe_refusal(&mut self, index: u32, error: Error, now: Instant) {
        if error.kind() == ErrorKind::AlreadyFilled && !self.chunks.may_hold_all_but(index) {
            return self.end(Err(error));
        }
        self.store(index, now);
    }

    /// Sends a chunk again that was refused for want of its video. A replica may not know the video yet.
    fn wait_for_video(&mut self, index: u32, error: Error, fate: Fate, now: Instant, jitter: f64) {
        if !self.is_ours {
            return self.end(Err(error));
        }
        let error = if self.acknowledged { error.and_resumable() } else { error };
        if self.is_missing_for_long(now) {
            return self.give_up_after(index, error);
        }
        self.send_again(index, error, fate, now, jitter);
    }

    /// Counts from the first "no such video", and returns whether the service had time to find it since.
    pub(super) fn is_missing_for_long(&mut self, now: Instant) -> bool {
        let since = *self.missing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.policy.grace * REPLICA_LAG
    }

    pub(super) fn renew(&mut self, refusal: Error) {
        if !self.is_renewing() {
            self.renewing = Renewal::Due(refusal);
        }
    }

    fn may_ask(&self) -> bool {
        self.access == CredentialKind::Key && self.video_id.is_some()
    }

    fn send_again(&mut self, index: u32, error: Error, fate: Fate, now: Instant, jitter: f64) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        let failures = record.failures;
        let pause = self.policy.pause(failures, jitter);
        if failures > self.policy.retries || self.out_of_time(now + pause) {
            return self.end(Err(error.after_attempts(failures)));
        }
        self.wait_and_send(index, pause, error, fate, now);
    }

    fn give_up_after(&mut self, index: u32, error: Error) {
        let attempts = self.chunks.record(index).failures + 1;
        self.end(Err(error.after_attempts(attempts)));
    }

    /// Sends a chunk again when the service wants it: a wait that it asked for is no failed attempt.
    fn postpone(&mut self, index: u32, delay: Duration, error: Error, fate: Fate, now: Instant, jitter: f64) {
        let pause = self.policy.after_throttle(Some(delay), jitter);
        if self.out_of_time(now + pause) {
            return self.give_up_after(index, error);
        }
        self.chunks.record_mut(index).renewed = false;
        self.wait_and_send(index, pause, error, fate, now);
    }

    fn wait_and_send(&mut self, index: u32, pause: Duration, error: Error, fate: Fate, now: Instant) {
        self.resent_bytes += self.chunks.record(index).extent.len();
        self.chunks.mark(index, ChunkState::Waiting(Some(now + pause)));
        self.report_retry(index, Why::from(&error), fate, pause);
    }

    fn throttle(&mut self, index: u32, delay: Option<Duration>, error: Error, now: Instant, jitter: f64) {
        let until = now + self.policy.after_throttle(delay, jitter);
        if self.out_of_time(until) {
            return self.end(Err(error));
        }
        self.chunks.mark(index, ChunkState::Waiting(Some(until)));
    }

    pub(super) fn out_of_time(&self, now: Instant) -> bool {
        self.failing_since.is_some_and(|since| now.saturating_duration_since(since) > self.policy.max_time)
    }

    fn doubt(&mut self, index: u32, error: Error, if_absent: IfAbsent, now: Instant) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        self.doubt = Some(error);
        self.chunks.mark(index, ChunkState::Doubtful { status_checks: 0, if_absent });
        if self.status_query == StatusQuery::No {
            self.status_query = StatusQuery::DueAt(now);
        }
    }

    /// The credentials were renewed, or could not be.
    pub fn handle_renewed(&mut self, renewed: Result<(), Error>) {
        let refusal = match std::mem::replace(&mut self.renewing, Renewal::No) {
            Renewal::Due(error) | Renewal::Asked(error) => error,
            Renewal::No => return,
        };
        if renewed.is_err() {
            self.end(Err(refusal));
        }
    }
}

/// How often a chunk is sent again after answers of something between here and the service. A rolling deployment
/// behind an ingress gives such answers for some seconds; a filter on the way gives them for ever.
const BRIEF_RETRIES: u32 = 5;

/// How many times the grace of the policy a video may be unknown to the service that acknowledged it.
const REPLICA_LAG: u32 = 5;
