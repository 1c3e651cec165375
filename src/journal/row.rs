//! One session as the journal writes it down.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::claim::SavedProgress;
use super::endpoint;
use super::finished::FinishedRow;
use super::identity::{Comparison, SourceIdentity, compare};
use crate::source::ChunkDigest;
use crate::transport::Endpoint;
use crate::wire::{Addressing, Plan};

/// Whose bytes go where: what makes two runs of a command the same upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The service's base URL. It must hold no secret.
    pub endpoint: String,
    /// Where the bytes come from.
    pub source: EntrySource,
    /// Where they go.
    pub destination: EntryDestination,
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntrySource {
    /// A file, which is found again.
    File {
        /// Where it is, for people.
        path: PathBuf,
        /// Which file it is.
        identity: SourceIdentity,
    },
    /// A stream. It is gone with its process, and what was begun with it is never resumed.
    Stream,
}

/// Where the bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryDestination {
    /// A container that is made for them.
    NewVideo,
    /// A container that the user named.
    Video {
        /// Its id.
        video_id: String,
    },
    /// A container that the service makes for an upload token.
    Token(TokenDigest),
    /// A container that the user named, filled with an upload token.
    TokenAndVideo {
        /// The token.
        token: TokenDigest,
        /// The container's id.
        video_id: String,
    },
}

impl EntryDestination {
    /// Whether both are the same place, be it with different upload tokens.
    pub(super) fn is_same_but_for_the_token(&self, other: &EntryDestination) -> bool {
        use EntryDestination::{Token, TokenAndVideo};
        match (self, other) {
            (Token(_), Token(_)) => true,
            (TokenAndVideo { video_id: one, .. }, TokenAndVideo { video_id: two, .. }) => one == two,
            (one, two) => one == two,
        }
    }
}

/// The SHA-256 of an upload token: tells whether it is the same one, and does not give it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of `token`.
    pub fn of(token: &str) -> TokenDigest {
        TokenDigest(sha256(token.as_bytes()))
    }
}

/// The container of a session, as far as it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// There is none.
    None,
    /// A request was about to create it, and no answer was written down: it may exist.
    Intended {
        /// What it can be recognised by.
        mark: String,
    },
    /// It exists.
    Known {
        /// Its id.
        video_id: String,
        /// Who made it.
        made: CreatedBy,
    },
}

/// Who made a container, which decides who may delete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreatedBy {
    /// The session did.
    ByUs,
    /// The user named it: it is not ours to delete.
    Given,
}

/// One session of the journal, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number in the journal.
    pub id: i64,
    /// Whose bytes go where.
    pub key: Key,
    /// How far it is, or got.
    pub state: EntryState,
    /// The container.
    pub container: ContainerState,
    /// How the file was cut.
    pub plan: Option<Plan>,
    /// How many chunks the service acknowledged.
    pub stored_chunks: u32,
    /// What the session was claimed with.
    pub arguments: String,
    /// When it was first claimed, to the second.
    pub began: SystemTime,
}

impl Entry {
    /// Whether the same command would continue it.
    pub fn is_resumable(&self) -> bool {
        self.state == EntryState::Interrupted && matches!(self.key.source, EntrySource::File { .. })
    }

    /// Whether it goes to the service at this base URL, in whichever spelling.
    pub fn is_at(&self, endpoint: &str) -> bool {
        endpoint::is_same(&self.key.endpoint, endpoint)
    }

    /// Whether an upload with another upload token would continue it: the video and its chunks are known.
    pub fn continues_with_any_token(&self) -> bool {
        let is_delegated = matches!(
            self.key.destination,
            EntryDestination::Token(_) | EntryDestination::TokenAndVideo { .. }
        );
        is_delegated && self.plan.is_some() && matches!(self.container, ContainerState::Known { .. })
    }

    /// Whether there may be a video that neither an id nor a mark leads to: the answer to the first chunk
    /// of a delegated upload was lost.
    pub fn may_have_untraced_video(&self) -> bool {
        matches!(
            (&self.container, &self.key.destination),
            (ContainerState::Intended { .. }, EntryDestination::Token(_))
        )
    }

    /// The id of a container that we made and that nobody is filling: it can be deleted.
    pub fn orphan(&self) -> Option<&str> {
        match self.state {
            EntryState::Running { .. } | EntryState::OutOfReach => None,
            EntryState::Interrupted | EntryState::Abandoned => self.container.own_video_id(),
        }
    }
}

impl ContainerState {
    /// What one can be recognised by that may exist and whose id nobody knows.
    pub fn mark(&self) -> Option<&str> {
        match self {
            ContainerState::Intended { mark } if !mark.is_empty() => Some(mark),
            ContainerState::None | ContainerState::Intended { .. } | ContainerState::Known { .. } => None,
        }
    }

    /// The id of one that we made.
    pub fn own_video_id(&self) -> Option<&str> {
        match self {
            ContainerState::Known { video_id, made: CreatedBy::ByUs } => Some(video_id),
            ContainerState::None | ContainerState::Intended { .. } | ContainerState::Known { .. } => None,
        }
    }
}

/// How far a session is, or got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// A process is at it.
    Running {
        /// That process, if it could be told.
        pid: Option<u32>,
    },
    /// Its process ended before it did.
    Interrupted,
    /// It was given up.
    Abandoned,
    /// Its lock file cannot be opened, as it belongs to another user: a process may be at it or not.
    OutOfReach,
}

/// The digests that there are of acknowledged chunks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HasDigests {
    OfEveryChunk,
    NotOfEveryChunk,
    /// They were not looked for.
    Unknown,
}

/// One row of the journal.
#[derive(Clone, Debug)]
pub(super) struct SessionRow {
    pub(super) id: i64,
    path: PathBuf,
    record: SessionRecord,
    pub(super) stored: ChunkSet,
}

/// What a row says beside its path and its chunks.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SessionRecord {
    endpoint: String,
    identity: Option<SourceIdentity>,
    destination: EntryDestination,
    arguments: String,
    began_s: u64,
    /// The number of its lock file, which no other row has.
    lock: u32,
    stage: SessionStage,
    container: ContainerState,
    plan: Option<StoredPlan>,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SessionStage {
    Open,
    Abandoned,
}

/// A plan, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPlan {
    len: u64,
    chunk_bytes: u64,
    #[serde(with = "AddressingName")]
    addressing: Addressing,
}

impl From<Plan> for StoredPlan {
    fn from(plan: Plan) -> StoredPlan {
        StoredPlan { len: plan.len(), chunk_bytes: plan.chunk_bytes(), addressing: plan.addressing() }
    }
}

impl StoredPlan {
    /// `None` for one that breaks the protocol's limits.
    pub(super) fn plan(self) -> Option<Plan> {
        Plan::new(self.len, self.chunk_bytes, self.addressing).ok()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Addressing", rename_all = "snake_case")]
enum AddressingName {
    Single,
    ByteRange,
    Part,
}

impl SessionRow {
    pub(super) fn new(key: &Key, arguments: &str, lock: u32, now: SystemTime) -> SessionRow {
        let record = SessionRecord {
            endpoint: key.endpoint.clone(),
            identity: key.source.identity().copied(),
            destination: key.destination.clone(),
            arguments: arguments.to_owned(),
            began_s: now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            lock,
            stage: SessionStage::Open,
            container: match key.destination {
                // The first chunk makes it, and no request of its own is there to be written down before.
                EntryDestination::Token(_) => ContainerState::Intended { mark: String::new() },
                EntryDestination::NewVideo
                | EntryDestination::Video { .. }
                | EntryDestination::TokenAndVideo { .. } => ContainerState::None,
            },
            plan: None,
        };
        SessionRow { id: 0, path: key.source.path().to_owned(), record, stored: ChunkSet::default() }
    }

    /// `None` when the row does not match its seal.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<SessionRow>> {
        let (text, seal): (String, Vec<u8>) = (row.get("record")?, row.get("seal")?);
        let unsealed = SessionRow::unsealed(row.get("id")?, row.get("path")?, &text, row.get("stored")?);
        Ok(unsealed.filter(|unsealed| unsealed.seal(&text).as_slice() == seal))
    }

    /// `None` when that is no row, whatever its seal.
    fn unsealed(id: i64, path: Vec<u8>, record: &str, stored: Vec<u8>) -> Option<SessionRow> {
        let mut record: SessionRecord = serde_json::from_str(record).ok()?;
        // Rows of version 0.1 hold the endpoint as it was typed, with a slash at its end or `HTTP://`.
        record.endpoint = Endpoint::canonical_of(&record.endpoint);
        let row = SessionRow {
            id,
            path: PathBuf::from(OsString::from_vec(path)),
            record,
            stored: ChunkSet(stored),
        };
        row.plan().is_ok().then_some(row)
    }

    pub(super) fn path(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }

    /// Everything but the path and the chunks, as JSON.
    pub(super) fn record(&self) -> String {
        serde_json::to_string(&self.record).unwrap_or_default()
    }

    /// The digest over all that is written, each piece with its length before it.
    pub(super) fn seal(&self, record: &str) -> [u8; 32] {
        seal(&[self.path(), record.as_bytes(), self.stored.bytes()])
    }

    /// Returns `true` when `key` may be this session's: digests may still have to prove it.
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
                // Nothing was sent that could differ.
                Comparison::Same
            }
            (comparison, _) => comparison,
        }
    }

    /// Whether both go to the same place with the same upload token, or without one.
    pub(super) fn has_token_of(&self, key: &Key) -> bool {
        self.record.destination == key.destination
    }

    /// Whether the container and its chunks are known, which another upload token needs to continue it.
    fn is_known(&self) -> bool {
        self.record.plan.is_some() && matches!(self.record.container, ContainerState::Known { .. })
    }

    /// What is saved of the file once it is there; `None` of a stream.
    pub(super) fn note(&self, video_id: &str, now: SystemTime) -> Option<FinishedRow> {
        let (identity, destination) = (self.record.identity?, self.record.destination.clone());
        let key = (self.path.as_path(), self.record.endpoint.as_str(), identity, destination);
        Some(FinishedRow::new(self.id, key, video_id, self.record.plan, now))
    }

    /// The file as it is at the end, where only its ctime is another.
    pub(super) fn touch(&mut self, now: SourceIdentity) {
        if let Some(then) = &mut self.record.identity
            && compare(then, &now, true, true) != Comparison::Another
        {
            *then = now;
        }
    }

    /// Gives the row the upload token that it had before another took it up.
    pub(super) fn give_back(&mut self, destination: EntryDestination) {
        self.record.destination = destination;
    }

    pub(super) fn destination(&self) -> &EntryDestination {
        &self.record.destination
    }

    /// Makes the row that of a new claim, and returns what an earlier one left, where `digests` are those of the chunks
    /// that were sent.
    ///
    /// The file stays the one of the earlier claim while it is not proved: a process that dies before the proof
    /// must not leave a journal that trusts it.
    pub(super) fn take_up(
        &mut self,
        key: &Key,
        arguments: &str,
        digests: Vec<(u32, Option<ChunkDigest>)>,
    ) -> Option<SavedProgress> {
        let stored: Vec<u32> = self.stored.iter().collect();
        let has_digest = |index: &u32| digests.binary_search_by_key(index, |(chunk, _)| *chunk).is_ok();
        let has_digests = match !digests.is_empty() && stored.iter().all(has_digest) {
            true => HasDigests::OfEveryChunk,
            false => HasDigests::NotOfEveryChunk,
        };
        let comparison = self.comparison(key, has_digests);
        if !self.has_begun() || comparison == Comparison::Same {
            self.set_file(key);
        }
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

    /// Makes the file of `key`, as it is now, the session's.
    pub(super) fn set_file(&mut self, key: &Key) {
        self.record.identity = key.source.identity().copied();
        self.path = key.source.path().to_owned();
    }

    pub(super) fn lock(&self) -> u32 {
        self.record.lock
    }

    /// The inode number as the database holds it, where integers are signed; `None` of a stream.
    pub(super) fn inode(&self) -> Option<i64> {
        self.record.identity.map(|identity| identity.inode.cast_signed())
    }

    pub(super) fn has_begun(&self) -> bool {
        self.record.container != ContainerState::None
    }

    /// Another container begins empty, and so does another way to cut the file. Returns whether the digests of
    /// chunks that were sent no longer count.
    pub(super) fn begin(&mut self, container: ContainerState, plan: Option<Plan>) -> bool {
        let plan = plan.map(StoredPlan::from);
        let is_another = self.record.container != container || self.record.plan != plan;
        // With an upload token the first chunk is sent before its container has a name.
        let is_left = is_another && matches!(self.record.container, ContainerState::Known { .. });
        if is_another {
            self.stored = ChunkSet::default();
        }
        self.record.container = container;
        self.record.plan = plan;
        is_left
    }

    /// There is no container, and none that may exist.
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

    fn plan(&self) -> Result<Option<Plan>, crate::wire::PlanError> {
        let plan = self.record.plan.map(|cut| Plan::new(cut.len, cut.chunk_bytes, cut.addressing));
        plan.transpose()
    }

    pub(super) fn into_entry(self, state: EntryState) -> Entry {
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
            began: UNIX_EPOCH + Duration::from_secs(self.record.began_s),
        }
    }
}

impl EntrySource {
    fn identity(&self) -> Option<&SourceIdentity> {
        match self {
            EntrySource::File { identity, .. } => Some(identity),
            EntrySource::Stream => None,
        }
    }

    fn path(&self) -> &Path {
        match self {
            EntrySource::File { path, .. } => path,
            EntrySource::Stream => Path::new(""),
        }
    }
}

/// A set of chunk indexes, one bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkSet(Vec<u8>);

impl ChunkSet {
    pub(super) fn insert(&mut self, index: u32) {
        let byte = index as usize / 8;
        if byte >= self.0.len() {
            self.0.resize(byte + 1, 0);
        }
        self.0[byte] |= 1 << (index % 8);
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let is_set = |&index: &u32| self.0[index as usize / 8] & (1 << (index % 8)) != 0;
        (0..self.0.len() as u32 * 8).filter(is_set)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the fuzz targets see of it.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::*;

    /// Path, record and chunks of a row.
    pub type RowBytes = (Vec<u8>, String, Vec<u8>);

    /// What is written of a row that was read, and what people see of it.
    pub fn read((path, record, stored): &RowBytes) -> Option<(RowBytes, Entry)> {
        let row = SessionRow::unsealed(1, path.clone(), record, stored.clone())?;
        let written = (row.path().to_vec(), row.record(), row.stored.bytes().to_vec());
        Some((written, row.into_entry(EntryState::Interrupted)))
    }

    /// The digest over a row that can be read.
    pub fn seal((path, record, stored): &RowBytes) -> Option<[u8; 32]> {
        Some(SessionRow::unsealed(1, path.clone(), record, stored.clone())?.seal(record))
    }
}

/// The digest over pieces, each with its length before it.
pub(super) fn seal(pieces: &[&[u8]]) -> [u8; 32] {
    let mut whole = Vec::new();
    for piece in pieces {
        whole.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        whole.extend_from_slice(piece);
    }
    sha256(&whole)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
