//! One upload in a child process, and the figures it reports.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use ringlift::limits::{DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES};
use ringlift::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli::demo_result::Figures;
use crate::cli::exit::{CommandError, Interrupt};
use crate::cli::signals::Interrupts;

/// Uploads a file in one mode. Returns `None` if the upload failed, which the child has reported on
/// standard error.
pub(super) fn upload(
    server: &Server,
    mode: &str,
    file: &Path,
    bytes: u64,
    interrupts: &mut Interrupts,
) -> Result<Option<Figures>, CommandError> {
    let mut child = command(server, mode, file, bytes)?.spawn().map_err(failed)?;
    let Some(stdout) = child.stdout.take() else {
        return Ok(None);
    };
    // On a thread: a full pipe would block the child, and the wait for it.
    let reader = thread::Builder::new()
        .name("ringlift-demo".to_owned())
        .spawn(move || figures(stdout))
        .map_err(failed)?;
    let interrupt = wait(&mut child, interrupts)?;
    let figures = reader.join().ok().flatten();
    match interrupt {
        Some(interrupt) => Err(CommandError::Interrupted(interrupt)),
        None => Ok(figures),
    }
}

/// Returns the command line of this program, without the environment variables that are set for this process.
fn command(server: &Server, mode: &str, file: &Path, bytes: u64) -> Result<Command, CommandError> {
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGLIFT_") {
            command.env_remove(name);
        }
    }
    command.env("APIVIDEO_API_KEY", server.api_key());
    command.args(["upload", "--json", "--quiet", "--progress=never", "--retry-max-time=1m", "--no-journal"]);
    // The user's config file may choose another service or limit the bandwidth.
    // After a signal the rest of an upload is of no use.
    command.args(["--grace=0s", "--config=none"]);
    command.args(["--mode", mode, "--endpoint-url", server.url()]);
    // Passed through the environment, because `--mode single` refuses the flag.
    command.env("RINGLIFT_CHUNK_SIZE", chunk_bytes(bytes).to_string());
    if let Some(path) = server.ca_path() {
        command.arg("--ca-cert").arg(path);
    }
    command.arg("--").arg(file).stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(command)
}

/// Waits for the child to exit, and forwards a signal to it.
fn wait(child: &mut Child, interrupts: &mut Interrupts) -> Result<Option<Interrupt>, CommandError> {
    let mut received = None;
    while child.try_wait().map_err(failed)?.is_none() {
        if let Some(interrupt) = interrupts.try_next() {
            received = Some(interrupt);
            // The child may have exited in the meantime.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        sleep(POLL_INTERVAL);
    }
    Ok(received)
}

/// Collects the figures from the JSON events.
fn figures(stdout: ChildStdout) -> Option<Figures> {
    let mut figures = Figures::default();
    let mut done = false;
    for line in BufReader::new(stdout).lines() {
        let event: Value = serde_json::from_str(&line.ok()?).ok()?;
        match event["event"].as_str()? {
            "planned" => figures.lanes = event["lanes"].as_u64()? as usize,
            "file_done" => {
                figures.video_id = event["video_id"].as_str()?.to_owned();
                figures.chunks = event["chunks"].as_u64()? as u32;
                figures.elapsed_ms = event["elapsed_ms"].as_u64()?;
                done = true;
            }
            "summary" => figures.usage = serde_json::from_value(event["usage"].clone()).ok()?,
            _ => {}
        }
    }
    // A lane without a chunk has sent nothing.
    figures.lanes = figures.lanes.min(figures.chunks as usize);
    done.then_some(figures)
}

/// Returns a chunk size that gives several connections a chunk even for a small file.
fn chunk_bytes(bytes: u64) -> u64 {
    (bytes / LEAST_CHUNKS).clamp(MIN_CHUNK_BYTES, DEFAULT_CHUNK_BYTES)
}

fn failed(error: std::io::Error) -> CommandError {
    CommandError::io("run the upload", error)
}

const LEAST_CHUNKS: u64 = 8;

/// Interval between checks of the child.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
