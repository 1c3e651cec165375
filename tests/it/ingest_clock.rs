//! Bulk ingestion while the wall clock jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use ringlift::UploadOptions;
use ringlift::bulk::{
    Account, IngestEnd, IngestEvent, IngestInput, IngestOptions, Inputs, JobPlanner, OwnerId, Pool, Shutdown,
    SqliteJobStore, SqliteOptions, Walk, WalkOptions, ingest,
};

use crate::support::queue::folder;
use crate::support::{Scheme, TestServer};

/// The seconds by which the clock of the test is off.
static OFFSET: AtomicI64 = AtomicI64::new(0);

fn clock() -> SystemTime {
    let offset = OFFSET.load(Ordering::Relaxed);
    let by = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

#[test]
fn a_clock_that_jumps_by_hours_doubles_and_loses_no_file() {
    let (server, films) = (TestServer::new(Scheme::Http), folder(40));
    let journal = server.journal();
    let client = server.client().with(|settings| settings.journal = Some(journal)).build().unwrap();
    let (account, pool) = (Account::named("clock").unwrap(), Pool::new("local").unwrap());
    let store = SqliteOptions::new(server.folder.path().join("jobs.db"), account.clone());
    let store = Arc::new(SqliteJobStore::open(store).unwrap());
    let planner = JobPlanner::new(account, pool.clone(), UploadOptions::default());
    let walk = Walk::new(films.path(), WalkOptions::default());
    let inputs = Inputs::new(planner, [IngestInput::Walk(Box::new(walk))]);
    let options = IngestOptions::new(pool, OwnerId::new("host", std::process::id(), 1), clock);
    let shutdown = Shutdown::new();
    let mut events = Box::pin(ingest(inputs, store, &client, options, None, shutdown.signal()));
    let (mut done, mut drained) = (0, false);
    pollster::block_on(async {
        while let Some(event) = events.next().await {
            match event {
                IngestEvent::Done { .. } => {
                    done += 1;
                    OFFSET.store(if done % 2 == 0 { 7200 } else { -7200 }, Ordering::Relaxed);
                }
                IngestEvent::Failed { failure, .. } => panic!("{}", failure.message),
                IngestEvent::Ended(end) => drained = matches!(end, IngestEnd::Drained),
                _ => {}
            }
        }
    });
    assert!(drained && done == 40, "{done}");
    server.assert_created(40);
}
