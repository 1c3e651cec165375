//! The containers that are being filled, each behind its own lock.
//!
//! The lock is held for the accounting only: check, rename, record. Bytes stream in without it, so chunks
//! of one video arrive at the same time, and of two requests for the same bytes the second to finish is
//! refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::answer::Failure;
use super::assembly::{Piece, Shelves, Spool};
use super::dates;
use super::problem::Problem;
use super::rules::{self, Container, Origin, Received};
use super::store::Store;
use crate::wire::ContentRange;

/// The open containers by video id; a finished one is forgotten and read again when asked for.
#[derive(Default)]
pub(super) struct Containers {
    open: Mutex<HashMap<String, Arc<Mutex<Slot>>>>,
}

/// A container, or the place where one was.
enum Slot {
    Held(Container),
    Deleted,
}

/// Where an upload stands after a file was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Incomplete,
    Complete,
}

impl Containers {
    /// What a video holds.
    pub(super) fn snapshot(&self, store: &Store, video_id: &str) -> Result<Container, Failure> {
        let slot = self.slot(store, video_id)?;
        match &*lock(&slot) {
            Slot::Held(container) => Ok(container.clone()),
            Slot::Deleted => Err(Problem::not_found("videoId").into()),
        }
    }

    /// What the rules say to a request before its body arrives.
    pub(super) fn check_header(
        &self,
        store: &Store,
        video_id: &str,
        header: Option<&str>,
    ) -> Result<(), Failure> {
        let slot = self.slot(store, video_id)?;
        match &*lock(&slot) {
            Slot::Held(container) => rules::check_header(container, header).map(drop).map_err(Failure::from),
            Slot::Deleted => Err(Problem::not_found("videoId").into()),
        }
    }

    /// Takes a file in, or refuses it and changes nothing; blocking.
    pub(super) fn deposit(
        &self,
        store: &Store,
        shelves: &Shelves,
        video_id: &str,
        header: Option<&str>,
        spool: &Spool,
    ) -> Result<Progress, Failure> {
        let slot = self.slot(store, video_id)?;
        let mut slot = lock(&slot);
        let Slot::Held(container) = &mut *slot else {
            return Err(Problem::not_found("videoId").into());
        };
        let range = rules::check_header(container, header)?;
        rules::check_body(container, range, spool.len())?;
        let piece = Piece { place: place(range), len: spool.len() };
        let mut grown = container.clone();
        grown.add(range, piece.len);
        let path = shelves.keep(spool, video_id, piece.place)?;
        if let Err(error) = store.with(|db| record(db, video_id, piece, &grown)) {
            // Unrecorded bytes are nobody's; a later piece of the same place would replace them anyway.
            let _ = std::fs::remove_file(path);
            return Err(error.into());
        }
        *container = grown;
        if !container.is_complete() {
            return Ok(Progress::Incomplete);
        }
        self.open().remove(video_id);
        Ok(Progress::Complete)
    }

    /// Deletes a video with its pieces; blocking.
    pub(super) fn delete(&self, store: &Store, shelves: &Shelves, video_id: &str) -> Result<(), Failure> {
        let slot = self.slot(store, video_id)?;
        let mut slot = lock(&slot);
        if matches!(*slot, Slot::Deleted) {
            return Err(Problem::not_found("videoId").into());
        }
        if store.with(|db| db.execute("DELETE FROM videos WHERE id = ?1", [video_id]))? == 0 {
            return Err(Problem::not_found("videoId").into());
        }
        *slot = Slot::Deleted;
        self.open().remove(video_id);
        Ok(shelves.discard(video_id)?)
    }

    fn slot(&self, store: &Store, video_id: &str) -> Result<Arc<Mutex<Slot>>, Failure> {
        let mut open = self.open();
        if let Some(slot) = open.get(video_id) {
            return Ok(slot.clone());
        }
        let container = store.with(|db| load(db, video_id))?.ok_or_else(|| Problem::not_found("videoId"))?;
        let keep = !container.is_complete();
        let slot = Arc::new(Mutex::new(Slot::Held(container)));
        if keep {
            open.insert(video_id.to_owned(), slot.clone());
        }
        Ok(slot)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<Slot>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pieces of a container in the order of the file.
pub(super) fn pieces(container: &Container) -> Vec<Piece> {
    match &container.received {
        Received::Nothing => Vec::new(),
        Received::Whole(len) => vec![Piece { place: 0, len: *len }],
        Received::Bytes { pieces, .. } => {
            pieces.iter().map(|(place, len)| Piece { place: *place, len: *len }).collect()
        }
        Received::Parts { pieces, .. } => {
            pieces.iter().map(|(number, len)| Piece { place: (*number).into(), len: *len }).collect()
        }
    }
}

fn place(range: Option<ContentRange>) -> u64 {
    match range {
        None => 0,
        Some(ContentRange::Bytes { extent, .. }) => extent.offset(),
        Some(ContentRange::Part { number, .. }) => number.into(),
    }
}

fn record(db: &mut Connection, video_id: &str, piece: Piece, grown: &Container) -> rusqlite::Result<()> {
    let (mode, total) = match &grown.received {
        Received::Nothing | Received::Whole(_) => ("whole", None),
        Received::Bytes { total, .. } => ("bytes", *total),
        Received::Parts { total, .. } => ("part", total.map(u64::from)),
    };
    let completed_ms = grown.is_complete().then(dates::now_ms);
    let transaction = db.transaction()?;
    transaction
        .prepare_cached("INSERT INTO pieces (video_id, place, len) VALUES (?1, ?2, ?3)")?
        .execute(params![video_id, piece.place, piece.len])?;
    transaction
        .prepare_cached("UPDATE videos SET mode = ?2, total = ?3, completed_ms = ?4 WHERE id = ?1")?
        .execute(params![video_id, mode, total, completed_ms])?;
    transaction.commit()
}

fn load(db: &Connection, video_id: &str) -> rusqlite::Result<Option<Container>> {
    let mut statement = db.prepare_cached("SELECT origin, mode, total FROM videos WHERE id = ?1")?;
    let found = statement.query_row([video_id], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?, row.get::<_, Option<u64>>(2)?))
    });
    let Some((origin, mode, total)) = found.optional()? else { return Ok(None) };
    let mut statement = db.prepare_cached("SELECT place, len FROM pieces WHERE video_id = ?1")?;
    let pieces = statement
        .query_map([video_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<BTreeMap<u64, u64>>>()?;
    let received = match mode.as_deref() {
        Some("whole") => Received::Whole(pieces.values().sum()),
        Some("bytes") => Received::Bytes { pieces, total },
        Some("part") => Received::Parts {
            pieces: pieces.into_iter().map(|(number, len)| (number as u32, len)).collect(),
            total: total.map(|total| total as u32),
        },
        _ => Received::Nothing,
    };
    Ok(Some(Container { origin: Origin::from_name(&origin), received }))
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
