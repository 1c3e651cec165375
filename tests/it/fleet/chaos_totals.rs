//! The numbers of a chaos run, and the traces that explain a failure.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use ringlift::server::RequestLogEntry;
use serde_json::Value;

use super::chaos_plan::ChaosPlan;
use super::host::Host;
use crate::support::TestServer;

/// The numbers of one run, for a reader of its log.
#[derive(Debug)]
#[expect(dead_code, reason = "it is printed by its Debug form")]
pub struct ChaosTotals {
    worker_kills: usize,
    engine_kills: usize,
    /// The videos that another host completed than the one that created them.
    take_overs: usize,
    videos_created: u64,
    chunks: usize,
    /// Chunks that were sent once more, although the service had acknowledged them.
    chunks_sent_again: usize,
    throttled: u64,
    busiest_minute: usize,
}

impl ChaosTotals {
    /// Counts in the log of the service and in the events of the hosts.
    pub fn of<'a, 'b: 'a>(
        plan: &ChaosPlan,
        server: &TestServer,
        hosts: impl Iterator<Item = &'a Host<'b>>,
        busiest_minute: usize,
    ) -> ChaosTotals {
        let (stats, chunks) = (server.server.stats(), server.chunk_requests());
        ChaosTotals {
            worker_kills: plan.worker_kills,
            // An older store is put back by two more kills.
            engine_kills: plan.engine_kills + 2 * plan.others,
            take_overs: take_overs(hosts),
            videos_created: stats.videos_created,
            chunks: chunks.len(),
            chunks_sent_again: sent_again(chunks),
            throttled: stats.refused.get("too-many-requests").copied().unwrap_or(0),
            busiest_minute,
        }
    }
}

/// Counts the videos that another host completed than the one that created them.
fn take_overs<'a, 'b: 'a>(hosts: impl Iterator<Item = &'a Host<'b>>) -> usize {
    let of_another_host = |host: &Host<'_>| {
        // A killed worker leaves an incomplete line.
        let events: Vec<Value> =
            host.output()[0].lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let videos = |event: &str| -> HashSet<String> {
            let found = events.iter().filter(|found| found["event"] == event);
            found.map(|found| found["video_id"].as_str().unwrap().to_owned()).collect()
        };
        videos("file_done").difference(&videos("created")).count()
    };
    hosts.map(of_another_host).sum()
}

fn sent_again(chunks: Vec<RequestLogEntry>) -> usize {
    let (mut acknowledged, mut again) = (HashSet::new(), 0);
    for RequestLogEntry { path, content_range, status, .. } in chunks {
        let chunk = (path, content_range);
        if status == Some(429) {
            continue;
        }
        again += usize::from(acknowledged.contains(&chunk));
        if status.is_some_and(|status| status < 300) {
            acknowledged.insert(chunk);
        }
    }
    again
}

/// Writes the output of the hosts and the log of the service into a folder that remains.
pub fn keep_traces<'a, 'b: 'a>(
    plan: &ChaosPlan,
    server: &TestServer,
    hosts: impl Iterator<Item = &'a Host<'b>>,
) -> std::io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("ringlift-chaos-{}", plan.seed));
    fs::create_dir_all(&folder)?;
    for (number, host) in hosts.enumerate() {
        for (name, content) in ["events", "messages"].into_iter().zip(host.output()) {
            fs::write(folder.join(format!("host{number}.{name}")), content)?;
        }
    }
    let mut log = fs::File::create(folder.join("requests"))?;
    server.server.requests().iter().try_for_each(|request| writeln!(log, "{request:?}"))?;
    Ok(folder)
}
