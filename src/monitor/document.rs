//! The JSON document of a view, and the difference between two documents. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bulk::JobStateName;
use crate::pacing::LaneHold;
use crate::upload::{Budget, ByClass};

use super::limit::{BindingLimit, eta_reason};
use super::view::{FleetWorker, JobList, RecentFailure, RunView, RunningJob};

/// The document of a view. Times are seconds since the start of the run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunDocument {
    run: RunFields,
    jobs: JobFields,
    bytes: ByteFields,
    bytes_per_second: SpeedFields,
    limited_by: &'static str,
    limited_by_text: String,
    limited_until_seconds: Option<f64>,
    limited_since_seconds: Option<f64>,
    eta_seconds: Option<u64>,
    eta_reason: &'static str,
    lanes: LaneFields,
    requests_left: ByClass<Option<u32>>,
    request_limits: ByClass<Option<u32>>,
    running: Vec<RunningFields>,
    errors: Vec<FailureFields>,
    /// Videos that were left beside the one of their job.
    orphan_videos: u64,
    /// `None` if no other host works on the queue.
    workers: Option<Vec<WorkerFields>>,
    workers_total: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
struct WorkerFields {
    host: String,
    name: String,
    heartbeat_at_seconds: f64,
    is_self: bool,
}

#[derive(Clone, Debug, Serialize)]
struct RunFields {
    title: String,
    version: &'static str,
    elapsed_seconds: f64,
    /// `true` if no further files can be found.
    is_complete: bool,
    exit_code: Option<u8>,
}

#[derive(Clone, Debug, Serialize)]
struct JobFields {
    queued: u64,
    running: u64,
    done: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
}

#[derive(Clone, Debug, Serialize)]
struct ByteFields {
    total: Option<u64>,
    read: u64,
    sent: u64,
    /// Acknowledged to this run.
    acknowledged: u64,
    resent: u64,
    /// Stored by an earlier run.
    resumed: u64,
}

#[derive(Clone, Debug, Serialize)]
struct SpeedFields {
    now: u64,
    minute: u64,
    run: u64,
}

#[derive(Clone, Debug, Serialize)]
struct LaneFields {
    busy: u64,
    connecting: u64,
    /// The number in use.
    permitted: u64,
    /// The reason why that number is kept.
    hold: Option<LaneHold>,
}

#[derive(Clone, Debug, Serialize)]
struct RunningFields {
    name: String,
    total_bytes: Option<u64>,
    sent_bytes: u64,
    bytes_per_second: u64,
    moved_at_seconds: f64,
    retry_at_seconds: Option<f64>,
    is_sent: bool,
}

#[derive(Clone, Debug, Serialize)]
struct FailureFields {
    name: String,
    kind: String,
    message: String,
    advice: Option<String>,
    at_seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
struct ListFields<'a> {
    jobs: Vec<ListedFields<'a>>,
    next: Option<&'a str>,
}

#[derive(Clone, Debug, Serialize)]
struct ListedFields<'a> {
    id: &'a str,
    path: &'a str,
    state: &'static str,
    size: Option<u64>,
    video_id: Option<&'a str>,
    message: Option<&'a str>,
    advice: Option<&'a str>,
}

impl RunDocument {
    pub(super) fn new(view: &RunView) -> RunDocument {
        let (client, totals) = (&view.client.bytes, &view.totals);
        let limit = BindingLimit::of(view);
        let speed = totals.bytes_per_second;
        RunDocument {
            run: RunFields::new(view),
            jobs: JobFields::new(view),
            bytes: ByteFields {
                total: totals.bytes.total,
                read: client.read,
                sent: client.sent,
                acknowledged: client.acknowledged,
                resent: client.resent,
                resumed: totals.bytes.resumed,
            },
            bytes_per_second: SpeedFields {
                now: rounded(speed.now),
                minute: rounded(speed.minute),
                run: rounded(speed.run),
            },
            limited_by: limit.name,
            limited_by_text: limit.text,
            limited_until_seconds: limit.until.map(|at| view.run_seconds(at)),
            limited_since_seconds: limit.since.map(|at| view.run_seconds(at)),
            eta_seconds: totals.eta.filter(|_| view.exit_code.is_none()).map(|eta| eta.as_secs()),
            eta_reason: eta_reason(view),
            lanes: LaneFields {
                busy: view.client.lanes.busy,
                connecting: view.client.lanes.connecting,
                permitted: view.client.lanes.permitted,
                hold: view.client.lane_hold,
            },
            requests_left: by_class(&view.client.budgets, |budget| budget.left),
            request_limits: by_class(&view.client.budgets, |budget| budget.limit),
            running: view.running.iter().map(|job| RunningFields::new(job, view)).collect(),
            errors: view.failures.iter().map(|job| FailureFields::new(job, view)).collect(),
            orphan_videos: view.orphans,
            workers: view
                .fleet
                .as_ref()
                .map(|fleet| fleet.workers.iter().map(|worker| WorkerFields::new(worker, view)).collect()),
            workers_total: view.fleet.as_ref().map(|fleet| fleet.total),
        }
    }

    /// Returns the fields of the document. Empty only if a field cannot be written, which plain values always can.
    pub(super) fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }
}

impl RunFields {
    fn new(view: &RunView) -> RunFields {
        RunFields {
            title: view.title.clone(),
            version: env!("CARGO_PKG_VERSION"),
            elapsed_seconds: view.run_seconds(view.at),
            is_complete: view.totals.files.is_complete,
            exit_code: view.exit_code,
        }
    }
}

impl JobFields {
    fn new(view: &RunView) -> JobFields {
        JobFields {
            queued: view.jobs(JobStateName::Queued),
            running: view.jobs(JobStateName::Running),
            done: view.jobs(JobStateName::Done),
            failed: view.jobs(JobStateName::Failed),
            skipped: view.jobs(JobStateName::Skipped),
            cancelled: view.jobs(JobStateName::Cancelled),
        }
    }
}

impl RunningFields {
    fn new(job: &RunningJob, view: &RunView) -> RunningFields {
        RunningFields {
            name: job.name.clone(),
            total_bytes: job.total_bytes,
            sent_bytes: job.sent_bytes,
            bytes_per_second: rounded(job.bytes_per_second),
            moved_at_seconds: view.run_seconds(job.moved_at),
            retry_at_seconds: job.retry_at.map(|at| view.run_seconds(at)),
            is_sent: job.is_sent,
        }
    }
}

impl WorkerFields {
    fn new(worker: &FleetWorker, view: &RunView) -> WorkerFields {
        WorkerFields {
            host: worker.host.clone(),
            name: worker.name.clone(),
            heartbeat_at_seconds: view.run_seconds(worker.heartbeat_at),
            is_self: worker.is_self,
        }
    }
}

impl FailureFields {
    fn new(job: &RecentFailure, view: &RunView) -> FailureFields {
        FailureFields {
            name: job.name.clone(),
            kind: job.kind.clone(),
            message: job.message.clone(),
            advice: job.advice.clone(),
            at_seconds: view.run_seconds(job.at),
        }
    }
}

/// Returns the JSON text of a page of jobs.
pub(super) fn list_json(list: &JobList) -> String {
    let jobs = list.jobs.iter().map(|job| ListedFields {
        id: &job.id,
        path: &job.path,
        state: job.state.as_str(),
        size: job.bytes,
        video_id: job.video_id.as_deref(),
        message: job.message.as_deref(),
        advice: job.advice.as_deref(),
    });
    let fields = ListFields { jobs: jobs.collect(), next: list.next.as_deref() };
    // Plain values can always be written.
    serde_json::to_string(&fields).unwrap_or_default()
}

/// Returns the fields of `newer` that differ from those of `older`, with `run`, which has the time; `None` if nothing
/// but the time differs.
pub(super) fn difference(
    older: &Map<String, Value>,
    newer: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    let differs = |(name, value): &(&String, &Value)| {
        older.get(*name).is_none_or(|old| if *name == "run" { !same_run(old, value) } else { old != *value })
    };
    let mut changed: Map<_, _> =
        newer.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect();
    if changed.is_empty() {
        return None;
    }
    if let Some(run) = newer.get("run") {
        changed.insert("run".to_owned(), run.clone());
    }
    Some(changed)
}

/// Returns `true` if two `run` fields differ in the elapsed time at most.
fn same_run(older: &Value, newer: &Value) -> bool {
    let fields = |run: &Value| run.as_object().cloned().unwrap_or_default();
    let (older, newer) = (fields(older), fields(newer));
    older.len() == newer.len()
        && older.iter().all(|(name, value)| name == "elapsed_seconds" || newer.get(name) == Some(value))
}

fn by_class(budgets: &ByClass<Option<Budget>>, number: impl Fn(&Budget) -> u32) -> ByClass<Option<u32>> {
    ByClass {
        uploads: budgets.uploads.as_ref().map(&number),
        writes: budgets.writes.as_ref().map(&number),
        reads: budgets.reads.as_ref().map(&number),
    }
}

/// Rounds a speed down to three digits. The decay of an average is no news: without rounding an idle run would send an
/// event four times a second.
fn rounded(speed: u64) -> u64 {
    let unit = speed.checked_ilog10().map_or(1, |digits| 10u64.pow(digits.saturating_sub(2)));
    speed / unit * unit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_time_alone_is_no_difference() {
        let older = object(json!({"run": {"elapsed_seconds": 1.0, "title": "a"}, "eta_seconds": 4}));
        let mut newer = object(json!({"run": {"elapsed_seconds": 2.0, "title": "a"}, "eta_seconds": 4}));
        assert_eq!(difference(&older, &newer), None);
        newer["run"]["title"] = json!("b");
        assert_eq!(difference(&older, &newer), Some(object(json!({"run": newer["run"].clone()}))));
        newer.insert("eta_seconds".to_owned(), Value::Null);
        assert_eq!(difference(&older, &newer), Some(newer));
    }

    #[test]
    fn speeds_have_three_digits() {
        assert_eq!([0, 7, 999, 1234, 98_765_432].map(rounded), [0, 7, 999, 1230, 98_700_000]);
    }

    proptest! {
        #[test]
        fn a_document_and_the_differences_make_the_newest_document(
            steps in proptest::collection::vec((0u64..4, 0u64..4, 0u64..4), 1..20),
        ) {
            let mut sent = object(json!({"run": {"elapsed_seconds": 0}, "a": 0, "b": 0}));
            let mut received = sent.clone();
            for (time, a, b) in steps {
                let newer = object(json!({"run": {"elapsed_seconds": time}, "a": a, "b": [b]}));
                if let Some(changed) = difference(&sent, &newer) {
                    received.extend(changed);
                    sent = newer.clone();
                }
                prop_assert_eq!(&received["a"], &newer["a"]);
                prop_assert_eq!(&received["b"], &newer["b"]);
            }
        }
    }
}
