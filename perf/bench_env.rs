//! The environment of the measurements: files, sinks, clients, and pairs of runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringlift_baseline::Scheme;
use serde::Serialize;

use crate::Result;
use crate::child::{self, Sampling};
use crate::competitors::{Competitor, Competitors, Load};
use crate::files::Files;
use crate::helper_process::SinkProcess;
use crate::table::{Pair, Run};

/// The files that a command sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

impl Expected {
    /// Returns the largest sum of the bodies: an envelope of at most 1 KiB per file, and a hundredth that is sent again.
    fn most_body_bytes(self) -> u64 {
        self.bytes + self.bytes / 100 + MIB + (self.files as u64) * 1024
    }
}

/// Sizes of the files and number of pairs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sizes {
    pub(crate) pairs: usize,
    pub(crate) hot_bytes: u64,
    /// A longer hot file, for clients that do not touch the bytes: the start, which has rows of its own, is a twentieth of
    /// their run with `hot_bytes`.
    pub(crate) long_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) cold_bytes: u64,
    pub(crate) large_bytes: u64,
    pub(crate) small_bytes: u64,
    pub(crate) memory_chunk_bytes: u64,
    pub(crate) distant_bytes: u64,
    pub(crate) distant_chunk_bytes: u64,
    pub(crate) files: usize,
    pub(crate) tiny_files: usize,
}

impl Sizes {
    /// The sizes of a complete run.
    pub(crate) const FULL: Sizes = Sizes {
        pairs: 9,
        hot_bytes: 2 * GIB,
        long_bytes: 6 * GIB,
        chunk_bytes: 64 * MIB,
        cold_bytes: 4 * GIB,
        large_bytes: 16 * GIB,
        small_bytes: GIB,
        memory_chunk_bytes: 128 * MIB,
        distant_bytes: 640 * MIB,
        distant_chunk_bytes: 16 * MIB,
        files: 500,
        tiny_files: 20_000,
    };

    /// Small sizes to check that everything works. The start of the processes dominates, so the verdicts mean little.
    pub(crate) const QUICK: Sizes = Sizes {
        pairs: 2,
        hot_bytes: 256 * MIB,
        long_bytes: 512 * MIB,
        chunk_bytes: 64 * MIB,
        cold_bytes: 512 * MIB,
        large_bytes: 4 * GIB,
        small_bytes: GIB,
        memory_chunk_bytes: 128 * MIB,
        distant_bytes: 80 * MIB,
        distant_chunk_bytes: 5 * MIB,
        files: 50,
        tiny_files: 1000,
    };

    /// Returns the required free disk space: the hot file with its parts, the long file, the cold file, the
    /// small files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        2 * self.hot_bytes + self.long_bytes + self.cold_bytes + self.files as u64 * MIB
    }
}

pub(crate) struct BenchEnv {
    pub(crate) sizes: Sizes,
    pub(crate) files: Files,
    pub(crate) competitors: Competitors,
    plain: SinkProcess,
    tls: SinkProcess,
}

impl BenchEnv {
    /// Starts the sinks. All files are below `folder`. Builds ringlift unless a binary is given.
    pub(crate) fn open(folder: &Path, ringlift: Option<PathBuf>, sizes: Sizes) -> Result<BenchEnv> {
        fs::create_dir_all(folder)?;
        let free = crate::files::free_bytes(folder)?;
        if free < sizes.disk_bytes() {
            let wanted = sizes.disk_bytes();
            return Err(format!("{free} bytes are free in {}, {wanted} are needed", folder.display()).into());
        }
        let files = Files::new(folder)?;
        let competitors = Competitors::find(ringlift, &files.path("state"))?;
        let sink = |scheme| SinkProcess::start(competitors.own("sink", []), scheme, files.path("").as_path());
        let (plain, tls) = (sink(Scheme::Http)?, sink(Scheme::Https)?);
        Ok(BenchEnv { sizes, files, competitors, plain, tls })
    }

    pub(crate) fn sink(&mut self, scheme: Scheme) -> &mut SinkProcess {
        match scheme {
            Scheme::Http => &mut self.plain,
            Scheme::Https => &mut self.tls,
        }
    }

    /// Returns a sink's URL and the certificate to trust.
    pub(crate) fn target(&mut self, scheme: Scheme) -> (String, Option<PathBuf>) {
        let sink = self.sink(scheme);
        (sink.url.clone(), sink.ca.clone())
    }

    /// Runs one client once, and checks that the sink received every byte.
    pub(crate) fn upload(
        &mut self,
        competitor: Competitor,
        load: &Load<'_>,
        scheme: Scheme,
        sampling: Sampling,
    ) -> Result<Run> {
        let command = self.competitors.command(competitor, load)?;
        let bytes = fs::metadata(load.file)?.len();
        match competitor {
            Competitor::ReadDirect => {
                let usage = child::run(command, sampling)?;
                Ok(Run { usage, bytes, cached_mib: None, sink_busy: None })
            }
            _ => self.send(command, Expected { files: 1, bytes }, scheme, sampling),
        }
    }

    /// Runs a command that sends files to a sink.
    pub(crate) fn send(
        &mut self,
        command: Command,
        expected: Expected,
        scheme: Scheme,
        sampling: Sampling,
    ) -> Result<Run> {
        let program = command.get_program().to_owned();
        self.sink(scheme).take_counters()?;
        let usage = child::run(command, sampling)?;
        let counters = self.sink(scheme).take_counters()?;
        let bytes = expected.bytes;
        if counters.body_bytes < bytes || counters.body_bytes > expected.most_body_bytes() {
            let got = counters.body_bytes;
            return Err(format!("{} sent {got} bytes for files of {bytes}", program.display()).into());
        }
        Ok(Run { usage, bytes, cached_mib: None, sink_busy: Some(counters.cpu_s / usage.wall_s) })
    }

    /// Runs ringlift and the competitor alternately, so that drift affects both.
    pub(crate) fn pairs(
        &mut self,
        name: &str,
        pairs: usize,
        warm_up: WarmUp,
        mut ours: impl FnMut(&mut BenchEnv) -> Result<Run>,
        mut theirs: impl FnMut(&mut BenchEnv) -> Result<Run>,
    ) -> Result<Vec<Pair>> {
        if warm_up == WarmUp::OnePair {
            ours(self)?;
            theirs(self)?;
        }
        let mut taken = Vec::with_capacity(pairs);
        for number in 1..=pairs {
            let pair = Pair { ours: ours(self)?, theirs: theirs(self)? };
            eprintln!("{name} {number}/{pairs}: {} | {}", brief(&pair.ours), brief(&pair.theirs));
            taken.push(pair);
        }
        Ok(taken)
    }
}

/// The pair that is run first and discarded, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WarmUp {
    OnePair,
    None,
}

fn brief(run: &Run) -> String {
    let anon = run.anon_mib();
    format!("{:.2} s, {:.3} CPU s/GiB, {anon:.0} MiB", run.usage.wall_s, run.cpu_s_per_gib())
}

pub(crate) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
