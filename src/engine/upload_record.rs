//! The record of one upload: its journal entry and its checkpoint, which always have the same content.

use tokio::sync::watch;

use crate::engine::checkpoint::Checkpoint;
use crate::engine::journal_entry::JournalEntryGuard;
use crate::error::Result;
use crate::journal::{ContainerState, CreatedBy};
use crate::source::ChunkDigest;
use crate::wire::Plan;

/// The channel of the latest checkpoint; `None` until there is one, and for sources other than files.
pub(crate) type CheckpointSender = watch::Sender<Option<Checkpoint>>;

/// The journal entry of an upload, if it has a journal, and its checkpoint, if it sends a file.
///
/// The journal is written first: a checkpoint never claims more than the journal.
#[derive(Debug)]
pub(crate) struct UploadRecord {
    journal_entry: Option<JournalEntryGuard>,
    checkpoint: Option<Checkpoint>,
    publish: CheckpointSender,
    /// `true` if the journal lacks what the checkpoint of another process knows.
    is_ahead_of_journal: bool,
    /// `true` if the checkpoint has changed since it was published.
    is_unpublished: bool,
}

impl UploadRecord {
    /// Creates the record. The first checkpoint is published with [`UploadRecord::publish`].
    pub(crate) fn new(
        journal_entry: Option<JournalEntryGuard>,
        checkpoint: Option<Checkpoint>,
        publish: CheckpointSender,
    ) -> UploadRecord {
        let is_unpublished = checkpoint.is_some();
        UploadRecord { journal_entry, checkpoint, publish, is_ahead_of_journal: false, is_unpublished }
    }

    /// Records the container that was named, before anything is sent.
    pub(crate) fn begin(&mut self, plan: Option<Plan>, video_id: Option<&str>) -> Result<()> {
        match &mut self.journal_entry {
            Some(journal_entry) => journal_entry.begin(plan, video_id),
            None => Ok(()),
        }
    }

    /// Marks the journal as behind the checkpoint, until [`UploadRecord::catch_up`].
    pub(crate) fn set_ahead_of_journal(&mut self) {
        self.is_ahead_of_journal = true;
    }

    /// Copies the checkpoint of another process into the journal. Called only after the file is known to be the one
    /// that was sent: a journal that gives an upload up lists its container for removal.
    pub(crate) fn catch_up(&mut self, plan: Option<Plan>) -> Result<()> {
        let (Some(journal_entry), Some(checkpoint)) = (&mut self.journal_entry, &self.checkpoint) else {
            return Ok(());
        };
        if let (true, ContainerState::Known { video_id, made }) =
            (self.is_ahead_of_journal, &checkpoint.container)
        {
            journal_entry.container(plan, video_id, *made)?;
            checkpoint.stored().for_each(|index| journal_entry.acknowledged(index));
        }
        self.is_ahead_of_journal = false;
        Ok(())
    }

    /// Records the mark of a container before the request that creates it.
    pub(crate) fn creating(&mut self, plan: Option<Plan>, mark: &str) -> Result<()> {
        // The journal first: if it fails, nothing is created that only the service would know of.
        if let Some(journal_entry) = &mut self.journal_entry {
            journal_entry.creating(plan, mark)?;
        }
        self.change(|checkpoint| {
            checkpoint.set_container(ContainerState::Intended { mark: mark.to_owned() })
        });
        Ok(())
    }

    /// Records the container before its first byte.
    pub(crate) fn container(&mut self, plan: Option<Plan>, video_id: &str, made: CreatedBy) -> Result<()> {
        if let Some(journal_entry) = &mut self.journal_entry {
            journal_entry.container(plan, video_id, made)?;
        }
        let container = ContainerState::Known { video_id: video_id.to_owned(), made };
        self.change(|checkpoint| checkpoint.set_container(container));
        Ok(())
    }

    /// Removes the record of a container that was certainly not created.
    pub(crate) fn withdrawn(&mut self) {
        self.journal_entry.iter_mut().for_each(JournalEntryGuard::withdrawn);
        self.change(|checkpoint| checkpoint.set_container(ContainerState::None));
    }

    /// Records an acknowledged chunk.
    pub(crate) fn acknowledged(&mut self, index: u32) {
        self.journal_entry.iter_mut().for_each(|journal_entry| journal_entry.acknowledged(index));
        self.change(|checkpoint| checkpoint.insert_acknowledged(index));
    }

    /// Records the digest of a chunk after its bytes were read and before its request ends.
    pub(crate) fn sent(&mut self, index: u32, digest: ChunkDigest) {
        self.journal_entry.iter_mut().for_each(|journal_entry| journal_entry.sent(index, digest));
        self.change(|checkpoint| checkpoint.insert_digest(index, Some(digest)));
    }

    /// Records that the file has the bytes of every chunk that was sent.
    pub(crate) fn proved(&mut self) {
        self.journal_entry.iter_mut().for_each(JournalEntryGuard::proved);
    }

    /// Records the chunk that completed a container of ours.
    pub(crate) fn completed(&mut self, plan: Option<Plan>, video_id: &str, index: u32) {
        if let Some(journal_entry) = &mut self.journal_entry {
            journal_entry.completed(plan, video_id, index);
        }
        let container = ContainerState::Known { video_id: video_id.to_owned(), made: CreatedBy::ByUs };
        self.change(|checkpoint| {
            checkpoint.set_container(container);
            checkpoint.insert_acknowledged(index);
        });
    }

    /// Returns the journal entry.
    pub(crate) fn entry(&self) -> Option<&JournalEntryGuard> {
        self.journal_entry.as_ref()
    }

    /// Takes the journal entry out of the record.
    pub(crate) fn take_entry(&mut self) -> Option<JournalEntryGuard> {
        self.journal_entry.take()
    }

    /// Returns the journal entry and the channel for another attempt at the upload.
    pub(crate) fn into_parts(self) -> (Option<JournalEntryGuard>, CheckpointSender) {
        (self.journal_entry, self.publish)
    }

    fn change(&mut self, change: impl FnOnce(&mut Checkpoint)) {
        if let Some(checkpoint) = &mut self.checkpoint {
            change(checkpoint);
            self.is_unpublished = true;
        }
    }

    /// Publishes the checkpoint if it has changed. Called after the journal has committed the same change. A reader that
    /// is slow sees the latest one.
    pub(crate) fn publish(&mut self) {
        if std::mem::take(&mut self.is_unpublished) {
            self.publish.send_replace(self.checkpoint.clone());
        }
    }

    /// Drops the journal entry if requests depend on a record of this batch, which the journal does not have. Returns
    /// `true` if it did.
    pub(crate) fn lose(&mut self, batch: u64) -> bool {
        self.journal_entry.take_if(|entry| entry.depends_on(batch)).is_some()
    }
}
