//! All workers of an engine, and the channels to their lanes.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::api::Origin;
use crate::engine::progress::Gauge;
use crate::engine::pulse::{Heartbeat, HeartbeatMonitor};
use crate::engine::settings::Settings;
use crate::engine::threads::{BoundedThread, ThreadEnd, WORKERS_END};
use crate::engine::worker::{self, ChunkRequest, LaneIndex, LaneReport, LaneSlot, Runtime, WorkerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Delivery, Reader, Unavailable, probe};
use crate::transport::{Dialer, Timeouts};

/// All workers of an engine. Dropping the pool without [`WorkerPool::join`] detaches the threads.
///
/// A worker's thread and a lane are created for their first chunk: an engine that sends one small file has one of each.
pub(crate) struct WorkerPool {
    lanes: Vec<LaneEnd>,
    workers: Vec<WorkerState>,
    reports: mpsc::Receiver<LaneReport>,
    config: PoolConfig,
    /// The number of lanes that were reported as idle before their first order.
    announced: usize,
    /// `Ok` if workers read through io_uring, else the reason.
    ring: std::result::Result<(), Unavailable>,
    delivery: Delivery,
}

/// The inputs of the choice of a reader other than the file.
#[derive(Clone, Debug)]
pub(crate) struct ReaderEnvironment {
    pub(crate) delivery: Delivery,
    /// `Ok` if workers read through io_uring, else the reason.
    pub(crate) ring: std::result::Result<(), Unavailable>,
}

/// The configuration that all workers of a pool share.
struct PoolConfig {
    dialer: Dialer,
    patience: Timeouts,
    origin: Origin,
    runtime: Runtime,
    depth: usize,
    /// The lanes that are used at the start.
    first_lanes: usize,
    reports: mpsc::Sender<LaneReport>,
}

struct LaneEnd {
    worker: usize,
    gauge: Gauge,
    /// `None` before the first order.
    orders: Option<mpsc::Sender<ChunkRequest>>,
}

enum WorkerState {
    /// No lane of the worker has had an order.
    Waiting,
    Started(StartedWorker),
    /// The system refused the thread. Another worker has the lanes.
    Refused,
}

struct StartedWorker {
    slots: mpsc::Sender<LaneSlot>,
    thread: BoundedThread,
    pulse: HeartbeatMonitor,
}

impl WorkerState {
    fn started(&self) -> Option<&StartedWorker> {
        match self {
            WorkerState::Started(worker) => Some(worker),
            WorkerState::Waiting | WorkerState::Refused => None,
        }
    }

    fn into_thread(self) -> Option<BoundedThread> {
        match self {
            WorkerState::Started(worker) => Some(worker.thread),
            WorkerState::Waiting | WorkerState::Refused => None,
        }
    }

    /// Returns `true` if the worker can take no chunk, because `is_out` is true of it or it was refused.
    fn is_out(&self, is_out: impl Fn(&StartedWorker) -> bool) -> bool {
        match self {
            WorkerState::Waiting => false,
            WorkerState::Started(worker) => is_out(worker),
            WorkerState::Refused => true,
        }
    }
}

impl WorkerPool {
    /// Creates one worker per core, each with its share of the lanes, and starts the first one.
    pub(crate) fn start(settings: &Settings, dialer: &Dialer) -> Result<WorkerPool> {
        let ring = probe::check_ring();
        let runtime = match (settings.reader, &ring) {
            (Reader::Auto | Reader::Uring | Reader::Direct, Ok(())) => Runtime::Ring,
            (Reader::Auto | Reader::Uring | Reader::Direct, Err(_)) | (Reader::Mmap | Reader::Pread, _) => {
                Runtime::Plain
            }
        };
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        // More workers than lanes would only hold memory.
        let workers = cores.min(settings.lanes);
        // A lane reports at most twice per order: the chunk is written whole, and the lane is idle.
        let (report, reports) = mpsc::channel(2 * settings.lanes);
        let lane = |index| LaneEnd { worker: index % workers, gauge: Gauge::default(), orders: None };
        let mut pool = WorkerPool {
            lanes: (0..settings.lanes).map(lane).collect(),
            workers: (0..workers).map(|_| WorkerState::Waiting).collect(),
            reports,
            config: PoolConfig {
                dialer: dialer.clone(),
                patience: settings.patience,
                origin: settings.origin.clone(),
                runtime,
                // Each worker has its share of the lanes that are used at the start, too.
                depth: worker::depth_of(settings.first_lanes()),
                first_lanes: settings.first_lanes(),
                reports: report,
            },
            announced: 0,
            ring,
            delivery: if dialer.is_tls() { Delivery::Tls } else { Delivery::Plain },
        };
        let first = pool
            .start_worker(0)
            .map_err(|error| Error::new(ErrorKind::Internal, "start a worker's thread").with_source(error))?;
        pool.workers[0] = WorkerState::Started(first);
        Ok(pool)
    }

    fn start_worker(&self, index: usize) -> io::Result<StartedWorker> {
        let lanes = self.lanes.iter().filter(|lane| lane.worker == index).count();
        let PoolConfig { dialer, patience, origin, runtime, depth, first_lanes, reports } = &self.config;
        let beat = Arc::<Heartbeat>::default();
        // With room for all lanes: a worker that was refused leaves its lanes to another one.
        let (slots, new_slots) = mpsc::channel(self.lanes.len());
        let config = WorkerConfig {
            dialer: dialer.clone(),
            patience: *patience,
            origin: origin.clone(),
            runtime: *runtime,
            depth: *depth,
            blocks: worker::blocks_of(first_lanes.div_ceil(self.workers.len()), lanes, *depth),
            lanes,
            slots: new_slots,
            reports: reports.clone(),
            pulse: beat.clone(),
        };
        let thread = worker::start(format!("ringlift-{index}"), config)?;
        Ok(StartedWorker { slots, thread, pulse: HeartbeatMonitor::new(beat) })
    }

    /// Starts the lane's worker if it waits for its first order. The first worker takes the lanes of one whose thread the
    /// system refuses.
    fn ensure_worker(&mut self, lane: LaneIndex) {
        let index = self.lanes[lane].worker;
        if !matches!(self.workers[index], WorkerState::Waiting) {
            return;
        }
        self.workers[index] = match self.start_worker(index) {
            Ok(worker) => WorkerState::Started(worker),
            Err(error) => {
                tracing::warn!(%error, "the system refused one more thread: uploading with fewer");
                self.lanes.iter_mut().filter(|lane| lane.worker == index).for_each(|lane| lane.worker = 0);
                WorkerState::Refused
            }
        };
    }

    /// Starts the lane. Returns its queue of orders, or `None` if its worker has ended.
    fn start_lane(&mut self, lane: LaneIndex) -> Option<mpsc::Sender<ChunkRequest>> {
        self.ensure_worker(lane);
        // A lane receives an order only after it has reported to be idle.
        let (orders, inbox) = mpsc::channel(1);
        let end = &mut self.lanes[lane];
        let slot = LaneSlot { lane, gauge: end.gauge.clone(), orders: inbox };
        self.workers[end.worker].started()?.slots.try_send(slot).ok()?;
        end.orders = Some(orders.clone());
        Some(orders)
    }

    /// Returns the inputs of the choice of a reader.
    pub(crate) fn environment(&self) -> ReaderEnvironment {
        ReaderEnvironment { delivery: self.delivery, ring: self.ring.clone() }
    }

    /// Asks the workers for a heartbeat, and measures the time since it was due.
    ///
    /// Only time in which the driver ran counts, so that a stopped process finds no silent worker.
    pub(crate) fn watch(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if let WorkerState::Started(worker) = worker {
                worker.pulse.watch(now);
            }
        }
    }

    /// Returns `true` if every worker has been silent for `bound`: each is in a system call that does not return.
    pub(crate) fn is_silent(&self, bound: Duration) -> bool {
        self.workers.iter().all(|worker| worker.is_out(|worker| worker.pulse.silent >= bound))
    }

    /// Returns `true` if the lane's worker has been silent for `bound`.
    pub(crate) fn is_lane_silent(&self, lane: LaneIndex, bound: Duration) -> bool {
        self.workers[self.lanes[lane].worker].is_out(|worker| worker.pulse.silent >= bound)
    }

    /// Returns the next report of a lane. Each lane is reported as idle at first. Dropping the future loses no report.
    pub(crate) async fn next_report(&mut self) -> Option<LaneReport> {
        if self.announced < self.lanes.len() {
            self.announced += 1;
            return Some(LaneReport::Idle { lane: self.announced - 1, done: None });
        }
        self.reports.recv().await
    }

    /// Returns `true` if every worker has ended early: no lane will report again.
    pub(crate) fn is_lost(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_out(|worker| worker.thread.is_finished()))
    }

    /// Returns `true` if the lane's worker has ended early: the lane will not report again.
    pub(crate) fn has_lost(&self, lane: LaneIndex) -> bool {
        self.workers[self.lanes[lane].worker].is_out(|worker| worker.thread.is_finished())
    }

    /// Returns the gauges of all lanes.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = Gauge> {
        self.lanes.iter().map(|lane| lane.gauge.clone())
    }

    /// Returns the counts of the lane's current chunk.
    pub(crate) fn gauge(&self, lane: LaneIndex) -> Gauge {
        self.lanes[lane].gauge.clone()
    }

    /// Returns the position in `idle` of the lane to use next.
    ///
    /// It belongs to the worker with the most idle lanes: taking the last used lane of all put four files on one
    /// thread. Of equal workers it is one that has a thread. Of that worker it is the lane used last, whose connection is
    /// open and warm.
    pub(crate) fn next_idle(&self, idle: &[LaneIndex]) -> Option<usize> {
        let worker = |lane: LaneIndex| self.lanes[lane].worker;
        let idle_with = |lane: LaneIndex| idle.iter().filter(|other| worker(**other) == worker(lane)).count();
        let answers = |place: &usize| !self.is_lane_silent(idle[*place], SILENCE_LIMIT);
        // `max_by_key` takes the last of equal ones: the lane that became idle last.
        let rank = |place: &usize| {
            let lane = idle[*place];
            (idle_with(lane), self.workers[worker(lane)].started().is_some())
        };
        (0..idle.len()).filter(answers).max_by_key(rank)
    }

    /// Sends an order to an idle lane.
    pub(crate) fn send_order(&mut self, lane: LaneIndex, order: ChunkRequest) {
        let orders = self.lanes[lane].orders.clone().or_else(|| self.start_lane(lane));
        if orders.is_none_or(|orders| orders.try_send(order).is_err()) {
            tracing::error!(lane, "a lane took no order though it had reported to be idle");
        }
    }

    /// Closes the lanes and waits for their threads, with a time limit.
    pub(crate) fn join(self) {
        // A closed order channel ends an idle lane; a closed report channel ends a lane that reports.
        drop(self.lanes);
        drop(self.reports);
        // A worker ends when its channel is closed and its lanes have ended.
        let threads: Vec<BoundedThread> =
            self.workers.into_iter().filter_map(WorkerState::into_thread).collect();
        let deadline = Instant::now() + WORKERS_END;
        for thread in threads {
            match thread.join_until(deadline) {
                ThreadEnd::Joined => {}
                ThreadEnd::Panicked => tracing::error!("a worker panicked"),
                ThreadEnd::LeftBehind => {
                    tracing::warn!("a worker is left behind: a read of a file does not return")
                }
            }
        }
    }
}

/// The silence after which a worker gets no chunk. It is replaced when no upload depends on it.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{DialSettings, Trust};

    fn pool(lanes: usize) -> WorkerPool {
        let settings = Settings { lanes, ..Settings::default() };
        let dialer = Dialer::new("http://127.0.0.1:9", &Trust::default(), DialSettings::default()).unwrap();
        WorkerPool::start(&settings, &dialer).unwrap()
    }

    fn started(pool: &WorkerPool) -> usize {
        pool.workers.iter().filter_map(WorkerState::started).count()
    }

    #[test]
    fn one_chunk_needs_the_thread_of_the_first_worker_only() {
        let mut pool = pool(8);
        let first_reports = (0..8).map(|_| match pollster::block_on(pool.next_report()) {
            Some(LaneReport::Idle { lane, done: None }) => lane,
            other => panic!("{other:?}"),
        });
        let idle: Vec<LaneIndex> = first_reports.collect();
        assert_eq!(idle, (0..8).collect::<Vec<_>>());
        let lane = idle[pool.next_idle(&idle).unwrap()];
        assert!(pool.start_lane(lane).is_some());
        assert_eq!(started(&pool), 1);
        pool.join();
    }

    #[test]
    fn a_worker_starts_with_the_first_of_its_lanes() {
        let mut pool = pool(64);
        assert_eq!(started(&pool), 1);
        for lane in 0..64 {
            assert!(pool.start_lane(lane).is_some(), "{lane}");
        }
        assert_eq!(started(&pool), pool.workers.len());
        assert!(!pool.is_lost() && (0..64).all(|lane| !pool.has_lost(lane)));
        pool.join();
    }

    #[test]
    fn the_first_worker_has_the_lanes_of_a_refused_one() {
        let mut pool = pool(4);
        for worker in &mut pool.workers[1..] {
            *worker = WorkerState::Refused;
        }
        pool.lanes.iter_mut().for_each(|lane| lane.worker = 0);
        assert!((0..4).all(|lane| pool.start_lane(lane).is_some()));
        assert!(!pool.is_lost());
        pool.join();
    }
}
