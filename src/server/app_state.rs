//! The state that all requests of a server share.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::database::{Database, DatabaseError};
use super::fault_injection::FaultInjector;
use super::file_store::FileStore;
use super::ids;
use super::rate_limiter::RateLimiter;
use super::serve_error::ServeError;
use super::settings::ServerSettings;
use super::stats::StatsCollector;
use super::upload_registry::UploadRegistry;

/// The state of one server. Each field has its own lock; no lock spans two fields.
pub(super) struct AppState {
    pub(super) settings: ServerSettings,
    pub(super) api_key: String,
    pub(super) database: Database,
    pub(super) files: FileStore,
    pub(super) uploads: UploadRegistry,
    pub(super) rate_limiter: RateLimiter,
    pub(super) faults: FaultInjector,
    pub(super) stats: StatsCollector,
    /// Set once, when the server stops. Long work on blocking threads then ends early.
    pub(super) stopping: AtomicBool,
    _lock: DataLock,
}

/// The lock of the data folder.
struct DataLock(File);

impl Drop for DataLock {
    fn drop(&mut self) {
        // Closing the file is not enough: flock(2) locks belong to the open file description, which a child of this
        // process shares between fork and exec.
        let _ = self.0.unlock();
    }
}

impl AppState {
    pub(super) fn open(settings: ServerSettings) -> Result<AppState, ServeError> {
        let data = settings.data.clone();
        let in_data = |source| ServeError::Data { path: data.clone(), source };
        fs::create_dir_all(&data).map_err(in_data)?;
        // First: opening the files empties the folder into which another server may be receiving.
        let lock = lock(&data)?;
        let files =
            FileStore::open(&data).map_err(|error| in_data(std::io::Error::other(error.to_string())))?;
        let database = Database::open(&data.join("server.db")).map_err(in_database)?;
        let api_key = match &settings.api_key {
            Some(key) => key.clone(),
            None => own_key(&database)?,
        };
        Ok(AppState {
            api_key,
            database,
            files,
            uploads: UploadRegistry::default(),
            rate_limiter: RateLimiter::new(settings.limits, Instant::now()),
            faults: FaultInjector::new(settings.faults.clone()),
            stats: StatsCollector::default(),
            stopping: AtomicBool::new(false),
            settings,
            _lock: lock,
        })
    }
}

/// Locks the data folder. A second server on the folder would empty the `incoming` folder of the first one.
fn lock(data: &Path) -> Result<DataLock, ServeError> {
    let path = data.join("lock");
    let in_lock = |source| ServeError::Data { path: path.clone(), source };
    let file = File::create(&path).map_err(in_lock)?;
    match file.try_lock() {
        Ok(()) => Ok(DataLock(file)),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: data.to_owned() }),
        Err(TryLockError::Error(error)) => Err(in_lock(error)),
    }
}

/// Returns the API key that was generated at the first start with this folder, generating one if necessary.
fn own_key(database: &Database) -> Result<String, ServeError> {
    if let Some(key) = database.api_key().map_err(in_database)? {
        return Ok(key);
    }
    let key = ids::secret().map_err(|_| ServeError::NoRandomness)?;
    database.insert_api_key(&key).map_err(in_database)?;
    Ok(key)
}

fn in_database(error: DatabaseError) -> ServeError {
    ServeError::Database(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_free_after_the_end_although_a_child_shares_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let open = || AppState::open(ServerSettings::new(folder.path().join("data")));
        let state = open().unwrap();
        let of_child = state._lock.0.try_clone().unwrap();
        assert!(matches!(open(), Err(ServeError::InUse { .. })));
        drop(state);
        assert!(open().is_ok());
        drop(of_child);
    }
}
