//! Bulk ingestion: the memory and the speed of manifests, and many small files against other ways to send them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use jiff::Timestamp;
use ringlift_baseline::Scheme;

use crate::Result;
use crate::bench_env::{BenchEnv, Sizes};
use crate::child::{self, Sampling, Usage};

/// The sizes of the measurement.
struct Counts {
    lines: [usize; 2],
    files: usize,
    runs: usize,
}

/// Prints the measurements and their bars. Returns failure if a bar is missed.
pub(crate) fn measure(dir: &Path, ringlift: Option<PathBuf>, is_quick: bool) -> Result<ExitCode> {
    let counts = match is_quick {
        true => Counts { lines: [10_000, 100_000], files: 2_000, runs: 1 },
        false => Counts { lines: [100_000, 1_000_000], files: 20_000, runs: 3 },
    };
    let mut env = BenchEnv::open(dir, ringlift, Sizes::QUICK)?;
    let manifests = manifests(&mut env, counts.lines)?;
    let files = small_files(&mut env, &counts)?;
    Ok(if manifests && files { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a row. Returns `true` if the value is within the bar.
pub(crate) fn row(name: &str, value: f64, unit: &str, bar: Option<f64>) -> bool {
    let is_met = bar.is_none_or(|bar| value <= bar);
    let bar = bar.map_or(String::new(), |bar| format!("at most {bar}"));
    println!("{name:52} {value:>10.2} {unit:8} {bar:16}{}", if is_met { "" } else { "missed" });
    is_met
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Plans manifests of two lengths without sending anything.
fn manifests(env: &mut BenchEnv, lines: [usize; 2]) -> Result<bool> {
    let film = env.files.random("film.mp4", 4096)?;
    let mut are_met = true;
    for count in lines {
        let manifest = env.files.path("jobs.jsonl");
        let mut text = BufWriter::new(File::create(&manifest)?);
        for number in 0..count {
            writeln!(text, "{{\"id\":\"job-{number}\",\"path\":{film:?},\"title\":\"Film {number}\"}}")?;
        }
        text.flush()?;
        let mut command = env.competitors.ringlift_for("ingest", "http://127.0.0.1:1")?;
        command.arg("--dry-run").arg("--manifest").arg(&manifest);
        let usage = child::run(command, Sampling::Often)?;
        are_met &=
            row(&format!("{count} lines: peak of the memory"), mib(usage.max_rss_bytes), "MiB", Some(48.0));
        row(&format!("{count} lines: lines a second"), count as f64 / usage.wall_s, "", None);
    }
    Ok(are_met)
}

/// Sends small files, one request each, by four ways.
fn small_files(env: &mut BenchEnv, counts: &Counts) -> Result<bool> {
    let folder = env.files.path("small");
    fs::create_dir_all(&folder)?;
    let path = |number: usize| folder.join(format!("{number:06}.mp4"));
    let paths: Vec<PathBuf> = (0..counts.files).map(path).collect();
    paths.iter().try_for_each(|path| fs::write(path, [7; 4096]))?;
    let (url, _) = env.target(Scheme::Http);
    let (mut ingest, mut upload, mut curl) = (Vec::new(), Vec::new(), Vec::new());
    let (mut again, mut slowing) = (Usage::default(), 0.0_f64);
    for _ in 0..counts.runs {
        let command = env.competitors.ringlift_for("ingest", &url)?;
        let events = env.files.path("events.jsonl");
        ingest.push(run_ingest(command, &folder, &events)?);
        slowing = slowing.max(last_tenth_to_first(&events, counts.files)?);
        // Without the deletion of the state that the other commands begin with.
        let command = env.competitors.ringlift_again("ingest", &url);
        again = run_ingest(command, &folder, &events)?;
        upload.push(child::run(env.competitors.ringlift_many(&paths, &url, None)?, Sampling::Seldom)?);
        let config = env.files.path("curl.conf");
        curl.push(child::run(env.competitors.curl_many(&paths, &url, None, &config)?, Sampling::Seldom)?);
    }
    let quickest = |runs: &[Usage]| runs.iter().map(|usage| usage.wall_s).fold(f64::INFINITY, f64::min);
    let (ours, theirs) = (quickest(&ingest), quickest(&curl));
    let count = counts.files;
    row(&format!("{count} files of 4 KiB: ingest"), count as f64 / ours, "files/s", None);
    row(&format!("{count} files of 4 KiB: upload"), count as f64 / quickest(&upload), "files/s", None);
    row(&format!("{count} files of 4 KiB: curl --parallel"), count as f64 / theirs, "files/s", None);
    let peak = ingest.iter().map(|usage| usage.max_rss_bytes).max().unwrap_or_default();
    let cpu = ingest.iter().map(Usage::cpu_s).fold(f64::INFINITY, f64::min);
    row("ingest: CPU time", cpu, "s", None);
    let results = [
        row("ingest: peak of the memory", mib(peak), "MiB", Some(48.0)),
        row("ingest: time to that of curl --parallel", ours / theirs, "", Some(0.8)),
        row("ingest: time of the last tenth to that of the first", slowing, "", Some(1.3)),
        row("ingest again: CPU time", again.cpu_s(), "s", Some(2.0)),
    ];
    Ok(results.into_iter().all(|is_met| is_met))
}

fn run_ingest(mut command: Command, folder: &Path, events: &Path) -> Result<Usage> {
    command.args(["--json", "--account", "perf"]).arg(folder);
    child::run_into(command, Sampling::Seldom, Stdio::from(File::create(events)?))
}

/// Returns the time between the ends of the last tenth of the files, in relation to that of the second tenth. The first one
/// has the start of the process.
fn last_tenth_to_first(events: &Path, files: usize) -> Result<f64> {
    let mut times: Vec<Timestamp> = Vec::with_capacity(files);
    for line in BufReader::new(File::open(events)?).lines() {
        let event: serde_json::Value = serde_json::from_str(&line?)?;
        if event["event"] == "file_done" {
            times.push(event["time"].as_str().unwrap_or_default().parse()?);
        }
    }
    let tenth = times.len() / 10;
    if tenth < 2 {
        return Err(format!("{} files of {files} were done", times.len()).into());
    }
    let seconds = |from: usize, to: usize| times[to].duration_since(times[from]).as_secs_f64();
    Ok(seconds(times.len() - tenth, times.len() - 1) / seconds(tenth, 2 * tenth - 1).max(1e-3))
}
