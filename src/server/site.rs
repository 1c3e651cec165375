//! Everything that the requests of one server share.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rusqlite::OptionalExtension;

use super::ServeError;
use super::assembly::Shelves;
use super::containers::Containers;
use super::faults::Armed;
use super::ids;
use super::rate::Rate;
use super::settings::Settings;
use super::store::Store;
use super::tally::Tallies;

/// One server's state. Each field is its own owner of what it guards; no lock spans two of them.
pub(super) struct Site {
    pub(super) settings: Settings,
    pub(super) api_key: String,
    pub(super) store: Store,
    pub(super) shelves: Shelves,
    pub(super) containers: Containers,
    pub(super) rate: Rate,
    pub(super) faults: Armed,
    pub(super) tallies: Tallies,
    /// Set once, when the server stops: long work off the runtime gives up.
    pub(super) stopping: AtomicBool,
    _lock: File,
}

impl Site {
    pub(super) fn open(settings: Settings) -> Result<Site, ServeError> {
        let data = settings.data.clone();
        let in_data = |source| ServeError::Data { path: data.clone(), source };
        fs::create_dir_all(&data).map_err(in_data)?;
        let lock = lock(&data)?;
        let shelves =
            Shelves::open(&data).map_err(|error| in_data(std::io::Error::other(error.to_string())))?;
        let store = Store::open(&data.join("server.db")).map_err(in_database)?;
        let api_key = match &settings.api_key {
            Some(key) => key.clone(),
            None => own_key(&store)?,
        };
        Ok(Site {
            api_key,
            store,
            shelves,
            containers: Containers::default(),
            rate: Rate::new(settings.limits, Instant::now()),
            faults: Armed::new(settings.faults.clone()),
            tallies: Tallies::default(),
            stopping: AtomicBool::new(false),
            settings,
            _lock: lock,
        })
    }
}

/// Two servers on one folder would empty each other's `incoming`.
fn lock(data: &Path) -> Result<File, ServeError> {
    let path = data.join("lock");
    let in_lock = |source| ServeError::Data { path: path.clone(), source };
    let file = File::create(&path).map_err(in_lock)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: data.to_owned() }),
        Err(TryLockError::Error(error)) => Err(in_lock(error)),
    }
}

/// The key that this folder's server made at its first start.
fn own_key(store: &Store) -> Result<String, ServeError> {
    let select = "SELECT value FROM settings WHERE name = 'api_key'";
    if let Some(key) =
        store.with(|db| db.query_row(select, [], |row| row.get(0)).optional()).map_err(in_database)?
    {
        return Ok(key);
    }
    let key = ids::secret().map_err(|_| ServeError::NoRandomness)?;
    store
        .with(|db| db.execute("INSERT INTO settings (name, value) VALUES ('api_key', ?1)", [&key]))
        .map_err(in_database)?;
    Ok(key)
}

fn in_database(error: rusqlite::Error) -> ServeError {
    ServeError::Database(error.to_string())
}
