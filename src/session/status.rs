//! Reactions to the status of the video.

use std::time::{Duration, Instant};

use super::{Completion, ReceivedSet, Session, SessionPhase, StatusQuery};
use crate::error::{Error, ErrorKind};
use crate::extent::Extent;
use crate::pacing::{Class, ThrottleReason};
use crate::session::chunks::{ChunkState, IfAbsent};
use crate::session::event::{FailureSummary, UploadEvent};
use crate::session::retry::{AttemptKind, Fate, RetryDecision, decide};
use crate::wire::Addressing;

impl Session {
    /// Returns the class of the request that the session waits for; `None` if it can go on without one.
    pub(crate) fn awaited_class(&self) -> Option<Class> {
        match (&self.phase, self.status_query) {
            (SessionPhase::CreationAsked, _) => Some(Class::Writes),
            (_, StatusQuery::Asked) => Some(Class::Reads),
            _ => self.wants_lane().then_some(Class::Uploads),
        }
    }

    /// Handles the result of [`SessionAction::AskStatus`](super::SessionAction::AskStatus).
    pub(crate) fn handle_status(&mut self, status: Result<ReceivedSet, Error>, now: Instant, jitter: f64) {
        self.status_query = StatusQuery::No;
        match status {
            // Every readable status answers, so the next failure begins a new series.
            Ok(received) => {
                self.status_failures = 0;
                self.status_renewed = false;
                // A status of the video proves that it exists.
                self.acknowledged = true;
                self.missing_since = None;
                // A status without lists states nothing about missing bytes. One that was asked for before a chunk
                // moved may be older than that chunk.
                self.seen_incomplete =
                    !received.complete && !received.lists_nothing && !self.has_moved_since_query;
                // The driver handles several events before it acts on the end. After the end the chunks of an earlier
                // run, which this status lists, would be reported as sent by this one.
                if !self.has_ended() {
                    self.compare(&received, now);
                }
            }
            Err(_) if self.has_ended() => {}
            Err(error) => self.status_failed(error, now, jitter),
        }
        self.advance(now);
    }

    /// Repeats the query within the limits of the policy: a failed query is no statement about the video.
    ///
    /// The error that ends the upload is resumable, unless the service does not know a video that it never
    /// acknowledged in this run.
    fn status_failed(&mut self, error: Error, now: Instant, jitter: f64) {
        self.failing_since.get_or_insert(now);
        let at = match decide(&error, Fate::NotStored, AttemptKind::First) {
            RetryDecision::Later(delay) => now + self.policy.after_throttle(Some(delay), jitter),
            // A throttled query did not fail, so it takes none of the retries.
            RetryDecision::Throttled(delay) => {
                let delay = self.policy.after_throttle(delay, jitter);
                let (class, why) = (Class::Reads, ThrottleReason::TooManyRequests);
                self.events.push(UploadEvent::Throttled { class, why, delay });
                now + delay
            }
            // Expired credentials are routine once. A second refusal in a row is final.
            RetryDecision::Renew if !self.status_renewed => {
                self.status_renewed = true;
                self.status_query = StatusQuery::DueAt(now);
                return self.renew(error);
            }
            // A 404 may come from a replica that lags. The bound keeps a deleted video from being queried for
            // ever.
            RetryDecision::Missing if self.is_missing_for_long(now) => return self.end_unasked(error),
            RetryDecision::Renew => return self.end(Err(error)),
            // An error of this host does not pass by waiting.
            _ if is_local(&error) || self.status_failures >= self.policy.retries => {
                return self.end_unasked(error);
            }
            _ => {
                self.status_failures += 1;
                now + self.policy.pause(self.status_failures, jitter)
            }
        };
        // The next query would begin after the time limit.
        if self.out_of_time(at) {
            return self.end_unasked(error);
        }
        self.status_query = StatusQuery::DueAt(at);
    }

    fn end_unasked(&mut self, error: Error) {
        self.end(Err(match error.kind() {
            // This run saw the video, so a 404 now does not prove that it is gone.
            ErrorKind::NotFound if self.acknowledged => error.and_resumable(),
            // The query was refused, not the upload.
            ErrorKind::Refused | ErrorKind::AlreadySent | ErrorKind::AlreadyFilled => {
                error.with_kind(ErrorKind::Unavailable)
            }
            _ => error,
        }));
    }

    fn compare(&mut self, received: &ReceivedSet, now: Instant) {
        if received.complete {
            return self.complete(received, now);
        }
        match self.phase {
            SessionPhase::Reconciling => self.reconcile(received),
            SessionPhase::Confirming => self.look_for_lost_chunks(received, now),
            _ => self.resolve_doubts(received, now),
        }
    }

    /// Ends the session: the video is complete. A status of a complete video lists no chunks, so all of them count
    /// as stored.
    fn complete(&mut self, received: &ReceivedSet, now: Instant) {
        let checked = self.check_length(received);
        let news: Vec<u32> =
            (0..self.chunks.known()).filter(|&index| !self.chunks.is_stored(index)).collect();
        match (&checked, &self.phase) {
            (Ok(_), SessionPhase::Reconciling) => {
                news.into_iter().for_each(|index| self.mark_stored(index));
                self.report_resumed();
            }
            // Marked, so that the answers that are still on their way report none of them again.
            (Ok(_), _) => news.into_iter().for_each(|index| self.store(index, now)),
            (Err(_), _) => {}
        }
        self.end(checked);
    }

    /// Checks that the complete video has the length of the source. Another length means other bytes.
    fn check_length(&self, received: &ReceivedSet) -> Result<Completion, Error> {
        // Another client may have filled the video: equal length would not make it this file.
        if !self.chunks.may_hold_all() {
            let reason = "the service calls the video complete, and not every chunk was sent";
            return Err(Error::new(ErrorKind::Mismatch, "confirm the whole file").because(reason));
        }
        match (received.file_bytes, self.chunks.total_bytes()) {
            // The service reports the length only after the ingest, so an absent one contradicts nothing.
            (Some(theirs), Some(ours)) if theirs != ours => {
                let reason = format!("the service ingested {theirs} bytes and the source has {ours}");
                Err(Error::new(ErrorKind::Mismatch, "confirm the whole file").because(reason))
            }
            _ => Ok(Completion::Complete),
        }
    }

    /// Replaces the state of every chunk by the status.
    fn reconcile(&mut self, received: &ReceivedSet) {
        // The service may have lost acknowledged chunks, for example by a restart. Its status overrides the
        // journal.
        for (index, seen_in_status) in self.seen_in_status(received) {
            if seen_in_status {
                self.mark_stored(index);
            } else {
                self.chunks.mark(index, ChunkState::Waiting(None));
            }
        }
        self.phase = SessionPhase::Sending;
        self.report_resumed();
    }

    /// Resolves the chunks in doubt by the status. A waiting chunk may be listed too, when an earlier attempt
    /// arrived late.
    fn resolve_doubts(&mut self, received: &ReceivedSet, now: Instant) {
        for (index, seen_in_status) in self.seen_in_status(received) {
            match self.chunks.record(index).state {
                ChunkState::Waiting(_) | ChunkState::Doubtful { .. } if seen_in_status => {
                    self.store(index, now)
                }
                ChunkState::Doubtful { status_checks, if_absent }
                    if status_checks + 1 < looks_before(if_absent) =>
                {
                    self.chunks
                        .mark(index, ChunkState::Doubtful { status_checks: status_checks + 1, if_absent });
                    let pause = match if_absent {
                        IfAbsent::GiveUpLate => self.policy.pause(status_checks + 1, 1.0),
                        IfAbsent::SendAgain | IfAbsent::GiveUp => self.policy.grace * (status_checks + 1),
                    };
                    self.status_query = StatusQuery::DueAt(now + pause);
                }
                ChunkState::Doubtful { if_absent: IfAbsent::GiveUp | IfAbsent::GiveUpLate, .. } => {
                    let error = self.doubt.take().unwrap_or_else(unconfirmed);
                    // A status that lags may show the chunk to the next run.
                    return self.end(Err(error.and_resumable()));
                }
                ChunkState::Doubtful { .. } => self.send_absent(index, now),
                // The attempt under way decides. `fail` consults this when the attempt is refused as "already
                // there".
                ChunkState::InFlight => self.chunks.record_mut(index).seen_in_status = seen_in_status,
                ChunkState::Waiting(_) | ChunkState::Stored => {}
            }
        }
    }

    /// Sends a chunk again that the status does not list.
    fn send_absent(&mut self, index: u32, now: Instant) {
        let failures = self.chunks.record(index).failures;
        // Without this bound a service that never lists the chunk would receive it for ever.
        if failures > self.policy.retries || self.out_of_time(now) {
            let error = self.doubt.take().unwrap_or_else(unconfirmed);
            return self.end(Err(error.after_attempts(failures)));
        }
        self.resent_bytes += self.chunks.record(index).extent.len();
        self.chunks.mark(index, ChunkState::Waiting(None));
        let lost = unconfirmed();
        let why = FailureSummary::from(self.doubt.as_ref().unwrap_or(&lost));
        self.report_retry(index, why, Fate::Unknown, Duration::ZERO);
    }

    /// Handles a status without completion after every chunk was acknowledged. The service may need time to
    /// assemble the file, or have lost chunks.
    fn look_for_lost_chunks(&mut self, received: &ReceivedSet, now: Instant) {
        self.confirmations += 1;
        self.failing_since.get_or_insert(now);
        let lost: Vec<u32> = self
            .seen_in_status(received)
            .filter(|(_, seen_in_status)| !seen_in_status)
            .map(|(index, _)| index)
            .collect();
        // The answers reported "complete": a received set that agrees, or a status without one, does not contradict.
        if self.reported == Completion::Complete && (lost.is_empty() || received.lists_nothing) {
            return self.end(Ok(Completion::Complete));
        }
        // An empty list may come from a replica that lags or a service that keeps no count: nothing is sent again for
        // it. Every second query only, so that a single lagging answer does not repeat a chunk.
        let listed = !received.extents.is_empty() || !received.parts.is_empty();
        // Only byte ranges or parts that are listed can show by their absence that another is missing.
        let shows_loss = listed && !lost.is_empty();
        let can_repeat = self.chunks.keep_stored_bytes();
        if shows_loss && can_repeat && self.confirmations.is_multiple_of(LOOKS) {
            self.phase = SessionPhase::Sending;
            self.confirmations = 0;
            for index in lost {
                let record = self.chunks.record_mut(index);
                record.failures += 1;
                // The lost chunk was acknowledged once, so a later "already there" is explained.
                record.attempt = AttemptKind::Repeated;
                self.send_absent(index, now);
            }
            return;
        }
        // The service may assemble a large file for a while, but a queue that never ends must not block the
        // upload.
        if self.confirmations > CONFIRMATIONS || self.out_of_time(now) {
            let is_lost_for_good = shows_loss && !can_repeat;
            return self.end(Err(if is_lost_for_good { lost_for_good() } else { unconfirmed() }));
        }
        self.status_query = StatusQuery::DueAt(now + self.policy.pause(self.confirmations, 1.0));
    }

    /// Returns every chunk index with `true` if the status lists it. A single request is never listed.
    pub(super) fn seen_in_status(&self, received: &ReceivedSet) -> impl Iterator<Item = (u32, bool)> + use<> {
        let mut parts = received.parts.clone();
        parts.sort_unstable();
        let stored = union(&received.extents);
        let seen_in_status = |index| match self.chunks.addressing() {
            Addressing::Single => false,
            Addressing::ByteRange => {
                let extent = self.chunks.record(index).extent;
                // The ranges are merged and sorted: only the first one that ends late enough can contain the chunk.
                let at = stored.partition_point(|stored| stored.end() < extent.end());
                stored.get(at).is_some_and(|stored| stored.contains(extent))
            }
            // Parts are numbered from 1 on the wire.
            Addressing::Part => parts.binary_search(&(index + 1)).is_ok(),
        };
        let seen_in_status: Vec<bool> = (0..self.chunks.known()).map(seen_in_status).collect();
        (0..).zip(seen_in_status)
    }
}

/// Merges adjacent extents: a service may split and order the ranges in any way.
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

fn lost_for_good() -> Error {
    Error::new(ErrorKind::Unavailable, "confirm the whole file")
        .because("the service lost bytes that it had acknowledged, and a stream cannot be read again")
}

/// Returns `true` if the query failed on this host, where repeating it gives the same error.
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

/// Status queries that must not list a chunk whose answer was lost before it counts as absent. Two, because a
/// request that looked lost may still be in a proxy's buffer at the first.
const LOOKS: u32 = 2;

/// The same for a chunk that was refused as "already there". One more, because a file that is being assembled is
/// not listed.
const DISPUTED_LOOKS: u32 = 3;

/// Status queries for the completion of the file, with growing pauses between them.
const CONFIRMATIONS: u32 = 12;
