//! A simulated client, link and service. Time is in seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ringlift::internals::{Pacer, Permit, Quota, RequestKind, ServiceHealth, Start};
use ringlift::{Caps, ChunkSize, Class, Mode, QuotaPreset, Settings, Workload};

/// The link between client and service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) name: &'static str,
    /// The bandwidth of all lanes together.
    pub(crate) bytes_per_s: f64,
    /// The bandwidth of one lane.
    pub(crate) lane_bytes_per_s: f64,
    /// The time of each request beside that of its bytes.
    pub(crate) round_trip_s: f64,
}

/// The chunk size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chunking {
    Auto,
    Fixed(u64),
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Upload requests.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Simulates the upload of `files` by a client with the default lanes and transfers.
pub(crate) fn simulate(files: &[u64], preset: QuotaPreset, link: &Link, chunking: Chunking) -> Run {
    let epoch = Instant::now();
    let caps = Caps { preset: Some(preset), ..Caps::default() };
    let (uploads, writes) = match preset {
        QuotaPreset::Production => (100, 200),
        QuotaPreset::Sandbox => (40, 40),
    };
    let mut simulation = Simulation {
        epoch,
        now: 0.0,
        link: *link,
        chunking,
        pacer: Pacer::new(&caps, epoch),
        settings: Settings::default(),
        windows: [ServiceWindow::new(uploads), ServiceWindow::new(writes)],
        queue: files.iter().copied().collect(),
        transfers: VecDeque::new(),
        requests: Vec::new(),
        finished: 0,
    };
    simulation.run(files.len());
    Run { requests: simulation.windows[0].total, seconds: simulation.now }
}

struct Simulation {
    epoch: Instant,
    now: f64,
    link: Link,
    chunking: Chunking,
    pacer: Pacer,
    settings: Settings,
    /// The service's windows of uploads and writes.
    windows: [ServiceWindow; 2],
    queue: VecDeque<u64>,
    transfers: VecDeque<Transfer>,
    /// The requests in flight.
    requests: Vec<Request>,
    finished: usize,
}

struct Transfer {
    /// Bytes that are not sent yet.
    unsent: u64,
    unstored: u64,
    chunk_bytes: u64,
    creation: Creation,
    id: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Creation {
    Due,
    Asked,
    Done,
}

struct Request {
    class: Class,
    permit: Permit,
    transfer: u64,
    bytes: u64,
    /// Bytes that are not sent yet, which follow the latency.
    left: f64,
    latency_until: f64,
}

/// The service's fixed window of one class, which begins at time 0.
struct ServiceWindow {
    per_minute: u32,
    minute: u64,
    used: u32,
    total: u64,
}

impl ServiceWindow {
    fn new(per_minute: u32) -> ServiceWindow {
        ServiceWindow { per_minute, minute: 0, used: 0, total: 0 }
    }

    /// Counts a request and returns the headers of its answer.
    fn count(&mut self, now: f64) -> Quota {
        let minute = (now / 60.0) as u64;
        if minute != self.minute {
            (self.minute, self.used) = (minute, 0);
        }
        self.used += 1;
        self.total += 1;
        let resets_in = Duration::from_secs((60.0 * (minute + 1) as f64 - now).ceil() as u64);
        let remaining = self.per_minute.saturating_sub(self.used);
        Quota { per_minute: self.per_minute, remaining, resets_in: Some(resets_in) }
    }
}

impl Simulation {
    fn run(&mut self, files: usize) {
        while self.finished < files {
            let paced_until = self.start_what_may_start();
            let rate = self.rate();
            let ends = self.requests.iter().map(|request| self.next_step(request, rate));
            let next = ends.chain(paced_until).min_by(f64::total_cmp);
            let next = next.unwrap_or_else(|| unreachable!("a file is unfinished and nothing happens"));
            self.advance(next.max(self.now + MIN_STEP_S), rate);
        }
    }

    /// Starts creations and chunks. Returns the time when the pacer allows the next one.
    fn start_what_may_start(&mut self) -> Option<f64> {
        self.admit();
        let mut paced_until: Option<f64> = None;
        for class in [Class::Writes, Class::Uploads] {
            while let Some(place) = self.next_of(class) {
                match self.pacer.check(class, self.instant()) {
                    Start::Ready => self.start(class, place),
                    Start::NotBefore(at) => {
                        let at = at.duration_since(self.epoch).as_secs_f64();
                        paced_until = Some(paced_until.map_or(at, |until| until.min(at)));
                        break;
                    }
                }
            }
        }
        paced_until
    }

    fn admit(&mut self) {
        while self.transfers.len() < self.settings.transfers {
            let Some(len) = self.queue.pop_front() else { return };
            let chunk_bytes = match self.chunking {
                Chunking::Fixed(bytes) => bytes,
                Chunking::Auto => {
                    let plan = self.settings.plan_among(len, Mode::Auto, ChunkSize::Auto, self.workload());
                    plan.map_or(len, |plan| plan.chunk_bytes())
                }
            };
            let id = self.queue.len() as u64;
            self.transfers.push_back(Transfer {
                unsent: len,
                unstored: len,
                chunk_bytes,
                creation: Creation::Due,
                id,
            });
        }
    }

    /// Returns the work as the driver knows it if the caller announced all files.
    fn workload(&self) -> Workload {
        let budget = self.pacer.budget(Class::Uploads, self.instant());
        let planned: u64 =
            self.transfers.iter().map(|transfer| transfer.unsent.div_ceil(transfer.chunk_bytes)).sum();
        let mut work = Workload::alone(budget.map(|budget| budget.per_minute));
        work.waiting = self.queue.len() as u64;
        work.waiting_bytes = self.queue.iter().sum();
        work.planned_bytes = self.transfers.iter().map(|transfer| transfer.unstored).sum();
        work.uploads_left = budget.map(|budget| budget.left.saturating_sub(planned as u32));
        work
    }

    /// Returns the place of the transfer whose request is next.
    fn next_of(&self, class: Class) -> Option<usize> {
        let lanes = self.requests.iter().filter(|request| request.class == Class::Uploads).count();
        self.transfers.iter().position(|transfer| match class {
            Class::Uploads => {
                transfer.creation == Creation::Done && transfer.unsent > 0 && lanes < self.settings.lanes
            }
            Class::Writes | Class::Reads => transfer.creation == Creation::Due,
        })
    }

    fn start(&mut self, class: Class, place: usize) {
        let permit = self.pacer.started(class, RequestKind::First, self.instant());
        let Some(mut transfer) = self.transfers.remove(place) else { return };
        let bytes = match class {
            Class::Uploads => transfer.chunk_bytes.min(transfer.unsent),
            Class::Writes | Class::Reads => {
                transfer.creation = Creation::Asked;
                0
            }
        };
        transfer.unsent -= bytes;
        self.requests.push(Request {
            class,
            permit,
            transfer: transfer.id,
            bytes,
            left: bytes as f64,
            latency_until: self.now + self.link.round_trip_s,
        });
        // At the back: the transfers take turns.
        self.transfers.push_back(transfer);
    }

    /// Returns the bandwidth of each lane that sends.
    fn rate(&self) -> f64 {
        let sending = self.requests.iter().filter(|request| request.is_sending(self.now)).count();
        self.link.lane_bytes_per_s.min(self.link.bytes_per_s / sending.max(1) as f64)
    }

    fn next_step(&self, request: &Request, rate: f64) -> f64 {
        if request.latency_until > self.now { request.latency_until } else { self.now + request.left / rate }
    }

    fn advance(&mut self, next: f64, rate: f64) {
        let step = next - self.now;
        for request in &mut self.requests {
            if request.is_sending(self.now) {
                request.left -= step * rate;
            }
        }
        self.now = next;
        let mut place = 0;
        while place < self.requests.len() {
            let request = &self.requests[place];
            if request.latency_until <= self.now && request.left < 1.0 {
                let request = self.requests.swap_remove(place);
                self.finish(request);
            } else {
                place += 1;
            }
        }
    }

    fn finish(&mut self, request: Request) {
        let window = &mut self.windows[usize::from(request.class != Class::Uploads)];
        let quota = window.count(self.now);
        let now = self.epoch + Duration::from_secs_f64(self.now);
        self.pacer.finished(request.permit, Some(quota), ServiceHealth::Well, now, 0.5);
        let Some(place) = self.transfers.iter().position(|transfer| transfer.id == request.transfer) else {
            return;
        };
        let transfer = &mut self.transfers[place];
        transfer.creation = Creation::Done;
        transfer.unstored -= request.bytes;
        if transfer.unstored == 0 {
            self.transfers.remove(place);
            self.finished += 1;
        }
    }

    fn instant(&self) -> Instant {
        self.epoch + Duration::from_secs_f64(self.now)
    }
}

impl Request {
    fn is_sending(&self, now: f64) -> bool {
        self.latency_until <= now && self.left > 0.0
    }
}

/// The shortest step, against endless loops by rounding.
const MIN_STEP_S: f64 = 1e-6;
