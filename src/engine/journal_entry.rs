//! The journal entry of one upload, and the time of each record.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::engine::counters::Counters;
use crate::engine::options::Destination;
use crate::engine::proof::Unproved;
use crate::engine::receipt::ReceiptState;
use crate::engine::shared_journal::SharedJournal;
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::journal::{
    self, Claim, ClaimOptions, ClaimedEntry, Comparison, ContainerState, CreatedBy, Finished, Journal,
    JournalError, Key, SavedProgress, TokenDigest,
};
use crate::session::Resumed;
use crate::source::{self, ChunkDigest, SourceFile};
use crate::wire::Plan;

/// The journal of an engine, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct JournalHandle(Option<Rc<SharedJournal>>);

/// The claim of one upload in the journal.
#[derive(Debug)]
pub(crate) struct JournalEntryGuard {
    journal: Rc<SharedJournal>,
    claimed: ClaimedEntry,
    /// The file's current key, while it is not proved that the file has the bytes that were sent.
    unproved: Option<Key>,
    /// The batch that has the newest record on which requests of the upload depend.
    depends_on: u64,
}

/// The state that an earlier process left of the same upload.
#[derive(Debug)]
pub(crate) enum Recovered {
    Nothing,
    /// The earlier process may have created a container with this mark.
    Intended {
        mark: String,
    },
    /// The first chunk, sent with an upload token, may have created a video whose id is unknown.
    PossibleOrphan,
    /// The whole file is stored, but the command that uploaded it did not end well.
    Finished(Finished),
    /// A container, perhaps with chunks in it.
    Container {
        video_id: String,
        made: CreatedBy,
        plan: Plan,
        resumed: Resumed,
        /// Present if the file's times cannot exclude a change since the bytes were sent.
        doubt: Option<Unproved>,
        /// The digests of the chunks that were sent, as far as there are any.
        digests: Vec<(u32, Option<ChunkDigest>)>,
    },
}

impl JournalHandle {
    pub(crate) fn new(journal: Option<Journal>, counters: &Arc<Counters>) -> JournalHandle {
        JournalHandle(journal.map(|journal| Rc::new(SharedJournal::new(journal, counters.clone()))))
    }

    /// Lets the records until [`JournalHandle::commit_batch`] share a transaction. No request that depends on one of them
    /// may be sent before.
    pub(crate) fn begin_batch(&self) {
        self.0.iter().for_each(|journal| journal.begin_batch());
    }

    /// Commits the batch.
    ///
    /// # Errors
    /// The number of the batch and the cause, if the journal does not have its records. The entries that depend on the
    /// batch have to be dropped: see [`JournalEntryGuard::depends_on`].
    pub(crate) fn commit_batch(&self) -> Result<(), (u64, Error)> {
        self.0.as_ref().map_or(Ok(()), |journal| journal.commit_batch())
    }

    /// Removes the uploads whose receipts were confirmed since the last claim.
    pub(crate) fn settle(&self) {
        let settled = self.0.as_ref().map_or(Ok(()), |journal| journal.borrow_mut().flush());
        if let Err(error) = settled {
            self.0.iter().for_each(|journal| journal.count_failure());
            tracing::warn!(%error, "the journal could not forget finished uploads: they would be found complete");
        }
    }

    /// Removes the record of a finished upload once its receipt is confirmed.
    pub(crate) async fn forget_when(self, finished: Finished, receipt: watch::Receiver<ReceiptState>) {
        if let Some(journal) = self.0 {
            forget_when(journal, Some(finished.id), receipt).await;
        }
    }

    /// Claims an upload for this process, and returns the state that an earlier process left.
    pub(crate) fn claim(
        &self,
        endpoint: &str,
        file: Option<&SourceFile>,
        destination: &Destination,
        arguments: &str,
        options: ClaimOptions,
    ) -> Result<(Option<JournalEntryGuard>, Recovered)> {
        let Some(journal) = &self.0 else { return Ok((None, Recovered::Nothing)) };
        // Streams and bytes in memory have nothing that a later run could know them by.
        let source = file.map_or(journal::EntrySource::Stream, source_of);
        let key = Key { endpoint: endpoint.to_owned(), source, destination: destination_of(destination) };
        let claim = journal.borrow_mut().claim_with(options, &key, arguments, SystemTime::now())?;
        // Without the feature `journal` there is no guard, and clippy refuses what follows a call that returns one.
        let (of_journal, depends_on) = (journal.clone(), journal.batch());
        let guard = |claimed, unproved| {
            Some(JournalEntryGuard { journal: of_journal, claimed, unproved, depends_on })
        };
        match claim {
            Claim::Fresh(claimed) => Ok((guard(claimed, None), Recovered::Nothing)),
            Claim::Resume(claimed, remembered) => {
                let unproved = (remembered.comparison != Comparison::Same).then_some(key);
                Ok((guard(claimed, unproved), Recovered::of(remembered, destination)))
            }
            Claim::Finished(finished) => Ok((None, Recovered::Finished(finished))),
            Claim::Busy { pid } => Err(busy(pid)),
        }
    }
}

impl Recovered {
    /// Returns the state of a remembered upload to this destination.
    fn of(remembered: SavedProgress, destination: &Destination) -> Recovered {
        let digests = remembered.digests;
        let doubt = match remembered.comparison {
            Comparison::Same => None,
            Comparison::Prove => Some(Unproved::Prove(digests.clone())),
            Comparison::Anew | Comparison::Another => Some(Unproved::Anew),
        };
        match (remembered.container, remembered.plan) {
            (ContainerState::Known { video_id, made }, Some(plan)) => {
                let resumed = Resumed { stored: remembered.stored };
                Recovered::Container { video_id, made, plan, resumed, doubt, digests }
            }
            // Only the API key can list videos, which the search for the mark needs.
            (ContainerState::Intended { mark }, _) if matches!(destination, Destination::NewVideo(_)) => {
                Recovered::Intended { mark }
            }
            (ContainerState::Intended { .. }, _) => Recovered::PossibleOrphan,
            // Without a plan the indexes of the chunks mean no bytes.
            (ContainerState::None | ContainerState::Known { .. }, _) => Recovered::Nothing,
        }
    }
}

/// Returns the error of an upload that another claim has. A message with our own process number would send people to look
/// for another process.
fn busy(pid: Option<u32>) -> Error {
    let busy = Error::new(ErrorKind::Busy, "claim the upload");
    match pid {
        Some(pid) if pid == std::process::id() => busy
            .because(format!("this process (process {pid}) is already uploading this file"))
            .with_hint(Hint::OneAfterTheOther),
        Some(pid) => busy.because(format!("process {pid} is already uploading this file")),
        None => busy.because("another process is already uploading this file".to_owned()),
    }
}

/// The journal's entries for marks of containers that no upload may fill.
#[derive(Clone, Debug)]
pub(crate) struct MarkJournal {
    journal_handle: JournalHandle,
    endpoint: String,
}

impl MarkJournal {
    pub(crate) fn new(journal_handle: &JournalHandle, endpoint: &str) -> MarkJournal {
        MarkJournal { journal_handle: journal_handle.clone(), endpoint: endpoint.to_owned() }
    }

    /// Records a mark before a container has it. Returns `None` without a journal.
    ///
    /// The entry is that of a stream: no upload resumes it, and `clean` searches for the mark after this process ends
    /// its claim.
    pub(crate) fn record(&self, mark: &str) -> Result<Option<MarkEntry>> {
        let Some(journal) = &self.journal_handle.0 else { return Ok(None) };
        let (endpoint, destination) = (self.endpoint.clone(), journal::EntryDestination::NewVideo);
        let key = Key { endpoint, source: journal::EntrySource::Stream, destination };
        let claim = journal.borrow_mut().claim(&key, "{}", SystemTime::now())?;
        // A stream is never claimed twice, and never found finished.
        let (Claim::Fresh(mut claimed) | Claim::Resume(mut claimed, _)) = claim else { return Ok(None) };
        journal.borrow_mut().record_intent(&mut claimed, None, mark)?;
        Ok(Some(MarkEntry { journal: journal.clone(), claimed }))
    }
}

/// The journal entry of a mark that a container may have. Dropping it leaves the entry to `clean`.
#[derive(Debug)]
pub(crate) struct MarkEntry {
    journal: Rc<SharedJournal>,
    claimed: ClaimedEntry,
}

impl MarkEntry {
    /// Removes the entry: no such container exists, or another entry names it.
    pub(crate) fn resolved(self) {
        if let Err(error) = self.journal.borrow_mut().forget(self.claimed) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal could not forget a video that may have been made");
        }
    }
}

impl JournalEntryGuard {
    /// Returns `true` if requests of the upload depend on a record of this batch.
    pub(crate) fn depends_on(&self, batch: u64) -> bool {
        self.depends_on == batch
    }

    /// Returns `true` if another upload token began the upload.
    pub(crate) fn is_of_another_token(&self) -> bool {
        self.claimed.is_of_another_token()
    }

    /// Returns the upload to the token that began it, since the service refuses the current token for the video.
    pub(crate) fn given_back(self) {
        if let Err(error) = self.journal.borrow_mut().give_back(self.claimed) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal could not give the upload back to its upload token");
        }
    }

    /// Returns `true` if the journal had no entry of the upload before this claim.
    pub(crate) fn is_new(&self) -> bool {
        self.claimed.is_new()
    }

    /// Records the container that was named, before anything is sent. A container that the first chunk will create is
    /// recorded with the claim.
    pub(crate) fn begin(&mut self, plan: Option<Plan>, video_id: Option<&str>) -> Result<()> {
        match video_id {
            Some(video_id) => self.container(plan, video_id, CreatedBy::Given),
            None => Ok(()),
        }
    }

    /// Records the mark of a container before the request that creates it.
    pub(crate) fn creating(&mut self, plan: Option<Plan>, mark: &str) -> Result<()> {
        self.depends_on = self.journal.batch();
        Ok(self.journal.borrow_mut().record_intent(&mut self.claimed, plan, mark)?)
    }

    /// Removes the record of a container that was certainly not created.
    pub(crate) fn withdrawn(&mut self) {
        if let Err(error) = self.journal.borrow_mut().withdraw_intent(&mut self.claimed) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal could not take back that a video may have been made");
        }
    }

    /// Records the container before its first byte.
    pub(crate) fn container(&mut self, plan: Option<Plan>, video_id: &str, made: CreatedBy) -> Result<()> {
        self.depends_on = self.journal.batch();
        Ok(self.journal.borrow_mut().record_container(&mut self.claimed, plan, video_id, made)?)
    }

    /// Records an acknowledged chunk. If the record fails, a crash costs sending the chunk again, no more.
    pub(crate) fn acknowledged(&mut self, index: u32) {
        if let Err(error) = self.journal.borrow_mut().record_chunk(&mut self.claimed, index) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal did not take an acknowledgement: a crash would send the chunk again");
        }
    }

    /// Records the digest of a chunk after its bytes were sent and before its request ends. If the record fails, the
    /// file cannot be proved later.
    pub(crate) fn sent(&mut self, index: u32, digest: ChunkDigest) {
        if let Err(error) = self.journal.borrow_mut().record_digest(&self.claimed, index, digest) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal did not take the digest of a chunk: it cannot be proved later");
        }
    }

    /// Records that the file has the bytes of every chunk that was sent.
    pub(crate) fn proved(&mut self) {
        let Some(key) = self.unproved.take() else { return };
        if let Err(error) = self.journal.borrow_mut().record_proof(&mut self.claimed, &key) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal did not take that the file was proved: the next run proves it again");
        }
    }

    /// Records the chunk that completed a container of ours, which may also be the chunk that created it.
    pub(crate) fn completed(&mut self, plan: Option<Plan>, video_id: &str, index: u32) {
        if let Err(error) =
            self.journal.borrow_mut().record_completion(&mut self.claimed, plan, video_id, index)
        {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal did not take the end: a crash would send the file again");
        }
    }

    /// Removes the entry of a stored file: the same command uploads it anew.
    pub(crate) fn finished(self) {
        if let Err(error) = self.journal.borrow_mut().forget(self.claimed) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal could not forget a finished upload: it would be found complete");
        }
    }

    /// Removes the entry once the receipt is confirmed. If the receipt is only remembered, the entry becomes a record
    /// of the finished upload until then.
    ///
    /// If neither happens, the entry stays, and the next run finds the file complete. `found` is the file's identity
    /// at the end.
    pub(crate) async fn finished_when(
        self,
        mut receipt: watch::Receiver<ReceiptState>,
        video_id: String,
        found: Option<journal::SourceIdentity>,
    ) {
        let Ok(first) =
            receipt.wait_for(|receipt| *receipt != ReceiptState::Pending).await.map(|receipt| *receipt)
        else {
            return;
        };
        if first == ReceiptState::Confirmed {
            return self.journal.borrow_mut().finish(self.claimed);
        }
        let now = SystemTime::now();
        let note = self.journal.borrow_mut().finish_and_remember(self.claimed, &video_id, found, now);
        forget_when(self.journal, note, receipt).await;
    }

    /// Removes the entry of an upload that created nothing.
    pub(crate) fn never_begun(self) {
        if let Err(error) = self.journal.borrow_mut().forget(self.claimed) {
            tracing::warn!(%error, "the journal could not forget an upload that created nothing");
        }
    }

    /// Gives the upload up: a container that it created is an orphan.
    pub(crate) fn abandoned(self) {
        if let Err(error) = self.journal.borrow_mut().abandon(self.claimed) {
            self.journal.count_failure();
            tracing::warn!(%error, "the journal could not give the upload up");
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Error {
        let kind = match error {
            JournalError::Claimed { .. } | JournalError::Locked { .. } => ErrorKind::Busy,
            _ => ErrorKind::Journal,
        };
        let unrecorded = Error::new(kind, "write the upload down");
        let unrecorded = match (hint_for(&error), &error) {
            (Some(hint), _) => unrecorded.with_hint(hint),
            // The reason of the kind is that another process does the same, which need not be so.
            (None, JournalError::Locked { .. }) => {
                unrecorded.because(error.to_string()).with_advice(UNLOCK_JOURNAL)
            }
            (None, JournalError::LeftOut { .. }) => unrecorded.with_advice(
                "build with the feature `journal` of ringlift, or leave `Settings::journal` unset",
            ),
            (None, _) => unrecorded,
        };
        unrecorded.with_source(error)
    }
}

/// The advice for a journal that another process keeps locked.
const UNLOCK_JOURNAL: &str = "continue or end the process that holds the journal, such as a stopped upload, a backup or \
                              a database shell (`fuser` on the file lists it), and try again: nothing is lost";

/// Returns the setting or the action that can solve an error of the journal.
fn hint_for(error: &JournalError) -> Option<Hint> {
    match error {
        JournalError::Foreign { .. } => Some(Hint::OtherJournal),
        JournalError::Newer { .. } => Some(Hint::NewerVersion),
        JournalError::Older { .. } => Some(Hint::OlderVersion),
        JournalError::Damaged { .. } => Some(Hint::ReplaceJournal),
        JournalError::NotWritable { .. } => Some(Hint::JournalPermissions),
        JournalError::Full { .. } => Some(Hint::RoomForJournal),
        JournalError::OutOfReach { .. } => Some(Hint::RemoveLockFile),
        JournalError::NoSharedMemory { .. } | JournalError::NoLocks { .. } => Some(Hint::JournalOnOtherDisk),
        JournalError::Replaced { .. } => Some(Hint::StartAgain),
        JournalError::LeftOut { .. }
        | JournalError::Locked { .. }
        | JournalError::Claimed { .. }
        | JournalError::Forgotten { .. }
        | JournalError::Io { .. } => None,
    }
}

async fn forget_when(
    journal: Rc<SharedJournal>,
    note: Option<i64>,
    mut receipt: watch::Receiver<ReceiptState>,
) {
    if let Some(note) = note
        && receipt.wait_for(|receipt| *receipt == ReceiptState::Confirmed).await.is_ok()
    {
        journal.borrow_mut().forget_finished(note);
    }
}

/// Returns the journal's source for a file. Its path is absolute, since a later run may start in another directory.
fn source_of(file: &SourceFile) -> journal::EntrySource {
    let path = std::path::absolute(file.path()).unwrap_or_else(|_| file.path().to_owned());
    journal::EntrySource::File { path, identity: file.into() }
}

impl From<&SourceFile> for journal::SourceIdentity {
    fn from(file: &SourceFile) -> journal::SourceIdentity {
        let (identity, file_system) = (file.identity(), file.file_system());
        let source::FileIdentity { device, inode, len, mtime_ns, ctime_ns } = identity;
        journal::SourceIdentity { device, inode, len, mtime_ns, ctime_ns, file_system }
    }
}

fn destination_of(destination: &Destination) -> journal::EntryDestination {
    match destination {
        Destination::NewVideo(_) => journal::EntryDestination::NewVideo,
        Destination::Video(video_id) => journal::EntryDestination::Video { video_id: video_id.clone() },
        Destination::Delegated { token, video_id } => {
            let token = TokenDigest::of(token.reveal());
            match video_id.clone() {
                None => journal::EntryDestination::Token(token),
                Some(video_id) => journal::EntryDestination::TokenAndVideo { token, video_id },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_for_a_foreign_journal_names_the_setting() {
        let error = Error::from(JournalError::Foreign { path: "notes.txt".into() });
        assert!(error.advice().unwrap().contains("Settings::journal"));
    }

    #[test]
    fn a_locked_journal_is_busy_and_another_error_of_the_database_is_not() {
        let error = Error::from(JournalError::Locked { path: "/state/journal.db".into() });
        assert_eq!((error.kind(), error.is_temporary(), error.is_resumable()), (ErrorKind::Busy, true, true));
        let text = error.to_string();
        assert!(text.contains("/state/journal.db was locked by another process for 10 seconds"), "{text}");
        assert!(error.advice().unwrap().contains("try again"), "{error:?}");
        let error = Error::from(JournalError::Io { path: "journal.db".into(), source: "x".into() });
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Journal, false));
    }

    #[test]
    fn the_advice_for_a_build_without_a_journal_names_the_feature() {
        let error = Error::from(JournalError::LeftOut { path: "journal.db".into() });
        assert_eq!(error.kind(), ErrorKind::Journal);
        assert!(error.advice().unwrap().contains("feature `journal`"));
    }
}
