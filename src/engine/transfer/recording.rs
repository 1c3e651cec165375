//! The journal records of an upload, and their order relative to requests.

use super::Transfer;
use crate::engine::claim::titled;
use crate::engine::creation::{Created, Creation, Mark};
use crate::engine::journal_entry::MarkJournal;
use crate::error::Result;
use crate::journal::CreatedBy;

impl Transfer {
    /// The container to create, written down before it is.
    pub(crate) fn creation(&mut self, marks: MarkJournal) -> Result<Creation> {
        let plan = self.session.chunks().plan();
        let mark = self.left_mark.take().map_or_else(Mark::draw, Mark::Left);
        if let Some(journal_entry) = &mut self.journal_entry {
            journal_entry.creating(plan, mark.text())?;
        }
        Ok(Creation { video: titled(&self.destination, &self.file_name), mark, marks })
    }

    /// The container exists, or could not be created.
    pub(crate) fn created(&mut self, created: Result<Created>) {
        let created = created.and_then(|Created { video_id, mark_entry }| {
            self.made_container = true;
            self.record_container(&video_id)?;
            mark_entry.into_iter().for_each(|entry| entry.resolved());
            Ok(video_id)
        });
        self.session.handle_created(created);
    }

    fn record_container(&mut self, video_id: &str) -> Result<()> {
        let plan = self.session.chunks().plan();
        match &mut self.journal_entry {
            Some(journal_entry) => journal_entry.container(plan, video_id, CreatedBy::ByUs),
            None => Ok(()),
        }
    }

    /// What is whole leaves the journal in a moment, or once somebody has heard of it. Until then the
    /// service can be asked, though not with an upload token.
    pub(super) fn needs_journal_to_prove_success(&self) -> bool {
        self.receipt.is_some() && !self.needs_key()
    }

    /// A container of ours, before more goes into it.
    pub(super) fn record_own_container(&mut self) {
        let Some(video_id) = self.session.video_id().map(str::to_owned) else { return };
        if self.made_container
            && let Err(error) = self.record_container(&video_id)
        {
            self.session.handle_failure(error);
        }
    }

    pub(super) fn record_chunk(&mut self, index: u32) {
        if self.session.may_be_journalled(index)
            && let Some(journal_entry) = &mut self.journal_entry
        {
            journal_entry.acknowledged(index);
        }
    }

    pub(super) fn record_last_chunk(&mut self, index: u32) {
        let plan = self.session.chunks().plan();
        match (&mut self.journal_entry, self.session.video_id()) {
            (Some(journal_entry), Some(video_id)) if self.made_container => {
                journal_entry.completed(plan, video_id, index)
            }
            _ => self.record_chunk(index),
        }
    }
}
