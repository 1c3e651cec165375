//! One session as a row of the journal.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::chunk_set::ChunkSet;
use super::container::{ContainerState, CreatedBy};
use super::endpoint;
use super::entry::{Entry, EntryState, SavedProgress};
use super::finished::FinishedRow;
use super::identity::{Comparison, SourceIdentity, compare};
use super::key::{EntryDestination, EntrySource, Key};
use super::seal::seal;
use super::stored_plan::StoredPlan;
use crate::source::ChunkDigest;
use crate::transport::Endpoint;
use crate::wire::{Plan, PlanError};

/// Availability of digests for the acknowledged chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HasDigests {
    OfEveryChunk,
    NotOfEveryChunk,
    /// The digests were not read.
    Unknown,
}

/// One row of the table `sessions`.
#[derive(Clone, Debug)]
pub(super) struct SessionRow {
    pub(super) id: i64,
    path: PathBuf,
    record: SessionRecord,
    pub(super) stored: ChunkSet,
}

/// The JSON column of a row: everything but the path and the chunks.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SessionRecord {
    endpoint: String,
    identity: Option<SourceIdentity>,
    destination: EntryDestination,
    arguments: String,
    began_s: u64,
    /// The number of the session's lock file. No other row has this number.
    lock: u32,
    stage: SessionStage,
    container: ContainerState,
    plan: Option<StoredPlan>,
}

/// The stage of a session, independent of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionStage {
    Open,
    Abandoned,
}

impl SessionRow {
    pub(super) fn new(key: &Key, arguments: &str, lock: u32, now: SystemTime) -> SessionRow {
        let record = SessionRecord {
            endpoint: key.endpoint.clone(),
            identity: key.source.identity().copied(),
            destination: key.destination.clone(),
            arguments: arguments.to_owned(),
            // A clock before 1970 counts as 1970.
            began_s: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            lock,
            stage: SessionStage::Open,
            container: match key.destination {
                // The first chunk creates the container, so that no separate request precedes it.
                EntryDestination::Token(_) => ContainerState::Intended { mark: String::new() },
                EntryDestination::NewVideo
                | EntryDestination::Video { .. }
                | EntryDestination::TokenAndVideo { .. } => ContainerState::None,
            },
            plan: None,
        };
        SessionRow { id: 0, path: key.source.path().to_owned(), record, stored: ChunkSet::default() }
    }

    /// Reads a row. Returns `None` if the row does not match its seal.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<SessionRow>> {
        let (text, seal): (String, Vec<u8>) = (row.get("record")?, row.get("seal")?);
        let unsealed = SessionRow::unsealed(row.get("id")?, row.get("path")?, &text, row.get("stored")?);
        // Over the stored text: another version may have written the same fields in another form.
        Ok(unsealed.filter(|unsealed| unsealed.seal(&text).as_slice() == seal))
    }

    /// Parses the columns of a row without checking the seal. Returns `None` if they cannot be parsed.
    fn unsealed(id: i64, path: Vec<u8>, record: &str, stored: Vec<u8>) -> Option<SessionRow> {
        let mut record: SessionRecord = serde_json::from_str(record).ok()?;
        // Version 0.1 stored the endpoint as it was typed, for example with a trailing slash or `HTTP://`.
        record.endpoint = Endpoint::canonical_of(&record.endpoint);
        let row = SessionRow {
            id,
            path: PathBuf::from(OsString::from_vec(path)),
            record,
            stored: ChunkSet::from_bytes(stored),
        };
        row.plan().is_ok().then_some(row)
    }

    pub(super) fn path(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }

    /// Returns everything but the path and the chunks, as JSON.
    pub(super) fn record(&self) -> String {
        // Plain values always have a JSON form.
        serde_json::to_string(&self.record).unwrap_or_default()
    }

    /// Returns the digest over the path, `record` and the chunks.
    pub(super) fn seal(&self, record: &str) -> [u8; 32] {
        seal(&[self.path(), record.as_bytes(), self.stored.bytes()])
    }

    /// Returns `true` if an upload with this key may resume the session. The file may still have to be proved by digests.
    pub(super) fn continues(&self, key: &Key) -> bool {
        let same_way = endpoint::is_same(&self.record.endpoint, &key.endpoint)
            && self.record.destination.is_same_but_for_the_token(&key.destination);
        let goes_on = self.has_token_of(key) || self.is_known();
        let is_open = self.record.stage == SessionStage::Open && same_way && goes_on;
        is_open && self.comparison(key, HasDigests::Unknown) != Comparison::Another
    }

    /// Compares the file of `key` with the session's.
    fn comparison(&self, key: &Key, digests: HasDigests) -> Comparison {
        let EntrySource::File { path, identity: now } = &key.source else { return Comparison::Another };
        let Some(then) = &self.record.identity else { return Comparison::Another };
        let comparison = compare(then, now, self.path == *path, digests == HasDigests::OfEveryChunk);
        match (comparison, &self.record.container) {
            (
                Comparison::Prove | Comparison::Anew,
                ContainerState::None | ContainerState::Intended { .. },
            ) => {
                // No byte was sent yet, so a changed file does no harm.
                Comparison::Same
            }
            (comparison, _) => comparison,
        }
    }

    /// Returns `true` if the destinations are equal, including the upload token.
    pub(super) fn has_token_of(&self, key: &Key) -> bool {
        self.record.destination == key.destination
    }

    /// Returns `true` if the container and the plan are known. Another upload token can resume only such a session.
    fn is_known(&self) -> bool {
        self.record.plan.is_some() && matches!(self.record.container, ContainerState::Known { .. })
    }

    /// Returns the row that remembers the uploaded file; `None` for a stream.
    pub(super) fn finished_row(&self, video_id: &str, now: SystemTime) -> Option<FinishedRow> {
        let (identity, destination) = (self.record.identity?, self.record.destination.clone());
        let key = (self.path.as_path(), self.record.endpoint.as_str(), identity, destination);
        Some(FinishedRow::new(self.id, key, video_id, self.record.plan, now))
    }

    /// Stores the identity at the end of the upload, if at most the ctime of the file differs.
    pub(super) fn touch(&mut self, now: SourceIdentity) {
        if let Some(then) = &mut self.record.identity
            && compare(then, &now, true, true) != Comparison::Another
        {
            *then = now;
        }
    }

    /// Restores the destination that the row had before another upload token claimed it.
    pub(super) fn give_back(&mut self, destination: EntryDestination) {
        self.record.destination = destination;
    }

    pub(super) fn destination(&self) -> &EntryDestination {
        &self.record.destination
    }

    /// Assigns the row to a new claim, and returns the progress of the earlier one. `digests` are those of the chunks
    /// that were sent.
    pub(super) fn take_up(
        &mut self,
        key: &Key,
        arguments: &str,
        digests: Vec<(u32, Option<ChunkDigest>)>,
    ) -> Option<SavedProgress> {
        let stored: Vec<u32> = self.stored.iter().collect();
        // The digests are in the order of their chunks.
        let has_digest = |index: &u32| digests.binary_search_by_key(index, |(chunk, _)| *chunk).is_ok();
        // A chunk without a digest is from format 2, or from a run that kept none.
        let has_digests = if !digests.is_empty() && stored.iter().all(has_digest) {
            HasDigests::OfEveryChunk
        } else {
            HasDigests::NotOfEveryChunk
        };
        let comparison = self.comparison(key, has_digests);
        // An unproved file does not replace the earlier one: if this process died before the proof, the next one
        // would trust the file.
        if !self.has_begun() || comparison == Comparison::Same {
            self.set_file(key);
        }
        // The session continues with the spelling and the token of this claim.
        self.record.endpoint = key.endpoint.clone();
        self.record.destination = key.destination.clone();
        self.record.arguments = arguments.to_owned();
        self.has_begun().then(|| SavedProgress {
            container: self.record.container.clone(),
            plan: self.plan().ok().flatten(),
            stored,
            comparison,
            digests,
        })
    }

    /// Sets the path and the identity of the session's file.
    pub(super) fn set_file(&mut self, key: &Key) {
        self.record.identity = key.source.identity().copied();
        self.path = key.source.path().to_owned();
    }

    pub(super) fn lock(&self) -> u32 {
        self.record.lock
    }

    /// Returns the inode number as the signed integer that SQLite stores; `None` for a stream.
    pub(super) fn inode(&self) -> Option<i64> {
        self.record.identity.map(|identity| identity.inode.cast_signed())
    }

    pub(super) fn has_begun(&self) -> bool {
        self.record.container != ContainerState::None
    }

    /// Sets the container and the plan. Clears the acknowledged chunks if either changes.
    ///
    /// Returns `true` if the digests of the chunks that were sent have to be deleted.
    pub(super) fn begin(&mut self, container: ContainerState, plan: Option<Plan>) -> bool {
        let plan = plan.map(StoredPlan::from);
        let is_another = self.record.container != container || self.record.plan != plan;
        // With an upload token the first chunk is sent before the container's id is known: its digest stays valid.
        let is_left = is_another && matches!(self.record.container, ContainerState::Known { .. });
        // The indexes mean other bytes in another container, or under another plan.
        if is_another {
            self.stored = ChunkSet::default();
        }
        self.record.container = container;
        self.record.plan = plan;
        is_left
    }

    /// Records that no container exists.
    pub(super) fn withdraw(&mut self) {
        self.record.container = ContainerState::None;
        self.stored = ChunkSet::default();
    }

    pub(super) fn abandon(&mut self) {
        self.record.stage = SessionStage::Abandoned;
    }

    pub(super) fn stage(&self) -> SessionStage {
        self.record.stage
    }

    pub(super) fn may_leave_an_orphan(&self) -> bool {
        match self.record.container {
            ContainerState::None | ContainerState::Known { made: CreatedBy::Given, .. } => false,
            ContainerState::Intended { .. } | ContainerState::Known { made: CreatedBy::ByUs, .. } => true,
        }
    }

    pub(super) fn container(&self) -> &ContainerState {
        &self.record.container
    }

    fn plan(&self) -> Result<Option<Plan>, PlanError> {
        self.record.plan.map(StoredPlan::plan).transpose()
    }

    pub(super) fn into_entry(self, state: EntryState) -> Entry {
        // No row is read whose plan is impossible.
        let plan = self.plan().ok().flatten();
        let source = match self.record.identity {
            Some(identity) => EntrySource::File { path: self.path, identity },
            None => EntrySource::Stream,
        };
        Entry {
            id: self.id,
            key: Key { endpoint: self.record.endpoint, source, destination: self.record.destination },
            state,
            container: self.record.container,
            plan,
            stored_chunks: self.stored.iter().count() as u32,
            arguments: self.record.arguments,
            // The number was read from a file, and a time beyond the clock's range would be a panic.
            began: UNIX_EPOCH.checked_add(Duration::from_secs(self.record.began_s)).unwrap_or(UNIX_EPOCH),
        }
    }
}

/// Access for the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing {
    use crate::journal::entry::{Entry, EntryState};
    use crate::journal::row::SessionRow;

    /// The path, record and chunks of a row.
    pub type RowBytes = (Vec<u8>, String, Vec<u8>);

    /// Parses a row, and returns the columns that it would be written with and its entry.
    pub fn read((path, record, stored): &RowBytes) -> Option<(RowBytes, Entry)> {
        let row = SessionRow::unsealed(1, path.clone(), record, stored.clone())?;
        let written = (row.path().to_vec(), row.record(), row.stored.bytes().to_vec());
        Some((written, row.into_entry(EntryState::Interrupted)))
    }

    /// Returns the seal of a row that can be parsed.
    pub fn seal((path, record, stored): &RowBytes) -> Option<[u8; 32]> {
        Some(SessionRow::unsealed(1, path.clone(), record, stored.clone())?.seal(record))
    }
}
