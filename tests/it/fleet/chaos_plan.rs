//! The disturbances of the chaos test, and the files.

use fastrand::Rng;

/// The size of the chaos test.
#[derive(Clone, Copy, Debug)]
pub struct ChaosPlan {
    pub small: usize,
    pub large_mib: u64,
    pub large: usize,
    pub worker_kills: usize,
    pub engine_kills: usize,
    /// The times that each other disturbance happens.
    pub others: usize,
    /// The requests with chunks that the service allows a minute.
    pub uploads_a_minute: u32,
    /// The seconds of the longest cut from the service: beyond two minutes a worker lets its jobs go.
    pub longest_cut_s: u64,
    /// `true` if a file vanishes after its submission, which takes the queue two minutes to believe.
    pub has_missing_file: bool,
    pub seed: u64,
}

/// A disturbance of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    KillWorker,
    KillEngine,
    /// The engine comes back with an older copy of its store.
    RestoreOlderStore,
    /// A worker stands still for longer than its lease.
    SuspendWorker,
    CutFromEngine,
    CutFromService,
    /// The same files are submitted again by two hosts at the same time.
    SubmitAgain,
}

impl ChaosPlan {
    /// Returns the long form if the environment requests it. `RINGLIFT_FLEET_ROUNDS` sets the kills of workers, for runs
    /// in parts, and `RINGLIFT_FLEET_SEED` repeats a run.
    pub fn from_environment() -> ChaosPlan {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let is_long = std::env::var_os("RINGLIFT_LONG_TESTS").is_some();
        let default_kills = if is_long { 60 } else { 4 };
        let kills = number("RINGLIFT_FLEET_ROUNDS").unwrap_or(default_kills);
        let seed = number("RINGLIFT_FLEET_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        let (worker_kills, engine_kills) = (kills as usize, kills.div_ceil(6) as usize);
        if is_long {
            ChaosPlan {
                small: 120,
                // The limit makes the uploads last as long as the disturbances.
                large_mib: 10 + 5 * kills,
                large: 2,
                worker_kills,
                engine_kills,
                others: 2,
                uploads_a_minute: 60,
                longest_cut_s: 140,
                has_missing_file: true,
                seed,
            }
        } else {
            ChaosPlan {
                small: 40,
                large_mib: 60,
                large: 1,
                worker_kills,
                engine_kills,
                others: 1,
                uploads_a_minute: 120,
                longest_cut_s: 6,
                has_missing_file: false,
                seed,
            }
        }
    }

    /// Returns all disturbances in an order that depends on the seed.
    pub fn disturbances(&self, random: &mut Rng) -> Vec<Disturbance> {
        use Disturbance::*;
        let others = [RestoreOlderStore, SuspendWorker, CutFromEngine, CutFromService, SubmitAgain];
        let counts = others.map(|other| (other, self.others));
        let counts =
            [(KillWorker, self.worker_kills), (KillEngine, self.engine_kills)].into_iter().chain(counts);
        let mut all: Vec<_> = counts.flat_map(|(disturbance, count)| vec![disturbance; count]).collect();
        random.shuffle(&mut all);
        // The long cut from the service lasts through most of the test.
        if let Some(first) = all.iter().position(|disturbance| *disturbance == CutFromService) {
            all.swap(0, first);
        }
        all
    }
}
