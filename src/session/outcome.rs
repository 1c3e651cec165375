//! Reactions to the result of an attempt at a chunk.

use std::time::{Duration, Instant};

use super::{Completion, CredentialKind, Outcome, Renewal, Session, StatusQuery};
use crate::error::{Error, ErrorKind};
use crate::session::chunks::{ChunkState, IfAbsent, StartedAttempt};
use crate::session::event::{FailureSummary, UploadEvent};
use crate::session::retry::{AttemptKind, Fate, RetryDecision, decide};

impl Session {
    /// Handles the result of an attempt at the chunk at `index`.
    pub(crate) fn handle_outcome(&mut self, index: u32, outcome: Outcome, now: Instant, jitter: f64) {
        self.note_movement();
        match outcome {
            Outcome::Accepted { video_id, completion } => self.accept(index, video_id, completion, now),
            Outcome::Failed { error, fate } => self.fail(index, error, fate, now, jitter),
        }
        self.advance(now);
    }

    fn accept(&mut self, index: u32, video_id: String, completion: Completion, now: Instant) {
        // Bytes in another video cannot be moved, and this video would stay incomplete.
        match &self.video_id {
            Some(ours) if *ours != video_id => {
                let doing = format!("send chunk {} to video {ours}", index + 1);
                let reason = format!("the service stored it in another video, {video_id}");
                return self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
            }
            Some(_) => {}
            None => {
                self.events.push(UploadEvent::Created { video_id: video_id.clone() });
                self.video_id = Some(video_id);
            }
        }
        // An acknowledgement proves that the replica that answered knows the video.
        self.mark_acknowledged();
        self.store(index, now);
        if completion == Completion::Complete {
            // Several answers may say "complete". The first is the one that must be proved.
            self.completed_by.get_or_insert(index);
            self.check_completion(index);
        }
    }

    /// Accepts "complete" from an answer only if the service can hold every other chunk.
    ///
    /// The service's specification has a whole video in every answer, so an early one is no error while the status
    /// can be queried at the end. An upload token cannot query it.
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

    /// Marks the chunk as stored and reports it as sent in this run.
    pub(super) fn store(&mut self, index: u32, now: Instant) {
        // A status may have shown the chunk before the answer to its request arrived.
        if self.chunks.is_stored(index) {
            return;
        }
        self.mark_stored(index);
        self.report_done(index, now);
    }

    /// Marks the chunk as stored.
    pub(super) fn mark_stored(&mut self, index: u32) {
        self.chunks.mark(index, ChunkState::Stored);
        let record = self.chunks.record_mut(index);
        record.renewed = false;
        record.seen_in_status = false;
        record.intercepted = 0;
        // `max_time` bounds the time without progress, and a stored chunk is progress.
        self.failing_since = None;
    }

    pub(super) fn report_done(&mut self, index: u32, now: Instant) {
        let record = self.chunks.record(index);
        let (bytes, begun) =
            // A status may show a chunk of an earlier run, which has no attempt here.
            (record.extent.len(), record.begun.unwrap_or(StartedAttempt { attempt: 1, at: now }));
        let elapsed = now.saturating_duration_since(begun.at);
        self.events.push(UploadEvent::ChunkDone { index, bytes, attempt: begun.attempt, elapsed });
    }

    pub(super) fn report_retry(&mut self, index: u32, why: FailureSummary, fate: Fate, delay: Duration) {
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
        // Lanes that still send report here after the end, and must not change the result.
        if self.has_ended() {
            return;
        }
        let may_ask = self.may_ask();
        // A later failure of the same series must not move the start of the bound.
        self.failing_since.get_or_insert(now);
        let record = self.chunks.record_mut(index);
        let verdict = decide(&error, fate, record.attempt);
        // A gateway that answers 502 or 504 may have delivered the request before it gave up waiting.
        if fate == Fate::Unknown || error.is_from_intermediary() {
            record.attempt = AttemptKind::Repeated;
        }
        let seen_in_status = std::mem::take(&mut record.seen_in_status);
        // Without a video id the lost request may have created a video whose id no answer named.
        if fate == Fate::Unknown && self.video_id.is_none() && error.kind() != ErrorKind::Cancelled {
            self.events.push(UploadEvent::StrayVideo);
        }
        match verdict {
            RetryDecision::GiveUp => self.end(Err(error)),
            // A status listed the chunk while this attempt was under way: an earlier attempt stored it.
            _ if seen_in_status => self.store(index, now),
            RetryDecision::Again => self.send_again(index, error, fate, now, jitter),
            // A page of an intermediary names no reason that a user could act on, so it gets few attempts.
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
                // The service lists no chunks while it assembles a file, so this doubt waits longer.
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
            // A token cannot query the status, so the refusal is the only evidence.
            RetryDecision::AlreadyThere | RetryDecision::Disputed => self.believe_refusal(index, error, now),
            RetryDecision::Missing => self.wait_for_video(index, error, fate, now, jitter),
            // Fresh credentials were refused as well: another renewal would loop.
            RetryDecision::Renew if record.renewed => self.end(Err(error)),
            RetryDecision::Renew => {
                record.renewed = true;
                self.chunks.mark(index, ChunkState::Waiting(None));
                self.report_retry(index, FailureSummary::from(&error), fate, Duration::ZERO);
                self.renew(error);
            }
        }
    }

    /// Counts "already there" as an acknowledgement, because no status can be queried.
    ///
    /// A filled video holds every chunk. If a chunk was never sent, another source filled the video.
    fn believe_refusal(&mut self, index: u32, error: Error, now: Instant) {
        if error.kind() == ErrorKind::AlreadyFilled && !self.chunks.may_hold_all_but(index) {
            return self.end(Err(error));
        }
        self.store(index, now);
    }

    /// Sends a chunk again that was refused because its video is unknown. A replica may not know the video yet.
    fn wait_for_video(&mut self, index: u32, error: Error, fate: Fate, now: Instant, jitter: f64) {
        if !self.is_ours {
            return self.end(Err(error));
        }
        // A video that was acknowledged in this run exists, so a 404 may be a lagging replica's.
        let error = if self.acknowledged { error.and_resumable() } else { error };
        if self.is_missing_for_long(now) {
            return self.give_up_after(index, error);
        }
        self.send_again(index, error, fate, now, jitter);
    }

    /// Returns `true` if the video has been unknown for longer than a replica may lag. The first call starts the
    /// count.
    pub(super) fn is_missing_for_long(&mut self, now: Instant) -> bool {
        let since = *self.missing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.policy.replica_lag()
    }

    pub(super) fn renew(&mut self, refusal: Error) {
        // Several lanes receive 401 for the same expired token. One renewal serves all of them.
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
        // A success or another failure in between means that the next 401 is of another token.
        record.renewed = false;
        let failures = record.failures;
        let pause = self.policy.pause(failures, jitter);
        // The pause counts: a retry that begins after the limit is not worth waiting for.
        if failures > self.policy.retries || self.out_of_time(now + pause) {
            return self.end(Err(error.after_attempts(failures)));
        }
        self.wait_and_send(index, pause, error, fate, now);
    }

    fn give_up_after(&mut self, index: u32, error: Error) {
        // `failures` counts the failures before this one.
        let attempts = self.chunks.record(index).failures + 1;
        self.end(Err(error.after_attempts(attempts)));
    }

    /// Sends a chunk again after the delay that the service announced. Such a delay is not a failed attempt.
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
        self.report_retry(index, FailureSummary::from(&error), fate, pause);
    }

    fn throttle(&mut self, index: u32, delay: Option<Duration>, error: Error, now: Instant, jitter: f64) {
        let until = now + self.policy.after_throttle(delay, jitter);
        // A delay past the limit fails at once instead of waiting for nothing.
        if self.out_of_time(until) {
            return self.end(Err(error));
        }
        // A throttled request was authorized, so a later 401 is of credentials that expired during the wait.
        self.chunks.record_mut(index).renewed = false;
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
        // One query answers for all chunks in doubt: a pending one is not doubled.
        if self.status_query == StatusQuery::No {
            self.status_query = StatusQuery::DueAt(now);
        }
    }

    /// Handles the result of [`SessionAction::Renew`](super::SessionAction::Renew).
    pub(crate) fn handle_renewed(&mut self, renewed: Result<(), Error>) {
        let refusal = match std::mem::replace(&mut self.renewing, Renewal::No) {
            Renewal::Due(error) | Renewal::Asked(error) => error,
            Renewal::No => return,
        };
        if renewed.is_err() {
            // The refusal says more than the failure of the renewal, which repeats it.
            self.end(Err(refusal));
        }
    }
}

/// Retries of a chunk after answers of an intermediary. A rolling deployment behind an ingress gives such answers
/// for some seconds; a content filter gives them permanently.
const BRIEF_RETRIES: u32 = 5;
