//! How uploads begin: in turn, as many at once as may be.

use super::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Dialer;
use crate::upload::active::Active;
use crate::upload::client::Settings;
use crate::upload::crew::Crew;
use crate::upload::job::Halt;

impl Driver {
    /// The next upload gets other workers than those that have ended before their time.
    fn dismiss_lost_crew(&mut self) {
        if let Some(crew) = self.crew.take_if(|crew| crew.is_lost()) {
            crew.join();
            self.idle.clear();
            self.passes.clear();
        }
    }

    /// Begins as many as may be under way, and says whether there were any.
    pub(super) fn begin_jobs(&mut self) -> bool {
        if self.active.is_empty() {
            self.dismiss_lost_crew();
        }
        let waiting = self.queue.len();
        while self.active.len() < self.settings.transfers {
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
            let (active, tasks) =
                Active::prepare(id, *job, &self.settings, crew, &self.logbook, &self.memory);
            self.tasks.extend(tasks);
            self.active.extend(active.map(|active| (id, active)));
        }
        self.queue.len() < waiting
    }
}

/// The crew, started when it is first needed.
fn crew<'a>(crew: &'a mut Option<Crew>, settings: &Settings, dialer: &Dialer) -> Result<&'a Crew> {
    match crew {
        Some(crew) => Ok(crew),
        None => Ok(crew.insert(Crew::start(settings, dialer)?)),
    }
}
