//! Drives sessions through a history, with a clock of its own, and checks the invariants at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::model::{Mishap, Says, Service, StatusMishap};
use super::*;

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) cut: Layout,
    pub(super) chunks: u32,
    pub(super) access: CredentialKind,
    /// Whether the container exists beforehand.
    pub(super) given: bool,
    /// `true` if other hosts may send the same file to the container that is created.
    pub(super) is_shared: bool,
    pub(super) lanes: usize,
    pub(super) says: Says,
    /// Delay until the status shows a complete file.
    pub(super) assembly: Duration,
    /// Of one attempt after another; then there are no more.
    pub(super) mishaps: Vec<Option<Mishap>>,
    pub(super) status_mishaps: Vec<StatusMishap>,
    /// What happens before the attempt of that number.
    pub(super) events: Vec<(u32, Event)>,
    pub(super) seed: u64,
    pub(super) policy: RetryPolicy,
}

/// What happens besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process dies, and the newest so many acknowledgements were not written down.
    Crash { forgotten: usize },
    /// The service loses a chunk.
    Lose(u32),
    /// Another host, which resumed the same file or has the same job, sends a chunk.
    OtherHostSends(u32),
    /// Another host sends every chunk that the service lacks.
    OtherHostSendsAll,
    /// The user stops the upload.
    Stop,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) result: Result<Completion, Error>,
    pub(super) is_complete: bool,
    pub(super) containers: usize,
    pub(super) attempts: u32,
    pub(super) renewals: u32,
}

impl History {
    pub(super) fn run(&self) -> End {
        let mut run = Run::new(self);
        for _ in 0..MOST_STEPS {
            if let Some(end) = run.step() {
                return end;
            }
        }
        panic!("no end after {MOST_STEPS} steps");
    }

    pub(super) fn service_keeps_what_it_said(&self) -> bool {
        !self.service_loses() || self.access == CredentialKind::Key && !self.is_stream()
    }

    fn service_loses(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::Lose(_)))
    }

    /// Whether nothing happens that must end it: credentials that cannot be renewed or expire twice, a stop.
    pub(super) fn can_be_mended(&self) -> bool {
        let expiries = self.mishaps.iter().filter(|m| **m == Some(Mishap::Expired)).count()
            + self.status_mishaps.iter().filter(|m| **m == StatusMishap::Expired).count();
        let most = if self.access == CredentialKind::Key { 1 } else { 0 };
        let stops = self.events.iter().any(|(_, event)| *event == Event::Stop);
        let never_agrees = match self.says {
            Says::Nothing | Says::TheTruth => false,
            // Without a status nothing tells the answers apart from those of a service that overwrites.
            Says::Nonsense => self.access == CredentialKind::Token && self.chunks > 1,
            Says::NonsenseAndOverwrites => self.chunks > 1,
        };
        expiries <= most && !stops && !never_agrees && self.service_keeps_what_it_said() && self.is_brief()
    }

    /// Whether no answer comes oftener than it is put up with, or where it must be believed.
    fn is_brief(&self) -> bool {
        let count = |which: &[Mishap]| self.mishaps.iter().flatten().filter(|m| which.contains(m)).count();
        let unknown = count(&[Mishap::VideoUnknown])
            + self.status_mishaps.iter().filter(|m| **m == StatusMishap::VideoUnknown).count();
        // A container that was given, and a token's first chunk, have nothing that vouches for them.
        let unvouched = self.given || self.access == CredentialKind::Token;
        count(&[Mishap::Intercepted, Mishap::InterceptedAfterStoring]) <= 5
            && (unknown == 0 || (unknown == 1 && !unvouched))
            && (count(&[Mishap::DeliveredTwice]) == 0
                || (!unvouched && self.assembly.as_secs() < 4 && !self.service_loses()))
    }

    fn is_stream(&self) -> bool {
        !matches!(self.cut, Layout::Planned(_))
    }

    fn len(&self) -> u64 {
        match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => plan.len(),
            Layout::Stream(_) => u64::from(self.chunks) * MIN_CHUNK_BYTES,
        }
    }

    fn extent(&self, index: u32) -> Extent {
        match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => plan.chunk(index).extent,
            Layout::Stream(_) => Extent::new(u64::from(index) * MIN_CHUNK_BYTES, MIN_CHUNK_BYTES),
        }
    }
}

struct Run<'h> {
    history: &'h History,
    service: Service,
    session: Session,
    now: Instant,
    rng: fastrand::Rng,
    mishaps: std::vec::IntoIter<Option<Mishap>>,
    status_mishaps: std::vec::IntoIter<StatusMishap>,
    events: Vec<(u32, Event)>,
    lanes: Vec<(Instant, ChunkToSend, Option<Mishap>)>,
    answers: Vec<(Instant, Answer)>,
    filled: u32,
    attempts: u32,
    renewals: u32,
    is_resumed: bool,
    journal: Journalled,
    knowledge: Knowledge,
}

enum Answer {
    Created(String),
    Status(Result<ReceivedSet, Error>),
    Renewed,
}

#[derive(Default)]
struct Journalled {
    video_id: Option<String>,
    acknowledged: Vec<u32>,
}

/// What the session was told.
#[derive(Default)]
struct Knowledge {
    stored: BTreeSet<u32>,
    /// How often the status came since a chunk's answer was lost.
    status_checks: BTreeMap<u32, u32>,
}

impl<'h> Run<'h> {
    fn new(history: &'h History) -> Run<'h> {
        let epoch = Instant::now();
        let mut service = Service::new(history.cut, history.says, history.assembly);
        let video_id = history.given.then(|| service.create());
        let journal = Journalled { video_id: video_id.clone(), acknowledged: Vec::new() };
        let spec = SessionConfig {
            cut: history.cut,
            access: history.access,
            video_id,
            resumed: None,
            is_shared: history.is_shared,
            policy: history.policy.clone(),
        };
        Run {
            history,
            service,
            session: Session::new(spec, epoch),
            now: epoch,
            rng: fastrand::Rng::with_seed(history.seed),
            mishaps: history.mishaps.clone().into_iter(),
            status_mishaps: history.status_mishaps.clone().into_iter(),
            events: history.events.clone(),
            lanes: Vec::new(),
            answers: Vec::new(),
            filled: 0,
            attempts: 0,
            renewals: 0,
            is_resumed: false,
            journal,
            knowledge: Knowledge::default(),
        }
    }

    /// Everything that can be done now, then the wait for the next thing.
    fn step(&mut self) -> Option<End> {
        self.befall();
        if self.filled == 0 {
            self.fill_stream(); // Nothing is created for a stream that may be empty.
        }
        while let Some(action) = self.session.poll(self.now) {
            match action {
                SessionAction::Create => {
                    let video_id = self.service.create();
                    self.answer_later(Answer::Created(video_id));
                }
                SessionAction::AskStatus => self.ask_status(),
                SessionAction::Renew => {
                    assert!(
                        !self.is_asked(|answer| matches!(answer, Answer::Renewed)),
                        "one renewal at a time"
                    );
                    self.renewals += 1;
                    self.answer_later(Answer::Renewed);
                }
                SessionAction::Finish => return Some(self.end()),
            }
        }
        self.fill_lanes();
        self.wait();
        self.deliver_outcomes();
        self.deliver_answers();
        None
    }

    fn befall(&mut self) {
        while let Some(due) = self.events.iter().position(|&(at, _)| at <= self.attempts) {
            match self.events.swap_remove(due).1 {
                Event::Crash { forgotten } => self.crash(forgotten),
                Event::Lose(index) => {
                    self.service.lose(index);
                }
                Event::OtherHostSends(index) => self.receive_from_other_host(index..index + 1),
                Event::OtherHostSendsAll => self.receive_from_other_host(0..self.history.chunks),
                Event::Stop => self.session.stop(),
            }
        }
    }

    fn receive_from_other_host(&mut self, indexes: std::ops::Range<u32>) {
        let is_shared = self.history.is_shared && self.journal.video_id.is_some();
        for index in indexes.filter(|&index| index < self.history.chunks) {
            if self.is_resumed || is_shared {
                let dispatch = self.dispatch_of_other_host(index);
                self.service.take_from_elsewhere(&dispatch, self.now);
            }
        }
    }

    fn dispatch_of_other_host(&self, index: u32) -> ChunkToSend {
        let chunk = Chunk { index, extent: self.history.extent(index) };
        let Layout::Planned(plan) = self.history.cut else { panic!("a stream is not resumed") };
        let video_id = self.journal.video_id.clone();
        ChunkToSend { chunk, content_range: plan.content_range(index), video_id, attempt: 1 }
    }

    /// What was under way arrives or does not. A stream is gone with its process.
    fn crash(&mut self, forgotten: usize) {
        if self.history.is_stream() || self.journal.video_id.is_none() {
            return;
        }
        for (_, dispatch, mishap) in std::mem::take(&mut self.lanes) {
            if self.rng.bool() {
                let _ = self.service.attempt(&dispatch, mishap, self.now);
            }
        }
        self.answers.clear();
        let kept = self.journal.acknowledged.len().saturating_sub(forgotten);
        self.journal.acknowledged.truncate(kept);
        self.service.expired = false;
        self.is_resumed = true;
        self.knowledge = Knowledge::default();
        let spec = SessionConfig {
            cut: self.history.cut,
            access: self.history.access,
            video_id: self.journal.video_id.clone(),
            resumed: Some(Resumed { stored: self.journal.acknowledged.clone() }),
            is_shared: false,
            policy: self.history.policy.clone(),
        };
        self.session = Session::new(spec, self.now);
    }

    fn is_asked(&self, which: impl Fn(&Answer) -> bool) -> bool {
        self.answers.iter().any(|(_, answer)| which(answer))
    }

    fn ask_status(&mut self) {
        assert!(!self.is_asked(|answer| matches!(answer, Answer::Status(_))), "one question at a time");
        assert_eq!(self.history.access, CredentialKind::Key, "a token cannot ask");
        let video_id = self.session.video_id().expect("a container to ask for").to_owned();
        let mishap = self.status_mishaps.next().unwrap_or(StatusMishap::None);
        let status = self.service.status(&video_id, mishap, self.now);
        self.answer_later(Answer::Status(status));
    }

    fn answer_later(&mut self, answer: Answer) {
        let at = self.now + Duration::from_millis(self.rng.u64(1..400));
        self.answers.push((at, answer));
    }

    fn fill_lanes(&mut self) {
        while self.lanes.len() < self.history.lanes {
            match self.session.next_chunk(self.now) {
                Some(dispatch) => self.send(dispatch),
                None if self.fill_stream() => {}
                None => break,
            }
        }
    }

    fn fill_stream(&mut self) -> bool {
        let is_left = self.history.is_stream() && self.filled < self.history.chunks;
        if is_left {
            let last = if self.filled + 1 == self.history.chunks { Last::Yes } else { Last::No };
            self.session.handle_filled(self.history.extent(self.filled), last);
            self.filled += 1;
        }
        is_left
    }

    fn send(&mut self, dispatch: ChunkToSend) {
        let index = dispatch.chunk.index;
        assert_eq!(dispatch.chunk.extent, self.history.extent(index));
        assert!(self.lanes.iter().all(|(_, other, _)| other.chunk.index != index), "{index} is under way");
        assert!(!self.knowledge.stored.contains(&index), "{index} is known to be stored");
        assert!(dispatch.attempt <= self.history.policy.retries + 1, "{index} is tried too often");
        let alone = dispatch.video_id.is_some() || self.lanes.is_empty();
        assert!(alone, "without an id every request makes another video");
        if self.history.access == CredentialKind::Key {
            let status_checks = self.knowledge.status_checks.remove(&index).unwrap_or(2);
            assert!(status_checks >= 2, "{index} may be stored: ask first");
        }
        self.attempts += 1;
        let at = self.now + Duration::from_millis(self.rng.u64(1..3000));
        let mishap = self.mishaps.next().flatten();
        self.lanes.push((at, dispatch, mishap));
    }

    fn wait(&mut self) {
        let timeout = self.session.next_timeout(self.now);
        assert!(timeout.is_none_or(|at| at > self.now), "a wait that is over keeps the driver spinning");
        let lanes = self.lanes.iter().map(|&(at, ..)| at);
        let answers = self.answers.iter().map(|&(at, _)| at);
        let next = lanes.chain(answers).chain(timeout).min();
        self.now = next.expect("something to wait for");
    }

    fn deliver_outcomes(&mut self) {
        while let Some(due) = self.lanes.iter().position(|&(at, ..)| at <= self.now) {
            let (_, dispatch, mishap) = self.lanes.swap_remove(due);
            let outcome = self.service.attempt(&dispatch, mishap, self.now);
            let index = dispatch.chunk.index;
            match &outcome {
                Outcome::Accepted { video_id, .. } => {
                    self.knowledge.stored.insert(index);
                    if self.journal.video_id.replace(video_id.clone()).is_some_and(|other| other != *video_id)
                    {
                        self.journal.acknowledged.clear();
                    }
                }
                Outcome::Failed { fate: Fate::Unknown, .. } if dispatch.video_id.is_some() => {
                    self.knowledge.status_checks.insert(index, 0);
                }
                Outcome::Failed { .. } => {}
            }
            let jitter = self.rng.f64();
            self.session.handle_outcome(index, outcome, self.now, jitter);
            if self.session.may_be_journalled(index) {
                self.journal.acknowledged.push(index);
            }
        }
    }

    fn deliver_answers(&mut self) {
        while let Some(due) = self.answers.iter().position(|&(at, _)| at <= self.now) {
            match self.answers.swap_remove(due).1 {
                Answer::Created(video_id) => {
                    self.journal.video_id = Some(video_id.clone());
                    if self.history.is_shared && self.rng.bool() {
                        self.session.handle_found(video_id, self.now);
                    } else {
                        self.session.handle_created(Ok(video_id));
                    }
                }
                Answer::Status(status) => {
                    if let Ok(received) = &status {
                        self.knowledge.learn(self.history, received);
                    }
                    let jitter = self.rng.f64();
                    self.session.handle_status(status, self.now, jitter);
                }
                Answer::Renewed => {
                    self.service.expired = false;
                    let renewed = match self.history.access {
                        CredentialKind::Key => Ok(()),
                        CredentialKind::Token => {
                            Err(Error::new(ErrorKind::NotAuthorized, "renew an upload token"))
                        }
                    };
                    self.session.handle_renewed(renewed);
                }
            }
        }
    }

    fn end(&mut self) -> End {
        let filled_at = self.session.video_id().map(|id| id[2..].parse::<usize>().unwrap());
        let container = filled_at.map(|at| &self.service.containers[at]);
        let is_complete = container.is_some_and(|container| container.is_complete(self.history.len()));
        End {
            result: self.session.take_result().expect("it ended"),
            is_complete,
            containers: self.service.containers.len(),
            attempts: self.attempts,
            renewals: self.renewals,
        }
    }
}

impl Knowledge {
    fn learn(&mut self, history: &History, received: &ReceivedSet) {
        for status_checks in self.status_checks.values_mut() {
            *status_checks += 1;
        }
        for index in 0..history.chunks {
            let extent = history.extent(index);
            let seen_in_status = received.extents.contains(&extent) || received.parts.contains(&(index + 1));
            if seen_in_status {
                self.stored.insert(index);
            } else {
                self.stored.remove(&index);
            }
        }
    }
}

const MOST_STEPS: u32 = 20_000;
