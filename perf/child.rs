//! Runs one client as a child process, and measures the cost of that process.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::Result;

/// Time and memory of a process and of the children that it waited for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) wall_s: f64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    /// Everything resident, mapped files included (`ru_maxrss`, getrusage(2)).
    pub(crate) max_rss_bytes: u64,
    /// The highest `RssAnon` (proc_pid_status(5)) among samples.
    pub(crate) peak_anon_bytes: u64,
}

impl Usage {
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// The interval of memory samples. Sampling itself costs a little processor time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sampling {
    Seldom,
    Often,
}

impl Sampling {
    fn interval(self) -> Duration {
        match self {
            Sampling::Seldom => Duration::from_millis(50),
            Sampling::Often => Duration::from_millis(2),
        }
    }
}

/// Runs a client to its end.
///
/// Fails if the client fails, with the last lines of its output, or if it takes longer than ten minutes.
pub(crate) fn run(command: Command, sampling: Sampling) -> Result<Usage> {
    run_into(command, sampling, Stdio::null())
}

/// Runs a client as [`run`] does, with another standard output.
pub(crate) fn run_into(mut command: Command, sampling: Sampling, output: Stdio) -> Result<Usage> {
    let mut complaints = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(output).stderr(complaints.try_clone()?);
    let started = Instant::now();
    let child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let pid = Pid::from_child(&child);
    let peak_anon = AtomicU64::new(0);
    let (done, watched) = channel::<()>();
    let (status, mut usage) = thread::scope(|scope| {
        let peak_anon = &peak_anon;
        scope.spawn(move || watch(pid, sampling, peak_anon, &watched));
        let end = wait(&child);
        drop(done);
        end
    })?;
    usage.wall_s = started.elapsed().as_secs_f64();
    usage.peak_anon_bytes = peak_anon.into_inner();
    match status.success() {
        true => Ok(usage),
        false => {
            Err(format!("{:?} ended with {status}: {}", command.get_program(), last_words(&mut complaints))
                .into())
        }
    }
}

/// Samples the memory until the other end of `done` is dropped. Kills the child after the deadline.
fn watch(pid: Pid, sampling: Sampling, peak: &AtomicU64, done: &Receiver<()>) {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let deadline = Instant::now() + LONGEST;
    while done.recv_timeout(sampling.interval()) == Err(RecvTimeoutError::Timeout) {
        // A process that has ended and was not waited for reports no memory.
        if let Some(bytes) = fs::read_to_string(&status).ok().and_then(|text| kib_line(&text, "RssAnon:")) {
            peak.fetch_max(bytes, Ordering::Relaxed);
        }
        if Instant::now() > deadline {
            // The process may have ended at the same time.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn kib_line(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Waits for the child with `wait4`, because std does not return the resource usage.
fn wait(child: &Child) -> Result<(ExitStatus, Usage)> {
    let mut status = 0;
    // SAFETY: a `rusage` is integers only, for which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pid is a child that nobody else waits for, and both pointers are to live locals.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let usage = Usage {
        user_s: seconds(usage.ru_utime),
        system_s: seconds(usage.ru_stime),
        max_rss_bytes: usage.ru_maxrss.cast_unsigned() << 10,
        ..Usage::default()
    };
    Ok((ExitStatus::from_raw(status), usage))
}

fn last_words(complaints: &mut File) -> String {
    use std::io::{Seek, SeekFrom};
    let mut text = String::new();
    if complaints.seek(SeekFrom::Start(0)).and_then(|_| complaints.read_to_string(&mut text)).is_err() {
        return "what it said is not text".to_owned();
    }
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

const LONGEST: Duration = Duration::from_secs(600);
