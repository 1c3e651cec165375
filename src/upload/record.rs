//! What of one upload goes into the journal, and when.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::source::{self, SourceFile};
use crate::upload::Destination;
use crate::upload::journal::{self, Claim, Container, Journal, JournalError, Key, Made, Ticket, TokenDigest};
use crate::upload::session::Resumed;
use crate::wire::Plan;

/// The journal of an engine, where one is kept.
#[derive(Clone, Debug)]
pub(super) struct Logbook(Option<Rc<RefCell<Journal>>>);

/// The claim of one upload in the journal.
#[derive(Debug)]
pub(super) struct Record {
    journal: Rc<RefCell<Journal>>,
    ticket: Ticket,
}

/// What an earlier process left of the same upload.
#[derive(Debug)]
pub(super) enum Continued {
    Nothing,
    /// It may have created a container with this mark.
    Intended {
        mark: String,
    },
    /// With an upload token, its first chunk may have made a video that nothing names.
    Strayed,
    /// A container, perhaps with chunks in it.
    Container {
        video_id: String,
        made: Made,
        plan: Plan,
        resumed: Resumed,
    },
}

impl Logbook {
    pub(super) fn new(journal: Option<Journal>) -> Logbook {
        Logbook(journal.map(|journal| Rc::new(RefCell::new(journal))))
    }

    /// Forgets the uploads that were heard of since the last claim.
    pub(super) fn settle(&self) {
        let settled = self.0.as_ref().map_or(Ok(()), |journal| journal.borrow_mut().settle());
        if let Err(error) = settled {
            tracing::warn!(%error, "the journal could not forget finished uploads: they would be found complete");
        }
    }

    /// Claims an upload: nobody else works at it, and what an earlier process left is taken up.
    pub(super) fn claim(
        &self,
        endpoint: &str,
        file: Option<&SourceFile>,
        destination: &Destination,
        arguments: &str,
    ) -> Result<(Option<Record>, Continued)> {
        let Some(journal) = &self.0 else { return Ok((None, Continued::Nothing)) };
        let source = file.map_or(journal::Source::Stream, source_of);
        let key = Key { endpoint: endpoint.to_owned(), source, destination: destination_of(destination) };
        let claim = journal.borrow_mut().claim(&key, arguments, SystemTime::now())?;
        match claim {
            Claim::Fresh(ticket) => {
                Ok((Some(Record { journal: journal.clone(), ticket }), Continued::Nothing))
            }
            Claim::Resume(ticket, remembered) => {
                let continued = match (remembered.container, remembered.plan) {
                    (Container::Known { video_id, made }, Some(plan)) => {
                        let resumed = Resumed { stored: remembered.stored };
                        Continued::Container { video_id, made, plan, resumed }
                    }
                    (Container::Intended { mark }, _) if matches!(destination, Destination::NewVideo(_)) => {
                        Continued::Intended { mark }
                    }
                    (Container::Intended { .. }, _) => Continued::Strayed,
                    (Container::None | Container::Known { .. }, _) => Continued::Nothing,
                };
                Ok((Some(Record { journal: journal.clone(), ticket }), continued))
            }
            Claim::Busy { pid } => {
                let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(Error::new(ErrorKind::Busy, "claim the upload")
                    .because(format!("{who} is at it already")))
            }
        }
    }
}

/// Where marks are kept that a container may have and no upload fills.
#[derive(Clone, Debug)]
pub(super) struct Doubts {
    logbook: Logbook,
    endpoint: String,
}

impl Doubts {
    pub(super) fn new(logbook: &Logbook, endpoint: &str) -> Doubts {
        Doubts { logbook: logbook.clone(), endpoint: endpoint.to_owned() }
    }

    /// Writes a mark down before a container has it. `None` without a journal.
    ///
    /// The row is that of a stream: nothing resumes it, and `clean` looks for the mark once this process lets go of it.
    pub(super) fn write_down(&self, mark: &str) -> Result<Option<Doubt>> {
        let Some(journal) = &self.logbook.0 else { return Ok(None) };
        let (endpoint, destination) = (self.endpoint.clone(), journal::Destination::NewVideo);
        let key = Key { endpoint, source: journal::Source::Stream, destination };
        let claim = journal.borrow_mut().claim(&key, "{}", SystemTime::now())?;
        let (Claim::Fresh(mut ticket) | Claim::Resume(mut ticket, _)) = claim else { return Ok(None) };
        journal.borrow_mut().creating(&mut ticket, None, mark)?;
        Ok(Some(Doubt { journal: journal.clone(), ticket }))
    }
}

/// The journal's row for a mark that a container may have. Dropping it leaves the row to `clean`.
#[derive(Debug)]
pub(super) struct Doubt {
    journal: Rc<RefCell<Journal>>,
    ticket: Ticket,
}

impl Doubt {
    /// There is no such container, or another row names it.
    pub(super) fn dispelled(self) {
        if let Err(error) = self.journal.borrow_mut().forget(self.ticket) {
            tracing::warn!(%error, "the journal could not forget a video that may have been made");
        }
    }
}

impl Record {
    /// Whether the journal had nothing of the upload before it was claimed.
    pub(super) fn is_new(&self) -> bool {
        self.ticket.is_new()
    }

    /// Before anything is sent: the container that there is. One that the first chunk will make is written
    /// down with the claim.
    pub(super) fn begin(&mut self, plan: Option<Plan>, video_id: Option<&str>) -> Result<()> {
        match video_id {
            Some(video_id) => self.container(plan, video_id, Made::Given),
            None => Ok(()),
        }
    }

    /// Before the container is created, by a request of its own.
    pub(super) fn creating(&mut self, plan: Option<Plan>, mark: &str) -> Result<()> {
        Ok(self.journal.borrow_mut().creating(&mut self.ticket, plan, mark)?)
    }

    /// Nothing came of what was intended.
    pub(super) fn withdrawn(&mut self) {
        if let Err(error) = self.journal.borrow_mut().withdrawn(&mut self.ticket) {
            tracing::warn!(%error, "the journal could not take back that a video may have been made");
        }
    }

    /// Before the first byte goes into the container.
    pub(super) fn container(&mut self, plan: Option<Plan>, video_id: &str, made: Made) -> Result<()> {
        Ok(self.journal.borrow_mut().container(&mut self.ticket, plan, video_id, made)?)
    }

    /// After the service took a chunk. What cannot be written down costs sending it again, no more.
    pub(super) fn acknowledged(&mut self, index: u32) {
        if let Err(error) = self.journal.borrow_mut().acknowledged(&mut self.ticket, index) {
            tracing::warn!(%error, "the journal did not take an acknowledgement: a crash would send the chunk again");
        }
    }

    /// After the chunk that made a container of ours whole, which may be the one that made it.
    pub(super) fn completed(&mut self, plan: Option<Plan>, video_id: &str, index: u32) {
        if let Err(error) = self.journal.borrow_mut().completed(&mut self.ticket, plan, video_id, index) {
            tracing::warn!(%error, "the journal did not take the end: a crash would send the file again");
        }
    }

    /// The file is stored: the same command uploads anew.
    pub(super) fn finished(self) {
        if let Err(error) = self.journal.borrow_mut().forget(self.ticket) {
            tracing::warn!(%error, "the journal could not forget a finished upload: it would be found complete");
        }
    }

    /// The same in a moment, once whoever asked for the upload has heard of it. If that never happens it is
    /// left as it is, for the next run to find the file complete.
    pub(super) async fn finished_when(self, mut heard: watch::Receiver<bool>) {
        if heard.wait_for(|&heard| heard).await.is_ok() {
            self.journal.borrow_mut().finished(self.ticket);
        }
    }

    /// Nothing can come of it: a container that we made is an orphan.
    pub(super) fn abandoned(self) {
        if let Err(error) = self.journal.borrow_mut().abandoned(self.ticket) {
            tracing::warn!(%error, "the journal could not give the upload up");
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Error {
        let kind = match error {
            JournalError::Claimed { .. } => ErrorKind::Busy,
            _ => ErrorKind::Journal,
        };
        Error::new(kind, "write the upload down").with_source(error)
    }
}

/// The path is written in full: whoever continues may be in another folder.
fn source_of(file: &SourceFile) -> journal::Source {
    let path = std::path::absolute(file.path()).unwrap_or_else(|_| file.path().to_owned());
    journal::Source::File { path, identity: file.identity().into() }
}

impl From<source::Identity> for journal::Identity {
    fn from(identity: source::Identity) -> journal::Identity {
        let source::Identity { device, inode, len, mtime_ns, ctime_ns } = identity;
        let within = |ns: i128| i64::try_from(ns).unwrap_or(i64::MAX);
        journal::Identity { device, inode, len, mtime_ns: within(mtime_ns), ctime_ns: within(ctime_ns) }
    }
}

fn destination_of(destination: &Destination) -> journal::Destination {
    match destination {
        Destination::NewVideo(_) => journal::Destination::NewVideo,
        Destination::Video(video_id) => journal::Destination::Video { video_id: video_id.clone() },
        Destination::Delegated { token, video_id } => {
            let token = TokenDigest::of(token.reveal());
            match video_id.clone() {
                None => journal::Destination::Token(token),
                Some(video_id) => journal::Destination::TokenAndVideo { token, video_id },
            }
        }
    }
}
