//! Compares ringlift with other clients and with the limits of the machine, in pairs, in one run.
//!
//! `cargo run --release --package ringlift-perf` makes the table; `perf/README.md` explains it.

mod bench_env;
mod budget;
mod child;
mod competitors;
mod files;
mod fleet;
mod helper_process;
mod ingest;
mod machine;
mod plot;
mod proxy;
mod report;
mod reqwest_client;
mod scenarios;
mod shaped_link;
mod table;
mod tune;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringlift_baseline::{Scheme, limits};

use bench_env::{BenchEnv, Sizes};
use machine::Machine;
use report::{Found, NotRun, Report};
use scenarios::{SCENARIOS, Scenario};
use table::Verdict;
use tune::{AutoOptions, TuneOptions};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Compare ringlift with other clients and with the limits of the machine
#[derive(Debug, Parser)]
#[command(name = "perf", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Use small sizes and few pairs, to check that everything works
    #[arg(long)]
    quick: bool,
    /// Run only scenarios whose names start with this; may be repeated
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// Number of pairs; slow scenarios take fewer
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Folder for the files to upload; determines the disk
    #[arg(long, global = true, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/perf"))]
    dir: PathBuf,
    /// Measure this binary of ringlift instead of building one
    #[arg(long, value_name = "FILE")]
    ringlift: Option<PathBuf>,
    /// Folder for the results [default: perf/results for a complete run, --dir otherwise]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// The helper processes of a run.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Parts")]
enum Part {
    /// Run a server that stores nothing, until standard input ends
    Sink { scheme: String, ca: PathBuf },
    /// Run a slow proxy to a sink, until standard input ends
    Proxy { target: SocketAddr, round_trip_ms: u64, bytes_per_second: f64 },
    /// Send a file with `sendfile` only
    Sendfile {
        file: PathBuf,
        url: String,
        /// Send requests of up to this many bytes in place of one
        #[arg(long, value_name = "BYTES", default_value_t = u64::MAX, hide_default_value = true)]
        request_bytes: u64,
    },
    /// Send a file as TLS records, sealed by a bare loop, to a sink without TLS
    Seal { file: PathBuf, url: String },
    /// Read a file with `O_DIRECT` only
    ReadDirect { file: PathBuf },
    /// Compare the automatic chunk size with fixed sizes under the service's request budgets
    Budget {
        /// Also run one case against a local server
        #[arg(long)]
        real: bool,
    },
    /// Compare the search for the number of lanes with every fixed number, on shaped links
    Tune {
        /// Run only the shapes whose names start with this
        #[arg(long, value_name = "SHAPE")]
        only: Option<String>,
        /// Number of searches on each shape
        #[arg(long, value_name = "N", default_value_t = 1)]
        runs: usize,
        /// Measure the fixed numbers again instead of using those of an earlier comparison
        #[arg(long)]
        afresh: bool,
        /// Print each measurement of a search with the rate of the same number in the comparison
        #[arg(long)]
        rungs: bool,
        /// Folder for what the server receives; one in memory keeps a busy disk out of the comparison
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Compare the number of lanes that is chosen during an upload with the best fixed number, on shaped links
    Auto {
        /// Run only the shapes whose names start with this
        #[arg(long, value_name = "SHAPE")]
        only: Option<String>,
        /// Number of pairs on each shape
        #[arg(long, value_name = "N", default_value_t = 3)]
        runs: usize,
        /// Compare with this number, which is 1, 2, 4, 8, 16 or 32, instead of looking for the best one
        #[arg(long, value_name = "LANES")]
        against: Option<usize>,
        /// Seconds of an upload with the fixed number; a file has at most 2 GiB
        #[arg(long, value_name = "N", default_value_t = 120)]
        seconds: u64,
        /// Print the times of all changes of the number
        #[arg(long)]
        course: bool,
    },
    /// Run a local server, until standard input ends
    Serve { folder: PathBuf },
    /// Run a proxy with a shaped link, until standard input ends
    ShapedProxy { target: SocketAddr, shape: String },
    /// Measure bulk ingestion: manifests, and many small files
    Ingest {
        /// Measure this binary of ringlift instead of building one
        #[arg(long, value_name = "FILE")]
        ringlift: Option<PathBuf>,
        /// Use small numbers, to check that everything works
        #[arg(long)]
        quick: bool,
    },
    /// Measure a fleet with a queue in NATS
    Fleet {
        /// Measure this binary of ringlift, built with the feature `fleet`
        #[arg(long, value_name = "FILE")]
        ringlift: PathBuf,
        /// Run only this measurement
        #[arg(long, value_name = "NAME")]
        only: Option<fleet::FleetMeasurement>,
        /// Use small numbers, to check that everything works
        #[arg(long)]
        quick: bool,
    },
    /// Upload a file with reqwest
    Reqwest { file: PathBuf, url: String, chunk_bytes: u64 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.part {
        Some(Part::Budget { real }) => budget::compare(&arguments.dir, *real),
        Some(Part::Tune { only, runs, afresh, rungs, store }) => {
            let options =
                TuneOptions { runs: *runs, is_afresh: *afresh, prints_rungs: *rungs, store: store.clone() };
            tune::compare(&arguments.dir, only.as_deref(), &options)
        }
        Some(Part::Auto { only, runs, against, seconds, course }) => {
            let options =
                AutoOptions { pairs: *runs, against: *against, seconds: *seconds, prints_course: *course };
            tune::compare_automatic(&arguments.dir, only.as_deref(), &options)
        }
        Some(Part::Ingest { ringlift, quick }) => ingest::measure(&arguments.dir, ringlift.clone(), *quick),
        Some(Part::Fleet { ringlift, only, quick }) => {
            fleet::measure(&arguments.dir, ringlift, *only, *quick)
        }
        Some(part) => run_part(part).map(|()| ExitCode::SUCCESS),
        None if arguments.list => list(),
        None => compare(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("perf: {error}");
        ExitCode::FAILURE
    })
}

fn run_part(part: &Part) -> Result<()> {
    match part {
        Part::Sink { scheme, ca } => {
            let scheme = if scheme == Scheme::Https.name() { Scheme::Https } else { Scheme::Http };
            helper_process::run_sink(scheme, ca)
        }
        Part::Proxy { target, round_trip_ms, bytes_per_second } => {
            helper_process::run_proxy(*target, *round_trip_ms, *bytes_per_second)
        }
        Part::Sendfile { file, url, request_bytes } => {
            Ok(limits::send(file, helper_process::address_of(url)?, *request_bytes)?)
        }
        Part::Seal { file, url } => Ok(limits::send_sealed(file, helper_process::address_of(url)?)?),
        Part::ReadDirect { file } => {
            let read = limits::read_direct(file, READ_DEPTH)?;
            let len = std::fs::metadata(file)?.len();
            if read == len { Ok(()) } else { Err(format!("read {read} bytes of {len}").into()) }
        }
        Part::Serve { folder } => helper_process::run_server(folder),
        Part::ShapedProxy { target, shape } => helper_process::run_shaped_proxy(*target, shape),
        // `main` has run these parts, which have their own exit codes.
        Part::Auto { .. }
        | Part::Budget { .. }
        | Part::Fleet { .. }
        | Part::Ingest { .. }
        | Part::Tune { .. } => Ok(()),
        Part::Reqwest { file, url, chunk_bytes } => reqwest_client::upload(file, url, *chunk_bytes),
    }
}

fn list() -> Result<ExitCode> {
    for scenario in SCENARIOS {
        let rows: Vec<&str> = scenario.rows.iter().map(|row| row.id).collect();
        println!("{:18} {}", scenario.name, rows.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns failure if a bar was missed or a row could not be run.
fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|scenario| arguments.wants(scenario)).collect();
    if chosen.is_empty() {
        return Err("no scenario has such a name: --list names them".into());
    }
    let report = measure(arguments, &chosen)?;
    println!("{report}");
    for path in report.write(&arguments.results_folder(), &arguments.results_name(&report.date))? {
        eprintln!("wrote {}", path.display());
    }
    let fine = report.not_run.is_empty() && report.rows.iter().all(|row| row.verdict != Verdict::Missed);
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(arguments: &Arguments, chosen: &[&Scenario]) -> Result<Report> {
    if cfg!(debug_assertions) && !arguments.quick {
        return Err("a measurement needs --release before the --".into());
    }
    let sizes = arguments.sizes();
    std::fs::create_dir_all(&arguments.dir)?;
    let machine = Machine::inspect(&arguments.dir);
    if machine.is_busy() {
        eprintln!("the machine is busy (load {}): expect noise", machine.load);
    }
    let mut env = BenchEnv::open(&arguments.dir, arguments.ringlift.clone(), sizes)?;
    let (mut rows, mut not_run) = (Vec::new(), Vec::new());
    for scenario in chosen {
        match scenario.measure(&mut env) {
            Ok(mut measured) => rows.append(&mut measured),
            Err(error) => {
                eprintln!("{}: not run: {error}", scenario.name);
                let rows = scenario.rows.iter().map(|row| row.id).collect();
                not_run.push(NotRun { rows, reason: error.to_string() });
            }
        }
    }
    let command = arguments.command();
    let date = jiff::Zoned::now().date().to_string();
    Ok(Report { date, command, machine, sizes, competitors: found(&env), rows, not_run })
}

fn found(env: &BenchEnv) -> Vec<Found> {
    let found = |(competitor, found): &(_, std::result::Result<String, String>)| {
        let (version, missing) = (found.clone().ok(), found.clone().err());
        Found { competitor: *competitor, version, missing }
    };
    env.competitors.found().iter().map(found).collect()
}

impl Arguments {
    fn wants(&self, scenario: &Scenario) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| scenario.name.starts_with(name.as_str()))
    }

    fn sizes(&self) -> Sizes {
        let sizes = if self.quick { Sizes::QUICK } else { Sizes::FULL };
        Sizes { pairs: self.pairs.unwrap_or(sizes.pairs).max(1), ..sizes }
    }

    fn is_whole(&self) -> bool {
        self.only.is_empty() && !self.quick
    }

    /// Returns the folder for the results. Only complete runs are kept in the repository.
    fn results_folder(&self) -> PathBuf {
        let kept = || if self.is_whole() { Path::new(RESULTS).to_owned() } else { self.dir.clone() };
        self.results.clone().unwrap_or_else(kept)
    }

    fn results_name(&self, date: &str) -> String {
        if self.is_whole() { date.to_owned() } else { format!("{date}-partial") }
    }

    fn command(&self) -> String {
        let typed = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
        let command = format!("cargo run --release --package ringlift-perf -- {typed}");
        command.trim_end_matches(" -- ").to_owned()
    }
}

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");
/// With blocks of 1 MiB, two reads in flight keep most disks busy; more than four gained nothing.
const READ_DEPTH: u64 = 4;
