//! The rounds of the driver: all that has arrived is taken in at once, and the journal commits its records together.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;

use super::Driver;
use crate::engine::command::EngineCommand;
use crate::engine::event::EngineEvent;
use crate::engine::worker::{LaneReport, SentWhole};
use crate::engine::workers::WorkerPool;
use crate::session::event::FailureSummary;

/// Something that has arrived for the driver.
pub(super) enum Arrival {
    Command(EngineCommand),
    Report(LaneReport),
    Event(EngineEvent),
    /// Every handle was dropped.
    NoHandles,
    /// A timer has run out.
    Tick,
}

impl Driver {
    /// Waits for the next arrival.
    pub(super) async fn wait(&mut self) -> Arrival {
        let tick = self.next_wake().unwrap_or_else(|| Instant::now() + IDLE_TICK);
        tokio::select! {
            // A closed inbox is always ready and would turn this wait into a loop.
            command = self.inbox.recv(), if !self.handles_gone => match command {
                Some(command) => Arrival::Command(command),
                None => Arrival::NoHandles,
            },
            // `None` disables its branch for this wait: every worker has ended, or there is no task.
            Some(report) = next_report(&mut self.workers) => Arrival::Report(report),
            Some(event) = self.tasks.next() => Arrival::Event(event),
            () = tokio::time::sleep_until(tick.into()) => Arrival::Tick,
        }
    }

    /// Returns `first` with all that is ready: a scheduling round costs the same for one arrival as for many.
    pub(super) fn all_ready(&mut self, first: Arrival) -> Vec<Arrival> {
        let mut arrivals = vec![first];
        // The tasks make requests, so that they are polled while no batch of the journal is open.
        let events = || self.tasks.next().now_or_never().flatten().map(Arrival::Event);
        arrivals.extend(std::iter::from_fn(events).take(READY_AT_ONCE));
        let reports = || next_report(&mut self.workers).now_or_never().flatten().map(Arrival::Report);
        arrivals.extend(std::iter::from_fn(reports).take(READY_AT_ONCE));
        let commands = || self.inbox.try_recv().ok().map(Arrival::Command);
        arrivals.extend(std::iter::from_fn(commands).take(READY_AT_ONCE));
        arrivals
    }

    /// Takes in all arrivals. The journal has their records afterwards.
    pub(super) fn take_in(&mut self, arrivals: Vec<Arrival>) {
        let (mut sent, mut others) = (Vec::new(), Vec::new());
        for arrival in arrivals {
            match arrival {
                Arrival::Report(LaneReport::SentWhole(chunk)) => sent.push(chunk),
                arrival => others.push(arrival),
            }
        }
        // First: the lane that has sent a chunk reports its end later.
        self.take_sent(sent);
        self.journal_handle.begin_batch();
        // A session may end with one of these and receive the next ones before `pump` acts on its end: every handler of
        // a session has to accept an event after the end.
        for arrival in others {
            match arrival {
                Arrival::Command(command) => self.take_command(command),
                Arrival::Report(LaneReport::Idle { lane, done }) => self.take_idle_lane(lane, done),
                Arrival::Event(event) => self.take_event(event),
                Arrival::NoHandles => self.handles_gone = true,
                Arrival::Report(LaneReport::SentWhole(_)) | Arrival::Tick => {}
            }
        }
        self.commit_batch();
    }

    /// Commits the records of this round. Fails the uploads whose requests depend on a record that the journal does not
    /// have. Returns `true` if the journal has all records.
    pub(super) fn commit_batch(&mut self) -> bool {
        let committed = self.journal_handle.commit_batch();
        if let Err((batch, error)) = &committed {
            let why = FailureSummary::from(error).message;
            tracing::warn!(error = %why, "the journal did not take the records of some uploads");
            self.transfers.values_mut().for_each(|transfer| transfer.fail_unrecorded(*batch, error));
        }
        self.transfers.values_mut().for_each(|transfer| transfer.publish_checkpoint());
        committed.is_ok()
    }

    /// Records the digests of chunks, and lets the lanes write the ends of their requests afterwards.
    fn take_sent(&mut self, sent: Vec<SentWhole>) {
        if sent.is_empty() {
            return;
        }
        self.journal_handle.begin_batch();
        let mut written: Vec<oneshot::Sender<()>> = Vec::with_capacity(sent.len());
        for chunk in sent {
            // Without its transfer the sender is dropped, so that the request never ends; its lane gives it up.
            if let Some(transfer) = self.transfers.get_mut(&chunk.session) {
                written.push(transfer.sent(chunk));
            }
        }
        self.commit_batch();
        for written in written {
            // The lane may have dropped the attempt meanwhile.
            let _ = written.send(());
        }
    }
}

async fn next_report(workers: &mut Option<WorkerPool>) -> Option<LaneReport> {
    match workers {
        Some(workers) => workers.next_report().await,
        None => std::future::pending().await,
    }
}

/// The arrivals handled per round and source, so that no source starves the others, and other processes get the lock of
/// the journal.
const READY_AT_ONCE: usize = 64;

/// The longest sleep without an upload. No timer matters then, so any bound works.
const IDLE_TICK: Duration = Duration::from_secs(60);
