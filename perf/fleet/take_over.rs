//! The time until another worker goes on with the file of a killed one.

use std::thread;
use std::time::{Duration, Instant};

use ringlift::server::Server;
use ringlift_baseline::Scheme;

use super::lab::FleetLab;
use crate::Result;
use crate::ingest::row;

/// Kills the worker that uploads a file, with two lengths of leases.
pub(super) fn measure(lab: &FleetLab, is_quick: bool) -> Result<bool> {
    let leases: &[(&str, f64)] = if is_quick { &[("3s", 3.0)] } else { &[("3s", 3.0), ("60s", 60.0)] };
    let runs = if is_quick { 1 } else { 3 };
    let file = lab.files.random("long.mp4", 400 << 20)?;
    let file = file.to_str().ok_or("a path that is not text")?;
    let mut are_met = true;
    for (lease, lease_s) in leases {
        let mut longest = 0.0_f64;
        for run in 0..runs {
            longest = longest.max(take_over(lab, file, lease, run)?);
        }
        let name = format!("take-over with a lease of {lease}: the longest of {runs}");
        are_met &= row(&name, longest, "s", Some(lease_s + 10.0));
    }
    Ok(are_met)
}

/// Returns the seconds from the kill of the first worker to the first chunk of the second.
fn take_over(lab: &FleetLab, file: &str, lease: &str, run: usize) -> Result<f64> {
    let name = format!("take{lease}-{run}");
    // 80 chunks at 90 a minute: the file outlasts the wait for the kill.
    let service = lab.service(&name, 100, Scheme::Http)?;
    let host = |name: &str| lab.host(name, service.url(), service.api_key());
    let (first, second) = (host(&format!("{name}a"))?, host(&format!("{name}b"))?);
    first.submit(&name, lease, &["--chunk-size", "5M", file])?;
    let mut worker = first.work(&name, lease)?;
    wait_for(&service, 8)?;
    let other = second.work(&name, lease)?;
    // The second worker has started, and waits for the first.
    thread::sleep(Duration::from_secs(2));
    worker.kill()?;
    let killed = Instant::now();
    // A request of the killed worker that is under way is counted already.
    let before = chunks(&service);
    wait_for(&service, before + 1)?;
    let time = killed.elapsed().as_secs_f64();
    other.stop()?;
    Ok(time)
}

fn chunks(service: &Server) -> usize {
    let is_chunk = |path: &str| path.ends_with("/source");
    service.requests().iter().filter(|request| request.method == "POST" && is_chunk(&request.path)).count()
}

fn wait_for(service: &Server, count: usize) -> Result<()> {
    let begun = Instant::now();
    while chunks(service) < count {
        if begun.elapsed() > Duration::from_secs(180) {
            return Err("no worker sends a chunk".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
