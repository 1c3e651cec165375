//! What the session makes of the service's word on what it holds.

use std::time::{Duration, Instant};

use super::{Asking, Completion, Phase, Received, Session};
use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::upload::chunks::{IfAbsent, State};
use crate::upload::happening::{Happening, Why};
use crate::upload::pace::{Brake, Class};
use crate::upload::retry::{Attempt, Fate, Verdict, judge};
use crate::wire::Addressing;

impl Session {
    /// What the service holds, or why it could not be asked.
    pub fn handle_status(&mut self, status: Result<Received, Error>, now: Instant, roll: f64) {
        self.asking = Asking::No;
        match status {
            Ok(received) => {
                self.status_failures = 0;
                self.status_renewed = false;
                self.seen_alive = true;
                self.missing_since = None;
                self.seen_incomplete = !received.complete && !received.untold;
                self.compare(&received, now);
            }
            Err(error) => self.status_failed(error, now, roll),
        }
        self.advance(now);
    }

    /// Asks again within the bounds of the policy: a question that fails says nothing about the video.
    ///
    /// The error that ends the upload is resumable, unless the service denies a video that it never
    /// acknowledged in this run.
    fn status_failed(&mut self, error: Error, now: Instant, roll: f64) {
        self.trouble.get_or_insert(now);
        let at = match judge(&error, Fate::NotStored, Attempt::First) {
            Verdict::Later(delay) => now + self.policy.after_throttle(Some(delay), roll),
            Verdict::Throttled(delay) => {
                let delay = self.policy.after_throttle(delay, roll);
                let (class, why) = (Class::Reads, Brake::TooManyRequests);
                self.happenings.push(Happening::Throttled { class, why, delay });
                now + delay
            }
            Verdict::Renew if !self.status_renewed => {
                self.status_renewed = true;
                self.asking = Asking::DueAt(now);
                return self.renew(error);
            }
            Verdict::Missing if self.is_missing_for_long(now) => return self.end_unasked(error),
            Verdict::Renew => return self.end(Err(error)),
            _ if is_local(&error) || self.status_failures >= self.policy.retries => {
                return self.end_unasked(error);
            }
            _ => {
                self.status_failures += 1;
                now + self.policy.pause(self.status_failures, roll)
            }
        };
        if self.out_of_time(at) {
            return self.end_unasked(error);
        }
        self.asking = Asking::DueAt(at);
    }

    fn end_unasked(&mut self, error: Error) {
        self.end(Err(match error.kind() {
            ErrorKind::NotFound if self.seen_alive => error.and_resumable(),
            // Refused was the question, not the upload.
            ErrorKind::Refused | ErrorKind::AlreadySent | ErrorKind::AlreadyFilled => {
                error.with_kind(ErrorKind::Unavailable)
            }
            _ => error,
        }));
    }

    fn compare(&mut self, received: &Received, now: Instant) {
        if received.complete {
            return self.whole(received, now);
        }
        match self.phase {
            Phase::Reconciling => self.reconcile(received),
            Phase::Confirming => self.look_for_lost_chunks(received, now),
            _ => self.resolve_doubts(received, now),
        }
    }

    /// No status lists the chunks of a file that is complete: it is all of them.
    fn whole(&mut self, received: &Received, now: Instant) {
        let checked = self.check_length(received);
        let news: Vec<u32> =
            (0..self.chunks.known()).filter(|&index| !self.chunks.is_stored(index)).collect();
        match (&checked, &self.phase) {
            (Ok(_), Phase::Reconciling) => {
                news.into_iter().for_each(|index| self.settle(index));
                self.say_resumed();
            }
            (Ok(_), _) => news.into_iter().for_each(|index| self.say_done(index, now)),
            (Err(_), _) => {}
        }
        self.end(checked);
    }

    /// A container that is full though with other bytes is not ours.
    fn check_length(&self, received: &Received) -> Result<Completion, Error> {
        if !self.chunks.may_hold_all() {
            let reason = "the service calls the video complete, and not every chunk was sent";
            return Err(Error::new(ErrorKind::Mismatch, "confirm the whole file").because(reason));
        }
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
                true => self.settle(index),
                false => self.chunks.mark(index, State::Waiting(None)),
            }
        }
        self.phase = Phase::Sending;
        self.say_resumed();
    }

    /// A chunk that waits may turn out to be there as well: an earlier attempt took its time.
    fn resolve_doubts(&mut self, received: &Received, now: Instant) {
        for (index, shown) in self.shown(received) {
            match self.chunks.record(index).state {
                State::Waiting(_) | State::Doubtful { .. } if shown => self.store(index, now),
                State::Doubtful { looks, if_absent } if looks + 1 < looks_before(if_absent) => {
                    self.chunks.mark(index, State::Doubtful { looks: looks + 1, if_absent });
                    let pause = match if_absent {
                        IfAbsent::GiveUpLate => self.policy.pause(looks + 1, 1.0),
                        IfAbsent::SendAgain | IfAbsent::GiveUp => self.policy.grace * (looks + 1),
                    };
                    self.asking = Asking::DueAt(now + pause);
                }
                State::Doubtful { if_absent: IfAbsent::GiveUp | IfAbsent::GiveUpLate, .. } => {
                    let error = self.doubt.take().unwrap_or_else(unconfirmed);
                    // A status that lags may show the chunk to the next run.
                    return self.end(Err(error.and_resumable()));
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
        let lost = unconfirmed();
        let why = Why::from(self.doubt.as_ref().unwrap_or(&lost));
        self.say_retry(index, why, Fate::Unknown, Duration::ZERO);
    }

    /// Every chunk was acknowledged and still the service waits: it may need time, or have lost some.
    fn look_for_lost_chunks(&mut self, received: &Received, now: Instant) {
        self.confirmations += 1;
        self.trouble.get_or_insert(now);
        let lost: Vec<u32> =
            self.shown(received).filter(|(_, shown)| !shown).map(|(index, _)| index).collect();
        // The answers said "complete": a received set that agrees, or a status without one, does not contradict.
        if self.said == Completion::Complete && (lost.is_empty() || received.untold) {
            return self.end(Ok(Completion::Complete));
        }
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
    pub(super) fn shown(&self, received: &Received) -> impl Iterator<Item = (u32, bool)> + use<> {
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

fn unconfirmed() -> Error {
    Error::new(ErrorKind::Unavailable, "confirm the whole file")
        .because("the service took every chunk and still waits for some")
}

/// Whether the question failed on this side: asking again gives the same error.
fn is_local(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Internal, InvalidInput, Untrusted};
    matches!(error.kind(), Cancelled | Internal | InvalidInput | Untrusted)
}

fn looks_before(if_absent: IfAbsent) -> u32 {
    match if_absent {
        IfAbsent::SendAgain => LOOKS,
        IfAbsent::GiveUp => DISPUTED_LOOKS,
        IfAbsent::GiveUpLate => CONFIRMATIONS,
    }
}

/// How often the service is asked for a chunk whose answer was lost before it counts as absent.
const LOOKS: u32 = 2;

/// As before, for a chunk that was refused as one that is there: a file that is being put together is not listed.
const DISPUTED_LOOKS: u32 = 3;

/// How often the service is asked whether the file is whole, with growing pauses between.
const CONFIRMATIONS: u32 = 12;
