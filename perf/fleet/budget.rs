//! The use of the service's limit by four workers.

use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::{RequestLogEntry, Server};
use ringlift_baseline::Scheme;

use super::lab::FleetLab;
use crate::Result;
use crate::ingest::row;

/// Four workers upload small files under a limit of 60 uploads a minute. The first minute does not count.
pub(super) fn measure(lab: &FleetLab, is_quick: bool) -> Result<bool> {
    let minutes = if is_quick { 1 } else { 6 };
    let service = lab.service("budget", LIMIT, Scheme::Http)?;
    let files = lab.files.random_set(64 << 10, (LIMIT * (minutes + 2)) as usize)?;
    let folder = files[0].parent().and_then(|folder| folder.to_str()).ok_or("a folder without a name")?;
    let host = |name| lab.host(name, service.url(), service.api_key());
    let hosts = [host("budget0")?, host("budget1")?, host("budget2")?, host("budget3")?];
    hosts[0].submit("budget", "60s", &[folder])?;
    let workers: Vec<_> = hosts.iter().map(|host| host.work("budget", "60s")).collect::<Result<_>>()?;
    let samples = sample(&service, Duration::from_secs(60 * (u64::from(minutes) + 1)));
    let refused = service.requests().iter().filter(|request| request.status == Some(429)).count();
    let requests = service.requests().len();
    workers.into_iter().try_for_each(super::lab::LabWorker::stop)?;
    let first = samples.iter().find(|(_, count)| *count > 0).ok_or("no request arrived")?.0;
    let from = first + Duration::from_secs(60);
    let until = from
        + Duration::from_secs(60 * (u64::from(minutes) - 1).max(1)).min(samples[samples.len() - 1].0 - from);
    let at = |time| samples.iter().rev().find(|(at, _)| *at <= time).map_or(0, |(_, count)| *count);
    let allowed = f64::from(LIMIT) * (until - from).as_secs_f64() / 60.0;
    let used = (at(until) - at(from)) as f64 / allowed * 100.0;
    row("budget: minutes measured", (until - from).as_secs_f64() / 60.0, "", None);
    row(
        "budget: most requests in a sliding minute",
        busiest_minute(&samples) as f64,
        "",
        Some(f64::from(LIMIT + 5)),
    );
    // `row` checks upper bounds.
    let unused = row("budget: unused share of the limit", 100.0 - used, "%", Some(10.0));
    let share = refused as f64 / requests as f64 * 100.0;
    Ok(row("budget: share of the answers that are 429", share, "%", Some(2.0)) && unused)
}

/// Counts the requests with chunks that were not refused, ten times a second.
fn sample(service: &Server, time: Duration) -> Vec<(Instant, usize)> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    let is_counted = |request: &RequestLogEntry| {
        request.method == "POST" && request.path.ends_with("/source") && request.status != Some(429)
    };
    while begun.elapsed() < time {
        samples.push((Instant::now(), service.requests().into_iter().filter(is_counted).count()));
        thread::sleep(Duration::from_millis(100));
    }
    samples
}

fn busiest_minute(samples: &[(Instant, usize)]) -> usize {
    let mut busiest = 0;
    let mut first = 0;
    for (at, count) in samples {
        while at.duration_since(samples[first].0) > Duration::from_secs(60) {
            first += 1;
        }
        // A refused request leaves the count once it is answered.
        busiest = busiest.max(count.saturating_sub(samples[first].1));
    }
    busiest
}

const LIMIT: u32 = 60;
