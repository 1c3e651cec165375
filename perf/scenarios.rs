//! The rows of the table and how each is measured.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::child::Sampling;
use crate::files::{self, chill, heat};
use crate::house::ProxyProcess;
use crate::lab::{Lab, MIB, WarmUp};
use crate::peers::{Load, Peer};
use crate::proxy::Line;
use crate::sink::Scheme;
use crate::table::Bar::{AtLeast, AtMost, None as NoBar, Within};
use crate::table::{Figure, Measured, Pair, Row, Run};

/// One measurement, which may answer several rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    work: Work,
    pub(crate) rows: &'static [Row],
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// A file in the page cache, one lane.
    Hot(Scheme, Peer),
    /// A file on the disk only, against what the disk gives.
    Cold(Scheme),
    /// What the socket takes over as many lanes, against what the disk gives.
    Socket(Scheme),
    /// Eight lanes, a large file against a small one.
    Memory(Scheme),
    /// A long thin line, eight lanes against one.
    Distant,
    /// Many small files in one process.
    Many,
}

impl Scenario {
    /// Measures it, unless somebody is missing.
    pub(crate) fn measure(&self, lab: &mut Lab) -> Result<Vec<Measured>> {
        for peer in self.peers() {
            if let Some(reason) = lab.peers.absence(peer) {
                return Err(format!("{} is not here: {reason}", peer.name()).into());
            }
        }
        let pairs = match self.work {
            Work::Hot(scheme, against) => self.hot(lab, scheme, against),
            Work::Cold(scheme) => self.cold(lab, scheme),
            Work::Socket(scheme) => self.socket(lab, scheme),
            Work::Memory(scheme) => self.memory(lab, scheme),
            Work::Distant => self.distant(lab),
            Work::Many => self.many(lab),
        }?;
        Ok(self.rows.iter().map(|row| row.judge(pairs.clone())).collect())
    }

    fn peers(&self) -> Vec<Peer> {
        match self.work {
            Work::Hot(_, against) => vec![Peer::Ringlift, against],
            Work::Cold(_) | Work::Socket(_) => vec![Peer::Ringlift, Peer::ReadDirect],
            Work::Memory(_) | Work::Distant => vec![Peer::Ringlift],
            Work::Many => vec![Peer::Ringlift, Peer::Curl],
        }
    }

    fn hot(&self, lab: &mut Lab, scheme: Scheme, against: Peer) -> Result<Vec<Pair>> {
        let file = lab.files.random("hot.mp4", lab.sizes.hot_bytes)?;
        let (url, ca) = lab.target(scheme);
        let chunk_bytes = lab.sizes.chunk_bytes;
        let run = |lab: &mut Lab, peer| {
            heat(&file)?;
            let load = Load { file: &file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: 1 };
            lab.upload(peer, &load, scheme, Sampling::Seldom)
        };
        let (ours, theirs) = (|lab: &mut Lab| run(lab, Peer::Ringlift), |lab: &mut Lab| run(lab, against));
        lab.pairs(self.name, lab.sizes.pairs, WarmUp::OnePair, ours, theirs)
    }

    fn cold(&self, lab: &mut Lab, scheme: Scheme) -> Result<Vec<Pair>> {
        if !lab.files.reads_direct() {
            return Err("the file system has no O_DIRECT: choose another with --dir".into());
        }
        let file = lab.files.random("cold.mp4", lab.sizes.cold_bytes)?;
        let (url, ca) = lab.target(scheme);
        let chunk_bytes = lab.sizes.chunk_bytes;
        let run = |lab: &mut Lab, peer| {
            chill(&file)?;
            let load = Load { file: &file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: COLD_LANES };
            let run = lab.upload(peer, &load, scheme, Sampling::Seldom)?;
            let cached_mib = files::resident(&file)? as f64 / MIB as f64;
            Ok(Run { cached_mib: Some(cached_mib), ..run })
        };
        let (ours, theirs) =
            (|lab: &mut Lab| run(lab, Peer::Ringlift), |lab: &mut Lab| run(lab, Peer::ReadDirect));
        lab.pairs(self.name, lab.sizes.pairs.min(5), WarmUp::None, ours, theirs)
    }

    fn socket(&self, lab: &mut Lab, scheme: Scheme) -> Result<Vec<Pair>> {
        let hot = lab.files.random("hot.mp4", lab.sizes.hot_bytes)?;
        let cold = lab.files.random("cold.mp4", lab.sizes.cold_bytes)?;
        let (url, ca) = lab.target(scheme);
        let chunk_bytes = lab.sizes.chunk_bytes;
        let load = |file| Load { file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: COLD_LANES };
        let ours = |lab: &mut Lab| {
            heat(&hot)?;
            lab.upload(Peer::Ringlift, &load(&hot), scheme, Sampling::Seldom)
        };
        let theirs = |lab: &mut Lab| {
            chill(&cold)?;
            lab.upload(Peer::ReadDirect, &load(&cold), scheme, Sampling::Seldom)
        };
        lab.pairs(self.name, lab.sizes.pairs.min(5), WarmUp::None, ours, theirs)
    }

    fn memory(&self, lab: &mut Lab, scheme: Scheme) -> Result<Vec<Pair>> {
        let large = lab.files.sparse("large.mp4", lab.sizes.large_bytes)?;
        let small = lab.files.sparse("small.mp4", lab.sizes.small_bytes)?;
        let (url, ca) = lab.target(scheme);
        let chunk_bytes = lab.sizes.memory_chunk_bytes;
        let run = |lab: &mut Lab, file: &PathBuf| {
            chill(file)?;
            let load = Load { file, url: &url, ca: ca.as_deref(), chunk_bytes, lanes: 8 };
            lab.upload(Peer::Ringlift, &load, scheme, Sampling::Often)
        };
        let (ours, theirs) = (|lab: &mut Lab| run(lab, &large), |lab: &mut Lab| run(lab, &small));
        let pairs = lab.pairs(self.name, lab.sizes.pairs.min(3), WarmUp::None, ours, theirs);
        chill(&large)?;
        pairs
    }

    fn distant(&self, lab: &mut Lab) -> Result<Vec<Pair>> {
        let file = lab.files.random("distant.mp4", lab.sizes.distant_bytes)?;
        let line = Line { round_trip: Duration::from_millis(80), bytes_per_second: 20.0 * MIB as f64 };
        let target = lab.sink(Scheme::Http).address()?;
        let proxy = ProxyProcess::start(lab.peers.own("proxy", []), target, line)?;
        let chunk_bytes = lab.sizes.distant_chunk_bytes;
        let run = |lab: &mut Lab, lanes| {
            heat(&file)?;
            let load = Load { file: &file, url: &proxy.url, ca: None, chunk_bytes, lanes };
            lab.upload(Peer::Ringlift, &load, Scheme::Http, Sampling::Seldom)
        };
        let (ours, theirs) = (|lab: &mut Lab| run(lab, 8), |lab: &mut Lab| run(lab, 1));
        let pairs = lab.pairs(self.name, lab.sizes.pairs.min(3), WarmUp::None, ours, theirs);
        lab.files.remove("distant.mp4")?;
        pairs
    }

    fn many(&self, lab: &mut Lab) -> Result<Vec<Pair>> {
        let (url, _) = lab.target(Scheme::Http);
        let count = lab.sizes.files;
        let files = (0..count)
            .map(|index| lab.files.random(&format!("{index:04}.mp4"), MIB))
            .collect::<std::io::Result<Vec<_>>>()?;
        let config = lab.files.path("curl.conf");
        let bytes = count as u64 * MIB;
        let heat_all = || files.iter().try_for_each(|file| heat(file));
        let ours = |lab: &mut Lab| {
            heat_all()?;
            let command = lab.peers.ringlift_many(&files, &url)?;
            lab.send(command, bytes, Scheme::Http, Sampling::Seldom)
        };
        let theirs = |lab: &mut Lab| {
            heat_all()?;
            let command = lab.peers.curl_many(&files, &url, &config)?;
            lab.send(command, bytes, Scheme::Http, Sampling::Seldom)
        };
        lab.pairs(self.name, lab.sizes.pairs, WarmUp::OnePair, ours, theirs)
    }
}

#[rustfmt::skip]
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "plain-sendfile", work: Work::Hot(Scheme::Http, Peer::Sendfile), rows: &[
        Row { id: "plain-sendfile", work: HOT_HTTP, against: "sendfile loop", figure: Figure::CpuRatio,
              bar: AtMost(1.25), stretch: Some(AtMost(1.1)) },
        Row { id: "plain-sendfile-throughput", work: HOT_HTTP, against: "sendfile loop",
              figure: Figure::ThroughputRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "plain-curl", work: Work::Hot(Scheme::Http, Peer::Curl), rows: &[
        Row { id: "plain-curl", work: HOT_HTTP, against: "curl -F", figure: Figure::CpuRatio,
              bar: AtMost(0.5), stretch: Some(AtMost(0.35)) },
        Row { id: "plain-curl-throughput", work: HOT_HTTP, against: "curl -F",
              figure: Figure::ThroughputRatio, bar: NoBar, stretch: None },
    ] },
    Scenario { name: "plain-curl-split", work: Work::Hot(Scheme::Http, Peer::CurlSplit), rows: &[
        Row { id: "plain-curl-split", work: HOT_HTTP, against: "split + curl -F", figure: Figure::CpuRatio,
              bar: NoBar, stretch: None },
    ] },
    Scenario { name: "plain-node", work: Work::Hot(Scheme::Http, Peer::Node), rows: &[
        Row { id: "plain-node", work: HOT_HTTP, against: "Node client", figure: Figure::CpuRatio,
              bar: AtMost(0.08), stretch: None },
    ] },
    Scenario { name: "plain-python", work: Work::Hot(Scheme::Http, Peer::Python), rows: &[
        Row { id: "plain-python", work: HOT_HTTP, against: "Python client", figure: Figure::CpuRatio,
              bar: AtMost(0.15), stretch: None },
    ] },
    Scenario { name: "plain-reqwest", work: Work::Hot(Scheme::Http, Peer::Reqwest), rows: &[
        Row { id: "plain-reqwest", work: HOT_HTTP, against: "reqwest multipart", figure: Figure::CpuRatio,
              bar: AtMost(0.6), stretch: None },
    ] },
    Scenario { name: "https-curl", work: Work::Hot(Scheme::Https, Peer::Curl), rows: &[
        Row { id: "https-curl", work: HOT_HTTPS, against: "curl -F", figure: Figure::CpuRatio,
              bar: AtMost(0.55), stretch: Some(AtMost(0.45)) },
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
    Scenario { name: "many", work: Work::Many, rows: &[
        Row { id: "many", work: "files of 1 MiB, one process", against: "curl --parallel",
              figure: Figure::WallRatio, bar: AtMost(0.7), stretch: None },
        Row { id: "many-cpu", work: "files of 1 MiB, one process", against: "curl --parallel",
              figure: Figure::CpuRatio, bar: NoBar, stretch: None },
    ] },
];

/// As many as ringlift takes by itself: with one, the disk rests while an answer is awaited.
const COLD_LANES: u32 = 8;
const HOT_HTTP: &str = "HTTP, file in cache, 1 lane";
const HOT_HTTPS: &str = "HTTPS, file in cache, 1 lane";
