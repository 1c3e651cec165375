//! The memory and the time of many jobs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Stdio;

use super::lab::{FleetLab, POOL};
use crate::Result;
use crate::child::{self, Sampling, Usage};
use crate::ingest::{mib, row};

/// Submits manifests of three lengths, each to an account of its own, and lists the longest.
pub(super) fn measure(lab: &FleetLab, is_quick: bool) -> Result<bool> {
    let counts: [usize; 3] = if is_quick { [1_000, 2_000, 4_000] } else { [25_000, 50_000, 100_000] };
    let film = lab.files.random("film.mp4", 4096)?;
    let mut are_met = true;
    let mut times = Vec::new();
    let host = lab.host("jobs", "http://127.0.0.1:1", "unused")?;
    for count in counts {
        let manifest = lab.files.path("jobs.jsonl");
        let mut text = BufWriter::new(File::create(&manifest)?);
        for number in 0..count {
            writeln!(text, "{{\"id\":\"job-{number}\",\"path\":{film:?},\"title\":\"Film {number}\"}}")?;
        }
        text.flush()?;
        let account = format!("jobs{count}");
        let mut command = host.on_nats(&["submit", "--pool", POOL], &account);
        command.arg("--manifest").arg(&manifest);
        let usage = child::run(command, Sampling::Often)?;
        are_met &= peak(&format!("submit {count} jobs"), &usage);
        row(&format!("submit {count} jobs: time"), usage.wall_s, "s", None);
        row(&format!("submit {count} jobs: CPU time"), usage.cpu_s(), "s", None);
        times.push(usage.wall_s / count as f64);
    }
    are_met &= row("submit: time a job, longest to shortest manifest", times[2] / times[0], "", Some(1.3));
    let account = format!("jobs{}", counts[2]);
    let last_page = (counts[2] / 100).to_string();
    let lists = [
        ("the first page", vec!["--page", "1"]),
        ("the last page", vec!["--page", &last_page]),
        ("all", vec![]),
    ];
    for (name, args) in lists {
        let mut command = host.on_nats(&["jobs", "list", "--json"], &account);
        command.args(args);
        let lines = lab.files.path("list.jsonl");
        let usage = child::run_into(command, Sampling::Often, Stdio::from(File::create(&lines)?))?;
        let listed = std::fs::read_to_string(&lines)?
            .lines()
            .filter(|line| line.contains("\"event\":\"job\""))
            .count();
        are_met &= peak(&format!("jobs list, {name}"), &usage);
        row(&format!("jobs list, {name}: {listed} jobs"), usage.wall_s, "s", None);
    }
    Ok(are_met)
}

/// Prints the memory. The pages of the binary itself count, too.
fn peak(name: &str, usage: &Usage) -> bool {
    row(&format!("{name}: peak of the memory"), mib(usage.max_rss_bytes), "MiB", Some(64.0))
}
