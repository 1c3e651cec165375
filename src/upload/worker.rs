//! A worker: one thread with one runtime, one buffer pool and its lanes.
//!
//! A lane reports that it is idle, gets an order, sends one chunk, reports again. It decides nothing:
//! whether an attempt is repeated is the session's business.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Origin, RateLimit, Redactor, UploadAnswer, Video};
use crate::body::ChunkBody;
use crate::error::{Error, ErrorKind};
use crate::source::{
    AnySource, Choice, ChunkDigest, HeldChunk, MappedRegion, Source, SourceError, SourceFile,
};
use crate::transport::{Dialer, FileRegion, Lane, Timeouts, TransportError};
use crate::upload::control::failed_at;
use crate::upload::progress::Gauge;
use crate::upload::pulse::Beat;
use crate::upload::retry::Fate;
use crate::upload::session::{Completion, Outcome};
use crate::upload::threads::{self, Bounded};
use crate::wire::{Chunk, ContentRange, Envelope};

mod blocks;

use blocks::Pools;
pub(super) use blocks::depth_of;

/// Names a lane among all lanes of an engine, counted from 0.
pub(super) type LaneIndex = usize;

/// Names a session among all sessions of an engine.
pub(super) type SessionId = u64;

/// One chunk for one lane.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) session: SessionId,
    /// In words, for errors.
    pub(super) doing: String,
    pub(super) chunk: Chunk,
    pub(super) supply: Supply,
    /// Path and query of the upload.
    pub(super) target: String,
    pub(super) content_range: Option<ContentRange>,
    pub(super) authorization: Option<HeaderValue>,
    /// What an answer may repeat of the request and no error may.
    pub(super) redactor: Redactor,
    /// The form field `videoId` of a delegated upload.
    pub(super) video_id_field: Option<String>,
    pub(super) file_name: Arc<str>,
    /// `true` when the chunk's digest is to be reported.
    pub(super) digests: bool,
    /// Turns true when the session is over.
    pub(super) cancelled: watch::Receiver<bool>,
}

/// Where the bytes of an order come from.
#[derive(Clone, Debug)]
pub(super) enum Supply {
    File(SourceFile, Choice),
    Held(HeldChunk),
}

/// The report of a lane.
#[derive(Debug)]
pub(super) enum Report {
    /// It is idle, and what became of its last order.
    Idle { lane: LaneIndex, done: Option<Done> },
    /// It has handed over all bytes of a chunk, and hands over the end of the request once the digest is written
    /// down: the service may have the chunk from then on.
    Sent(Sent),
}

/// A chunk that was sent whole.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) session: SessionId,
    pub(super) index: u32,
    pub(super) digest: ChunkDigest,
    pub(super) written: oneshot::Sender<()>,
}

/// What became of an order.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) session: SessionId,
    pub(super) index: u32,
    pub(super) outcome: Outcome,
    /// The video's description, when the chunk completed it.
    pub(super) video: Option<Box<Video>>,
    pub(super) rate_limit: Option<RateLimit>,
    /// The credentials that were used, to be renewed if they were refused.
    pub(super) authorization: Option<HeaderValue>,
}

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Plant {
    pub(super) dialer: Dialer,
    pub(super) patience: Timeouts,
    pub(super) origin: Origin,
    pub(super) runtime: Runtime,
    /// Reads in flight for a chunk.
    pub(super) depth: usize,
    pub(super) stations: Vec<Station>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) pulse: Arc<Beat>,
}

/// Which runtime a worker runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// tokio-uring's, for sources that read through the ring.
    Ring,
    /// tokio's own.
    Plain,
}

/// One lane's place in a worker.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) lane: LaneIndex,
    pub(super) gauge: Gauge,
    pub(super) orders: mpsc::Receiver<Order>,
}

/// Starts a worker. It ends when its order channels close, or once the kernel lets go of its reads.
pub(super) fn start(name: String, plant: Plant) -> io::Result<Bounded> {
    threads::start(name, move || match plant.runtime {
        Runtime::Ring => run_on_ring(plant),
        Runtime::Plain => run_plain(plant),
    })
}

/// The ring was there when it was probed; if it is gone by now, the sources read without it.
fn run_on_ring(plant: Plant) {
    match blocks::ring(plant.stations.len(), plant.depth) {
        Ok(runtime) => runtime.block_on(run(plant)),
        Err(error) => {
            tracing::warn!(%error, "the ring was refused after it had been allowed: reading without it");
            run_plain(Plant { runtime: Runtime::Plain, ..plant });
        }
    }
}

fn run_plain(plant: Plant) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            tokio::task::LocalSet::new().block_on(&runtime, run(plant));
            // Reads that were given up may never return; each keeps the memory that it reads into.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, "a worker has no runtime"),
    }
}

async fn run(plant: Plant) {
    let Plant { dialer, patience, origin, runtime, depth, stations, reports, pulse } = plant;
    if dialer.is_tls() {
        blocks::keep_records(stations.len());
    }
    let pools = match Pools::new(stations.len(), depth, runtime) {
        Ok(pools) => pools,
        Err(error) => return tracing::error!(%error, "a worker has no memory for its blocks"),
    };
    let open = RefCell::new(VecDeque::new());
    let worker = Worker { dialer, patience, origin, pools, reports: reports.clone(), open };
    // Each lane is woken for itself: what moves one of them costs the others nothing.
    let lanes = stations.into_iter().map(|station| worker.attend(station, reports.clone()));
    let mut lanes: FuturesUnordered<_> = lanes.collect();
    let all_ended = async { while lanes.next().await.is_some() {} };
    tokio::select! {
        () = all_ended => {}
        () = pulse.answer() => {}
    }
}

struct Worker {
    dialer: Dialer,
    patience: Timeouts,
    origin: Origin,
    pools: Pools,
    reports: mpsc::Sender<Report>,
    /// The sources opened last, newest at the back.
    open: RefCell<VecDeque<Open>>,
}

/// A source that is kept for the next chunk of its session.
struct Open {
    session: SessionId,
    source: AnySource,
    /// Turns true when the session is over.
    over: watch::Receiver<bool>,
}

type Line = Lane<ChunkBody<AnySource>>;

impl Worker {
    async fn attend(&self, mut station: Station, reports: mpsc::Sender<Report>) {
        let mut line: Option<Line> = None;
        let mut done = None;
        loop {
            station.gauge.rest();
            if reports.send(Report::Idle { lane: station.lane, done: done.take() }).await.is_err() {
                return;
            }
            let Some(order) = station.orders.recv().await else { return };
            done = Some(self.carry_out(order, &mut line, &station.gauge).await);
        }
    }

    async fn carry_out(&self, mut order: Order, line: &mut Option<Line>, gauge: &Gauge) -> Done {
        let mut cancelled = order.cancelled.clone();
        let attempt = tokio::select! {
            biased;
            _ = cancelled.wait_for(|&cancelled| cancelled) => {
                *line = None;
                Attempted::failed(Error::new(ErrorKind::Cancelled, &order.doing), Fate::Unknown)
            }
            attempted = self.attempt(&mut order, line, gauge) => attempted,
        };
        Done {
            session: order.session,
            index: order.chunk.index,
            outcome: attempt.outcome,
            video: attempt.video,
            rate_limit: attempt.rate_limit,
            authorization: order.authorization,
        }
    }

    async fn attempt(&self, order: &mut Order, line: &mut Option<Line>, gauge: &Gauge) -> Attempted {
        let source = self.source(order);
        if line.as_mut().is_none_or(|line| !line.is_open()) {
            *line = match self.dialer.dial().await {
                Ok(line) => Some(line),
                Err(error) => {
                    let error = failed_at(&self.dialer, error).doing(&order.doing);
                    return Attempted::failed(error, Fate::NotStored);
                }
            };
        }
        let Some(lane) = line.as_mut() else {
            return Attempted::failed(Error::new(ErrorKind::Internal, &order.doing), Fate::NotStored);
        };
        lane.set_file_region(source.region().map(file_region));
        let request = match self.request(order, source.clone(), gauge, lane) {
            Ok(request) => request,
            Err(error) => return Attempted::failed(error, Fate::NotStored),
        };
        let answered = lane.send(request, &self.patience).await;
        // RFC 9110 section 15.5.20: this connection leads to a server that does not answer for the host.
        let is_misdirected = |answer: &Response<Bytes>| answer.status() == StatusCode::MISDIRECTED_REQUEST;
        if answered.as_ref().map_or(true, is_misdirected) || !lane.is_open() {
            *line = None;
        }
        match answered {
            Ok(answer) => Attempted::answered(&answer, order, &source),
            Err(error) => {
                let fate = fate_of(&error);
                let error = match silent_source(&error, &order.supply) {
                    Some(silent) => Error::from(silent),
                    None => failed_at(&self.dialer, error),
                };
                Attempted::failed(error.doing(&order.doing), fate)
            }
        }
    }

    /// The order's source, opened once per worker and kept while its session lasts and it is among the latest.
    fn source(&self, order: &Order) -> AnySource {
        let (file, choice) = match &order.supply {
            Supply::Held(chunk) => return AnySource::Held(chunk.clone()),
            Supply::File(file, choice) => (file, choice),
        };
        let mut open = self.open.borrow_mut();
        open.retain(|open| !*open.over.borrow());
        if let Some(open) = open.iter().find(|open| open.session == order.session) {
            return open.source.clone();
        }
        let (source, chosen) = AnySource::open(file, choice, self.pools.suited(choice));
        if let Err(declined) = chosen {
            tracing::warn!(file = %file.path().display(), %declined, "falling back to plain reads");
        }
        if open.len() == OPEN_SOURCES {
            open.pop_front();
        }
        let over = order.cancelled.clone();
        open.push_back(Open { session: order.session, source: source.clone(), over });
        source
    }

    fn request(
        &self,
        order: &Order,
        source: AnySource,
        gauge: &Gauge,
        lane: &Line,
    ) -> Result<Request<ChunkBody<AnySource>>, Error> {
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
                let sent = Sent { session, index, digest, written };
                // There is room: the queue has two places for each lane, and a lane reports twice for an order at most.
                drop(reports.try_send(Report::Sent(sent)));
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

struct Attempted {
    outcome: Outcome,
    video: Option<Box<Video>>,
    rate_limit: Option<RateLimit>,
}

impl Attempted {
    fn failed(error: Error, fate: Fate) -> Attempted {
        Attempted { outcome: Outcome::Failed { error, fate }, video: None, rate_limit: None }
    }

    fn answered(answer: &Response<Bytes>, order: &Order, source: &AnySource) -> Attempted {
        let rate_limit = RateLimit::from_headers(answer.headers());
        let answer = UploadAnswer::read(answer, &order.redactor).and_then(|answer| {
            source.check()?;
            order.supply.check_unchanged()?;
            Ok(answer)
        });
        let (outcome, video) = match answer {
            Ok(UploadAnswer { video_id, complete, .. }) => {
                let completion = if complete.is_some() { Completion::Complete } else { Completion::Open };
                (Outcome::Accepted { video_id, completion }, complete.map(Box::new))
            }
            Err(error) => {
                let fate = match error.kind() {
                    ErrorKind::MalformedAnswer => Fate::Unknown,
                    _ => Fate::NotStored,
                };
                (Outcome::Failed { error: error.doing(&order.doing), fate }, None)
            }
        };
        Attempted { outcome, video, rate_limit: Some(rate_limit) }
    }
}

impl Supply {
    fn check_unchanged(&self) -> Result<(), SourceError> {
        match self {
            Supply::File(file, _) => file.check_unchanged(),
            Supply::Held(_) => Ok(()),
        }
    }
}

fn file_region(region: MappedRegion) -> FileRegion {
    FileRegion { addr: region.address, len: region.len, file: region.file, file_offset: 0 }
}

/// A body that gives nothing is a file that gives nothing: what streams gave is in memory.
fn silent_source(error: &TransportError, supply: &Supply) -> Option<SourceError> {
    match (error, supply) {
        (TransportError::BodyStalled { after, .. }, Supply::File(file, _)) => {
            Some(SourceError::Silent { path: file.path().to_owned(), after: *after })
        }
        _ => None,
    }
}

/// Without its last byte a request cannot have been stored.
fn fate_of(error: &TransportError) -> Fate {
    match error {
        // What speaks another protocol stores no chunk.
        TransportError::Malformed { wrong_protocol: true, .. } => Fate::NotStored,
        error if error.sent_all() => Fate::Unknown,
        _ => Fate::NotStored,
    }
}

/// How many sources a worker keeps open; a lane that goes on with one of them need not open it again.
const OPEN_SOURCES: usize = 16;
