//! The transitions against writes that are lost, doubled, delayed and reordered, older copies of the store that come
//! back, and a store that is wiped.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::bulk::lease::ClaimStep;
use crate::bulk::submission::prepare;
use crate::bulk::{ContentStamp, Epoch, JobEnd, JobResult, JobSource, JobSpec, LeaseTimer, OwnerId, Pool};
use crate::upload::UploadOptions;

const LEASE: Duration = Duration::from_secs(60);
const WORKERS: usize = 3;

/// The fate of a write on its way to the server and back.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    LostRequest,
    LostAnswer,
    Doubled,
    Delayed,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A worker reads the record, for a finish if it may and the flag is set.
    Read(usize, bool),
    /// A worker goes on from the record that it wrote last, as if it had read it, for a finish if the flag is set.
    Recall(usize, bool),
    /// The worker writes what follows from the record that it read.
    Write(usize, Fate),
    Advance(u64),
    DeliverDelayed(usize),
    /// The server comes back with the copy of its store that it had so many writes ago.
    Rollback(usize),
    Wipe,
    Resubmit,
    Cancel,
    Retry,
}

/// A conditional write.
#[derive(Clone, Debug)]
struct Write {
    job: Option<StoredJob>,
    expected: u64,
}

#[derive(Clone, Debug)]
struct Task {
    lease: Lease,
    timer: LeaseTimer,
}

#[derive(Debug, Default)]
struct Worker {
    process: u32,
    task: Option<Task>,
    read: Option<(Option<StoredJob>, u64, Duration, bool)>,
    /// The record that the worker wrote last, and its revision.
    known: Option<(StoredJob, u64)>,
    /// The write whose answer was lost, and the time of its request.
    unanswered: Option<(u64, Duration)>,
}

#[derive(Debug)]
struct World {
    time: u64,
    revision: u64,
    stored: Option<StoredJob>,
    copies: Vec<(u64, Option<StoredJob>)>,
    delayed: Vec<Write>,
    workers: Vec<Worker>,
    /// The worker of each lease that was ever granted.
    leases: HashMap<(OwnerId, Epoch), usize>,
    writes: u64,
    /// `true` once the server has lost writes: two workers may then hold the job until one of them asks.
    has_lost_writes: bool,
    ends: u32,
}

fn prepared() -> PreparedJob {
    let source = JobSource::File { path: "/films/a".into() };
    let stamp = Some(ContentStamp { size: 10, mtime_ns: 5 });
    let (id, pool) = (JobId::new("a").unwrap(), Pool::new("films").unwrap());
    prepare(vec![JobSpec::new(id, pool, source, stamp, UploadOptions::default())]).unwrap().remove(0)
}

impl World {
    fn new() -> World {
        let workers = (0..WORKERS as u32).map(|process| Worker { process, ..Worker::default() }).collect();
        World {
            time: 1_000_000,
            revision: 0,
            stored: None,
            copies: Vec::new(),
            delayed: Vec::new(),
            workers,
            leases: HashMap::new(),
            writes: 0,
            has_lost_writes: false,
            ends: 0,
        }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis::new(self.time * 1000)
    }

    fn boot_time(&self) -> Duration {
        Duration::from_secs(self.time)
    }

    fn owner(&self, worker: usize) -> OwnerId {
        OwnerId::new("host", self.workers[worker].process, 1)
    }

    /// Applies a write as the server does: on its condition only. Returns `true` if the condition held.
    fn apply(&mut self, write: &Write) -> bool {
        if write.expected != self.revision {
            return false;
        }
        self.copies.push((self.revision, self.stored.clone()));
        self.revision += 1;
        let was_done = self.stored.as_ref().is_some_and(|job| matches!(job.record.state, JobState::Done(_)));
        let is_done = write.job.as_ref().is_some_and(|job| matches!(job.record.state, JobState::Done(_)));
        self.ends += u32::from(is_done && !was_done);
        self.stored.clone_from(&write.job);
        true
    }

    /// Sends a write. Returns the answer, if one arrives.
    fn send(&mut self, write: Write, fate: Fate) -> Option<bool> {
        match fate {
            Fate::Answered => Some(self.apply(&write)),
            Fate::LostRequest => None,
            Fate::LostAnswer => {
                self.apply(&write);
                None
            }
            Fate::Doubled => {
                let answer = self.apply(&write);
                assert!(!self.apply(&write) || !answer, "a doubled write was applied twice");
                Some(answer)
            }
            Fate::Delayed => {
                self.delayed.push(write);
                None
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Read(worker, finishes) => self.read(worker, finishes),
            Event::Recall(worker, finishes) => {
                let at = self.boot_time();
                if let Some((job, revision)) = self.workers[worker].known.take() {
                    self.workers[worker].read = Some((Some(job), revision, at, finishes));
                }
            }
            Event::Write(worker, fate) => self.write(worker, fate),
            Event::Advance(seconds) => self.time += seconds,
            Event::DeliverDelayed(number) => {
                if !self.delayed.is_empty() {
                    let write = self.delayed.swap_remove(number % self.delayed.len());
                    self.apply(&write);
                }
            }
            Event::Rollback(writes) => {
                // A server takes longer to start than the resolution of its clock.
                self.time += 1;
                self.forget_known();
                let kept = self.copies.len().saturating_sub(writes.max(1));
                if let Some((revision, stored)) = self.copies.get(kept).cloned() {
                    self.copies.truncate(kept);
                    (self.revision, self.stored, self.has_lost_writes) = (revision, stored, true);
                }
            }
            Event::Wipe => {
                self.time += 1;
                self.forget_known();
                self.copies.clear();
                (self.revision, self.stored, self.has_lost_writes) = (0, None, true);
            }
            Event::Resubmit => {
                let (job, now) = (prepared(), self.now());
                let step = submit(self.stored.clone(), &job, "content", Resubmit::Keep, now);
                self.direct(step);
            }
            Event::Cancel => {
                let (found, now) = (self.stored.clone(), self.now());
                if let Ok(step) = cancel(found, &JobId::new("a").unwrap(), now) {
                    self.direct(step);
                }
            }
            Event::Retry => {
                if let Ok(step) = retry(self.stored.clone(), &JobId::new("a").unwrap()) {
                    self.direct(step);
                }
            }
        }
    }

    /// Lets the workers forget what they wrote, because they notice that the server was away.
    fn forget_known(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.known = None);
    }

    /// Applies a step without a fault.
    fn direct<T>(&mut self, step: Transition<T>) {
        let expected = self.revision;
        match step {
            Transition::Keep(_) => {}
            Transition::Write(job, _) => assert!(self.apply(&Write { job: Some(*job), expected })),
            Transition::Delete(_) => assert!(self.apply(&Write { job: None, expected })),
        }
    }

    fn read(&mut self, worker: usize, finishes: bool) {
        let (found, at) = (self.stored.clone(), self.boot_time());
        let unanswered = self.workers[worker].unanswered.take();
        if let (Some((write, asked_at)), Some(found)) = (unanswered, &found)
            && found.write == write
        {
            // The lost answer was a success.
            self.succeeded(worker, found.clone(), asked_at);
        }
        self.workers[worker].read = Some((found, self.revision, at, finishes));
    }

    fn write(&mut self, worker: usize, fate: Fate) {
        let Some((found, revision, read_at, finishes)) = self.workers[worker].read.take() else { return };
        let (now, owner) = (self.now(), self.owner(worker));
        let step = match self.workers[worker].task.clone() {
            None => {
                let Some(mut job) = found.filter(|job| job.record.is_due(now)) else { return };
                job.record.claim(&owner, now, LEASE);
                Transition::Write(Box::new(job), ())
            }
            Some(task) => {
                let held = held(found, &task.lease, |record| {
                    if finishes {
                        let end = JobEnd::Done(JobResult::new("vi1", 10));
                        record.finish(&task.lease, end, now).map(drop)
                    } else {
                        record.renew(&task.lease, now)
                    }
                });
                match held {
                    Ok(Transition::Write(job, _)) => Transition::Write(job, ()),
                    Ok(_) => return,
                    Err(_) => {
                        self.workers[worker].task = None;
                        return;
                    }
                }
            }
        };
        let Transition::Write(mut job, ()) = step else { return };
        self.writes += 1;
        job.write = self.writes;
        self.workers[worker].known = None;
        match self.send(Write { job: Some((*job).clone()), expected: revision }, fate) {
            Some(true) => {
                // A doubled or late write may have followed: the condition of the next one finds out.
                let is_held = matches!(job.record.state, JobState::Running { .. });
                self.workers[worker].known = is_held.then(|| ((*job).clone(), revision + 1));
                self.succeeded(worker, *job, read_at);
            }
            Some(false) => {}
            None => self.workers[worker].unanswered = Some((self.writes, read_at)),
        }
    }

    /// A write of the worker has succeeded.
    fn succeeded(&mut self, worker: usize, job: StoredJob, asked_at: Duration) {
        let Some(lease) = job.record.lease(&job.spec.id) else {
            self.workers[worker].task = None;
            return;
        };
        match &mut self.workers[worker].task {
            Some(task) if task.lease == lease => task.timer.renewed(asked_at),
            _ => {
                let former = self.leases.insert((lease.owner.clone(), lease.epoch), worker);
                assert_eq!(former, None, "one lease was given twice");
                let timer = LeaseTimer::new(lease.length, asked_at);
                self.workers[worker].task = Some(Task { lease, timer });
            }
        }
        self.check_alone();
    }

    /// Checks that one worker at most may send for the job.
    fn check_alone(&self) {
        let now = self.boot_time();
        let holders = self.workers.iter().filter_map(|worker| worker.task.as_ref());
        let is_cancelled = self.stored.as_ref().is_some_and(|job| job.record.held_until.is_some());
        let live = holders.filter(|task| now < task.timer.deadline()).count();
        assert!(live <= 1 || self.has_lost_writes || is_cancelled, "two workers send the same file");
    }

    /// Ends all faults, and lets the workers go on until the job is done.
    fn settle(&mut self) {
        self.delayed.clear();
        for _ in 0..200 {
            self.handle(Event::Resubmit);
            self.handle(Event::Retry);
            for worker in 0..WORKERS {
                self.handle(Event::Read(worker, true));
                self.handle(Event::Write(worker, Fate::Answered));
            }
            if self.stored.as_ref().is_some_and(|job| matches!(job.record.state, JobState::Done(_))) {
                return;
            }
            self.time += 61;
        }
        panic!("the job never ends: {self:?}");
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::LostRequest),
        1 => Just(Fate::LostAnswer),
        1 => Just(Fate::Doubled),
        1 => Just(Fate::Delayed),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..WORKERS, proptest::bool::weighted(0.1)).prop_map(|(worker, ends)| Event::Read(worker, ends)),
        8 => (0..WORKERS, proptest::bool::weighted(0.1)).prop_map(|(worker, ends)| Event::Recall(worker, ends)),
        12 => (0..WORKERS, fate()).prop_map(|(worker, fate)| Event::Write(worker, fate)),
        4 => (1..70_u64).prop_map(Event::Advance),
        2 => any::<usize>().prop_map(Event::DeliverDelayed),
        2 => Just(Event::Resubmit),
        1 => Just(Event::Cancel),
        1 => Just(Event::Retry),
    ]
}

fn event_or_loss() -> impl Strategy<Value = Event> {
    prop_oneof![20 => event(), 1 => (1..8_usize).prop_map(Event::Rollback), 1 => Just(Event::Wipe)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn one_worker_at_a_time_holds_a_job_whatever_is_lost_doubled_or_delayed(
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new();
        world.handle(Event::Resubmit);
        events.into_iter().for_each(|event| world.handle(event));
        world.settle();
        prop_assert_eq!(world.ends, 1);
    }

    #[test]
    fn no_lease_is_given_twice_when_the_store_comes_back_older_or_empty(
        events in proptest::collection::vec(event_or_loss(), 0..120),
    ) {
        let mut world = World::new();
        world.handle(Event::Resubmit);
        events.into_iter().for_each(|event| world.handle(event));
        world.settle();
    }
}

#[test]
fn a_submission_that_changes_nothing_writes_nothing() {
    let (job, now) = (prepared(), UnixMillis::new(1));
    let Transition::Write(stored, Submission::New) = submit(None, &job, "c", Resubmit::Keep, now) else {
        panic!("not stored");
    };
    let again = |content: &str| submit(Some((*stored).clone()), &job, content, Resubmit::Keep, now);
    assert!(matches!(again("c"), Transition::Keep(Submission::Same(_))));
    assert!(matches!(again("other"), Transition::Keep(Submission::Conflict(_))));
}

#[test]
fn a_claim_after_a_wiped_store_has_another_epoch_than_any_before() {
    let (owner, job) = (OwnerId::new("host", 1, 1), prepared());
    let epoch = |now: u64| {
        let now = UnixMillis::new(now);
        let mut stored = StoredJob::new(&job, "c", now);
        assert_eq!(stored.record.claim(&owner, now, LEASE), ClaimStep::Claimed);
        stored.record.epoch
    };
    assert!(epoch(1_000) < epoch(61_000));
}
