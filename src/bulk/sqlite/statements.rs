//! The tables and the statements. Every statement finds its rows by an index.

/// The tables of format 1.
///
/// `state` is the place of the job's state in `JobStateName::ALL`. `due_ms` is the time until which a queued job waits,
/// and NULL if it need not; for a running job it is the last heartbeat. Ended jobs have none.
/// `counts` repeats sums over `jobs`, so that no page of a monitor reads every row.
pub(super) const SCHEMA: &str = "
    CREATE TABLE settings (lease_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE queues (
        id INTEGER PRIMARY KEY,
        account INTEGER NOT NULL,
        pool TEXT NOT NULL,
        paused INTEGER NOT NULL DEFAULT 0,
        UNIQUE (account, pool)
    ) STRICT;
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        account INTEGER NOT NULL,
        id TEXT NOT NULL,
        queue INTEGER NOT NULL,
        state INTEGER NOT NULL,
        due_ms INTEGER,
        priority INTEGER NOT NULL,
        sort_key BLOB NOT NULL,
        size INTEGER NOT NULL,
        content BLOB NOT NULL,
        spec TEXT NOT NULL,
        record TEXT NOT NULL,
        checkpoint TEXT
    ) STRICT;
    CREATE UNIQUE INDEX jobs_by_id ON jobs (account, id);
    CREATE INDEX jobs_by_state ON jobs (queue, state, seq);
    CREATE INDEX jobs_ready ON jobs (queue, priority DESC, sort_key, seq) WHERE state = 0 AND due_ms IS NULL;
    CREATE INDEX jobs_due ON jobs (queue, state, due_ms) WHERE due_ms IS NOT NULL;
    CREATE TABLE counts (
        queue INTEGER NOT NULL,
        state INTEGER NOT NULL,
        jobs INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (queue, state)
    ) STRICT, WITHOUT ROWID;
";

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT seq, queue, state, size, sort_key, content, spec, record, checkpoint FROM jobs ",
            $rest
        )
    };
}

pub(super) const BY_ID: &str = columns!("WHERE account = ?1 AND id = ?2");
pub(super) const BY_SEQ: &str = columns!("WHERE seq = ?1");
pub(super) const NEXT_READY: &str = columns!(
    "WHERE queue = ?1 AND state = 0 AND due_ms IS NULL ORDER BY priority DESC, sort_key, seq LIMIT 1"
);
/// A job whose last heartbeat is not after `?2`.
pub(super) const RUN_OUT: &str = columns!(
    "WHERE queue = ?1 AND state = 1 AND due_ms IS NOT NULL AND due_ms <= ?2 ORDER BY due_ms LIMIT 1"
);
/// A job whose last heartbeat is not before `?2`, by a clock that went back since.
pub(super) const FROM_THE_FUTURE: &str = columns!(
    "WHERE queue = ?1 AND state = 1 AND due_ms IS NOT NULL AND due_ms >= ?2 ORDER BY due_ms DESC LIMIT 1"
);
/// The jobs of a state after the job `?3`, oldest first.
pub(super) const IN_STATE: &str =
    "SELECT seq FROM jobs WHERE queue = ?1 AND state = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
/// Ends the waits that are over: until `?2`, or beyond `?3` by a clock that went back since.
// The limits bound the time for which a claim keeps other writers waiting. The next claim goes on.
pub(super) const END_WAITS: &str = "UPDATE jobs SET due_ms = NULL WHERE seq IN (
        SELECT seq FROM jobs WHERE queue = ?1 AND state = 0 AND due_ms IS NOT NULL AND due_ms <= ?2 LIMIT 1000
    ) OR seq IN (
        SELECT seq FROM jobs WHERE queue = ?1 AND state = 0 AND due_ms IS NOT NULL AND due_ms > ?3 LIMIT 1000
    )";
/// The first end of a wait, or the first heartbeat.
pub(super) const FIRST_DUE: &str =
    "SELECT min(due_ms) FROM jobs WHERE queue = ?1 AND state = ?2 AND due_ms IS NOT NULL";
pub(super) const INSERT: &str = "INSERT INTO jobs
    (account, id, queue, state, due_ms, priority, sort_key, size, content, spec, record)
    VALUES (?1, ?2, ?3, 0, NULL, ?4, ?5, ?6, ?7, ?8, ?9)";
pub(super) const SET_RECORD: &str = "UPDATE jobs SET state = ?2, due_ms = ?3, record = ?4 WHERE seq = ?1";
pub(super) const SET_CHECKPOINT: &str = "UPDATE jobs SET checkpoint = ?2 WHERE seq = ?1";
pub(super) const SET_SPEC: &str = "UPDATE jobs
    SET queue = ?2, priority = ?3, sort_key = ?4, size = ?5, content = ?6, spec = ?7 WHERE seq = ?1";
pub(super) const DELETE: &str = "DELETE FROM jobs WHERE seq = ?1";
pub(super) const ADD_COUNT: &str = "INSERT INTO counts (queue, state, jobs, bytes) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (queue, state) DO UPDATE SET jobs = jobs + ?3, bytes = bytes + ?4";
pub(super) const COUNT: &str = "SELECT jobs, bytes FROM counts WHERE queue = ?1 AND state = ?2";
pub(super) const QUEUE: &str = "SELECT id, paused FROM queues WHERE account = ?1 AND pool = ?2";
pub(super) const QUEUES: &str = "SELECT id, pool FROM queues WHERE account = ?1 ORDER BY id";
pub(super) const ADD_QUEUE: &str = "INSERT INTO queues (account, pool) VALUES (?1, ?2)";
pub(super) const PAUSE: &str = "UPDATE queues SET paused = ?2 WHERE id = ?1";

/// The statements that read jobs, for the test of their plans.
#[cfg(test)]
pub(super) const ALL: [&str; 13] = [
    BY_ID,
    BY_SEQ,
    NEXT_READY,
    RUN_OUT,
    FROM_THE_FUTURE,
    IN_STATE,
    END_WAITS,
    FIRST_DUE,
    SET_RECORD,
    SET_CHECKPOINT,
    SET_SPEC,
    DELETE,
    COUNT,
];
