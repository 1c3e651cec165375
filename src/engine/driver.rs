//! The driver: one thread that owns every session, the clock and the random numbers.
//!
//! It turns what happens (a lane reports, the service answers, time passes) into the sessions' events,
//! and what the sessions want into orders and API calls. It holds no file bytes.

mod admission;
mod api_calls;
mod dispatch;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::rc::Rc;
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
use crate::engine::creation::Created;
use crate::engine::event::EngineEvent;
use crate::engine::event_log::AnnouncedDelay;
use crate::engine::journal_entry::JournalHandle;
use crate::engine::settings::Settings;
use crate::engine::transfer::{Transfer, TransferEnd};
use crate::engine::worker::{LaneIndex, LaneReport, SessionId};
use crate::engine::workers::WorkerPool;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::pacing::{Pacer, Permit};
use crate::session::SessionAction;
use crate::source::MemoryBudget;
use crate::transport::Dialer;

/// Everything the driver needs before its thread exists.
pub(crate) struct Unstarted {
    settings: Settings,
    dialer: Dialer,
    journal: Option<Journal>,
    inbox: mpsc::Receiver<EngineCommand>,
}

/// Checks the settings and opens the journal.
pub(crate) fn prepare(mut settings: Settings, inbox: mpsc::Receiver<EngineCommand>) -> Result<Unstarted> {
    settings.redactor.add_userinfo_of(&settings.endpoint_url);
    settings.check()?;
    settings.credentials = settings.credentials.parsed()?;
    let dialer = Dialer::new(&settings.endpoint_url, &settings.trust, settings.dial.clone());
    let dialer = dialer.map_err(|error| settings.redactor.clean(error.into()))?;
    // The journal finds an upload by this text: `HTTP://HOST/` has to find what `http://host` began.
    settings.endpoint_url = dialer.endpoint().canonical().to_owned();
    let journal = settings.journal.as_deref().map(Journal::open).transpose();
    let journal = journal.map_err(|error| Error::from(error).doing("open the journal"))?;
    Ok(Unstarted { settings, dialer, journal, inbox })
}

impl Unstarted {
    /// Serves commands until the last handle is gone and the last upload is over. Drops `ready` once it does so,
    /// or sends why it cannot.
    pub(crate) fn run(self, ready: std::sync::mpsc::Sender<io::Error>) {
        match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                drop(ready);
                runtime.block_on(Driver::new(self).run());
                // A name that is still being resolved is nobody's business any more.
                runtime.shutdown_background();
            }
            // The caller waits for it.
            Err(error) => drop(ready.send(error)),
        }
    }
}

struct Driver {
    settings: Settings,
    /// For lanes: it keeps to the bandwidth.
    dialer: Dialer,
    inbox: mpsc::Receiver<EngineCommand>,
    api: Rc<Api<Control>>,
    journal_handle: JournalHandle,
    /// What chunks of streams are held in.
    memory: MemoryBudget,
    pace: Rc<RefCell<Pacer>>,
    /// The lanes' requests under way, as the pace counts them.
    passes: HashMap<LaneIndex, Permit>,
    /// When the pace allows the next chunk, while it does not.
    held_until: Option<Instant>,
    /// Which wait the log has heard of.
    told: AnnouncedDelay,
    /// When progress within chunks is published again.
    publish_at: Instant,
    /// When the journal forgets what was finished, at the latest.
    settle_at: Instant,
    workers: Option<WorkerPool>,
    idle: Vec<LaneIndex>,
    queue: VecDeque<Box<UploadCommand>>,
    transfer: BTreeMap<SessionId, Transfer>,
    /// Uploads whose source is being opened.
    opening: usize,
    next_session: SessionId,
    /// Where the round robin over the sessions goes on.
    turn: SessionId,
    tasks: FuturesUnordered<LocalBoxFuture<'static, EngineEvent>>,
    authorization: Authorization,
    handles_gone: bool,
}

impl Driver {
    fn new(unstarted: Unstarted) -> Driver {
        let Unstarted { settings, dialer, journal, inbox } = unstarted;
        let pace = Rc::new(RefCell::new(Pacer::new(&settings.caps, Instant::now())));
        let control = Control::new(dialer.clone(), settings.patience, pace.clone());
        let (credentials, origin) = (settings.credentials.clone(), settings.origin.clone());
        let api = Api::new(control, credentials, origin, settings.redactor.clone());
        let dialer = dialer.limited_to(settings.bandwidth.clone());
        let memory = MemoryBudget::new(settings.buffer_bytes);
        Driver {
            settings,
            dialer,
            inbox,
            api: Rc::new(api),
            journal_handle: JournalHandle::new(journal),
            memory,
            pace,
            passes: HashMap::new(),
            held_until: None,
            told: AnnouncedDelay::default(),
            publish_at: Instant::now(),
            settle_at: Instant::now(),
            workers: None,
            idle: Vec::new(),
            queue: VecDeque::new(),
            transfer: BTreeMap::new(),
            opening: 0,
            next_session: 0,
            turn: 0,
            tasks: FuturesUnordered::new(),
            authorization: Authorization::default(),
            handles_gone: false,
        }
    }

    async fn run(mut self) {
        while !(self.handles_gone && self.has_no_upload() && self.queue.is_empty()) {
            self.wait().await;
            self.take_what_is_ready();
            self.pump();
        }
        self.read_receipts().await;
        self.journal_handle.settle();
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }

    fn has_no_upload(&self) -> bool {
        self.transfer.is_empty() && self.opening == 0
    }

    /// Takes in the receipts that were confirmed; no handle is left to confirm others.
    ///
    /// A poll that has run through tokio's budget puts further futures off until the runtime has had its turn, so that
    /// only a second look says that there are none.
    async fn read_receipts(&mut self) {
        let mut looks_in_vain = 0;
        while looks_in_vain < 2 {
            looks_in_vain += 1;
            while let Some(Some(_)) = unconstrained(self.tasks.next()).now_or_never() {
                looks_in_vain = 0;
            }
            yield_now().await;
        }
    }

    /// Waits for one thing to happen and takes it in.
    async fn wait(&mut self) {
        let tick = self.next_wake().unwrap_or_else(|| Instant::now() + IDLE_TICK);
        tokio::select! {
            command = self.inbox.recv(), if !self.handles_gone => match command {
                Some(command) => self.take_command(command),
                None => self.handles_gone = true,
            },
            Some(report) = next_report(&mut self.workers) => self.take_report(report),
            Some(event) = self.tasks.next() => self.take_event(event),
            () = tokio::time::sleep_until(tick.into()) => {}
        }
    }

    /// Takes in what has happened meanwhile: a round costs the same for one thing as for many.
    fn take_what_is_ready(&mut self) {
        for _ in 0..READY_AT_ONCE {
            match self.tasks.next().now_or_never().flatten() {
                Some(event) => self.take_event(event),
                None => break,
            }
        }
        for _ in 0..READY_AT_ONCE {
            match next_report(&mut self.workers).now_or_never().flatten() {
                Some(report) => self.take_report(report),
                None => break,
            }
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.transfer.is_empty() {
            return None;
        }
        let now = Instant::now();
        let sessions = self.transfer.values().filter_map(|transfer| transfer.next_timeout(now));
        sessions.chain(self.held_until).chain([now + PROGRESS_TICK]).min()
    }

    fn take_command(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Upload(command) => self.queue.push_back(command),
            EngineCommand::ApiCall(call) => {
                let task = call(self.api.clone(), self.settings.retry.clone());
                self.tasks.push(Box::pin(async {
                    task.await;
                    EngineEvent::ChunkResult
                }));
            }
        }
    }

    fn take_report(&mut self, report: LaneReport) {
        let (lane, done) = match report {
            LaneReport::Idle { lane, done } => (lane, done),
            LaneReport::SentWhole(sent) => return self.with(sent.session, |transfer| transfer.sent(sent)),
        };
        self.idle.push(lane);
        let Some(done) = done else { return };
        let now = Instant::now();
        if let Some(pass) = self.passes.remove(&lane) {
            let (quota, health) = (done.rate_limit.as_ref().and_then(quota_of), health_of(&done.outcome));
            self.pace.borrow_mut().finished(pass, quota, health, now, fastrand::f64());
        }
        if let Some(transfer) = self.transfer.get_mut(&done.session) {
            transfer.lanes.remove(&lane);
            transfer.done(done, now, fastrand::f64());
        }
    }

    fn take_event(&mut self, event: EngineEvent) {
        let now = Instant::now();
        match event {
            EngineEvent::OpenedSource(id, command, opened) => self.opened(id, *command, opened),
            EngineEvent::Checked(id, checked) => self.with(id, |transfer| transfer.checked(checked)),
            EngineEvent::Created(id, created) => match (self.transfer.get_mut(&id), created) {
                (Some(transfer), created) => transfer.created(created),
                (None, Ok(Created { video_id, .. })) => {
                    tracing::warn!(%video_id, "created after its upload had been given up: it is empty");
                }
                (None, Err(_)) => {}
            },
            EngineEvent::Status(id, status) => {
                self.with(id, |transfer| transfer.take_status(status, now, fastrand::f64()));
            }
            EngineEvent::Renewed(id, renewed) => {
                let renewed = renewed.map(|value| self.authorization.known = Some((value, now)));
                self.with(id, |transfer| transfer.session.handle_renewed(renewed));
            }
            EngineEvent::Authorized(Ok(value)) => {
                self.authorization = Authorization { known: Some((value, now)), asked: false };
            }
            EngineEvent::Authorized(Err(error)) => self.refuse_all(error),
            EngineEvent::Filled(id, filling, inbox) => {
                let next =
                    self.transfer.get_mut(&id).map(|transfer| transfer.take_filling(id, filling, inbox));
                self.tasks.extend(next);
            }
            EngineEvent::Dried(id) => self.with(id, Transfer::dried),
            EngineEvent::Halted(id, halt, halted) => {
                let next = self.transfer.get_mut(&id).and_then(|transfer| transfer.halt(id, halt, halted));
                self.tasks.extend(next);
            }
            EngineEvent::Proved(id, proof) => self.with(id, |transfer| transfer.proved(proof)),
            EngineEvent::Cleared(restart, deleted) => self.queue.extend(restart.deleted(deleted)),
            EngineEvent::ChunkResult => {}
        }
    }

    fn with(&mut self, id: SessionId, change: impl FnOnce(&mut Transfer)) {
        if let Some(transfer) = self.transfer.get_mut(&id) {
            change(transfer);
        }
    }

    /// Without credentials no session that needs them can go on.
    fn refuse_all(&mut self, error: Error) {
        self.authorization = Authorization::default();
        let mut error = Some(error);
        for transfer in self.transfer.values_mut().filter(|transfer| transfer.needs_key()) {
            let refusal = error.take().unwrap_or_else(|| Error::new(ErrorKind::NotAuthorized, "log in"));
            transfer.session.handle_failure(refusal);
        }
    }

    /// Gives everybody the work there is.
    fn pump(&mut self) {
        let now = Instant::now();
        self.miss_workers(now);
        self.perform_all(now);
        while self.begin_jobs() {
            self.perform_all(now);
        }
        self.settle(now);
        self.authorize(now);
        self.dispatch(now);
        self.tell_held(now);
        let is_time = now >= self.publish_at;
        if is_time {
            self.publish_at = now + PROGRESS_TICK;
        }
        for transfer in self.transfer.values_mut() {
            // Each publication wakes a thread.
            if is_time || transfer.has_news() {
                transfer.publish_progress();
            }
            transfer.report_events();
            transfer.watch(now);
        }
    }

    fn perform_all(&mut self, now: Instant) {
        let ids: Vec<SessionId> = self.transfer.keys().copied().collect();
        for id in ids {
            self.perform(id, now);
        }
    }

    /// Has the journal forget what was finished, unless the next upload will have it do so in a moment.
    fn settle(&mut self, now: Instant) {
        if self.transfer.is_empty() || now >= self.settle_at {
            self.journal_handle.settle();
            self.settle_at = now + PROGRESS_TICK;
        }
    }

    /// Does what a session wants until it wants nothing.
    fn perform(&mut self, id: SessionId, now: Instant) {
        while let Some(action) = self.transfer.get_mut(&id).and_then(|transfer| transfer.poll(now)) {
            match action {
                SessionAction::Create => self.create(id),
                SessionAction::AskStatus => self.ask_status(id),
                SessionAction::Renew => self.renew(id),
                SessionAction::Finish => self.finish(id),
            }
        }
    }

    fn finish(&mut self, id: SessionId) {
        let silence = self.settings.patience.body;
        if let Some(check) =
            self.transfer.get_mut(&id).and_then(|transfer| transfer.check_source(id, silence))
        {
            return self.tasks.push(check);
        }
        match self.transfer.remove(&id).map(Transfer::finish) {
            Some(TransferEnd::RestartPlan(restart)) => self.clear(restart),
            Some(TransferEnd::Unheard(forget)) => {
                self.tasks.push(Box::pin(forget.map(|()| EngineEvent::ChunkResult)))
            }
            Some(TransferEnd::Over) | None => {}
        }
    }
}

async fn next_report(workers: &mut Option<WorkerPool>) -> Option<LaneReport> {
    match workers {
        Some(workers) => workers.next_report().await,
        None => std::future::pending().await,
    }
}

/// So that no kind of thing keeps another waiting.
const READY_AT_ONCE: usize = 64;

/// How often progress is published while an upload runs.
const PROGRESS_TICK: Duration = Duration::from_millis(100);

/// Nothing happens by time alone when nothing runs; any bound will do.
const IDLE_TICK: Duration = Duration::from_secs(60);
