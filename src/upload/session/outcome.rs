//! What the session makes of an attempt at a chunk.

use std::time::{Duration, Instant};

use super::{Access, Asking, Completion, Outcome, Phase, Renewing, Session};
use crate::error::{Error, ErrorKind};
use crate::upload::chunks::{Begun, State};
use crate::upload::happening::{Happening, Why};
use crate::upload::retry::{Attempt, Fate, Verdict, judge};

impl Session {
    /// What an attempt at the chunk at `index` came to.
    pub fn handle_outcome(&mut self, index: u32, outcome: Outcome, now: Instant, roll: f64) {
        match outcome {
            Outcome::Accepted { video_id, completion } => self.accept(index, video_id, completion, now),
            Outcome::Failed { error, fate } => self.fail(index, error, fate, now, roll),
        }
        self.advance(now);
    }

    fn accept(&mut self, index: u32, video_id: String, completion: Completion, now: Instant) {
        match &self.video_id {
            Some(ours) if *ours != video_id => {
                let doing = format!("send chunk {index} of {ours}");
                let reason = format!("the service stored it in another video, {video_id}");
                return self.end(Err(Error::new(ErrorKind::Mismatch, doing).because(reason)));
            }
            Some(_) => {}
            None => self.video_id = Some(video_id),
        }
        self.store(index, now);
        if completion == Completion::Complete {
            self.said = Completion::Complete;
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
        if fate == Fate::Unknown && self.video_id.is_none() && error.kind() != ErrorKind::Cancelled {
            self.happenings.push(Happening::StrayVideo);
        }
        match verdict {
            Verdict::GiveUp => self.end(Err(error)),
            _ if shown => self.store(index, now),
            Verdict::Again => self.send_again(index, error, fate, now, roll),
            Verdict::Throttled(delay) => self.hold_back(index, delay, error, now, roll),
            Verdict::AskFirst if may_ask => self.doubt(index, error, now),
            Verdict::AskFirst => self.send_again(index, error, fate, now, roll),
            Verdict::AlreadyThere if may_ask => self.doubt(index, error, now),
            Verdict::AlreadyThere => self.store(index, now),
            Verdict::Renew if record.renewed => self.end(Err(error)),
            Verdict::Renew => {
                record.renewed = true;
                self.chunks.mark(index, State::Waiting(None));
                self.say_retry(index, Why::from(&error), fate, Duration::ZERO);
                self.renew(error);
            }
        }
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
