//! The helper processes: the sink and the proxy. Their cost does not count as the client's cost.

use std::io::{BufRead, BufReader, Write, stdin};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use ringlift::server::{Server, ServerSettings};
use ringlift_baseline::{Scheme, Sink};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::proxy::{self, Line};
use crate::shaped_link::{LinkShape, SharedLink};

/// Counters of a sink process since the last query.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SinkCounters {
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    pub(crate) cpu_s: f64,
}

/// A sink in its own process, which ends on drop.
pub(crate) struct SinkProcess {
    process: HelperProcess,
    pub(crate) url: String,
    pub(crate) ca: Option<PathBuf>,
}

impl SinkProcess {
    /// Starts the process. `folder` receives the certificate.
    pub(crate) fn start(mut command: Command, scheme: Scheme, folder: &Path) -> Result<SinkProcess> {
        let ca = folder.join("ca.pem");
        let mut process = HelperProcess::start(command.arg(scheme.name()).arg(&ca))?;
        let url = process.line()?;
        Ok(SinkProcess { process, url, ca: (scheme == Scheme::Https).then_some(ca) })
    }

    /// Returns the counters since the last call.
    pub(crate) fn take_counters(&mut self) -> Result<SinkCounters> {
        self.process.ask("counters")
    }

    /// Returns the sink's address, for the proxy.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        address_of(&self.url)
    }
}

/// A proxy in its own process, which ends on drop.
pub(crate) struct ProxyProcess {
    _process: HelperProcess,
    pub(crate) url: String,
}

impl ProxyProcess {
    pub(crate) fn start(mut command: Command, target: SocketAddr, line: Line) -> Result<ProxyProcess> {
        let round_trip_ms = line.round_trip.as_millis().to_string();
        let rate = line.bytes_per_second.to_string();
        let mut process = HelperProcess::start(command.args([target.to_string(), round_trip_ms, rate]))?;
        let url = process.line()?;
        Ok(ProxyProcess { _process: process, url })
    }
}

/// A local server in its own process, which ends on drop.
pub(crate) struct ServerProcess {
    _process: HelperProcess,
    pub(crate) url: String,
    pub(crate) api_key: String,
}

impl ServerProcess {
    /// Starts the process. The server stores its data in `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<ServerProcess> {
        let mut process = HelperProcess::start(command.arg("serve").arg(folder))?;
        let (url, api_key) = (process.line()?, process.line()?);
        Ok(ServerProcess { _process: process, url, api_key })
    }
}

/// A proxy with a shaped link in its own process, which ends on drop.
pub(crate) struct ShapedProxyProcess {
    _process: HelperProcess,
    pub(crate) url: String,
}

impl ShapedProxyProcess {
    pub(crate) fn start(
        mut command: Command,
        target: SocketAddr,
        shape: &LinkShape,
    ) -> Result<ShapedProxyProcess> {
        let shape = serde_json::to_string(shape)?;
        let mut process =
            HelperProcess::start(command.arg("shaped-proxy").arg(target.to_string()).arg(shape))?;
        let url = process.line()?;
        Ok(ShapedProxyProcess { _process: process, url })
    }
}

/// Runs the sink: prints its URL, answers each line of standard input with the counters, and ends with standard input.
pub(crate) fn run_sink(scheme: Scheme, ca: &Path) -> Result<()> {
    let sink = Sink::start(scheme)?;
    if let Some(pem) = sink.ca_pem() {
        fs::write(ca, pem)?;
    }
    println!("{}", sink.url());
    let mut cpu_before = cpu_s();
    for question in stdin().lines() {
        question?;
        let tally = sink.tally();
        let cpu_now = cpu_s();
        let work_s = (cpu_now - cpu_before - tally.busy_poll.as_secs_f64()).max(0.0);
        let counters = SinkCounters { requests: tally.requests, body_bytes: tally.body_bytes, cpu_s: work_s };
        cpu_before = cpu_now;
        println!("{}", serde_json::to_string(&counters)?);
    }
    Ok(())
}

/// Runs the proxy: prints its URL, and ends with standard input.
pub(crate) fn run_proxy(target: SocketAddr, round_trip_ms: u64, bytes_per_second: f64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    let line = Line { round_trip: Duration::from_millis(round_trip_ms), bytes_per_second };
    thread::spawn(move || proxy::carry(&listener, target, line, None));
    for line in stdin().lines() {
        line?;
    }
    Ok(())
}

/// Runs a local server: prints its URL and its API key, and ends with standard input.
pub(crate) fn run_server(folder: &Path) -> Result<()> {
    let server = Server::start(ServerSettings::new(folder))?;
    println!("{}\n{}", server.url(), server.api_key());
    for line in stdin().lines() {
        line?;
    }
    Ok(())
}

/// Runs a proxy with a shaped link: prints its URL, and ends with standard input.
pub(crate) fn run_shaped_proxy(target: SocketAddr, shape: &str) -> Result<()> {
    let shape: LinkShape = serde_json::from_str(shape)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    let line = shape.line();
    let shared = Arc::new(SharedLink::new(shape));
    // Before the first connection: TCP makes its segments for the largest window that it has seen, and one that does not
    // fit into a smaller window waits for a timer.
    set_socket_recv_buffer_size(&listener, shared.window_bytes())?;
    thread::spawn(move || proxy::carry(&listener, target, line, Some(&shared)));
    for line in stdin().lines() {
        line?;
    }
    Ok(())
}

/// Returns the command that runs this program again.
pub(crate) fn own_command() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

pub(crate) fn address_of(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").ok_or("not a URL")?;
    Ok(address.parse()?)
}

fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A child process that answers one line per query.
struct HelperProcess {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl HelperProcess {
    fn start(command: &mut Command) -> Result<HelperProcess> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("a child without output")?);
        Ok(HelperProcess { child, questions, answers })
    }

    fn ask<T: for<'a> Deserialize<'a>>(&mut self, question: &str) -> Result<T> {
        if let Some(questions) = &mut self.questions {
            writeln!(questions, "{question}")?;
        }
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err("a helper process ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for HelperProcess {
    fn drop(&mut self) {
        // The process ends when its standard input ends.
        self.questions = None;
        let _ = self.child.wait();
    }
}
