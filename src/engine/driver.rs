//! The driver: one thread that owns every session, the clock and the random numbers.
//!
//! It turns lane reports, service answers and time-outs into session events, and session actions into orders and API
//! calls. It holds no file bytes.

mod admission;
mod api_calls;
mod arrivals;
mod dispatch;
mod file_lengths;
mod inputs;
mod lane_control;
mod lane_limit;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{unconstrained, yield_now};

use crate::api::Api;
use crate::engine::calls::Authorization;
use crate::engine::command::{EngineCommand, UploadCommand};
use crate::engine::control::{Control, health_of, quota_of};
use crate::engine::counters::Counters;
use crate::engine::event::EngineEvent;
use crate::engine::event_log::AnnouncedDelay;
use crate::engine::journal_entry::JournalHandle;
use crate::engine::open_files::OpenFileLimits;
use crate::engine::settings::Settings;
use crate::engine::transfer::{Transfer, TransferEnd};
use crate::engine::worker::{ChunkResult, LaneIndex, SessionId};
use crate::engine::workers::WorkerPool;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::pacing::{Class, Pacer, Permit};
use crate::session::SessionAction;
use crate::transport::Dialer;

use file_lengths::FileLengths;
use lane_limit::LaneLimit;

/// The checked inputs of the driver, before its thread exists.
pub(crate) struct PreparedDriver {
    settings: Settings,
    dialer: Dialer,
    journal: Option<Journal>,
    inbox: mpsc::Receiver<EngineCommand>,
    counters: Arc<Counters>,
}

/// Checks the settings and opens the journal.
pub(crate) fn prepare(
    mut settings: Settings,
    inbox: mpsc::Receiver<EngineCommand>,
) -> Result<PreparedDriver> {
    // A URL may contain a user name and a password, and errors name URLs.
    settings.redactor.add_userinfo_of(&settings.endpoint_url);
    if let Some(url) = settings.dial.proxy.url_with_secrets() {
        settings.redactor.add_userinfo_of(url);
    }
    settings.check()?;
    settings.credentials = settings.credentials.parsed()?;
    let dialer = Dialer::new(&settings.endpoint_url, &settings.trust, settings.dial.clone());
    let dialer = dialer.map_err(|error| settings.redactor.clean(error.into()))?;
    // The journal compares this text: `HTTP://HOST/` must find the uploads of `http://host`.
    settings.endpoint_url = dialer.endpoint().canonical().to_owned();
    settings.caps = settings.effective_caps();
    // Last, so that refused settings leave no file behind.
    let journal = settings.journal.as_deref().map(Journal::open).transpose();
    let journal = journal.map_err(|error| Error::from(error).doing("open the journal"))?;
    let counters = Counters::new(&settings);
    Ok(PreparedDriver { settings, dialer, journal, inbox, counters })
}

impl PreparedDriver {
    /// Returns the counters of the engine.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Runs the driver until every handle is dropped and every upload is over. Drops `ready` once the driver runs;
    /// sends the error on `ready` if the runtime cannot start.
    pub(crate) fn run(self, ready: std::sync::mpsc::Sender<io::Error>) {
        match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                drop(ready);
                runtime.block_on(Driver::new(self).run());
                // Do not wait for pending DNS look-ups, nor for reads of a disk that does not answer.
                runtime.shutdown_background();
            }
            // `EngineHandle::start` waits for this error.
            Err(error) => drop(ready.send(error)),
        }
    }
}

struct Driver {
    settings: Settings,
    /// The dialer of the lanes, which obeys the bandwidth limit. The control connections do not.
    dialer: Dialer,
    inbox: mpsc::Receiver<EngineCommand>,
    api: Rc<Api<Control>>,
    journal_handle: JournalHandle,
    counters: Arc<Counters>,
    pacer: Rc<RefCell<Pacer>>,
    /// The pacer's permits of the requests under way.
    permits: HashMap<LaneIndex, Permit>,
    /// The time when the pacer allows the next chunk; `None` if it allows one now.
    throttled_until: Option<Instant>,
    /// The throttle delay that was last logged.
    announced: AnnouncedDelay,
    /// The time of the next publication of progress within chunks.
    publish_at: Instant,
    /// The latest time to remove finished uploads from the journal.
    forget_at: Instant,
    workers: Option<WorkerPool>,
    idle: Vec<LaneIndex>,
    lane_limit: LaneLimit,
    queue: VecDeque<Box<UploadCommand>>,
    /// Boxed: a map moves its values when one of them is removed, and a transfer has thousands of bytes.
    transfers: BTreeMap<SessionId, Box<Transfer>>,
    /// The number of uploads whose source is being opened.
    opening: usize,
    open_files: OpenFileLimits,
    /// The lengths of the files opened so far, an estimate of those in the queue.
    measured: FileLengths,
    next_session: SessionId,
    /// The session with the first turn in the next round of dispatch.
    turn: SessionId,
    tasks: FuturesUnordered<LocalBoxFuture<'static, EngineEvent>>,
    authorization: Authorization,
    handles_gone: bool,
}

impl Driver {
    fn new(prepared: PreparedDriver) -> Driver {
        let PreparedDriver { settings, dialer, journal, inbox, counters } = prepared;
        let pacer = Pacer::new(&settings.caps, Instant::now()).with_shared(settings.shared_budget.clone());
        let pacer = Rc::new(RefCell::new(pacer));
        let open_files = OpenFileLimits::of_process(&settings);
        let most_idle = open_files.calls();
        let control =
            Control::new(dialer.clone(), settings.patience, pacer.clone(), counters.clone(), most_idle);
        let (credentials, origin) = (settings.credentials.clone(), settings.origin.clone());
        let api = Api::new(control, credentials, origin, settings.redactor.clone());
        // Only for chunks: a request for a status must not wait behind them for bandwidth.
        let dialer = dialer.with_bandwidth(settings.bandwidth.clone());
        // A monitor shows the published budgets before the first answer states them.
        for class in Class::ALL {
            counters.set_budget(class, pacer.borrow().budget(class, Instant::now()));
        }
        let lane_limit = LaneLimit::new(&settings, Instant::now());
        Driver {
            settings,
            dialer,
            inbox,
            api: Rc::new(api),
            journal_handle: JournalHandle::new(journal, &counters),
            counters,
            pacer,
            permits: HashMap::new(),
            throttled_until: None,
            announced: AnnouncedDelay::default(),
            publish_at: Instant::now(),
            forget_at: Instant::now(),
            workers: None,
            idle: Vec::new(),
            lane_limit,
            queue: VecDeque::new(),
            transfers: BTreeMap::new(),
            opening: 0,
            open_files,
            measured: FileLengths::default(),
            next_session: 0,
            turn: 0,
            tasks: FuturesUnordered::new(),
            authorization: Authorization::default(),
            handles_gone: false,
        }
    }

    async fn run(mut self) {
        while !(self.handles_gone && self.has_no_upload() && self.queue.is_empty()) {
            let first = self.wait().await;
            let arrivals = self.all_ready(first);
            self.take_in(arrivals);
            self.pump();
        }
        // Before `settle`, which removes the entries whose receipts are confirmed.
        self.drain_receipts().await;
        // The journal before the threads, whose end may take until its time limit.
        self.journal_handle.settle();
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }

    fn has_no_upload(&self) -> bool {
        self.transfers.is_empty() && self.opening == 0
    }

    /// Takes in the receipts that are confirmed; with no handle left, no other can be.
    ///
    /// tokio makes a task yield after about a hundred ready futures. One empty poll may be such a forced yield, so
    /// the loop ends after two empty polls with a yield between them.
    async fn drain_receipts(&mut self) {
        let mut empty_polls = 0;
        while empty_polls < 2 {
            empty_polls += 1;
            while let Some(Some(_)) = unconstrained(self.tasks.next()).now_or_never() {
                empty_polls = 0;
            }
            yield_now().await;
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.transfers.is_empty() {
            return None;
        }
        let now = Instant::now();
        let sessions = self.transfers.values().filter_map(|transfer| transfer.next_timeout(now));
        // Bytes within a chunk move without an event, so that only the clock brings their progress to the callers.
        sessions.chain(self.throttled_until).chain([now + PROGRESS_TICK]).min()
    }

    fn take_command(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Upload(command) => {
                self.counters.queued();
                self.queue.push_back(command);
            }
            EngineCommand::DriverCall(call) => {
                let task = call(self.api.clone(), self.settings.retry.clone());
                self.tasks.push(Box::pin(async {
                    task.await;
                    EngineEvent::TaskDone
                }));
            }
        }
    }

    fn take_idle_lane(&mut self, lane: LaneIndex, done: Option<Box<ChunkResult>>) {
        // Also without a result: a lane reports once before its first order.
        self.idle.push(lane);
        let Some(done) = done else { return };
        self.lane_limit.count(&done);
        let now = Instant::now();
        // Even if the session is over: the pacer counts requests under way.
        if let Some(permit) = self.permits.remove(&lane) {
            let (quota, health) = (done.rate_limit.as_ref().and_then(quota_of), health_of(&done.outcome));
            self.pacer.borrow_mut().finished(permit, quota, health, now, fastrand::f64());
            // The budget first: a snapshot that counts an answer has the budget that it states.
            self.counters.set_budget(Class::Uploads, self.pacer.borrow().budget(Class::Uploads, now));
            self.counters.request_ended(Class::Uploads, done.status);
        }
        if let Some(transfer) = self.transfers.get_mut(&done.session) {
            transfer.lanes.remove(&lane);
            transfer.done(*done, now, fastrand::f64());
        }
    }

    /// Runs one scheduling round: session actions, queued uploads, authorization, dispatch, progress.
    fn pump(&mut self) {
        let now = Instant::now();
        // First: a lane of a dead worker never reports, so its session would wait for ever.
        self.fail_uploads_of_stuck_workers(now);
        self.perform_all(now);
        // An upload that ends at once makes room for another one in the same round.
        while self.begin_uploads() {
            self.perform_all(now);
        }
        self.forget_finished(now);
        self.authorize(now);
        self.control_lanes(now);
        self.dispatch(now);
        let pauses = self.announce_pauses(now);
        let is_due = now >= self.publish_at;
        if is_due {
            self.publish_at = now + PROGRESS_TICK;
        }
        for transfer in self.transfers.values_mut() {
            // Each publication wakes the thread of a watcher.
            if is_due || transfer.has_unpublished_progress() {
                transfer.publish_progress();
            }
            transfer.report_events();
            transfer.watch(now, &pauses);
        }
    }

    fn perform_all(&mut self, now: Instant) {
        loop {
            // Collected first, because an action may remove its transfer.
            let ids: Vec<SessionId> = self.transfers.keys().copied().collect();
            let mut creations = Vec::new();
            for id in ids {
                self.perform(id, now, &mut creations);
            }
            // Each creation waits for the disk to have its mark: one flush for all of this round.
            if creations.is_empty() {
                return;
            }
            self.create_all(creations);
        }
    }

    /// Removes finished uploads from the journal at intervals. The next claim removes them in its own transaction,
    /// which saves a write of the disk.
    fn forget_finished(&mut self, now: Instant) {
        if self.transfers.is_empty() || now >= self.forget_at {
            self.journal_handle.settle();
            self.forget_at = now + PROGRESS_TICK;
        }
    }

    /// Performs the actions of a session until it has none. Leaves the creation of its video to the caller.
    fn perform(&mut self, id: SessionId, now: Instant, creations: &mut Vec<SessionId>) {
        while let Some(action) = self.transfers.get_mut(&id).and_then(|transfer| transfer.poll(now)) {
            match action {
                SessionAction::Create => creations.push(id),
                SessionAction::AskStatus => self.ask_status(id),
                SessionAction::Renew => self.renew(id),
                SessionAction::Finish => self.finish(id),
            }
        }
    }

    fn finish(&mut self, id: SessionId) {
        // The check reads from a disk that may not answer, so it is a task. Its result leads here again.
        let silence = self.settings.patience.body;
        if let Some(check) =
            self.transfers.get_mut(&id).and_then(|transfer| transfer.check_source(id, silence))
        {
            return self.tasks.push(check);
        }
        match self.transfers.remove(&id).map(|transfer| transfer.finish()) {
            Some(TransferEnd::Restart(restart)) => self.delete_container(restart),
            Some(TransferEnd::AwaitsReceipt(forget)) => {
                self.tasks.push(Box::pin(forget.map(|()| EngineEvent::TaskDone)))
            }
            Some(TransferEnd::Over) | None => {}
        }
    }
}

/// The interval between publications of progress within chunks.
const PROGRESS_TICK: Duration = Duration::from_millis(100);
