//! The journal records of an upload, and their order relative to requests.

use std::time::Instant;

use super::Transfer;
use super::end::CreationState;
use crate::engine::claim::titled;
use crate::engine::creation::{Created, Creation, CreationFailure, Mark};
use crate::engine::journal_entry::MarkJournal;
use crate::engine::request::JobMark;
use crate::error::{Error, Result};
use crate::journal::CreatedBy;

impl Transfer {
    /// Returns the container to create, after the journal has its mark. A crash during creation then leaves a mark to
    /// search for.
    pub(crate) fn creation(&mut self, marks: MarkJournal) -> Result<Creation> {
        let plan = self.session.chunks().plan();
        self.creation = CreationState::Possible;
        let gate = self.job_mark.as_ref().and_then(|mark| mark.gate.clone());
        // The mark of an earlier process first: its container may exist.
        let mark = match (self.left_mark.take(), self.job_mark.clone()) {
            (Some(left), Some(JobMark { text, container, .. })) if left == text => {
                Mark::OfJob { mark: left, may_exist: true, container }
            }
            (Some(left), _) => Mark::Left(left),
            (None, Some(JobMark { text: mark, may_exist, container, .. })) => {
                Mark::OfJob { mark, may_exist, container }
            }
            (None, None) => Mark::draw(),
        };
        self.record.creating(plan, mark.text())?;
        Ok(Creation { video: titled(&self.destination, &self.file_name), mark, marks, gate })
    }

    /// Ends the upload if its requests depend on a record of this batch, which the journal does not have. Keeps no claim
    /// on the journal's entry, which may be another one by now.
    pub(crate) fn fail_unrecorded(&mut self, batch: u64, error: &Error) {
        if self.record.lose(batch) {
            self.session.handle_failure(error.clone());
        }
    }

    /// Publishes the checkpoint, which the journal has.
    pub(crate) fn publish_checkpoint(&mut self) {
        self.record.publish();
    }

    /// Returns `true` while the request that creates the container is under way.
    pub(crate) fn is_creating(&self) -> bool {
        self.creation == CreationState::Possible
            && self.session.video_id().is_none()
            && !self.session.is_complete()
    }

    /// Takes in the created container, or the failure to create it.
    pub(crate) fn created(&mut self, created: Result<Created, CreationFailure>, now: Instant) {
        if created.as_ref().is_err_and(|failure| !failure.may_exist) {
            self.creation = CreationState::Excluded;
        }
        let created = created.map_err(|failure| failure.error).and_then(
            |Created { video_id, was_found, mark_entry }| {
                self.made_container = true;
                self.record_container(&video_id)?;
                // Only now does the upload's own entry name the container, so the entry of its mark can go.
                mark_entry.into_iter().for_each(|entry| entry.resolved());
                Ok((video_id, was_found))
            },
        );
        match created {
            // Only hosts of a job send chunks to a container that others have created.
            Ok((video_id, true)) if self.job_mark.is_some() => self.session.handle_found(video_id, now),
            created => self.session.handle_created(created.map(|(video_id, _)| video_id)),
        }
    }

    fn record_container(&mut self, video_id: &str) -> Result<()> {
        let plan = self.session.chunks().plan();
        self.record.container(plan, video_id, CreatedBy::ByUs)
    }

    /// Returns `true` if only the journal can prove success to a later run. A complete upload stays in the journal
    /// until its receipt is confirmed. Until then a run with an API key can ask for the status; a run with an upload
    /// token cannot.
    pub(super) fn needs_journal_to_prove_success(&self) -> bool {
        self.receipt.is_some() && !self.needs_key()
    }

    /// Records the container that this upload created, before more chunks are sent to it.
    pub(super) fn record_own_container(&mut self) {
        let Some(video_id) = self.session.video_id().map(str::to_owned) else { return };
        if self.made_container
            && let Err(error) = self.record_container(&video_id)
        {
            self.session.handle_failure(error);
        }
    }

    pub(super) fn record_chunk(&mut self, index: u32) {
        if self.session.may_be_journalled(index) {
            self.record.acknowledged(index);
        }
    }

    pub(super) fn record_last_chunk(&mut self, index: u32) {
        // Withheld until now: the answers to two chunks in flight may arrive in either order.
        if let Some(withheld) = self.session.first_complete().filter(|first| *first != index) {
            self.record_chunk(withheld);
        }
        let plan = self.session.chunks().plan();
        // The last chunk of a one-chunk upload may also be the one that created the container.
        match self.session.video_id().map(str::to_owned) {
            Some(video_id) if self.made_container => self.record.completed(plan, &video_id, index),
            _ => self.record_chunk(index),
        }
    }
}
