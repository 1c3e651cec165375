//! What the journal promises, tried on real files and with real processes.

mod batches;
mod claims;
mod digests;
mod finished;
mod formats;
mod identity;
mod places;
mod processes;
mod sessions;
mod tokens;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use rusqlite::{Connection, StatementStatus};

use super::*;
use crate::source::ChunkDigest;
use crate::wire::Addressing;
use crate::wire::limits::MIB;

const NOW: SystemTime = UNIX_EPOCH;

fn plan() -> Plan {
    Plan::new(500 * MIB, 5 * MIB, Addressing::Part).unwrap()
}

fn identity() -> SourceIdentity {
    SourceIdentity {
        device: 64_769,
        inode: u64::MAX - 3,
        len: 500 * MIB,
        mtime_ns: 1_700_000_000_123_456_789,
        ctime_ns: 5,
        file_system: FileSystem::Stable,
    }
}

fn key() -> Key {
    key_of(identity())
}

fn key_of(identity: SourceIdentity) -> Key {
    Key {
        endpoint: "https://ws.api.video".into(),
        source: EntrySource::File { path: "/films/long.mp4".into(), identity },
        destination: EntryDestination::NewVideo,
    }
}

fn fresh(journal: &mut Journal, key: &Key) -> ClaimedEntry {
    match journal.claim(key, "--title=Long", NOW).unwrap() {
        Claim::Fresh(claimed) => claimed,
        other => panic!("expected a fresh session, got {other:?}"),
    }
}

fn resumed(journal: &mut Journal, key: &Key) -> (ClaimedEntry, SavedProgress) {
    match journal.claim(key, "--title=Long", NOW).unwrap() {
        Claim::Resume(claimed, saved) => (claimed, saved),
        other => panic!("expected a session to resume, got {other:?}"),
    }
}

fn known(video_id: &str, made: CreatedBy) -> ContainerState {
    ContainerState::Known { video_id: video_id.into(), made }
}

/// A journal whose one session, with the container `vi1`, is finished and not yet forgotten.
fn with_a_finished_session(path: &Path) -> Journal {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    journal.finish(claimed);
    journal
}

/// A journal with one container and the given chunks, left as a process that ended leaves it.
fn left_behind(path: &Path, chunks: impl IntoIterator<Item = u32>) {
    let mut journal = Journal::open(path).unwrap();
    let mut claimed = fresh(&mut journal, &key());
    journal.record_container(&mut claimed, Some(plan()), "vi1", CreatedBy::ByUs).unwrap();
    for index in chunks {
        journal.record_chunk(&mut claimed, index).unwrap();
    }
}

/// The digest of the chunk at `index`, or of another one.
fn chunk_digest(byte: u8) -> ChunkDigest {
    ChunkDigest::from_bytes(&[byte; 16]).unwrap()
}

fn digests_in(path: &Path) -> i64 {
    let database = Connection::open(path).unwrap();
    database.query_row("SELECT count(*) FROM digests", [], |row| row.get(0)).unwrap()
}

/// A journal as format 2 wrote it: one session, of 500 MiB in parts of 5 MiB, of which parts 0, 3 and 8 are stored.
fn of_format_2(path: &Path) {
    let record = r#"{"endpoint":"https://ws.api.video","identity":{"device":64769,"inode":18446744073709551612,"len":524288000,"mtime_ns":1700000000123456789,"ctime_ns":5},"destination":"new_video","arguments":"--title=Long","began_s":0,"lock":0,"stage":"open","container":{"known":{"video_id":"vi1","made":"by_us"}},"plan":{"len":524288000,"chunk_bytes":5242880,"addressing":"part"}}"#;
    let seal = "1ecd80c7105d87c0a862f9349f8a24f3f77e9cb4d9cbbef403121229ced57f68";
    let database = Connection::open(path).unwrap();
    let literal = format!(
        "PRAGMA application_id = 1380731468;
         PRAGMA user_version = 2;
         CREATE TABLE sessions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            path BLOB NOT NULL,
            record TEXT NOT NULL,
            stored BLOB NOT NULL,
            seal BLOB NOT NULL
         ) STRICT;
         INSERT INTO sessions VALUES (7, CAST('/films/long.mp4' AS BLOB), '{record}', x'0901', x'{seal}');
         PRAGMA journal_mode = WAL;"
    );
    database.execute_batch(&literal).unwrap();
}
