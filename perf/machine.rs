//! Facts about the machine that are needed to interpret the figures.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use rustix::net::sockopt::tcp_congestion;
use serde::Serialize;

use crate::files::file_system;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// `true` if the processor has AES instructions.
    pub(crate) aes: bool,
    pub(crate) virtual_machine: bool,
    pub(crate) governor: String,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) tcp_wmem: String,
    pub(crate) tcp_rmem: String,
    /// The algorithm of a connection on loopback. BBR slows such connections down, others do not.
    pub(crate) congestion_control: String,
    pub(crate) compiler: String,
    pub(crate) commit: String,
    /// The load average of the last minute, before the start.
    pub(crate) load: f64,
}

impl Machine {
    /// Collects the facts. Facts that cannot be read are `unknown`.
    pub(crate) fn inspect(folder: &Path) -> Machine {
        let processor = read("/proc/cpuinfo");
        let flags = value_of(&processor, "flags").unwrap_or_default();
        let has = |flag| flags.split(' ').any(|word| word == flag);
        Machine {
            processor: value_of(&processor, "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            aes: has("aes"),
            virtual_machine: has("hypervisor"),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_gib: memory_gib().unwrap_or(f64::NAN),
            kernel: line("/proc/sys/kernel/osrelease"),
            file_system: file_system(folder).unwrap_or_else(|_| unknown()),
            tcp_wmem: line("/proc/sys/net/ipv4/tcp_wmem"),
            tcp_rmem: line("/proc/sys/net/ipv4/tcp_rmem"),
            congestion_control: congestion_control().unwrap_or_else(|_| unknown()),
            compiler: output_of(Command::new("rustc").arg("--version")),
            commit: commit(),
            load: line("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }

    /// Returns `true` if other processes were running.
    pub(crate) fn is_busy(&self) -> bool {
        self.load > 0.5
    }
}

fn commit() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let git = |arguments: &[&str]| output_of(Command::new("git").args(["-C", root]).args(arguments));
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let state = if changed.is_empty() { "" } else { " with changes" };
    format!("{}{state}", git(&["rev-parse", "--short", "HEAD"]))
}

fn congestion_control() -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    Ok(tcp_congestion(&stream)?)
}

fn memory_gib() -> Option<f64> {
    let total = value_of(&read("/proc/meminfo"), "MemTotal")?;
    let kib: f64 = total.strip_suffix(" kB")?.parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

fn value_of(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn line(path: &str) -> String {
    match read(path).trim() {
        "" => unknown(),
        text => text.replace('\t', " "),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn unknown() -> String {
    "unknown".to_owned()
}
