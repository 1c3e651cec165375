//! The rules of every store, and those of the file.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use pollster::block_on;
use rusqlite::Connection;

use super::*;
use crate::bulk::job_source::{ContentStamp, JobSource};
use crate::bulk::job_state::JobStateName;
use crate::bulk::store::StoreProblem;
use crate::bulk::store::contract::{self, Open, job_store_contract};
use crate::upload::UploadOptions;

job_store_contract!(with_sqlite);

fn with_sqlite(rule: &dyn Fn(Open<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/jobs.db");
    rule(&|| Box::new(open(&path)));
}

fn account() -> Account {
    Account::named("test").unwrap()
}

fn pool() -> Pool {
    Pool::new("films").unwrap()
}

fn now() -> UnixMillis {
    UnixMillis::new(1_800_000_000_000)
}

fn open(path: &Path) -> SqliteJobStore {
    let mut options = SqliteOptions::new(path, account());
    options.lease = contract::LEASE;
    SqliteJobStore::open(options).unwrap()
}

fn refusal(path: &Path) -> JobStoreError {
    SqliteJobStore::open(SqliteOptions::new(path, account())).unwrap_err()
}

fn job(name: &str) -> JobSpec {
    let source = JobSource::File { path: format!("/films/{name}.mp4").into() };
    let stamp = ContentStamp { size: 10, mtime_ns: 5 };
    let id = JobId::derive(&account(), &pool(), &source, Some(stamp));
    JobSpec::new(id, pool(), source, Some(stamp), UploadOptions::default())
}

fn submit(store: &SqliteJobStore, from: usize, to: usize) -> Vec<Submission> {
    let jobs = (from..to).map(|n| job(&n.to_string())).collect();
    block_on(store.submit(jobs, Resubmit::Keep, now())).unwrap()
}

fn claim(store: &SqliteJobStore, owner: &OwnerId) -> ClaimAnswer {
    block_on(store.claim(&pool(), owner, now())).unwrap()
}

fn claimed(store: &SqliteJobStore, owner: &OwnerId) -> Lease {
    match claim(store, owner) {
        ClaimAnswer::Claimed(claimed) => claimed.lease,
        other => panic!("expected a job, got {other:?}"),
    }
}

#[test]
fn the_file_is_for_its_owner_only_and_survives_its_process() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/jobs.db");
    submit(&open(&path), 0, 3);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(block_on(open(&path).count()).unwrap()[0].jobs, 3);
    assert_eq!(SqliteJobStore::accounts(&path).unwrap(), [account()]);
}

#[test]
fn accounts_share_a_file_and_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    submit(&open(&path), 0, 1);
    let other = Account::of_key("https://ws.api.video", "key");
    let store = SqliteJobStore::open(SqliteOptions::new(&path, other.clone())).unwrap();
    assert!(matches!(claim(&store, &OwnerId::new("host", 1, 1)), ClaimAnswer::Drained));
    assert!(block_on(store.get(&job("0").id)).unwrap().is_none());
    assert_eq!(SqliteJobStore::accounts(&path).unwrap(), [account()], "an account without jobs");
    assert_eq!(submit(&store, 0, 1), [Submission::New]);
    assert_eq!(SqliteJobStore::accounts(&path).unwrap(), [account(), other]);
}

#[test]
fn a_place_that_is_no_job_store_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refusal(folder.path()).problem(), Some(StoreProblem::Directory));
    let text = folder.path().join("text");
    let content = "not a database, but longer than the header of one. ".repeat(9);
    fs::write(&text, &content).unwrap();
    assert_eq!(refusal(&text).problem(), Some(StoreProblem::Foreign));
    assert_eq!(fs::read_to_string(&text).unwrap(), content);
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE jobs (id)").unwrap();
    let before = fs::read(&foreign).unwrap();
    let error = refusal(&foreign);
    assert_eq!(error.problem(), Some(StoreProblem::Foreign));
    assert!(error.to_string().contains("foreign.db"), "{error}");
    assert_eq!(fs::read(&foreign).unwrap(), before);
    assert_eq!(refusal(&text.join("jobs.db")).problem(), Some(StoreProblem::Io));
    let missing = SqliteJobStore::accounts(folder.path().join("missing")).unwrap_err();
    assert_eq!(missing.problem(), Some(StoreProblem::NotWritable));
}

#[test]
fn another_format_is_refused_with_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    drop(open(&path));
    for format in [0, 2] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", format).unwrap();
        let error = refusal(&path);
        assert_eq!(error.problem(), Some(StoreProblem::OtherVersion { found: format, known: 1 }));
        assert!(error.to_string().contains(&format!("format {format}, this one reads 1")), "{error}");
    }
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = JobDatabase::open(folder.path().join("jobs.db"), &account(), contract::LEASE).unwrap();
    let limit = |database: &JobDatabase, pages: i64| {
        database.connection().pragma_update(None, "max_page_count", pages).unwrap();
    };
    let submit_1000 = |database: &mut JobDatabase, from: usize| {
        let jobs =
            crate::bulk::submission::prepare((from..from + 1000).map(|n| job(&n.to_string())).collect())
                .unwrap();
        database.transact(Need::Disk, |batch| {
            jobs.iter().try_for_each(|job| submit::submit(batch, job, Resubmit::Keep, now()).map(drop))
        })
    };
    limit(&database, 100);
    let error = submit_1000(&mut database, 0).unwrap_err();
    assert_eq!(error.problem(), Some(StoreProblem::Full));
    let mut counts = Vec::new();
    database.transact(Need::Read, |batch| list::count(batch).map(|found| counts = found)).unwrap();
    assert!(counts.is_empty(), "{counts:?}");
    limit(&database, 1_000_000);
    submit_1000(&mut database, 0).unwrap();
}

#[test]
fn a_file_that_was_removed_while_in_use_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = open(&path);
    fs::remove_file(&path).unwrap();
    let error = block_on(store.submit(vec![job("a")], Resubmit::Keep, now())).unwrap_err();
    assert_eq!(error.problem(), Some(StoreProblem::Replaced));
    fs::write(&path, "").unwrap();
    assert_eq!(block_on(store.count()).unwrap_err().problem(), Some(StoreProblem::Replaced));
}

#[test]
fn a_damaged_job_fails_its_own_requests_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = open(&path);
    submit(&store, 0, 2);
    let damage = Connection::open(&path).unwrap();
    damage.execute("UPDATE jobs SET record = '{}' WHERE seq = 1", []).unwrap();
    let (damaged, whole) = (job("0").id, job("1").id);
    let answers = block_on(join_all([&damaged, &whole, &damaged, &whole].map(|id| store.get(id))));
    let problems: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().err().and_then(JobStoreError::problem)).collect();
    assert_eq!(problems, [Some(StoreProblem::Damaged), None, Some(StoreProblem::Damaged), None]);
}

#[test]
fn a_rollback_journal_serves_where_no_memory_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    submit(&open(&path), 0, 2);
    // SQLite in exclusive mode removes the log, as on a file system without shared memory.
    let connection = Connection::open(&path).unwrap();
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    drop(connection);
    let store = open(&path);
    claimed(&store, &OwnerId::new("host", 1, 1));
}

#[test]
fn every_statement_on_jobs_uses_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let database = JobDatabase::open(folder.path().join("jobs.db"), &account(), contract::LEASE).unwrap();
    for sql in statements::ALL {
        let mut statement = database.connection().prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![1; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let is_indexed = |step: &String| !step.contains("SCAN") && !step.contains("TEMP B-TREE");
        assert!(plan.iter().all(is_indexed), "{sql}: {plan:?}");
    }
}

#[test]
fn requests_that_wait_together_share_a_transaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("jobs.db"));
    submit(&store, 0, 100);
    let before = block_on(store.changed(Revision::default())).unwrap();
    let owner = OwnerId::new("host", 1, 1);
    let pool = pool();
    let claims = block_on(join_all((0..100).map(|_| store.claim(&pool, &owner, now()))));
    let leases: HashSet<_> = claims
        .into_iter()
        .map(|answer| match answer.unwrap() {
            ClaimAnswer::Claimed(claimed) => claimed.lease.id,
            other => panic!("expected a job, got {other:?}"),
        })
        .collect();
    assert_eq!(leases.len(), 100);
    let after = block_on(store.changed(before)).unwrap();
    assert_ne!(before, after);
}

#[test]
fn the_first_length_of_leases_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    submit(&open(&path), 0, 1);
    let mut options = SqliteOptions::new(&path, account());
    options.lease = Duration::from_secs(5);
    let store = SqliteJobStore::open(options).unwrap();
    assert_eq!(claimed(&store, &OwnerId::new("host", 1, 1)).length, contract::LEASE);
}

/// Claims four jobs, three of them together, writes a line, and waits to be killed by the next test.
#[test]
#[ignore = "a helper process of another test"]
fn a_worker_that_waits_with_its_jobs() {
    let store = open(Path::new(&std::env::var_os("RINGLIFT_TEST_STORE").unwrap()));
    let owner = OwnerId::new("host", std::process::id(), 1);
    let _lease = claimed(&store, &owner);
    let together = block_on(store.claim_several(&pool(), &owner, now(), 3, 10)).unwrap();
    println!("\nclaimed 1 and {}", together.len());
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn the_jobs_of_a_killed_process_are_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = open(&path);
    submit(&store, 0, 4);
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "bulk::sqlite::tests::a_worker_that_waits_with_its_jobs",
            "--ignored",
            "--nocapture",
        ])
        .env("RINGLIFT_TEST_STORE", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "claimed 1 and 3"));
    let claim_as = |pid| claim(&open(&path), &OwnerId::new("host", pid, 2));
    assert!(matches!(claim_as(1), ClaimAnswer::NoneReady { .. }));
    worker.kill().unwrap();
    worker.wait().unwrap();
    // The kernel of another host would not see the lock.
    let elsewhere = claim(&open(&path), &OwnerId::new("elsewhere", 1, 2));
    assert!(matches!(elsewhere, ClaimAnswer::NoneReady { .. }), "{elsewhere:?}");
    for pid in 2..6 {
        assert!(matches!(claim_as(pid), ClaimAnswer::Claimed(_)));
    }
    assert!(matches!(claim_as(6), ClaimAnswer::NoneReady { .. }));
}

#[test]
fn a_handle_that_is_dropped_frees_its_jobs_only_by_their_leases() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = open(&path);
    submit(&store, 0, 1);
    let lease = claimed(&store, &OwnerId::new("host", 1, 1));
    drop(store);
    // The process lives on, and may go on with another handle.
    let again = open(&path);
    assert!(matches!(claim(&again, &OwnerId::new("host", 2, 2)), ClaimAnswer::NoneReady { .. }));
    block_on(again.renew(&lease, now())).unwrap();
}

#[test]
fn dropping_the_store_carries_out_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = open(&path);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut submitted = store.submit(vec![job("a")], Resubmit::Keep, now());
    let _ = submitted.as_mut().poll(&mut context);
    drop(submitted);
    drop(store);
    assert_eq!(block_on(open(&path).count()).unwrap()[0].state, JobStateName::Queued);
}
