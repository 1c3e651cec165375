//! The chunks of one session and their states: waiting, in flight, in doubt, stored.

use std::time::Instant;

use crate::extent::Extent;
use crate::session::retry::AttemptKind;
use crate::wire::{Addressing, Chunk, ContentRange, Plan, PlanError, StreamPlan};

/// Division of a source into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A source of known length: every chunk is known.
    Planned(Plan),
    /// A stream of known length: the chunks of the plan are added one after another.
    PlannedStream(Plan),
    /// A stream of unknown length: chunks are added one after another up to one marked as last.
    Stream(StreamPlan),
}

impl Layout {
    /// Returns the plan; `None` for a stream.
    pub(crate) fn plan(self) -> Option<Plan> {
        match self {
            Layout::Planned(plan) => Some(plan),
            Layout::PlannedStream(_) | Layout::Stream(_) => None,
        }
    }

    /// Returns the length of the source in bytes; `None` if it is unknown until the source ends.
    pub(crate) fn total_bytes(self) -> Option<u64> {
        match self {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => Some(plan.len()),
            Layout::Stream(_) => None,
        }
    }
}

/// State of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkState {
    /// To be sent, not before the given time.
    Waiting(Option<Instant>),
    /// A lane is sending it.
    InFlight,
    /// Possibly stored; the status decides.
    Doubtful {
        /// Number of status queries that did not list the chunk.
        status_checks: u32,
        /// The outcome when the service does not show the chunk.
        if_absent: IfAbsent,
    },
    /// The service has stored the chunk.
    Stored,
}

/// Reaction to a status that does not list a chunk in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfAbsent {
    /// Send the chunk again: only its answer was lost.
    SendAgain,
    /// End the upload: the service refused the chunk as already there and does not list it.
    GiveUp,
    /// End the upload after as many queries as follow the last chunk: the service called the video filled. It
    /// accepts no bytes while it assembles the file, and lists none.
    GiveUpLate,
}

/// Record of one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkRecord {
    /// Bytes of the chunk in the source.
    pub extent: Extent,
    /// Current state.
    pub state: ChunkState,
    /// Failed attempts that count against the policy.
    pub failures: u32,
    /// Kind of the next attempt: first, or repeated after one that may have stored the chunk.
    pub attempt: AttemptKind,
    /// Attempts that an intermediary answered.
    pub intercepted: u32,
    /// `true` if credentials were renewed for this chunk since it was last stored or refused.
    pub renewed: bool,
    /// `true` if a status listed the chunk while it was in flight.
    pub seen_in_status: bool,
    /// The most recent attempt.
    pub begun: Option<StartedAttempt>,
}

/// Start of an attempt at a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StartedAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// Time at which a lane took the chunk.
    pub at: Instant,
}

/// All chunks of a session.
#[derive(Debug)]
pub(crate) struct Chunks {
    cut: Layout,
    records: Vec<ChunkRecord>,
    ended: bool,
    /// Lower bound of the indexes of waiting chunks, so that `next_ready` does not scan stored ones.
    first_waiting: usize,
    stored: usize,
    stored_bytes: u64,
    in_flight: usize,
    doubtful: usize,
}

impl Chunks {
    /// Creates the chunks of the layout, all waiting.
    pub(crate) fn new(cut: Layout) -> Chunks {
        let (records, ended) = match cut {
            Layout::Planned(plan) => {
                ((0..plan.chunks()).map(|i| fresh(plan.chunk(i).extent)).collect(), true)
            }
            // A stream's chunks are unknown until its bytes are read, even if its length is known.
            Layout::PlannedStream(_) | Layout::Stream(_) => (Vec::new(), false),
        };
        Chunks {
            cut,
            records,
            ended,
            first_waiting: 0,
            stored: 0,
            stored_bytes: 0,
            in_flight: 0,
            doubtful: 0,
        }
    }

    /// Returns `true` if a chunk can be sent again after it was stored. The memory of a stream's chunk is freed then.
    pub(crate) fn keep_stored_bytes(&self) -> bool {
        matches!(self.cut, Layout::Planned(_))
    }

    /// Adds the next chunk of a stream.
    pub(crate) fn push(&mut self, extent: Extent, last: Last) {
        debug_assert!(!self.ended, "nothing follows the last chunk");
        self.records.push(fresh(extent));
        self.ended = last == Last::Yes;
    }

    /// Returns the record of the chunk at `index`.
    pub(crate) fn record(&self, index: u32) -> &ChunkRecord {
        &self.records[index as usize]
    }

    /// Returns the record of the chunk at `index`. Only [`Chunks::mark`] may change its state.
    pub(crate) fn record_mut(&mut self, index: u32) -> &mut ChunkRecord {
        &mut self.records[index as usize]
    }

    /// Changes the state of a chunk.
    pub(crate) fn mark(&mut self, index: u32, state: ChunkState) {
        let i = index as usize;
        let old = std::mem::replace(&mut self.records[i].state, state);
        self.count(old, self.records[i].extent.len(), Step::Out);
        self.count(state, self.records[i].extent.len(), Step::In);
        // A chunk that waits again may precede the lower bound, which would hide it from `next_ready`.
        if matches!(state, ChunkState::Waiting(_)) {
            self.first_waiting = self.first_waiting.min(i);
        }
    }

    fn count(&mut self, state: ChunkState, len: u64, step: Step) {
        let counter = match state {
            ChunkState::Waiting(_) => return,
            ChunkState::InFlight => &mut self.in_flight,
            ChunkState::Doubtful { .. } => &mut self.doubtful,
            ChunkState::Stored => &mut self.stored,
        };
        match step {
            Step::In => *counter += 1,
            Step::Out => *counter -= 1,
        }
        if state == ChunkState::Stored {
            match step {
                Step::In => self.stored_bytes += len,
                Step::Out => self.stored_bytes -= len,
            }
        }
    }

    /// Returns the first chunk that may be sent at `now`.
    pub(crate) fn next_ready(&mut self, now: Instant) -> Option<u32> {
        while self.records.get(self.first_waiting).is_some_and(|r| !matches!(r.state, ChunkState::Waiting(_)))
        {
            self.first_waiting += 1;
        }
        let ready = |record: &ChunkRecord| match record.state {
            ChunkState::Waiting(not_before) => not_before.is_none_or(|at| at <= now),
            ChunkState::InFlight | ChunkState::Doubtful { .. } | ChunkState::Stored => false,
        };
        let found = self.records[self.first_waiting..].iter().position(ready)?;
        Some((self.first_waiting + found) as u32)
    }

    /// Returns the earliest end of a pause later than `now`.
    pub(crate) fn next_pause_end(&self, now: Instant) -> Option<Instant> {
        let pause = |record: &ChunkRecord| match record.state {
            ChunkState::Waiting(not_before) => not_before,
            ChunkState::InFlight | ChunkState::Doubtful { .. } | ChunkState::Stored => None,
        };
        self.records.get(self.first_waiting..)?.iter().filter_map(pause).filter(|&at| at > now).min()
    }

    /// Returns the chunk at `index`.
    pub(crate) fn chunk(&self, index: u32) -> Chunk {
        Chunk { index, extent: self.records[index as usize].extent }
    }

    /// Returns the `Content-Range` of the chunk at `index`; `None` for a single request.
    pub(crate) fn content_range(&self, index: u32) -> Option<ContentRange> {
        match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => plan.content_range(index),
            Layout::Stream(plan) => {
                let extent = self.records[index as usize].extent;
                Some(plan.content_range(index, extent, self.total_bytes()))
            }
        }
    }

    /// Returns the plan; `None` for a stream.
    pub(crate) fn plan(&self) -> Option<Plan> {
        self.cut.plan()
    }

    /// Checks that the service takes the next chunk of a stream.
    ///
    /// # Errors
    /// [`PlanError::StreamTooLong`]. The length of other sources was checked with their plan.
    pub(crate) fn check(&self, extent: Extent, last: Last) -> Result<(), PlanError> {
        match self.cut {
            Layout::Planned(_) | Layout::PlannedStream(_) => Ok(()),
            Layout::Stream(plan) => plan.check(extent, last == Last::Yes),
        }
    }

    /// Returns the addressing of the chunks.
    pub(crate) fn addressing(&self) -> Addressing {
        match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => plan.addressing(),
            Layout::Stream(plan) => plan.addressing(),
        }
    }

    /// Returns the number of known chunks.
    pub(crate) fn known(&self) -> u32 {
        self.records.len() as u32
    }

    /// Returns `true` if every chunk is known and stored.
    pub(crate) fn all_stored(&self) -> bool {
        self.ended && self.stored == self.records.len()
    }

    /// Returns the number of stored chunks.
    pub(crate) fn stored(&self) -> u32 {
        self.stored as u32
    }

    /// Returns `true` if the chunk at `index` is stored.
    pub(crate) fn is_stored(&self, index: u32) -> bool {
        self.records.get(index as usize).is_some_and(|record| record.state == ChunkState::Stored)
    }

    /// Returns the number of chunks in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns `true` if the service can hold every chunk except the one at `index`: each is stored or was sent
    /// whole.
    ///
    /// A chunk in flight counts. The service may have all of its bytes before its answer arrives.
    pub(crate) fn may_hold_all_but(&self, index: u32) -> bool {
        let may_hold = |(i, record): (usize, &ChunkRecord)| {
            let is_unsent =
                matches!(record.state, ChunkState::Waiting(_)) && record.attempt == AttemptKind::First;
            // `First` is replaced once an attempt may have stored the chunk, so only such a waiting chunk is
            // surely absent.
            i == index as usize || !is_unsent
        };
        // More chunks of an open stream follow, and the service cannot hold those.
        self.ended && self.records.iter().enumerate().all(may_hold)
    }

    /// Returns `true` if the service can hold every chunk: each is stored or was sent whole.
    pub(crate) fn may_hold_all(&self) -> bool {
        self.may_hold_all_but(self.known())
    }

    /// Returns the number of chunks to send, now or after a pause.
    pub(crate) fn waiting(&self) -> usize {
        self.records.len() - self.stored - self.in_flight - self.doubtful
    }

    /// Returns the number of stored file bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Returns the number of stored file bytes that this session has sent. An earlier session sent the others.
    pub(crate) fn sent_bytes(&self) -> u64 {
        // A chunk that was taken from a journal or a status has no attempt of this run.
        let is_sent = |record: &&ChunkRecord| record.state == ChunkState::Stored && record.begun.is_some();
        self.records.iter().filter(is_sent).map(|record| record.extent.len()).sum()
    }

    /// Returns the length of the source in bytes; `None` while it is unknown.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        let at_end = || self.ended.then(|| self.records.last().map_or(0, |record| record.extent.end()));
        self.cut.total_bytes().or_else(at_end)
    }

    /// Returns the number of chunks of the source; `None` while it is unknown.
    pub(crate) fn total(&self) -> Option<u32> {
        match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => Some(plan.chunks()),
            Layout::Stream(_) => self.ended.then_some(self.known()),
        }
    }

    /// Returns `true` if every chunk of the source is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Position of a stream's chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// The last chunk.
    Yes,
    /// More chunks follow.
    No,
}

enum Step {
    In,
    Out,
}

fn fresh(extent: Extent) -> ChunkRecord {
    ChunkRecord {
        extent,
        state: ChunkState::Waiting(None),
        failures: 0,
        intercepted: 0,
        attempt: AttemptKind::First,
        renewed: false,
        seen_in_status: false,
        begun: None,
    }
}
