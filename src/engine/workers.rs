//! All workers of an engine, and the channels to their lanes.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::engine::progress::Gauge;
use crate::engine::pulse::{Heartbeat, HeartbeatMonitor};
use crate::engine::settings::Settings;
use crate::engine::threads::{BoundedThread, ThreadEnd, WORKERS_END};
use crate::engine::worker::{self, ChunkRequest, LaneIndex, LaneReport, LaneSlot, Runtime, WorkerConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Delivery, Reader, Unavailable, probe};
use crate::transport::Dialer;

/// All worker threads of an engine. Dropping the pool without [`WorkerPool::join`] detaches the threads.
pub(crate) struct WorkerPool {
    lanes: Vec<LaneEnd>,
    reports: mpsc::Receiver<LaneReport>,
    threads: Vec<BoundedThread>,
    pulses: Vec<HeartbeatMonitor>,
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

struct LaneEnd {
    worker: usize,
    orders: mpsc::Sender<ChunkRequest>,
    gauge: Gauge,
}

impl WorkerPool {
    /// Starts one worker per core, each with its share of the lanes.
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
        // Each worker has its share of the lanes that are used at the start, too.
        let (first, depth) = (settings.first_lanes(), worker::depth_of(settings.first_lanes()));
        let delivery = if dialer.is_tls() { Delivery::Tls } else { Delivery::Plain };
        let mut pool = WorkerPool {
            lanes: Vec::new(),
            reports,
            threads: Vec::new(),
            pulses: Vec::new(),
            ring,
            delivery,
        };
        for worker in 0..workers {
            // The first workers take one lane more if the lanes do not divide evenly.
            let share = settings.lanes / workers + usize::from(worker < settings.lanes % workers);
            let config = WorkerConfig {
                dialer: dialer.clone(),
                patience: settings.patience,
                origin: settings.origin.clone(),
                runtime,
                depth,
                blocks: worker::blocks_of(first.div_ceil(workers), share, depth),
                slots: (0..share).map(|_| pool.add_lane(worker)).collect(),
                reports: report.clone(),
                pulse: pool.add_pulse(),
            };
            // If this one is refused, the channels of those before it close, and their threads end.
            let thread = worker::start(format!("ringlift-{worker}"), config).map_err(|error| {
                Error::new(ErrorKind::Internal, "start a worker's thread").with_source(error)
            })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    fn add_pulse(&mut self) -> Arc<Heartbeat> {
        let beat = Arc::<Heartbeat>::default();
        self.pulses.push(HeartbeatMonitor::new(beat.clone()));
        beat
    }

    fn add_lane(&mut self, worker: usize) -> LaneSlot {
        // A lane receives an order only after it has reported to be idle.
        let (orders, inbox) = mpsc::channel(1);
        let gauge = Gauge::default();
        let lane = self.lanes.len();
        self.lanes.push(LaneEnd { worker, orders, gauge: gauge.clone() });
        LaneSlot { lane, gauge, orders: inbox }
    }

    /// Returns the inputs of the choice of a reader.
    pub(crate) fn environment(&self) -> ReaderEnvironment {
        ReaderEnvironment { delivery: self.delivery, ring: self.ring.clone() }
    }

    /// Asks the workers for a heartbeat, and measures the time since it was due.
    ///
    /// Only time in which the driver ran counts, so that a stopped process finds no silent worker.
    pub(crate) fn watch(&mut self, now: Instant) {
        for pulse in &mut self.pulses {
            pulse.watch(now);
        }
    }

    /// Returns `true` if every worker has been silent for `bound`: each is in a system call that does not return.
    pub(crate) fn is_silent(&self, bound: Duration) -> bool {
        self.pulses.iter().all(|pulse| pulse.silent >= bound)
    }

    /// Returns `true` if the lane's worker has been silent for `bound`.
    pub(crate) fn is_lane_silent(&self, lane: LaneIndex, bound: Duration) -> bool {
        self.pulses[self.lanes[lane].worker].silent >= bound
    }

    /// Returns the next report of a lane; `None` if every worker has ended.
    pub(crate) async fn next_report(&mut self) -> Option<LaneReport> {
        self.reports.recv().await
    }

    /// Returns `true` if every worker has ended early: no lane will report again.
    pub(crate) fn is_lost(&self) -> bool {
        self.threads.iter().all(BoundedThread::is_finished)
    }

    /// Returns `true` if the lane's worker has ended early: the lane will not report again.
    pub(crate) fn has_lost(&self, lane: LaneIndex) -> bool {
        self.threads[self.lanes[lane].worker].is_finished()
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
    /// thread. Of that worker it is the lane used last, whose connection is open and warm.
    pub(crate) fn next_idle(&self, idle: &[LaneIndex]) -> Option<usize> {
        let worker = |lane: LaneIndex| self.lanes[lane].worker;
        let idle_with = |lane: LaneIndex| idle.iter().filter(|other| worker(**other) == worker(lane)).count();
        let answers = |place: &usize| !self.is_lane_silent(idle[*place], SILENCE_LIMIT);
        // `max_by_key` takes the last of equal ones: the lane that became idle last.
        (0..idle.len()).filter(answers).max_by_key(|place| idle_with(idle[*place]))
    }

    /// Sends an order to an idle lane.
    pub(crate) fn send_order(&self, lane: LaneIndex, order: ChunkRequest) {
        if self.lanes[lane].orders.try_send(order).is_err() {
            tracing::error!(lane, "a lane took no order though it had reported to be idle");
        }
    }

    /// Closes the lanes and waits for their threads, with a time limit.
    pub(crate) fn join(self) {
        // A closed order channel ends an idle lane; a closed report channel ends a lane that reports.
        drop(self.lanes);
        drop(self.reports);
        let deadline = Instant::now() + WORKERS_END;
        for thread in self.threads {
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
