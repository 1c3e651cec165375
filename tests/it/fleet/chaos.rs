//! Disturbances of every kind while a fleet uploads, with the service as the judge.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ringlift::server::{Limits, RequestBudget};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::chaos_plan::{ChaosPlan, Disturbance};
use super::chaos_totals::{ChaosTotals, keep_traces};
use super::cuttable_link::CuttableLink;
use super::host::{Host, address_of, assert_has_only};
use super::request_meter::RequestMeter;
use crate::fleet_hosts::NatsServer;
use crate::support::command::end;
use crate::support::queue::folder;
use crate::support::{MIB, Scheme, TestServer};

/// A host of the fleet with its links and its worker.
struct Station<'a> {
    host: Host<'a>,
    engine: CuttableLink,
    service: CuttableLink,
    worker: Child,
    /// The time at which the host is whole again, if it is cut off or its worker stands still.
    whole_at: Option<Instant>,
    /// The exit codes of workers that ended by themselves.
    ends: Vec<Option<i32>>,
}

/// The fleet under test, and the steps that disturb it.
struct Chaos<'a> {
    plan: ChaosPlan,
    random: Rng,
    nats: NatsServer,
    stations: Vec<Station<'a>>,
    /// A host without a worker and behind no link.
    desk: Host<'a>,
    films: &'a Path,
}

impl<'a> Station<'a> {
    fn start(server: &'a TestServer, nats: &NatsServer) -> Station<'a> {
        let (engine, service) = (CuttableLink::to(address_of(nats)), CuttableLink::to(server.server.addr()));
        let host = Host::behind(server, &engine, &service);
        let worker = host.work_unattended(&[]);
        Station { host, engine, service, worker, whole_at: None, ends: Vec::new() }
    }

    fn signal(&self, signal: Signal) {
        // A worker that has ended and was not waited for receives it without effect.
        kill_process(Pid::from_child(&self.worker), signal).unwrap();
    }

    fn kill_worker(&mut self) {
        self.worker.kill().unwrap();
        self.worker.wait().unwrap();
        self.worker = self.host.work_unattended(&[]);
    }

    /// Restarts a worker that ended by itself, as a service manager does.
    fn keep_running(&mut self) {
        if let Some(status) = self.worker.try_wait().unwrap() {
            self.ends.push(status.code());
            self.worker = self.host.work_unattended(&[]);
        }
    }

    /// Ends a disturbance of this host.
    fn make_whole(&mut self) {
        self.engine.join();
        self.service.join();
        self.signal(Signal::CONT);
        self.whole_at = None;
    }
}

impl Chaos<'_> {
    /// Lets the fleet work for this time.
    fn go_on(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            for station in &mut self.stations {
                station.keep_running();
                if station.whole_at.is_some_and(|at| at <= Instant::now()) {
                    station.make_whole();
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        let index = self.random.usize(..self.stations.len());
        let off_s = self.random.u64(5..12);
        match disturbance {
            Disturbance::KillWorker => self.stations[index].kill_worker(),
            Disturbance::KillEngine => {
                self.nats.kill();
                // Shorter than the time after which a worker without its queue ends.
                let away_ms = self.random.u64(100..8_000);
                self.go_on(Duration::from_millis(away_ms));
                self.nats.restart();
            }
            Disturbance::RestoreOlderStore => self.restore_older_store(),
            Disturbance::SuspendWorker => {
                self.stations[index].signal(Signal::STOP);
                self.stations[index].whole_at = Some(Instant::now() + Duration::from_secs(off_s));
            }
            Disturbance::CutFromEngine => {
                self.stations[index].engine.cut();
                self.stations[index].whole_at = Some(Instant::now() + Duration::from_secs(off_s));
            }
            Disturbance::CutFromService => {
                let cut = Duration::from_secs(self.plan.longest_cut_s);
                self.stations[index].service.cut();
                self.stations[index].whole_at = Some(Instant::now() + cut);
                // One long cut is enough.
                self.plan.longest_cut_s = self.plan.longest_cut_s.min(10);
            }
            Disturbance::SubmitAgain => self.submit_twice(),
        }
    }

    /// Puts an older copy of the engine's store back, and submits the files again: jobs may have vanished.
    fn restore_older_store(&mut self) {
        let (store, copy) = (self.nats.store(), self.nats.store().with_extension("copy"));
        self.nats.kill();
        copy_folder(&store, &copy);
        self.nats.restart();
        let lived_ms = self.random.u64(2_000..8_000);
        self.go_on(Duration::from_millis(lived_ms));
        self.nats.kill();
        fs::remove_dir_all(&store).unwrap();
        fs::rename(&copy, &store).unwrap();
        self.nats.restart();
        self.desk.submit(self.films).done();
    }

    fn submit_twice(&self) {
        let submissions = [(); 2].map(|()| self.desk.start_submit(self.films));
        for submission in submissions {
            end(submission).done();
        }
    }

    /// Returns all hosts, of which the last one has no worker but the one that drains the queue.
    fn hosts(&self) -> impl Iterator<Item = &Host<'_>> {
        self.stations.iter().map(|station| &station.host).chain([&self.desk])
    }

    fn open_jobs(&self) -> usize {
        self.desk
            .jobs()
            .iter()
            .filter(|job| matches!(job["state"].as_str(), Some("queued" | "running")))
            .count()
    }

    /// Waits until no job is open, and ends the workers.
    fn drain(&mut self, longest: Duration) {
        self.stations.iter_mut().for_each(Station::make_whole);
        let mut drain = self.desk.work_unattended(&["--drain"]);
        let begun = Instant::now();
        let status = loop {
            self.go_on(Duration::from_millis(200));
            if let Some(status) = drain.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > longest {
                let open: Vec<_> =
                    self.desk.jobs().into_iter().filter(|job| job["state"] != "done").collect();
                let _ = (drain.kill(), drain.wait());
                panic!("not drained after {longest:?}: {open:?}");
            }
        };
        assert_eq!(status.code(), Some(0), "{:?}", self.desk.output());
        for station in &mut self.stations {
            station.signal(Signal::TERM);
            let status = station.worker.wait().unwrap();
            assert_eq!(status.code(), Some(0), "{:?}", station.host.output()[1]);
        }
    }
}

impl Drop for Chaos<'_> {
    fn drop(&mut self) {
        // After a failed assertion, too, no worker may stay behind.
        for station in &mut self.stations {
            let _ = (station.worker.kill(), station.worker.wait());
        }
        if thread::panicking() {
            // The state folders go with the test, and a run of minutes is not repeated exactly.
            let kept = keep_traces(&self.plan, self.desk.server, self.hosts());
            eprintln!("the traces of the failed run: {kept:?}");
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Writes files of random bytes, so that a mixed-up file has another digest.
fn write_large(folder: &Path, plan: &ChaosPlan) {
    for index in 0..plan.large {
        let mut random = Rng::with_seed(index as u64);
        let mut content = vec![0; (plan.large_mib * MIB) as usize];
        random.fill(&mut content);
        fs::write(folder.join(format!("long{index}.mp4")), content).unwrap();
    }
}

/// Submits files that change or vanish before a worker takes them.
fn submit_poison(desk: &Host<'_>, plan: &ChaosPlan) -> (TempDir, HashSet<PathBuf>) {
    let poison = folder(1 + usize::from(plan.has_missing_file));
    desk.submit(poison.path()).done();
    let [changed, missing] = ["clip000.mp4", "clip001.mp4"].map(|name| poison.path().join(name));
    fs::write(&changed, "another content").unwrap();
    let mut paths = HashSet::from([changed]);
    if plan.has_missing_file {
        fs::remove_file(&missing).unwrap();
        paths.insert(missing);
    }
    (poison, paths)
}

/// Asserts that each file is one complete video, that the others failed, and that the service has no further video.
fn assert_each_file_is_one_video(chaos: &Chaos<'_>, poison: &HashSet<PathBuf>) {
    let (jobs, server) = (chaos.desk.jobs(), chaos.desk.server);
    let path_of = |job: &Value| PathBuf::from(job["path"].as_str().unwrap());
    let (failed, done): (Vec<_>, Vec<_>) = jobs.iter().partition(|job| poison.contains(&path_of(job)));
    assert_eq!(failed.len(), poison.len());
    failed.iter().for_each(|job| assert_eq!(job["state"], "failed", "{job}"));
    let files = chaos.plan.small + chaos.plan.large;
    assert_eq!(done.len(), files);
    let mut videos = HashSet::new();
    for job in done {
        assert_eq!(job["state"], "done", "{job}");
        let video = job["video_id"].as_str().unwrap();
        server.assert_holds(video, &path_of(job));
        videos.insert(video.to_owned());
    }
    assert_eq!(videos.len(), files);
    assert_has_only(server, &videos);
}

#[test]
fn each_file_is_one_video_whatever_happens_to_workers_engine_and_network() {
    let Some(nats) = NatsServer::start() else { return };
    let plan = ChaosPlan::from_environment();
    eprintln!("{plan:?}");
    let budget = RequestBudget {
        uploads: plan.uploads_a_minute,
        writes: 400,
        reads: 1000,
        window: Duration::from_secs(60),
    };
    let server = TestServer::with(Scheme::Http, |settings| settings.limits = Limits::Custom(budget));
    let films = folder(plan.small);
    write_large(films.path(), &plan);
    let desk = Host::new(&server, &nats);
    let (_poison_folder, poison) = submit_poison(&desk, &plan);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let meter = RequestMeter::start(scope, &server, &is_over);
        // Ends the meter in any case: the scope waits for its thread.
        let _end = SetOnDrop(&is_over);
        let random = Rng::with_seed(plan.seed);
        let mut chaos = Chaos { plan, random, nats, stations: Vec::new(), desk, films: films.path() };
        chaos.submit_twice();
        chaos.stations = (0..4).map(|_| Station::start(&server, &chaos.nats)).collect();
        let disturbances = plan.disturbances(&mut chaos.random);
        for (number, disturbance) in disturbances.into_iter().enumerate() {
            // The moment is what varies; nothing depends on it.
            let pause_ms = chaos.random.u64(100..3_000);
            chaos.go_on(Duration::from_millis(pause_ms));
            let begun = Instant::now();
            chaos.disturb(disturbance);
            eprintln!("{number}: {disturbance:?} in {:?}", begun.elapsed());
        }
        let open = chaos.open_jobs();
        chaos.drain(Duration::from_secs(600));
        is_over.store(true, Ordering::Relaxed);
        let ends: Vec<_> = chaos.stations.iter().map(|station| &station.ends).collect();
        let refused = server.server.stats().refused;
        let busiest = meter.busiest_minute();
        eprintln!("open jobs at the end of the disturbances: {open}");
        eprintln!("workers that ended by themselves: {ends:?}; answers of the service: {refused:?}");
        let totals = ChaosTotals::of(&plan, &server, chaos.hosts(), busiest);
        eprintln!("{totals:?}");
        assert_each_file_is_one_video(&chaos, &poison);
        // A worker that is cut off from the engine spends its share, beside the others who spend all.
        let allowed = (plan.uploads_a_minute + BURST + plan.uploads_a_minute / 4) as usize;
        assert!(busiest <= allowed, "{busiest} requests in a minute of {allowed}");
        let throttled = refused.get("too-many-requests").copied().unwrap_or(0) as usize;
        assert!(throttled * 50 <= server.server.requests().len(), "{throttled} answers 429");
    });
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The requests that may start at once after an idle time, such as the time without the engine.
const BURST: u32 = 5;
