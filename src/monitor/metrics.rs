//! Metrics in the formats of Prometheus and OpenMetrics. Pure but for the numbers of the process.
//!
//! No label holds a file name or a video id: each value of a label is a time series of its own, which Prometheus keeps
//! for weeks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::bulk::JobStateName;
use crate::upload::{ByClass, Snapshot};

use super::process::ProcessUsage;
use super::view::RunView;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricsFormat {
    /// Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Returns the format for a client with this `Accept` header. Prometheus lists several formats with weights and
    /// prefers OpenMetrics.
    pub(super) fn accepted(accept: &str) -> MetricsFormat {
        let names = |entry: &str| {
            let mut parts = entry.split(';').map(str::trim);
            let is_open =
                parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
            // A weight of 0 means "not acceptable" (RFC 9110, 12.4.2).
            is_open && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if accept.split(',').any(names) { MetricsFormat::OpenMetrics } else { MetricsFormat::Prometheus }
    }

    /// Returns the value of the `Content-Type` header.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            MetricsFormat::Prometheus => prometheus_text::CONTENT_TYPE,
            MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns the metrics of a view, for a scrape of this process.
pub(super) fn scraped(view: RunView, format: MetricsFormat) -> Result<String, fmt::Error> {
    encoded(RunCollector { view, process: Some(ProcessUsage::read()) }, format)
}

/// Returns the metrics of a view for a text file, in the format of Prometheus.
///
/// `process_*` metrics are omitted: the exporter that reads the file has those of its own process, and fails if it finds
/// a metric twice.
pub(super) fn filed(view: RunView) -> Result<String, fmt::Error> {
    encoded(RunCollector { view, process: None }, MetricsFormat::Prometheus)
}

fn encoded(collector: RunCollector, format: MetricsFormat) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    match format {
        MetricsFormat::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        MetricsFormat::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

/// One view as metrics.
#[derive(Debug)]
struct RunCollector {
    view: RunView,
    process: Option<ProcessUsage>,
}

impl Collector for RunCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut metrics = MetricWriter(encoder);
        metrics.info("ringlift_build", "Version and features of ringlift", &BUILD)?;
        encode_run(&mut metrics, &self.view)?;
        encode_fleet(&mut metrics, &self.view)?;
        encode_client(&mut metrics, &self.view.client)?;
        encode_chunks(&mut metrics, &self.view)?;
        match &self.process {
            Some(process) => encode_process(&mut metrics, process),
            None => Ok(()),
        }
    }
}

fn encode_run(metrics: &mut MetricWriter<'_>, view: &RunView) -> fmt::Result {
    let jobs = JobStateName::ALL.map(|state| ([("state", state.as_str())], view.jobs(state)));
    metrics.gauges("ringlift_jobs", "Jobs of the run by state", &jobs)?;
    // Left out while it is unknown: 0 would be a value.
    if let Some(found) = view.totals.bytes.found {
        let help = "Bytes of the files of all jobs, of failed ones too";
        metrics.counter("ringlift_job_bytes", help, found as f64)?;
    }
    if let Some(eta) = view.totals.eta {
        metrics.gauge("ringlift_eta_seconds", "Estimated time to the end of the run", eta.as_secs_f64())?;
    }
    let last_success = view.last_success.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    if let Some(time) = last_success {
        let help = "Time at which a job was last done, since the Unix epoch";
        metrics.gauge("ringlift_last_success_timestamp_seconds", help, time.as_secs() as f64)?;
    }
    if let Some(code) = view.exit_code {
        metrics.gauge("ringlift_run_exit_code", "Exit code of the run that has ended", f64::from(code))?;
    }
    Ok(())
}

/// Writes the workers by host. Names of processes change with each start, and would be a time series each.
fn encode_fleet(metrics: &mut MetricWriter<'_>, view: &RunView) -> fmt::Result {
    let help = "Videos that were left beside the one of their job";
    metrics.counter("ringlift_orphan_videos", help, view.orphans as f64)?;
    let Some(fleet) = &view.fleet else { return Ok(()) };
    metrics.gauge("ringlift_fleet_workers", "Workers that are present in the queue", fleet.total as f64)?;
    let mut hosts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for worker in &fleet.workers {
        let age = view.at.saturating_duration_since(worker.heartbeat_at).as_secs();
        let (workers, youngest) = hosts.entry(&worker.host).or_insert((0, age));
        (*workers, *youngest) = (*workers + 1, age.min(*youngest));
    }
    let workers: Vec<_> = hosts.iter().map(|(host, (workers, _))| ([("host", *host)], *workers)).collect();
    let ages: Vec<_> = hosts.iter().map(|(host, (_, age))| ([("host", *host)], *age)).collect();
    metrics.gauges("ringlift_fleet_host_workers", "Workers of a host", &workers)?;
    let help = "Time since the last heartbeat of any worker of a host";
    metrics.gauges("ringlift_fleet_host_heartbeat_age_seconds", help, &ages)
}

fn encode_client(metrics: &mut MetricWriter<'_>, client: &Snapshot) -> fmt::Result {
    let bytes = &client.bytes;
    metrics.counter(
        "ringlift_bytes_read",
        "File bytes read and handed to a connection",
        bytes.read as f64,
    )?;
    metrics.counter("ringlift_bytes_sent", "File bytes taken by the sockets", bytes.sent as f64)?;
    let help = "File bytes acknowledged by the service";
    metrics.counter("ringlift_bytes_acknowledged", help, bytes.acknowledged as f64)?;
    let help = "File bytes sent again after a failure";
    metrics.counter("ringlift_bytes_retransmitted", help, bytes.resent as f64)?;
    encode_requests(metrics, client)?;
    metrics.counter("ringlift_retries", "Attempts after a failure", client.retries as f64)?;
    let lanes =
        [("busy", client.lanes.busy), ("idle", client.lanes.idle), ("connecting", client.lanes.connecting)];
    let lanes = lanes.map(|(state, number)| ([("state", state)], number));
    metrics.gauges("ringlift_lanes", "Connections for chunks by state", &lanes)?;
    let help = "Connections for chunks that may have a request";
    metrics.gauge("ringlift_lanes_permitted", help, client.lanes.permitted as f64)?;
    if let Some(limit) = client.bandwidth_limit_bytes {
        metrics.gauge("ringlift_bandwidth_limit_bytes", "Bandwidth limit in bytes a second", limit as f64)?;
    }
    let help = "Memory that holds chunks of streams";
    metrics.gauge("ringlift_buffer_bytes", help, client.buffer_bytes as f64)?;
    let help = "Records that the journal did not take";
    metrics.counter("ringlift_journal_errors", help, client.journal_errors as f64)
}

fn encode_requests(metrics: &mut MetricWriter<'_>, client: &Snapshot) -> fmt::Result {
    let mut requests = Vec::new();
    for (class, counts) in classes(&client.requests) {
        let outcomes = [
            ("ok", counts.ok),
            ("throttled", counts.throttled),
            ("client_error", counts.client_error),
            ("server_error", counts.server_error),
            ("transport", counts.transport),
        ];
        requests.extend(
            outcomes.map(|(outcome, number)| ([("class", class), ("outcome", outcome)], number as f64)),
        );
    }
    metrics.counters("ringlift_requests", "Requests that ended, by class and outcome", &requests)?;
    let throttled = classes(&client.throttled_seconds).map(|(class, seconds)| ([("class", class)], *seconds));
    let help = "Time in which requests of a class waited for a limit or a pause";
    metrics.counters("ringlift_throttled_seconds", help, &throttled)?;
    let budgets = classes(&client.budgets);
    let known = || budgets.iter().filter_map(|(class, budget)| Some(([("class", *class)], budget.as_ref()?)));
    let limits: Vec<_> = known().map(|(label, budget)| (label, u64::from(budget.limit))).collect();
    let left: Vec<_> = known().map(|(label, budget)| (label, u64::from(budget.left))).collect();
    metrics.gauges("ringlift_rate_limit", "Requests a minute that the service allows", &limits)?;
    metrics.gauges("ringlift_rate_limit_remaining", "Requests left in this minute", &left)
}

fn encode_chunks(metrics: &mut MetricWriter<'_>, view: &RunView) -> fmt::Result {
    let times = &view.chunk_times;
    let help = "Duration of acknowledged chunks";
    metrics
        .0
        .encode_descriptor("ringlift_chunk_duration_seconds", help, None, MetricType::Histogram)?
        .encode_histogram(
            times.seconds(),
            times.count(),
            &times.buckets(),
            None::<
                &std::collections::HashMap<
                    usize,
                    prometheus_client::metrics::exemplar::Exemplar<NoLabelSet, f64>,
                >,
            >,
        )
}

fn encode_process(metrics: &mut MetricWriter<'_>, process: &ProcessUsage) -> fmt::Result {
    metrics.counter("process_cpu_seconds", "User and system CPU time", process.cpu_seconds)?;
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory size", process.resident_bytes),
        ("process_open_fds", "Open file descriptors", process.open_fds),
        ("process_max_fds", "Limit of open file descriptors", process.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            metrics.gauge(name, help, value as f64)?;
        }
    }
    Ok(())
}

fn classes<T>(values: &ByClass<T>) -> [(&'static str, &T); 3] {
    [("uploads", &values.uploads), ("writes", &values.writes), ("reads", &values.reads)]
}

/// Writes metrics by name. Counters are named without `_total`, which the encoder appends.
///
/// Numbers are written as floating point: integers of 64 bits are refused above 2^63, and Prometheus stores floating
/// point in any case.
struct MetricWriter<'a>(DescriptorEncoder<'a>);

impl MetricWriter<'_> {
    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        write_counter(&mut encoder, value)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&str, &str); N], f64)],
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values
            .iter()
            .try_for_each(|(labels, value)| write_counter(&mut encoder.encode_family(labels)?, *value))
    }

    /// Writes nothing without values.
    fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: &[([(&str, &str); N], u64)],
    ) -> fmt::Result {
        if values.is_empty() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .iter()
            .try_for_each(|(labels, value)| encoder.encode_family(labels)?.encode_gauge(&(*value as f64)))
    }
}

fn write_counter(encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

const BUILD: [(&str, &str); 2] =
    [("version", env!("CARGO_PKG_VERSION")), ("features", if cfg!(feature = "cli") { "cli" } else { "" })];
