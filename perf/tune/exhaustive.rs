//! The rates of all fixed numbers of lanes on a link, and the rate of whole uploads with a chunk size.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ringlift::tune::{PathLimits, measure_lanes};
use ringlift::{ChunkSize, Client, Settings};
use serde::{Deserialize, Serialize};

use super::shapes::NamedShape;
use crate::Result;
use crate::shaped_link::LinkShape;

/// The rates of fixed numbers of lanes on one link, kept in a file between runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FixedRates {
    shape: LinkShape,
    /// Numbers of lanes with their rates in bytes per second.
    rates: Vec<(u32, f64)>,
    #[serde(skip)]
    path: PathBuf,
}

impl FixedRates {
    /// Reads the rates of an earlier run on the same link, or starts without any.
    pub(super) fn open(dir: &Path, named: &NamedShape, is_afresh: bool) -> FixedRates {
        let path = dir.join(format!("tune-{}.json", named.name));
        let stored = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<FixedRates>(&json).ok());
        match stored.filter(|stored| !is_afresh && stored.shape == named.shape) {
            Some(stored) => FixedRates { path, ..stored },
            None => FixedRates { shape: named.shape, rates: Vec::new(), path },
        }
    }

    /// Measures the numbers that have no rate yet.
    pub(super) fn complete(&mut self, settings: &Settings, place: &Path) -> Result<()> {
        FIXED_LANES.iter().try_for_each(|lanes| self.rate(*lanes, settings, place).map(drop))
    }

    /// Returns the rate of a number of lanes, which is measured if it has none yet.
    pub(super) fn rate(&mut self, lanes: u32, settings: &Settings, place: &Path) -> Result<f64> {
        if let Some(rate) = self.known(lanes) {
            return Ok(rate);
        }
        let mut limits = PathLimits::default();
        limits.obeys_stated_budget = false;
        limits.requests = 1000;
        // As long as the window of the measurement allows it.
        limits.time = Duration::from_secs(600);
        let mut measured = Vec::new();
        for _ in 0..REPETITIONS {
            measured.push(measure_lanes(settings, place, limits, lanes)?.mean);
        }
        measured.sort_by(f64::total_cmp);
        let rate = measured[measured.len() / 2];
        self.rates.push((lanes, rate));
        fs::write(&self.path, serde_json::to_vec(self)?)?;
        Ok(rate)
    }

    /// Returns the rate of a number of lanes that was measured.
    pub(super) fn known(&self, lanes: u32) -> Option<f64> {
        self.rates.iter().find(|(known, _)| *known == lanes).map(|(_, rate)| *rate)
    }

    /// Returns the best of the fixed numbers with its rate.
    pub(super) fn best(&self) -> (u32, f64) {
        let fixed = self.rates.iter().filter(|(lanes, _)| FIXED_LANES.contains(lanes));
        fixed.fold((1, 0.0), |best, now| if now.1 > best.1 { *now } else { best })
    }
}

/// Returns the rate of an upload with this number of lanes and this chunk size, with the waits for answers. `rate` is the
/// expected one.
pub(super) fn upload_rate(
    settings: &Settings,
    place: &Path,
    (lanes, rate): (u32, f64),
    chunk_bytes: u64,
) -> Result<f64> {
    let sample = place.join("chunks.mp4");
    // A round has one chunk of each lane.
    let round_bytes = u64::from(lanes) * chunk_bytes;
    let measured = (UPLOAD_SECONDS * rate / round_bytes as f64).ceil().max(2.0) as u64;
    // The first round fills the queues of the path, and in the last one the lanes end at different times.
    let rounds = measured + 2;
    File::create(&sample)?.set_len(rounds * round_bytes)?;
    let mut settings = settings.clone();
    settings.lanes = lanes as usize;
    let client = Client::new(settings)?;
    let upload = client.upload(&sample).chunk_size(ChunkSize::Bytes(chunk_bytes));
    let rate: Result<f64> = thread::scope(|scope| {
        let upload = scope.spawn(|| upload.send_blocking());
        let mut crossed = Vec::new();
        for bytes in [round_bytes, (rounds - 1) * round_bytes] {
            while acknowledged(&client) <= bytes && !upload.is_finished() {
                thread::sleep(Duration::from_millis(2));
            }
            crossed.push(Instant::now());
        }
        upload.join().map_err(|_| "the upload panicked")??;
        let seconds = crossed[1].duration_since(crossed[0]).as_secs_f64();
        Ok((measured * round_bytes) as f64 / seconds)
    });
    fs::remove_file(&sample)?;
    rate
}

/// Returns the bytes that the other side's TCP has acknowledged.
pub(super) fn acknowledged(client: &Client) -> u64 {
    let now = client.snapshot();
    now.bytes.sent.saturating_sub(now.send_queue_bytes)
}

/// Up to the largest number that the ladder reaches with 30 requests.
const FIXED_LANES: &[u32] = &[1, 2, 3, 4, 6, 8, 12, 16];
/// The median of three is not changed by one measurement during which the machine was busy.
const REPETITIONS: usize = 3;
/// The least time of the rounds that are measured: stalls and other traffic average out.
const UPLOAD_SECONDS: f64 = 20.0;
