//! Folders of videos to ingest, and the jobs of a queue.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::TestServer;

/// A folder with `count` small videos.
pub fn folder(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..count {
        fs::write(folder.path().join(format!("clip{index:03}.mp4")), format!("content of clip {index}"))
            .unwrap();
    }
    folder
}

/// Returns the jobs that `jobs list` shows with these arguments.
pub fn jobs(server: &TestServer, args: &[&str]) -> Vec<Value> {
    let output = server.run(["jobs", "list", "--json"].iter().chain(args)).done();
    output.events().into_iter().filter(|event| event["event"] == "job").collect()
}

/// Waits until the condition holds.
pub fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}
