//! The automatic chunk size under the service's request budgets, compared with every fixed size.
//!
//! A window of the service is a minute, so most cases are simulated: the link is a model, the pace of the requests and
//! the plans are those of the library. One case is real.

mod simulation;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ringlift::server::{Limits, RouteClass, Server, ServerSettings};
use ringlift::{ChunkSize, Client, QuotaPreset};

use crate::Result;
use simulation::{Chunking, Link, Run, simulate};

/// Files of one length in a batch.
type Group = (usize, u64);

/// Prints the table of the simulated cases, and of the real case if `is_real`. Returns failure if the automatic size
/// took more than [`BAR`] times as long as the best fixed size.
pub(crate) fn compare(dir: &Path, is_real: bool) -> Result<ExitCode> {
    println!(
        "{:10} {:24} {:28} {:>8} {:>9} {:>22} {:>6}",
        "limits", "link", "files", "requests", "time", "best fixed size", "ratio"
    );
    let mut is_missed = false;
    for (name, preset) in PRESETS {
        for link in LINKS {
            for batch in BATCHES {
                let files: Vec<u64> = batch.iter().flat_map(|&(count, len)| vec![len; count]).collect();
                let auto = simulate(&files, *preset, link, Chunking::Auto);
                let (fixed, best) = best_fixed(&files, *preset, link);
                let ratio = auto.seconds / best.seconds;
                is_missed |= ratio > BAR;
                println!(
                    "{name:10} {:24} {:28} {:>8} {:>7.1} s {:>7} MiB {:>4} {:>6.1} s {ratio:>6.2}{}",
                    link.name,
                    describe(batch),
                    auto.requests,
                    auto.seconds,
                    fixed / MIB,
                    best.requests,
                    best.seconds,
                    if ratio > BAR { " missed" } else { "" },
                );
            }
        }
    }
    if is_real {
        is_missed |= compare_for_real(dir)? > BAR;
    }
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the fixed size with the shortest run, and that run.
fn best_fixed(files: &[u64], preset: QuotaPreset, link: &Link) -> (u64, Run) {
    let runs = FIXED_MIB.iter().map(|mib| {
        let bytes = mib * MIB;
        (bytes, simulate(files, preset, link, Chunking::Fixed(bytes)))
    });
    let best = runs.min_by(|(_, a), (_, b)| a.seconds.total_cmp(&b.seconds));
    best.unwrap_or_else(|| unreachable!("there are fixed sizes"))
}

fn describe(batch: &[Group]) -> String {
    let groups: Vec<String> =
        batch.iter().map(|(count, len)| format!("{count} x {} MiB", len / MIB)).collect();
    groups.join(", ")
}

/// Uploads 40 files of 37 MiB to a server with the production limits, and returns the ratio of the times.
fn compare_for_real(dir: &Path) -> Result<f64> {
    // In turns, and the best of each: the first run pays for what the disk does in the background.
    let (mut auto, mut fixed) = (Vec::new(), Vec::new());
    for _ in 0..REAL_PAIRS {
        fixed.push(upload_for_real(dir, ChunkSize::Bytes(200 * MIB))?);
        auto.push(upload_for_real(dir, ChunkSize::Auto)?);
    }
    let (auto, fixed) = (quickest(&auto), quickest(&fixed));
    let ratio = auto.seconds / fixed.seconds;
    println!(
        "real: production, loopback, 40 x 37 MiB: {} requests in {:.1} s, 200 MiB: {} in {:.1} s, ratio {ratio:.2}",
        auto.requests, auto.seconds, fixed.requests, fixed.seconds
    );
    Ok(ratio)
}

fn quickest(runs: &[Run]) -> Run {
    let quickest = runs.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
    *quickest.unwrap_or_else(|| unreachable!("there is a run"))
}

fn upload_for_real(dir: &Path, chunk_size: ChunkSize) -> Result<Run> {
    let folder = dir.join("budget");
    // What an interrupted run left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let files: Vec<PathBuf> = (0..40).map(|number| folder.join(format!("{number}.mp4"))).collect();
    for file in &files {
        File::create(file)?.set_len(37 * MIB)?;
    }
    let mut settings = ServerSettings::new(folder.join("server"));
    settings.limits = Limits::Production;
    let server = Server::start(settings)?;
    let client = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let uploads = files.iter().map(|file| client.upload(file).chunk_size(chunk_size).send());
    runtime.block_on(async { tokio::time::timeout(REAL_LIMIT, try_join_all(uploads)).await })??;
    let seconds = begun.elapsed().as_secs_f64();
    let requests = server.stats().requests.get(&RouteClass::Chunk).copied().unwrap_or(0);
    server.stop();
    fs::remove_dir_all(&folder)?;
    Ok(Run { requests, seconds })
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The longest time that the automatic size may take, in times of the best fixed size.
const BAR: f64 = 1.1;

const REAL_PAIRS: usize = 3;

/// The time limit of one real run.
const REAL_LIMIT: Duration = Duration::from_secs(400);

const PRESETS: &[(&str, QuotaPreset)] =
    &[("production", QuotaPreset::Production), ("sandbox", QuotaPreset::Sandbox)];

const LINKS: &[Link] = &[
    Link { name: "1 Gb/s", bytes_per_s: 125e6, lane_bytes_per_s: 125e6, round_trip_s: 0.03 },
    Link { name: "far: 8 lanes of 160 Mb/s", bytes_per_s: 160e6, lane_bytes_per_s: 20e6, round_trip_s: 0.15 },
    Link { name: "10 Gb/s", bytes_per_s: 1.25e9, lane_bytes_per_s: 1.25e9, round_trip_s: 0.01 },
    Link { name: "20 Mb/s", bytes_per_s: 2.5e6, lane_bytes_per_s: 2.5e6, round_trip_s: 0.05 },
];

const FIXED_MIB: &[u64] = &[5, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200];

const BATCHES: &[&[Group]] = &[
    &[(1, 37 * MIB)],
    &[(1, 371 * MIB)],
    &[(1, 4 * GIB)],
    &[(1, 30 * GIB)],
    &[(8, 371 * MIB)],
    &[(40, 37 * MIB)],
    &[(41, 37 * MIB)],
    &[(100, 37 * MIB)],
    &[(40, 371 * MIB)],
    &[(200, 100 * MIB)],
    &[(100, GIB)],
    &[(90, MIB), (2, 4 * GIB)],
    &[(2, 4 * GIB), (90, MIB)],
    &[(20, 300 * MIB), (20, 40 * MIB)],
];
