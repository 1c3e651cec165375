//! The videos whose upload is in progress, each behind its own lock.
//!
//! The lock is held while a received chunk is checked, renamed and recorded, not while its bytes arrive.
//! Chunks of one video can therefore arrive at the same time. If two requests carry the same bytes, the one
//! that finishes later is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::clock;
use super::database::Database;
use super::file_store::{ChunkWriter, FileStore, StoredChunk};
use super::problem::ProblemDetails;
use super::response::HandlerError;
use super::rules::{self, ReceivedChunks, UploadState};
use crate::wire::ContentRange;

/// The uploads in progress by video id. A complete upload is removed, and read from the database when needed.
#[derive(Default)]
pub(super) struct UploadRegistry {
    open: Mutex<HashMap<String, Arc<Mutex<UploadSlot>>>>,
}

/// The upload of one video, or a mark that the video was deleted while a request held the slot.
enum UploadSlot {
    Open(UploadState),
    Deleted,
}

/// The result of storing a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptedChunk {
    Intermediate,
    Completing,
}

impl UploadRegistry {
    /// Returns a copy of the upload's state.
    pub(super) fn state(&self, database: &Database, video_id: &str) -> Result<UploadState, HandlerError> {
        let slot = self.slot(database, video_id)?;
        match &*lock(&slot) {
            UploadSlot::Open(upload) => Ok(upload.clone()),
            UploadSlot::Deleted => Err(ProblemDetails::not_found("videoId").into()),
        }
    }

    /// Checks the `Content-Range` header of a request before its body arrives.
    pub(super) fn check_header(
        &self,
        database: &Database,
        video_id: &str,
        header: Option<&str>,
    ) -> Result<(), HandlerError> {
        let slot = self.slot(database, video_id)?;
        match &*lock(&slot) {
            UploadSlot::Open(upload) => {
                rules::check_header(upload, header).map(drop).map_err(HandlerError::from)
            }
            UploadSlot::Deleted => Err(ProblemDetails::not_found("videoId").into()),
        }
    }

    /// Stores a chunk, or refuses it and changes nothing; blocking.
    pub(super) fn store_chunk(
        &self,
        database: &Database,
        files: &FileStore,
        video_id: &str,
        header: Option<&str>,
        writer: &ChunkWriter,
    ) -> Result<AcceptedChunk, HandlerError> {
        let slot = self.slot(database, video_id)?;
        let mut slot = lock(&slot);
        let UploadSlot::Open(upload) = &mut *slot else {
            return Err(ProblemDetails::not_found("videoId").into());
        };
        let range = rules::check_header(upload, header)?;
        rules::check_body(upload, range, writer.len())?;
        let chunk = StoredChunk { position: position(range), len: writer.len() };
        // A copy, so that a failure changes nothing.
        let mut grown = upload.clone();
        grown.add(range, chunk.len);
        // The file is renamed first: a row without its file would break every later download.
        let path = files.move_to_video(writer, video_id, chunk.position)?;
        let completed_ms = grown.is_complete().then(clock::now_ms);
        if let Err(error) = database.insert_chunk(video_id, chunk, &grown, completed_ms) {
            // A file without a row is never read. If this removal fails, the retried chunk replaces the file.
            let _ = std::fs::remove_file(path);
            return Err(error.into());
        }
        *upload = grown;
        if !upload.is_complete() {
            return Ok(AcceptedChunk::Intermediate);
        }
        self.open().remove(video_id);
        Ok(AcceptedChunk::Completing)
    }

    /// Deletes a video with its chunks; blocking.
    pub(super) fn delete(
        &self,
        database: &Database,
        files: &FileStore,
        video_id: &str,
    ) -> Result<(), HandlerError> {
        let slot = self.slot(database, video_id)?;
        let mut slot = lock(&slot);
        if matches!(*slot, UploadSlot::Deleted) {
            return Err(ProblemDetails::not_found("videoId").into());
        }
        // The rows before the files: a row without its file would break a download.
        if !database.delete_video(video_id)? {
            return Err(ProblemDetails::not_found("videoId").into());
        }
        *slot = UploadSlot::Deleted;
        self.open().remove(video_id);
        Ok(files.remove_video(video_id)?)
    }

    fn slot(&self, database: &Database, video_id: &str) -> Result<Arc<Mutex<UploadSlot>>, HandlerError> {
        // Locked during the read: two requests must not make two slots for one video.
        let mut open = self.open();
        if let Some(slot) = open.get(video_id) {
            return Ok(slot.clone());
        }
        let upload = database.upload_state(video_id)?.ok_or_else(|| ProblemDetails::not_found("videoId"))?;
        let keep = !upload.is_complete();
        let slot = Arc::new(Mutex::new(UploadSlot::Open(upload)));
        if keep {
            open.insert(video_id.to_owned(), slot.clone());
        }
        Ok(slot)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<UploadSlot>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the chunks of an upload in file order.
pub(super) fn chunks(upload: &UploadState) -> Vec<StoredChunk> {
    match &upload.received {
        ReceivedChunks::Nothing => Vec::new(),
        ReceivedChunks::Whole(len) => vec![StoredChunk { position: 0, len: *len }],
        ReceivedChunks::Bytes { chunks, .. } => {
            chunks.iter().map(|(position, len)| StoredChunk { position: *position, len: *len }).collect()
        }
        ReceivedChunks::Parts { chunks, .. } => {
            chunks.iter().map(|(number, len)| StoredChunk { position: (*number).into(), len: *len }).collect()
        }
    }
}

fn position(range: Option<ContentRange>) -> u64 {
    match range {
        None => 0,
        Some(ContentRange::Bytes { extent, .. }) => extent.offset(),
        Some(ContentRange::Part { number, .. }) => number.into(),
    }
}

fn lock(slot: &Mutex<UploadSlot>) -> MutexGuard<'_, UploadSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
