//! The start of queued uploads, in order and within the limits.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::Driver;
use crate::engine::command::UploadCommand;
use crate::engine::counters::{CountedEnd, Counters};
use crate::engine::event::EngineEvent;
use crate::engine::request::StopRequest;
use crate::engine::settings::Settings;
use crate::engine::source::{self, OpenedSource};
use crate::engine::transfer::Transfer;
use crate::engine::worker::SessionId;
use crate::engine::workers::{ReaderEnvironment, SILENCE_LIMIT, WorkerPool};
use crate::error::{Error, ErrorKind, Result};
use crate::pacing::{Caps, Class, Workload};
use crate::session::chunks::Chunks;
use crate::source::MemoryBudget;
use crate::transport::Dialer;

impl Driver {
    /// Replaces workers that have ended early or are stuck. Called without an upload, so that no lane is in use.
    fn replace_stuck_workers(&mut self) {
        if let Some(workers) =
            self.workers.take_if(|workers| workers.is_lost() || workers.is_silent(SILENCE_LIMIT))
        {
            workers.join();
            // These numbers name lanes of the old pool.
            self.idle.clear();
            self.permits.clear();
        }
    }

    /// Fails the uploads whose worker thread has panicked, or is stuck in a system call. Such a worker cannot report
    /// the result of its chunks.
    pub(super) fn fail_uploads_of_stuck_workers(&mut self, now: Instant) {
        let Some(workers) = &mut self.workers else { return };
        if !self.transfers.is_empty() {
            // Without an upload the driver wakes too rarely to measure silence.
            workers.watch(now);
        }
        // A source may be silent for as long as `body`; a page fault on it holds the whole worker.
        let bound = self.settings.patience.body.max(SILENCE_LIMIT);
        // An upload without a lane of its own is stuck only if every worker is.
        let is_stuck = |transfer: &Transfer| {
            workers.is_silent(bound) || transfer.lanes.keys().any(|&lane| workers.is_lane_silent(lane, bound))
        };
        for transfer in self.transfers.values_mut().filter(|transfer| is_stuck(transfer)) {
            transfer.session.handle_failure(transfer.stuck_error(bound));
        }
        let has_lost_lane = |transfer: &Transfer| {
            workers.is_lost() || transfer.lanes.keys().any(|&lane| workers.has_lost(lane))
        };
        for transfer in self.transfers.values_mut().filter(|transfer| has_lost_lane(transfer)) {
            let error = Error::new(ErrorKind::Internal, "send chunks");
            transfer.session.handle_failure(error.because("the thread that was to send them has ended"));
        }
    }

    /// Starts queued uploads up to the limit. Returns `true` if the queue became shorter.
    pub(super) fn begin_uploads(&mut self) -> bool {
        if self.has_no_upload() {
            self.replace_stuck_workers();
        }
        let waiting = self.queue.len();
        while self.may_begin() {
            let Some(command) = self.queue.pop_front() else { break };
            self.begin(command);
        }
        self.queue.len() < waiting
    }

    /// Opens the source of an upload that was queued.
    fn begin(&mut self, command: Box<UploadCommand>) {
        self.counters.begun();
        // Cancelled in the queue: its source was never opened.
        if *command.halted.borrow() != StopRequest::No {
            return self.refuse(command, Error::new(ErrorKind::Cancelled, "begin the upload"));
        }
        let id = self.next_session;
        self.next_session += 1;
        let workers = started_workers(&mut self.workers, &self.settings, &self.dialer, &self.counters);
        let environment = match workers {
            Ok(workers) => workers.environment(),
            Err(error) => return self.refuse(command, error),
        };
        // Before `opening` counts this upload: the work is that of the others.
        let work = self.workload(Instant::now());
        self.opening += 1;
        self.tasks.push(open_source(id, command, &self.settings, environment, work, self.counters.memory()));
    }

    /// Ends an upload before its source is opened.
    fn refuse(&self, command: Box<UploadCommand>, error: Error) {
        self.counters.ended(CountedEnd::of_error(&error));
        // The send fails if the caller dropped its future.
        let _ = command.reply.send(Err(error));
    }

    /// Returns `true` if the limits allow another upload to begin.
    ///
    /// A small file spends most of its time before and after its request: claimed, checked, recorded. Small files that are
    /// ahead of their requests do not count as uploads, so that no lane waits for them.
    fn may_begin(&self) -> bool {
        // Uploads without a video count: at an endpoint that does not answer, each one more would be one more attempt.
        let is_ahead = |transfer: &Transfer| transfer.is_small() && !transfer.awaits_video();
        let small = self.transfers.values().filter(|transfer| is_ahead(transfer)).count();
        let counted = self.transfers.len() - small.min(self.open_files.small);
        self.opening < self.open_files.opening && counted + self.opening < self.open_files.transfers
    }

    /// Returns the work beside the upload that begins now.
    fn workload(&self, now: Instant) -> Workload {
        let caps = &self.settings.caps;
        // The pacer knows the preset, which the service's answers replace.
        let user = Caps { preset: None, ..caps.clone() }.most_uploads_a_minute();
        let budget = self.pacer.borrow().budget(Class::Uploads, now);
        let per_minute = budget.map(|budget| budget.per_minute).into_iter().chain(user).min();
        let chunks = || self.transfers.values().map(|transfer| transfer.session.chunks());
        let planned: usize = chunks().map(Chunks::waiting).sum();
        let left = budget.map(|budget| budget.left).or(per_minute);
        // A stream has no length until its end, though chunks of it may be stored.
        let unsent =
            |chunks: &Chunks| chunks.total_bytes().unwrap_or(0).saturating_sub(chunks.stored_bytes());
        let backlog = &self.settings.backlog;
        // The files of these are not open yet, so their lengths are estimated.
        let unopened = (self.queue.len() + self.opening) as u64;
        let estimated = self.measured.mean().map(|mean| mean.saturating_mul(unopened));
        let mut work = Workload::alone(per_minute);
        work.waiting = unopened.saturating_add(backlog.uploads());
        work.waiting_bytes = backlog.bytes().saturating_add(estimated.unwrap_or(0));
        work.unmeasured = if estimated.is_some() { 0 } else { unopened };
        work.planned_bytes = chunks().map(unsent).sum();
        work.uploads_left = left.map(|left| left.saturating_sub(planned as u32));
        work
    }

    /// Takes in an opened source and begins its upload.
    pub(super) fn opened(&mut self, id: SessionId, command: UploadCommand, opened: Result<OpenedSource>) {
        self.opening -= 1;
        if let Some(plan) = opened.as_ref().ok().and_then(|opened| opened.cut.plan()) {
            self.measured.add(plan.len());
        }
        let (transfer, tasks) =
            Transfer::prepare(id, command, opened, &self.settings, &self.journal_handle, &self.counters);
        self.tasks.extend(tasks);
        self.transfers.extend(transfer.map(|transfer| (id, transfer)));
    }
}

/// Opens the source. A stop request ends the wait.
fn open_source(
    id: SessionId,
    mut command: Box<UploadCommand>,
    settings: &Settings,
    environment: ReaderEnvironment,
    work: Workload,
    memory: &MemoryBudget,
) -> LocalBoxFuture<'static, EngineEvent> {
    let opened = source::open(&mut command.request, settings, environment, work, memory);
    Box::pin(async move {
        let mut halted = command.halted.clone();
        let opened = tokio::select! {
            biased;
            opened = opened => opened,
            // The wait also ends when the handle is dropped, which cancels the upload.
            _ = halted.wait_for(|halt| *halt != StopRequest::No) => {
                Err(Error::new(ErrorKind::Cancelled, "open the source"))
            }
        };
        EngineEvent::OpenedSource(id, command, opened)
    })
}

/// Returns the workers. Starts the threads for the first upload.
fn started_workers<'a>(
    workers: &'a mut Option<WorkerPool>,
    settings: &Settings,
    dialer: &Dialer,
    counters: &Counters,
) -> Result<&'a WorkerPool> {
    match workers {
        Some(workers) => Ok(workers),
        None => {
            let workers = workers.insert(WorkerPool::start(settings, dialer)?);
            counters.replace_lanes(workers.gauges());
            Ok(workers)
        }
    }
}
