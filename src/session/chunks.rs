//! The chunks of one session and what is known of each.
//!
//! Pure bookkeeping: which may be sent, which are under way, whose fate is open, which are stored.

use std::time::Instant;

use crate::extent::Extent;
use crate::session::retry::AttemptKind;
use crate::wire::{Addressing, Chunk, ContentRange, Plan};

/// How the bytes become chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The length is known, and so is every chunk.
    Planned(Plan),
    /// Chunks appear one after another; the last one says so. They are sent as parts.
    Stream,
}

impl Layout {
    /// The plan, where the length is known.
    pub fn plan(self) -> Option<Plan> {
        match self {
            Layout::Planned(plan) => Some(plan),
            Layout::Stream => None,
        }
    }
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkState {
    /// To be sent, not before the given moment.
    Waiting(Option<Instant>),
    /// A lane is sending it.
    InFlight,
    /// It may be stored: the service is asked, and has been asked this many times.
    Doubtful {
        /// How often the service was asked and did not show it.
        status_checks: u32,
        /// The outcome when the service does not show the chunk.
        if_absent: IfAbsent,
    },
    /// The service has it.
    Stored,
}

/// The reaction to a status that does not show a chunk in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// Its answer was lost: it is sent again.
    SendAgain,
    /// The service refused the chunk as one that it holds, and does not show it: the upload ends.
    GiveUp,
    /// The service refused a chunk that it may have as one of a filled video. It may still put the file together,
    /// and takes no byte meanwhile: it is asked for as long as after the last chunk.
    GiveUpLate,
}

/// One chunk's record.
#[derive(Clone, Copy, Debug)]
pub struct ChunkRecord {
    /// Its bytes.
    pub extent: Extent,
    /// What is known of it.
    pub state: ChunkState,
    /// How many attempts failed in a way that counts.
    pub failures: u32,
    /// Whether an attempt before the next one may have stored it.
    pub attempt: AttemptKind,
    /// How many attempts were answered by something between here and the service.
    pub intercepted: u32,
    /// Whether credentials were renewed for its sake since it was last stored or refused.
    pub renewed: bool,
    /// Whether the service showed it while it was under way.
    pub seen_in_status: bool,
    /// The attempt that was begun last.
    pub begun: Option<StartedAttempt>,
}

/// An attempt at a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartedAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// When a lane took it.
    pub at: Instant,
}

/// All chunks of a session.
#[derive(Debug)]
pub struct Chunks {
    cut: Layout,
    records: Vec<ChunkRecord>,
    ended: bool,
    /// No chunk before this index waits.
    first_waiting: usize,
    stored: usize,
    stored_bytes: u64,
    in_flight: usize,
    doubtful: usize,
}

impl Chunks {
    /// Every chunk of the cut, waiting.
    pub fn new(cut: Layout) -> Chunks {
        let (records, ended) = match cut {
            Layout::Planned(plan) => {
                ((0..plan.chunks()).map(|i| fresh(plan.chunk(i).extent)).collect(), true)
            }
            Layout::Stream => (Vec::new(), false),
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

    /// A stream's next chunk.
    pub fn push(&mut self, extent: Extent, last: Last) {
        debug_assert!(!self.ended, "nothing follows the last chunk");
        self.records.push(fresh(extent));
        self.ended = last == Last::Yes;
    }

    /// The record of the chunk at `index`.
    pub fn record(&self, index: u32) -> &ChunkRecord {
        &self.records[index as usize]
    }

    /// The record of the chunk at `index`; its state changes by [`Chunks::mark`] alone.
    pub fn record_mut(&mut self, index: u32) -> &mut ChunkRecord {
        &mut self.records[index as usize]
    }

    /// Changes the state of a chunk.
    pub fn mark(&mut self, index: u32, state: ChunkState) {
        let i = index as usize;
        let old = std::mem::replace(&mut self.records[i].state, state);
        self.count(old, self.records[i].extent.len(), Step::Out);
        self.count(state, self.records[i].extent.len(), Step::In);
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

    /// The first chunk that may be sent at `now`.
    pub fn next_ready(&mut self, now: Instant) -> Option<u32> {
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

    /// When the next paused chunk may be sent; those whose pause is over are not counted.
    pub fn next_pause_end(&self, now: Instant) -> Option<Instant> {
        let pause = |record: &ChunkRecord| match record.state {
            ChunkState::Waiting(not_before) => not_before,
            ChunkState::InFlight | ChunkState::Doubtful { .. } | ChunkState::Stored => None,
        };
        self.records.get(self.first_waiting..)?.iter().filter_map(pause).filter(|&at| at > now).min()
    }

    /// The chunk at `index`.
    pub fn chunk(&self, index: u32) -> Chunk {
        Chunk { index, extent: self.records[index as usize].extent }
    }

    /// How the chunk at `index` is named on the wire.
    pub fn content_range(&self, index: u32) -> Option<ContentRange> {
        match self.cut {
            Layout::Planned(plan) => plan.content_range(index),
            Layout::Stream => {
                let last = self.ended && index as usize + 1 == self.records.len();
                Some(ContentRange::Part { number: index + 1, total: last.then_some(index + 1) })
            }
        }
    }

    /// The plan, where the length is known.
    pub fn plan(&self) -> Option<Plan> {
        self.cut.plan()
    }

    /// How chunks are named on the wire.
    pub fn addressing(&self) -> Addressing {
        match self.cut {
            Layout::Planned(plan) => plan.addressing(),
            Layout::Stream => Addressing::Part,
        }
    }

    /// How many chunks are known by now.
    pub fn known(&self) -> u32 {
        self.records.len() as u32
    }

    /// Whether every chunk is known and stored.
    pub fn all_stored(&self) -> bool {
        self.ended && self.stored == self.records.len()
    }

    /// How many chunks the service has.
    pub fn stored(&self) -> u32 {
        self.stored as u32
    }

    /// Whether the service has the chunk at `index`.
    pub fn is_stored(&self, index: u32) -> bool {
        self.records.get(index as usize).is_some_and(|record| record.state == ChunkState::Stored)
    }

    /// How many chunks lanes are sending.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the service can hold every chunk but the one at `index`: each is stored or was sent whole.
    ///
    /// A chunk under way counts. The service may have all of its bytes although its answer is still to come.
    pub fn may_hold_all_but(&self, index: u32) -> bool {
        let may_hold = |(i, record): (usize, &ChunkRecord)| {
            let is_unsent =
                matches!(record.state, ChunkState::Waiting(_)) && record.attempt == AttemptKind::First;
            i == index as usize || !is_unsent
        };
        self.ended && self.records.iter().enumerate().all(may_hold)
    }

    /// Whether the service can hold every chunk: none is missing that was never sent whole.
    pub fn may_hold_all(&self) -> bool {
        self.may_hold_all_but(self.known())
    }

    /// How many chunks are to be sent, now or after a pause.
    pub fn waiting(&self) -> usize {
        self.records.len() - self.stored - self.in_flight - self.doubtful
    }

    /// How many bytes the service has.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The length of the source, once every chunk is known.
    pub fn total_bytes(&self) -> Option<u64> {
        match self.cut {
            Layout::Planned(plan) => Some(plan.len()),
            Layout::Stream => self.ended.then(|| self.records.last().map_or(0, |r| r.extent.end())),
        }
    }
}

/// Whether a stream's chunk is its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// The stream ended with it.
    Yes,
    /// More follows.
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
