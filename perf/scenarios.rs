//! The rows of the table and their measurements.

use std::path::PathBuf;
use std::time::Duration;

use ringlift_baseline::Scheme;

use crate::Result;
use crate::bench_env::{BenchEnv, Expected, MIB, Sizes, WarmUp};
use crate::child::Sampling;
use crate::competitors::{Competitor, Load};
use crate::files::{self, drop_page_cache, fill_page_cache};
use crate::helper_process::ProxyProcess;
use crate::proxy::Line;
use crate::table::Bar::{AtLeast, AtMost, None as NoBar, Within};
use crate::table::{Figure, Measured, Pair, Row, Run};

/// One measurement, which may fill several rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    work: Work,
    pub(crate) rows: &'static [Row],
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// A file in the page cache, one lane, with these options of ringlift.
    Hot(Scheme, Competitor, &'static [&'static str]),
    /// An uncached file, compared with the read rate of the disk.
    Cold(Scheme),
    /// A cached file over the same lanes, compared with the read rate of the disk.
    Socket(Scheme),
    /// Eight lanes, a large file compared with a small one.
    Memory(Scheme),
    /// A slow long-distance line, eight lanes compared with one.
    Distant,
    /// Files in the page cache, all by one process.
    Files(Scheme, FileSet),
}

/// The files of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSet {
    /// One file of 1 MiB: mostly the start of the process.
    One,
    /// Files of 1 MiB.
    Small,
    /// Files of 4 KiB: mostly the cost per file.
    Tiny,
}

impl FileSet {
    /// Returns the number of files and the length of each.
    fn count_and_len(self, sizes: &Sizes) -> (usize, u64) {
        match self {
            FileSet::One => (1, MIB),
            FileSet::Small => (sizes.files, MIB),
            FileSet::Tiny => (sizes.tiny_files, TINY_BYTES),
        }
    }
}

impl Scenario {
    /// Measures the scenario. Fails if a client is missing.
    pub(crate) fn measure(&self, env: &mut BenchEnv) -> Result<Vec<Measured>> {
        for competitor in self.competitors() {
            if let Some(reason) = env.competitors.unavailable_reason(competitor) {
                return Err(format!("{} is not here: {reason}", competitor.name()).into());
            }
        }
        let pairs = match self.work {
            Work::Hot(scheme, against, options) => self.hot(env, scheme, against, options),
            Work::Cold(scheme) => self.cold(env, scheme),
            Work::Socket(scheme) => self.socket(env, scheme),
            Work::Memory(scheme) => self.memory(env, scheme),
            Work::Distant => self.distant(env),
            Work::Files(scheme, set) => self.files(env, scheme, set),
        }?;
        Ok(self.rows.iter().map(|row| row.judge(pairs.clone())).collect())
    }

    fn competitors(&self) -> Vec<Competitor> {
        match self.work {
            Work::Hot(_, against, _) => vec![Competitor::Ringlift, against],
            Work::Cold(_) | Work::Socket(_) => vec![Competitor::Ringlift, Competitor::ReadDirect],
            Work::Memory(_) | Work::Distant => vec![Competitor::Ringlift],
            Work::Files(..) => vec![Competitor::Ringlift, Competitor::Curl],
        }
    }

    fn hot(
        &self,
        env: &mut BenchEnv,
        scheme: Scheme,
        against: Competitor,
        options: &[&str],
    ) -> Result<Vec<Pair>> {
        let file = match against {
            Competitor::Sendfile | Competitor::SendfileRanges => {
                env.files.random("long.mp4", env.sizes.long_bytes)?
            }
            _ => env.files.random("hot.mp4", env.sizes.hot_bytes)?,
        };
        let chunk_bytes = env.sizes.chunk_bytes;
        let run = |env: &mut BenchEnv, competitor: Competitor| {
            fill_page_cache(&file)?;
            let scheme = competitor.scheme(scheme);
            let (url, ca) = env.target(scheme);
            let load = Load { file: &file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: 1, options };
            env.upload(competitor, &load, scheme, Sampling::Seldom)
        };
        let (ours, theirs) =
            (|env: &mut BenchEnv| run(env, Competitor::Ringlift), |env: &mut BenchEnv| run(env, against));
        env.pairs(self.name, env.sizes.pairs, WarmUp::OnePair, ours, theirs)
    }

    fn cold(&self, env: &mut BenchEnv, scheme: Scheme) -> Result<Vec<Pair>> {
        if !env.files.reads_direct() {
            return Err("the file system has no O_DIRECT: choose another with --dir".into());
        }
        let file = env.files.random("cold.mp4", env.sizes.cold_bytes)?;
        let (url, ca) = env.target(scheme);
        let chunk_bytes = env.sizes.chunk_bytes;
        let run = |env: &mut BenchEnv, competitor| {
            drop_page_cache(&file)?;
            let load = Load {
                file: &file,
                url: &url,
                ca: ca.as_deref(),
                chunk_bytes,
                lanes: COLD_LANES,
                options: &[],
            };
            let run = env.upload(competitor, &load, scheme, Sampling::Seldom)?;
            let cached_mib = files::resident(&file)? as f64 / MIB as f64;
            Ok(Run { cached_mib: Some(cached_mib), ..run })
        };
        let (ours, theirs) = (
            |env: &mut BenchEnv| run(env, Competitor::Ringlift),
            |env: &mut BenchEnv| run(env, Competitor::ReadDirect),
        );
        env.pairs(self.name, env.sizes.pairs.min(5), WarmUp::None, ours, theirs)
    }

    fn socket(&self, env: &mut BenchEnv, scheme: Scheme) -> Result<Vec<Pair>> {
        let hot = env.files.random("hot.mp4", env.sizes.hot_bytes)?;
        let cold = env.files.random("cold.mp4", env.sizes.cold_bytes)?;
        let (url, ca) = env.target(scheme);
        let chunk_bytes = env.sizes.chunk_bytes;
        let load =
            |file| Load { file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: COLD_LANES, options: &[] };
        let ours = |env: &mut BenchEnv| {
            fill_page_cache(&hot)?;
            env.upload(Competitor::Ringlift, &load(&hot), scheme, Sampling::Seldom)
        };
        let theirs = |env: &mut BenchEnv| {
            drop_page_cache(&cold)?;
            env.upload(Competitor::ReadDirect, &load(&cold), scheme, Sampling::Seldom)
        };
        env.pairs(self.name, env.sizes.pairs.min(5), WarmUp::None, ours, theirs)
    }

    fn memory(&self, env: &mut BenchEnv, scheme: Scheme) -> Result<Vec<Pair>> {
        let large = env.files.sparse("large.mp4", env.sizes.large_bytes)?;
        let small = env.files.sparse("small.mp4", env.sizes.small_bytes)?;
        let (url, ca) = env.target(scheme);
        let chunk_bytes = env.sizes.memory_chunk_bytes;
        let run = |env: &mut BenchEnv, file: &PathBuf| {
            drop_page_cache(file)?;
            let load = Load { file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: 8, options: &[] };
            env.upload(Competitor::Ringlift, &load, scheme, Sampling::Often)
        };
        let (ours, theirs) = (|env: &mut BenchEnv| run(env, &large), |env: &mut BenchEnv| run(env, &small));
        let pairs = env.pairs(self.name, env.sizes.pairs.min(3), WarmUp::None, ours, theirs);
        drop_page_cache(&large)?;
        pairs
    }

    fn distant(&self, env: &mut BenchEnv) -> Result<Vec<Pair>> {
        let file = env.files.random("distant.mp4", env.sizes.distant_bytes)?;
        let line = Line { round_trip: Duration::from_millis(80), bytes_per_second: 20.0 * MIB as f64 };
        let target = env.sink(Scheme::Http).address()?;
        let proxy = ProxyProcess::start(env.competitors.own("proxy", []), target, line)?;
        let chunk_bytes = env.sizes.distant_chunk_bytes;
        let run = |env: &mut BenchEnv, lanes| {
            fill_page_cache(&file)?;
            let load = Load { file: &file, url: &proxy.url, ca: None, chunk_bytes, lanes, options: &[] };
            env.upload(Competitor::Ringlift, &load, Scheme::Http, Sampling::Seldom)
        };
        let (ours, theirs) = (|env: &mut BenchEnv| run(env, 8), |env: &mut BenchEnv| run(env, 1));
        let pairs = env.pairs(self.name, env.sizes.pairs.min(3), WarmUp::None, ours, theirs);
        env.files.remove("distant.mp4")?;
        pairs
    }

    fn files(&self, env: &mut BenchEnv, scheme: Scheme, set: FileSet) -> Result<Vec<Pair>> {
        let (url, ca) = env.target(scheme);
        let (count, len) = set.count_and_len(&env.sizes);
        let files = env.files.random_set(len, count)?;
        let config = env.files.path("curl.conf");
        let expected = Expected { files: count, bytes: count as u64 * len };
        let fill_page_cache_with_all = || files.iter().try_for_each(|file| fill_page_cache(file));
        let ours = |env: &mut BenchEnv| {
            fill_page_cache_with_all()?;
            let command = env.competitors.ringlift_many(&files, &url, ca.as_deref())?;
            env.send(command, expected, scheme, Sampling::Seldom)
        };
        let theirs = |env: &mut BenchEnv| {
            fill_page_cache_with_all()?;
            let command = env.competitors.curl_many(&files, &url, ca.as_deref(), &config)?;
            env.send(command, expected, scheme, Sampling::Seldom)
        };
        // Each run takes many seconds.
        let pairs = if set == FileSet::Tiny { env.sizes.pairs.min(3) } else { env.sizes.pairs };
        env.pairs(self.name, pairs, WarmUp::OnePair, ours, theirs)
    }
}

#[rustfmt::skip]
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "plain-sendfile", work: Work::Hot(Scheme::Http, Competitor::Sendfile, &[]), rows: &[
        Row { id: "plain-sendfile", work: HOT_HTTP, against: "sendfile loop", figure: Figure::CpuRatio,
              bar: AtMost(1.25), stretch: Some(AtMost(1.1)) },
        Row { id: "plain-sendfile-throughput", work: HOT_HTTP, against: "sendfile loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.9), stretch: None },
    ] },
    Scenario { name: "plain-ranges", work: Work::Hot(Scheme::Http, Competitor::SendfileRanges, &[]), rows: &[
        Row { id: "plain-ranges", work: HOT_HTTP, against: "sendfile loop in ranges", figure: Figure::CpuRatio,
              bar: AtMost(1.1), stretch: None },
        Row { id: "plain-ranges-throughput", work: HOT_HTTP, against: "sendfile loop in ranges",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.9), stretch: None },
    ] },
    Scenario { name: "plain-curl", work: Work::Hot(Scheme::Http, Competitor::Curl, &[]), rows: &[
        Row { id: "plain-curl", work: HOT_HTTP, against: "curl -F", figure: Figure::CpuRatio,
              bar: AtMost(0.5), stretch: Some(AtMost(0.35)) },
        Row { id: "plain-curl-throughput", work: HOT_HTTP, against: "curl -F",
              figure: Figure::ThroughputRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "plain-curl-split", work: Work::Hot(Scheme::Http, Competitor::CurlSplit, &[]), rows: &[
        Row { id: "plain-curl-split", work: HOT_HTTP, against: "split + curl -F", figure: Figure::CpuRatio,
              bar: NoBar, stretch: None },
    ] },
    Scenario { name: "plain-node", work: Work::Hot(Scheme::Http, Competitor::Node, &[]), rows: &[
        Row { id: "plain-node", work: HOT_HTTP, against: "Node client", figure: Figure::CpuRatio,
              bar: AtMost(0.08), stretch: None },
    ] },
    Scenario { name: "plain-python", work: Work::Hot(Scheme::Http, Competitor::Python, &[]), rows: &[
        Row { id: "plain-python", work: HOT_HTTP, against: "Python client", figure: Figure::CpuRatio,
              bar: AtMost(0.15), stretch: None },
    ] },
    Scenario { name: "plain-reqwest", work: Work::Hot(Scheme::Http, Competitor::Reqwest, &[]), rows: &[
        Row { id: "plain-reqwest", work: HOT_HTTP, against: "reqwest multipart", figure: Figure::CpuRatio,
              bar: AtMost(0.6), stretch: None },
    ] },
    Scenario { name: "https-sealing", work: Work::Hot(Scheme::Https, Competitor::Sealing, &[]), rows: &[
        Row { id: "https-sealing", work: HOT_HTTPS, against: "sealing loop", figure: Figure::CpuRatio,
              bar: AtMost(1.1), stretch: None },
        Row { id: "https-sealing-throughput", work: HOT_HTTPS, against: "sealing loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.9), stretch: None },
    ] },
    Scenario { name: "https-bare-sealing", work: Work::Hot(Scheme::Https, Competitor::Sealing, NO_DIGESTS), rows: &[
        Row { id: "https-bare-sealing", work: HOT_HTTPS_BARE, against: "sealing loop", figure: Figure::CpuRatio,
              bar: AtMost(1.1), stretch: None },
        Row { id: "https-bare-sealing-throughput", work: HOT_HTTPS_BARE, against: "sealing loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.9), stretch: None },
    ] },
    Scenario { name: "https-ring-sealing", work: Work::Hot(Scheme::Https, Competitor::Sealing, RING), rows: &[
        Row { id: "https-ring-sealing", work: HOT_HTTPS_RING, against: "sealing loop", figure: Figure::CpuRatio,
              bar: AtMost(1.15), stretch: None },
        Row { id: "https-ring-sealing-throughput", work: HOT_HTTPS_RING, against: "sealing loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.9), stretch: None },
    ] },
    Scenario { name: "https-curl", work: Work::Hot(Scheme::Https, Competitor::Curl, &[]), rows: &[
        Row { id: "https-curl", work: HOT_HTTPS, against: "curl -F", figure: Figure::CpuRatio,
              bar: NoBar, stretch: None },
        Row { id: "https-curl-throughput", work: HOT_HTTPS, against: "curl -F", figure: Figure::ThroughputRatio,
              bar: AtLeast(1.6), stretch: Some(AtLeast(2.0)) },
    ] },
    Scenario { name: "cold-http", work: Work::Cold(Scheme::Http), rows: &[
        Row { id: "cold-http", work: "HTTP, cold file, 8 lanes", against: "O_DIRECT read loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.95), stretch: None },
        Row { id: "cold-http-cache", work: "page cache left by a cold file, HTTP", against: "-",
              figure: Figure::CacheMib, bar: AtMost(64.0), stretch: Some(AtMost(0.0)) },
    ] },
    Scenario { name: "cold-https", work: Work::Cold(Scheme::Https), rows: &[
        Row { id: "cold-https", work: "HTTPS, cold file, 8 lanes", against: "O_DIRECT read loop",
              figure: Figure::ThroughputRatio, bar: AtLeast(0.95), stretch: None },
        Row { id: "cold-https-cache", work: "page cache left by a cold file, HTTPS", against: "-",
              figure: Figure::CacheMib, bar: AtMost(64.0), stretch: Some(AtMost(0.0)) },
    ] },
    Scenario { name: "socket-http", work: Work::Socket(Scheme::Http), rows: &[
        Row { id: "socket-http", work: "HTTP, file in cache, 8 lanes", against: "O_DIRECT read loop",
              figure: Figure::ThroughputRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "socket-https", work: Work::Socket(Scheme::Https), rows: &[
        Row { id: "socket-https", work: "HTTPS, file in cache, 8 lanes", against: "O_DIRECT read loop",
              figure: Figure::ThroughputRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "memory-http", work: Work::Memory(Scheme::Http), rows: &[
        Row { id: "memory-http", work: "peak RssAnon, HTTP, 8 lanes, large sparse file", against: "-",
              figure: Figure::MemoryMib, bar: AtMost(48.0), stretch: Some(AtMost(24.0)) },
        Row { id: "memory-http-growth", work: "the same", against: "small sparse file",
              figure: Figure::MemoryRatio, bar: Within(0.1), stretch: None },
    ] },
    Scenario { name: "memory-https", work: Work::Memory(Scheme::Https), rows: &[
        Row { id: "memory-https", work: "peak RssAnon, HTTPS, 8 lanes, large sparse file", against: "-",
              figure: Figure::MemoryMib, bar: AtMost(48.0), stretch: Some(AtMost(24.0)) },
        Row { id: "memory-https-growth", work: "the same", against: "small sparse file",
              figure: Figure::MemoryRatio, bar: Within(0.1), stretch: None },
    ] },
    Scenario { name: "distant", work: Work::Distant, rows: &[
        Row { id: "distant", work: "80 ms, 20 MiB/s a connection, 8 lanes", against: "1 lane",
              figure: Figure::ThroughputRatio, bar: AtLeast(7.0), stretch: None },
    ] },
    Scenario { name: "many", work: Work::Files(Scheme::Http, FileSet::Small), rows: &[
        Row { id: "many", work: "files of 1 MiB, one process", against: "curl --parallel",
              figure: Figure::WallRatio, bar: AtMost(0.7), stretch: None },
        Row { id: "many-cpu", work: "files of 1 MiB, one process", against: "curl --parallel",
              figure: Figure::CpuRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "tiny", work: Work::Files(Scheme::Http, FileSet::Tiny), rows: &[
        Row { id: "tiny", work: "20,000 files of 4 KiB, one process", against: "curl --parallel",
              figure: Figure::WallRatio, bar: NoBar, stretch: None },
        Row { id: "tiny-cpu", work: "20,000 files of 4 KiB, one process", against: "curl --parallel",
              figure: Figure::CpuRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "start-http", work: Work::Files(Scheme::Http, FileSet::One), rows: &[
        Row { id: "start-http", work: "one file of 1 MiB, HTTP", against: "curl -F",
              figure: Figure::WallRatio, bar: NoBar, stretch: None },
        Row { id: "start-http-cpu", work: "one file of 1 MiB, HTTP", against: "curl -F",
              figure: Figure::CpuRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "start-https", work: Work::Files(Scheme::Https, FileSet::One), rows: &[
        Row { id: "start-https", work: "one file of 1 MiB, HTTPS", against: "curl -F",
              figure: Figure::WallRatio, bar: NoBar, stretch: None },
        Row { id: "start-https-cpu", work: "one file of 1 MiB, HTTPS", against: "curl -F",
              figure: Figure::CpuRatio, bar: NoBar, stretch: None },
    ] },
];

/// The default of ringlift. With one lane, the disk is idle while the client waits for an answer.
const COLD_LANES: u32 = 8;
const TINY_BYTES: u64 = 4 << 10;
const HOT_HTTP: &str = "HTTP, file in cache, 1 lane";
const HOT_HTTPS: &str = "HTTPS, file in cache, 1 lane";
/// The work of the sealing loop, which computes no digests either.
const HOT_HTTPS_BARE: &str = "HTTPS without digests, file in cache, 1 lane";
const HOT_HTTPS_RING: &str = "io_uring, HTTPS, file in cache, 1 lane";
const NO_DIGESTS: &[&str] = &["--checksum=never"];
const RING: &[&str] = &["--reader", "uring"];
