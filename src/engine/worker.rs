//! A worker: one thread with one runtime, one buffer pool and its lanes.
//!
//! A lane receives an order, sends one chunk, and reports that it is idle. The session decides whether an attempt is
//! repeated.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::api::{Origin, RateLimit, Video};
use crate::body::ChunkBody;
pub(crate) use crate::engine::chunk_request::{ChunkRequest, ChunkSource, SessionId};
use crate::engine::control::failed_at;
use crate::engine::progress::{Gauge, LanePhase};
use crate::engine::pulse::Heartbeat;
use crate::engine::threads::{self, BoundedThread};
use crate::error::{Error, ErrorKind};
use crate::session::Outcome;
use crate::session::retry::Fate;
use crate::source::{AnySource, ChunkDigest, FileIdentity, MappedRegion, SourceError};
use crate::transport::{Dialer, FileRegion, Lane, Timeouts, TransportError};
use crate::wire::Envelope;

mod attempt;
mod blocks;

use attempt::AttemptResult;
use blocks::BlockPools;
pub(crate) use blocks::{Runtime, blocks_of, depth_of};

/// The index of a lane among all lanes of an engine.
pub(crate) type LaneIndex = usize;

/// The report of a lane.
#[derive(Debug)]
pub(crate) enum LaneReport {
    /// The lane is idle. `done` is the result of its last order; `None` before the first one.
    Idle { lane: LaneIndex, done: Option<Box<ChunkResult>> },
    /// The lane has read all bytes of a chunk. It writes the end of the request once the journal has the digest: the
    /// service may store the chunk from then on.
    SentWhole(SentWhole),
}

/// A chunk whose bytes were all read, but whose request has not ended.
#[derive(Debug)]
pub(crate) struct SentWhole {
    pub(crate) session: SessionId,
    pub(crate) index: u32,
    pub(crate) digest: ChunkDigest,
    pub(crate) written: oneshot::Sender<()>,
}

/// The result of an order.
#[derive(Debug)]
pub(crate) struct ChunkResult {
    pub(crate) session: SessionId,
    pub(crate) index: u32,
    pub(crate) outcome: Outcome,
    /// The status of the answer; `None` without an answer.
    pub(crate) status: Option<u16>,
    /// The video, if the chunk completed it.
    pub(crate) video: Option<Box<Video>>,
    pub(crate) rate_limit: Option<RateLimit>,
    /// The file's identity after the answer, if the service has accepted the chunk.
    pub(crate) checked: Option<FileIdentity>,
    /// The header that was used, to renew the credentials if the service refused them.
    pub(crate) authorization: Option<HeaderValue>,
}

/// The configuration of a worker.
#[derive(Debug)]
pub(crate) struct WorkerConfig {
    pub(crate) dialer: Dialer,
    pub(crate) patience: Timeouts,
    pub(crate) origin: Origin,
    pub(crate) runtime: Runtime,
    /// The number of reads in flight for a chunk.
    pub(crate) depth: usize,
    /// The number of blocks that the lanes share.
    pub(crate) blocks: usize,
    /// The number of lanes that `slots` may bring.
    pub(crate) lanes: usize,
    /// The lanes, each before its first order.
    pub(crate) slots: mpsc::Receiver<LaneSlot>,
    pub(crate) reports: mpsc::Sender<LaneReport>,
    pub(crate) pulse: Arc<Heartbeat>,
}

/// The worker's end of one lane.
#[derive(Debug)]
pub(crate) struct LaneSlot {
    pub(crate) lane: LaneIndex,
    pub(crate) gauge: Gauge,
    pub(crate) orders: mpsc::Receiver<ChunkRequest>,
}

/// Starts a worker. Its thread ends when its order channels close; a read that hangs in the kernel delays that.
pub(crate) fn start(name: String, config: WorkerConfig) -> io::Result<BoundedThread> {
    threads::start(name, move || match config.runtime {
        Runtime::Ring => run_on_ring(config),
        Runtime::Plain => run_plain(config),
    })
}

/// Runs the worker with io_uring. Falls back to plain reads if the ring that the probe could create is refused now.
fn run_on_ring(config: WorkerConfig) {
    match blocks::ring(config.blocks) {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => {
            tracing::warn!(%error, "the ring was refused after it had been allowed: reading without it");
            run_plain(WorkerConfig { runtime: Runtime::Plain, ..config });
        }
    }
}

fn run_plain(config: WorkerConfig) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            tokio::task::LocalSet::new().block_on(&runtime, run(config));
            // Do not wait for abandoned reads: on a hung file system they never return. Each keeps the memory that it
            // reads into.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, "a worker has no runtime"),
    }
}

async fn run(config: WorkerConfig) {
    if config.dialer.is_tls() {
        // Measured over HTTPS: 0.409 CPU s/GiB with this, 0.437 without.
        blocks::keep_records(config.lanes);
    }
    let WorkerConfig { dialer, patience, origin, runtime, depth, blocks, mut slots, reports, .. } = config;
    let pulse = config.pulse;
    let pools = match BlockPools::new(blocks, depth, runtime) {
        Ok(pools) => pools,
        Err(error) => return tracing::error!(%error, "a worker has no memory for its blocks"),
    };
    let open = RefCell::new(VecDeque::new());
    let opened = Notify::new();
    let worker = Worker { dialer, patience, origin, pools, reports, open, opened };
    // Each lane has its own waker: with a shared one, every event polled all lanes.
    let mut lanes = FuturesUnordered::new();
    let all_ended = async {
        loop {
            tokio::select! {
                biased;
                // `None` disables a branch for the wait: there is no lane, or no further one will be started.
                Some(()) = lanes.next() => {}
                Some(slot) = slots.recv() => lanes.push(worker.run_lane(slot)),
                else => break,
            }
        }
    };
    tokio::select! {
        () = all_ended => {}
        () = pulse.answer() => {}
        () = worker.close_ended_sources() => {}
    }
}

struct Worker {
    dialer: Dialer,
    patience: Timeouts,
    origin: Origin,
    pools: BlockPools,
    reports: mpsc::Sender<LaneReport>,
    /// The sources opened last, the newest at the back.
    open: RefCell<VecDeque<CachedSource>>,
    /// Notified when a source was opened.
    opened: Notify,
}

/// An open source, kept for the next chunk of its session.
struct CachedSource {
    session: SessionId,
    source: AnySource,
    /// Turns true when the session is over.
    over: watch::Receiver<bool>,
}

type Connection = Lane<ChunkBody<AnySource>>;

impl Worker {
    async fn run_lane(&self, mut slot: LaneSlot) {
        let mut connection: Option<Connection> = None;
        while let Some(order) = slot.orders.recv().await {
            let done = Some(Box::new(self.execute(order, &mut connection, &slot.gauge).await));
            // Before the report: a snapshot must not show a lane as busy that the driver takes for idle.
            slot.gauge.reset();
            if self.reports.send(LaneReport::Idle { lane: slot.lane, done }).await.is_err() {
                return;
            }
        }
    }

    async fn execute(
        &self,
        mut order: ChunkRequest,
        connection: &mut Option<Connection>,
        gauge: &Gauge,
    ) -> ChunkResult {
        let mut cancelled = order.cancelled.clone();
        gauge.set_phase(LanePhase::Sending);
        let attempt = tokio::select! {
            // Cancellation wins over an answer that arrives at the same time: no session is left to take that answer.
            biased;
            _ = cancelled.wait_for(|&cancelled| cancelled) => {
                // A request was cut short: the connection cannot carry another one.
                *connection = None;
                // The request may have been whole when it was cut.
                AttemptResult::failed(Error::new(ErrorKind::Cancelled, &order.doing), Fate::Unknown)
            }
            attempted = self.attempt(&mut order, connection, gauge) => attempted,
        };
        ChunkResult {
            session: order.session,
            index: order.chunk.index,
            outcome: attempt.outcome,
            status: attempt.status,
            video: attempt.video,
            rate_limit: attempt.rate_limit,
            checked: attempt.checked,
            authorization: order.authorization,
        }
    }

    async fn attempt(
        &self,
        order: &mut ChunkRequest,
        connection: &mut Option<Connection>,
        gauge: &Gauge,
    ) -> AttemptResult {
        let source = self.open_source(order);
        // The service closes idle connections, and an attempt on a closed one would count as a failure.
        if connection.as_mut().is_none_or(|connection| !connection.is_open()) {
            gauge.set_phase(LanePhase::Connecting);
            let dialed = self.dialer.dial().await;
            gauge.set_phase(LanePhase::Sending);
            *connection = match dialed {
                Ok(connection) => Some(connection),
                Err(error) => {
                    let error = order.redactor.clean(failed_at(&self.dialer, error));
                    return AttemptResult::failed(error.doing(&order.doing), Fate::NotStored);
                }
            };
        }
        let Some(lane) = connection.as_mut() else {
            return AttemptResult::failed(Error::new(ErrorKind::Internal, &order.doing), Fate::NotStored);
        };
        lane.set_file_region(source.region().map(file_region));
        let request = match self.request(order, source.clone(), gauge, lane) {
            Ok(request) => request,
            Err(error) => return AttemptResult::failed(error, Fate::NotStored),
        };
        let answered = lane.send(request, &self.patience).await;
        // RFC 9110, section 15.5.20: the server at the end of this connection does not serve this host.
        let is_misdirected = |answer: &Response<Bytes>| answer.status() == StatusCode::MISDIRECTED_REQUEST;
        if answered.as_ref().map_or(true, is_misdirected) || !lane.is_open() {
            *connection = None;
        }
        if let Some(lane) = connection {
            // The region has its own reference to the file. A lane that is open has sent the whole request.
            lane.set_file_region(None);
        }
        match answered {
            Ok(answer) => AttemptResult::answered(&answer, order, &source),
            Err(error) => {
                let fate = fate_of(&error);
                let error = match stalled_source(&error, &order.chunk_source) {
                    Some(silent) => Error::from(silent),
                    // A proxy repeats the request in its refusals.
                    None => order.redactor.clean(failed_at(&self.dialer, error)),
                };
                AttemptResult::failed(error.doing(&order.doing), fate)
            }
        }
    }

    /// Returns the order's source. It stays open while its session lasts and it is among the latest.
    fn open_source(&self, order: &ChunkRequest) -> AnySource {
        let (file, choice) = match &order.chunk_source {
            ChunkSource::Held(chunk) => return AnySource::Held(chunk.clone()),
            ChunkSource::File(file, choice) => (file, choice),
        };
        let mut open = self.open.borrow_mut();
        // First, so that the limit counts only sources whose session lasts.
        open.retain(|open| !*open.over.borrow());
        if let Some(open) = open.iter().find(|open| open.session == order.session) {
            return open.source.clone();
        }
        let (source, chosen) = AnySource::open(file, choice, self.pools.pool_for(choice));
        if let Err(declined) = chosen {
            tracing::warn!(file = %file.path().display(), %declined, "falling back to plain reads");
        }
        if open.len() == MAX_OPEN_SOURCES {
            open.pop_front();
        }
        let over = order.cancelled.clone();
        open.push_back(CachedSource { session: order.session, source: source.clone(), over });
        self.opened.notify_one();
        source
    }

    /// Closes sources when their sessions end. Never completes.
    ///
    /// An idle engine would keep the last files open otherwise: deleted files would keep their space on the disk, and
    /// file systems could not be unmounted.
    async fn close_ended_sources(&self) {
        loop {
            let overs: Vec<_> = self.open.borrow().iter().map(|open| open.over.clone()).collect();
            // An error means that the session is gone.
            let ends =
                overs.into_iter().map(|mut over| async move { drop(over.wait_for(|over| *over).await) });
            let mut ends: FuturesUnordered<_> = ends.collect();
            tokio::select! {
                () = self.opened.notified() => {}
                Some(()) = ends.next() => {
                    let is_over = |open: &CachedSource| *open.over.borrow() || open.over.has_changed().is_err();
                    self.open.borrow_mut().retain(|open| !is_over(open));
                }
            }
        }
    }

    fn request(
        &self,
        order: &ChunkRequest,
        source: AnySource,
        gauge: &Gauge,
        lane: &Connection,
    ) -> Result<Request<ChunkBody<AnySource>>, Error> {
        // Random, so that no file can contain the boundary of its own request (RFC 2046, section 5.1.1).
        let boundary = format!("ringlift-{:032x}", fastrand::u128(..));
        let envelope = Envelope::new(&boundary, &order.file_name, order.video_id_field.as_deref());
        let mut request = Request::post(self.dialer.path(&order.target))
            .header(header::HOST, self.dialer.authority())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, envelope.content_type())
            .header(header::CONTENT_LENGTH, envelope.content_length(order.chunk.extent.len()));
        if let Some(range) = order.content_range {
            request = request.header(header::CONTENT_RANGE, range.to_string());
        }
        if let Some(authorization) = &order.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        gauge.follow(lane.sent(), envelope.head().len() as u64, order.chunk.extent.len());
        let mut body = ChunkBody::new(&envelope, source, order.chunk.extent, gauge.read.clone());
        if order.digests {
            let (session, index, reports) = (order.session, order.chunk.index, self.reports.clone());
            body = body.with_digest(move |digest| {
                let (written, is_written) = oneshot::channel();
                let sent = SentWhole { session, index, digest, written };
                // The queue has two places per lane, and a lane reports at most twice per order.
                drop(reports.try_send(LaneReport::SentWhole(sent)));
                is_written
            });
        }
        let mut request = request.body(body).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "build the upload request").with_source(error)
        })?;
        request.headers_mut().extend(self.origin.headers());
        Ok(request)
    }
}

fn file_region(region: MappedRegion) -> FileRegion {
    FileRegion { addr: region.address, len: region.len, file: region.file, file_offset: 0 }
}

/// Returns the error of a file that gives no bytes. Chunks of streams are in memory, so a stalled body means a file.
fn stalled_source(error: &TransportError, chunk_source: &ChunkSource) -> Option<SourceError> {
    match (error, chunk_source) {
        (TransportError::BodyStalled { after, .. }, ChunkSource::File(file, _)) => {
            Some(SourceError::Silent { path: file.path().to_owned(), after: *after })
        }
        _ => None,
    }
}

/// Returns the fate of a chunk whose request failed. The service cannot have stored a request without its last byte.
fn fate_of(error: &TransportError) -> Fate {
    match error {
        // A server of another protocol stores no chunk.
        TransportError::Malformed { wrong_protocol: true, .. } => Fate::NotStored,
        error if error.sent_all() => Fate::Unknown,
        _ => Fate::NotStored,
    }
}

/// The sources that a worker keeps open. A lane that continues with one of them need not open the file again.
const MAX_OPEN_SOURCES: usize = 16;
