//! What the session makes of an attempt at a chunk.

use std::time::{Duration, Instant};

use super::{Access, Asking, Completion, Outcome, Phase, Renewing, Session};
use crate::error::{Error, ErrorKind};
use crate::session::chunks::{Begun, IfAbsent, State};
use crate::session::event::{Happening, Why};
use crate::session::retry::{Attempt, Fate, Verdict, judge};

impl Session {
    /// What an attempt at the chunk at `index` came to.
    pub fn handle_outcome(&mut self, index: u32, outcome: Outcome, now: Instant, roll: f64) {
        self.seen_incomplete = false;
        match outcome {
            Outcome::Accepted { video_id, completion } => self.accept(index, video_id, completion, now),
            Outcome::Failed { error, fate } => self.fail(index, error, fate, now, roll),
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
        self.see_alive();
        self.store(index, now);
        if completion == Completion::Complete {
            self.completed_by.get_or_insert(index);
            self.hear_complete(index);
        }
    }

    /// Believes an answer that calls the video complete only if the service can hold every other chunk.
    ///
    /// The service's specification shows a whole video in every answer, so an early one is no error where the
    /// status can be asked in the end. An upload token cannot ask.
    fn hear_complete(&mut self, index: u32) {
        // One chunk completes a video. A second one shows that the first answer was wrong.
        let is_first = self.said == Completion::Open || self.access == Access::Key;
        if is_first && self.chunks.may_hold_all_but(index) {
            self.said = Completion::Complete;
        } else if self.access == Access::Token {
            let doing = format!("send chunk {} to video {}", index + 1, self.video_id().unwrap_or_default());
            let reason = "the service called the video complete before it can have had every chunk, \
                          and an upload token cannot ask what it holds";
            self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
        }
    }

    /// The service has it from this run.
    pub(super) fn store(&mut self, index: u32, now: Instant) {
        self.settle(index);
        self.say_done(index, now);
    }

    /// The service has it.
    pub(super) fn settle(&mut self, index: u32) {
        self.chunks.mark(index, State::Stored);
        let record = self.chunks.record_mut(index);
        record.renewed = false;
        record.shown = false;
        record.intercepted = 0;
        self.trouble = None;
    }

    pub(super) fn say_done(&mut self, index: u32, now: Instant) {
        let record = self.chunks.record(index);
        let (bytes, begun) = (record.extent.len(), record.begun.unwrap_or(Begun { attempt: 1, at: now }));
        let elapsed = now.saturating_duration_since(begun.at);
        self.happenings.push(Happening::ChunkDone { index, bytes, attempt: begun.attempt, elapsed });
    }

    pub(super) fn say_retry(&mut self, index: u32, why: Why, fate: Fate, delay: Duration) {
        let attempt = self.chunks.record(index).begun.map_or(1, |begun| begun.attempt);
        let index = Some(index);
        self.happenings.push(Happening::Retry { index, attempt, why, delay, fate });
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
    fn fail(&mut self, index: u32, error: Error, fate: Fate, now: Instant, roll: f64) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let may_ask = self.may_ask();
        self.trouble.get_or_insert(now);
        let record = self.chunks.record_mut(index);
        let verdict = judge(&error, fate, record.attempt);
        // A gateway that answers 502 or 504 may have delivered the request before it gave up waiting.
        if fate == Fate::Unknown || error.is_from_intermediary() {
            record.attempt = Attempt::Repeated;
        }
        let shown = std::mem::take(&mut record.shown);
        if fate == Fate::Unknown && self.video_id.is_none() && error.kind() != ErrorKind::Cancelled {
            self.happenings.push(Happening::StrayVideo);
        }
        match verdict {
            Verdict::GiveUp => self.end(Err(error)),
            // A status listed the chunk while this attempt was under way: an earlier attempt stored it.
            _ if shown => self.store(index, now),
            Verdict::Again => self.send_again(index, error, fate, now, roll),
            Verdict::AgainBriefly if record.intercepted == BRIEF_RETRIES => self.give_up_after(index, error),
            Verdict::AgainBriefly => {
                record.intercepted += 1;
                self.send_again(index, error, fate, now, roll);
            }
            Verdict::Throttled(delay) => self.hold_back(index, delay, error, now, roll),
            Verdict::Later(delay) => self.postpone(index, delay, error, fate, now, roll),
            Verdict::AlreadyThere if may_ask && error.kind() == ErrorKind::AlreadyFilled => {
                self.doubt(index, error, IfAbsent::GiveUpLate, now)
            }
            Verdict::AskFirst | Verdict::AlreadyThere if may_ask => {
                self.doubt(index, error, IfAbsent::SendAgain, now)
            }
            Verdict::AskFirst => self.send_again(index, error, fate, now, roll),
            // Another client filled a container that is not ours: there is nothing to confirm.
            Verdict::Disputed if !self.is_ours => self.end(Err(error)),
            // An earlier process may have sent other bytes: such a chunk counts as a first attempt until it is proved.
            Verdict::Disputed if self.is_resumed && !may_ask => self.end(Err(error)),
            Verdict::Disputed if may_ask => self.doubt(index, error, IfAbsent::GiveUp, now),
            Verdict::AlreadyThere | Verdict::Disputed => self.believe_refusal(index, error, now),
            Verdict::Missing => self.wait_for_video(index, error, fate, now, roll),
            Verdict::Renew if record.renewed => self.end(Err(error)),
            Verdict::Renew => {
                record.renewed = true;
                self.chunks.mark(index, State::Waiting(None));
                self.say_retry(index, Why::from(&error), fate, Duration::ZERO);
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
    fn wait_for_video(&mut self, index: u32, error: Error, fate: Fate, now: Instant, roll: f64) {
        if !self.is_ours {
            return self.end(Err(error));
        }
        let error = if self.seen_alive { error.and_resumable() } else { error };
        if self.is_missing_for_long(now) {
            return self.give_up_after(index, error);
        }
        self.send_again(index, error, fate, now, roll);
    }

    /// Counts from the first "no such video", and returns whether the service had time to find it since.
    pub(super) fn is_missing_for_long(&mut self, now: Instant) -> bool {
        let since = *self.missing_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.policy.grace * REPLICA_LAG
    }

    pub(super) fn renew(&mut self, refusal: Error) {
        if !self.is_renewing() {
            self.renewing = Renewing::Due(refusal);
        }
    }

    fn may_ask(&self) -> bool {
        self.access == Access::Key && self.video_id.is_some()
    }

    fn send_again(&mut self, index: u32, error: Error, fate: Fate, now: Instant, roll: f64) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        let failures = record.failures;
        let pause = self.policy.pause(failures, roll);
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
    fn postpone(&mut self, index: u32, delay: Duration, error: Error, fate: Fate, now: Instant, roll: f64) {
        let pause = self.policy.after_throttle(Some(delay), roll);
        if self.out_of_time(now + pause) {
            return self.give_up_after(index, error);
        }
        self.chunks.record_mut(index).renewed = false;
        self.wait_and_send(index, pause, error, fate, now);
    }

    fn wait_and_send(&mut self, index: u32, pause: Duration, error: Error, fate: Fate, now: Instant) {
        self.resent_bytes += self.chunks.record(index).extent.len();
        self.chunks.mark(index, State::Waiting(Some(now + pause)));
        self.say_retry(index, Why::from(&error), fate, pause);
    }

    fn hold_back(&mut self, index: u32, delay: Option<Duration>, error: Error, now: Instant, roll: f64) {
        let until = now + self.policy.after_throttle(delay, roll);
        if self.out_of_time(until) {
            return self.end(Err(error));
        }
        self.chunks.mark(index, State::Waiting(Some(until)));
    }

    pub(super) fn out_of_time(&self, now: Instant) -> bool {
        self.trouble.is_some_and(|since| now.saturating_duration_since(since) > self.policy.max_time)
    }

    fn doubt(&mut self, index: u32, error: Error, if_absent: IfAbsent, now: Instant) {
        let record = self.chunks.record_mut(index);
        record.failures += 1;
        record.renewed = false;
        self.doubt = Some(error);
        self.chunks.mark(index, State::Doubtful { looks: 0, if_absent });
        if self.asking == Asking::No {
            self.asking = Asking::DueAt(now);
        }
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
}

/// How often a chunk is sent again after answers of something between here and the service. A rolling deployment
/// behind an ingress gives such answers for some seconds; a filter on the way gives them for ever.
const BRIEF_RETRIES: u32 = 5;

/// How many times the grace of the policy a video may be unknown to the service that acknowledged it.
const REPLICA_LAG: u32 = 5;
