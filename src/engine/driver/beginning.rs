//! How uploads begin: in turn, as many at once as may be.

use std::time::Instant;

use futures_util::future::LocalBoxFuture;

use super::Driver;
use crate::engine::active::Active;
use crate::engine::crew::{Crew, SILENT, Surroundings};
use crate::engine::event::Event;
use crate::engine::job::Job;
use crate::engine::request::Halt;
use crate::engine::settings::Settings;
use crate::engine::supplies::{self, Opened};
use crate::engine::worker::SessionId;
use crate::error::{Error, ErrorKind, Result};
use crate::source::MemoryBudget;
use crate::transport::Dialer;

impl Driver {
    /// The next upload gets other workers than those that have ended before their time.
    fn dismiss_lost_crew(&mut self) {
        if let Some(crew) = self.crew.take_if(|crew| crew.is_lost() || crew.is_silent(SILENT)) {
            crew.join();
            self.idle.clear();
            self.passes.clear();
        }
    }

    /// A worker that ended before its time tells nobody what became of its chunks, nor does one whose thread
    /// the kernel holds.
    pub(super) fn miss_workers(&mut self, now: Instant) {
        let Some(crew) = &mut self.crew else { return };
        if !self.active.is_empty() {
            crew.watch(now);
        }
        let bound = self.settings.patience.body.max(SILENT);
        let is_held = |active: &Active| {
            crew.is_silent(bound) || active.lanes.keys().any(|&lane| crew.is_lane_silent(lane, bound))
        };
        for active in self.active.values_mut().filter(|active| is_held(active)) {
            active.session.handle_failure(active.held_up(bound));
        }
        let is_missed =
            |active: &Active| crew.is_lost() || active.lanes.keys().any(|&lane| crew.has_lost(lane));
        for active in self.active.values_mut().filter(|active| is_missed(active)) {
            let error = Error::new(ErrorKind::Internal, "send chunks");
            active.session.handle_failure(error.because("the thread that was to send them has ended"));
        }
    }

    /// Begins as many as may be under way, and says whether there were any.
    pub(super) fn begin_jobs(&mut self) -> bool {
        if self.has_no_upload() {
            self.dismiss_lost_crew();
        }
        let waiting = self.queue.len();
        while self.opening < OPENING && self.active.len() + self.opening < self.settings.transfers {
            let Some(job) = self.queue.pop_front() else { break };
            if *job.halted.borrow() != Halt::No {
                let _ = job.reply.send(Err(Error::new(ErrorKind::Cancelled, "begin the upload")));
                continue;
            }
            let id = self.next_session;
            self.next_session += 1;
            let crew = match crew(&mut self.crew, &self.settings, &self.dialer) {
                Ok(crew) => crew,
                Err(error) => {
                    let _ = job.reply.send(Err(error));
                    continue;
                }
            };
            self.opening += 1;
            self.tasks.push(opening(id, job, &self.settings, crew.surroundings(), &self.memory));
        }
        self.queue.len() < waiting
    }

    /// The source is there: the upload begins.
    pub(super) fn opened(&mut self, id: SessionId, job: Job, opened: Result<Opened>) {
        self.opening -= 1;
        let (active, tasks) = Active::prepare(id, job, opened, &self.settings, &self.logbook);
        self.tasks.extend(tasks);
        self.active.extend(active.map(|active| (id, active)));
    }
}

/// Opens the source, until its upload is to end early.
fn opening(
    id: SessionId,
    mut job: Box<Job>,
    settings: &Settings,
    surroundings: Surroundings,
    memory: &MemoryBudget,
) -> LocalBoxFuture<'static, Event> {
    let opened = supplies::open(&mut job.request, settings, surroundings, memory);
    Box::pin(async move {
        let mut halted = job.halted.clone();
        let opened = tokio::select! {
            biased;
            opened = opened => opened,
            _ = halted.wait_for(|halt| *halt != Halt::No) => {
                Err(Error::new(ErrorKind::Cancelled, "open the source"))
            }
        };
        Event::Opened(id, job, opened)
    })
}

/// The crew, started when it is first needed.
fn crew<'a>(crew: &'a mut Option<Crew>, settings: &Settings, dialer: &Dialer) -> Result<&'a Crew> {
    match crew {
        Some(crew) => Ok(crew),
        None => Ok(crew.insert(Crew::start(settings, dialer)?)),
    }
}

/// Files that are opened at once: each takes two descriptors while its reader is chosen.
const OPENING: usize = 2;
