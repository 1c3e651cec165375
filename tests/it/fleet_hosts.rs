//! Hosts and workers of a fleet, and a network between them and the queue that can stop.

// Each module of tests uses a part of it.
#[allow(dead_code)]
#[path = "../../src/fleet/nats_server.rs"]
mod nats_server;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Shutdown as HalfClose, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use ringlift::Client;
use ringlift::bulk::{Account, IngestEvent, IngestOptions, JobStore, OwnerId, Pool, Shutdown, work};
use ringlift::fleet::{NatsJobStore, NatsOptions};
use tempfile::TempDir;

use crate::support::TestServer;
use crate::support::command::{CommandOutput, ringlift, run};
pub(crate) use nats_server::{JETSTREAM, NatsServer};

pub const POOL: &str = "share:films";
const ACCOUNT: &str = "the-fleet";

/// A host with a state folder of its own.
pub struct FleetHost<'a> {
    pub server: &'a TestServer,
    queue: String,
    pub state: TempDir,
}

impl<'a> FleetHost<'a> {
    pub fn new(server: &'a TestServer, queue: impl Into<String>) -> FleetHost<'a> {
        FleetHost { server, queue: queue.into(), state: tempfile::tempdir().unwrap() }
    }

    /// Returns the command with the queue and the account of the fleet.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = ringlift();
        self.server.configure(&mut command);
        command.args(args).args(["--queue", &self.queue, "--account", ACCOUNT]);
        command.env("XDG_STATE_HOME", self.state.path());
        command
    }

    /// Returns a worker with leases of three seconds.
    pub fn worker(&self, args: &[&str]) -> Command {
        let mut command = self.command(["work", "--json", "--pool", POOL, "--lease", "3s"]);
        command.args(args);
        command
    }

    pub fn submit(&self, films: &Path) -> CommandOutput {
        let films = films.to_str().unwrap();
        let args = ["submit", films, "--json", "--pool", POOL, "--lease", "3s", "--mode", "parts"];
        run(self.command(args).args(["--chunk-size", "5M"]))
    }
}

/// Opens the queue of the fleet by this URL, with leases of three seconds.
pub fn open_queue(url: &str) -> Arc<NatsJobStore> {
    let mut options = NatsOptions::new(url.parse().unwrap(), Account::named(ACCOUNT).unwrap());
    options.lease = Duration::from_secs(3);
    Arc::new(NatsJobStore::connect(options).unwrap())
}

pub fn owner(pid: u32) -> OwnerId {
    OwnerId::new("elsewhere", pid, 1)
}

/// A worker in this process, whose events are read one by one.
pub struct FleetWorker {
    events: Receiver<IngestEvent>,
    pub shutdown: Shutdown,
}

impl FleetWorker {
    pub fn start(
        store: Arc<dyn JobStore>,
        client: &Client,
        pid: u32,
        change: impl FnOnce(&mut IngestOptions),
    ) -> FleetWorker {
        let mut options = IngestOptions::new(Pool::new(POOL).unwrap(), owner(pid), SystemTime::now);
        options.shared_account = Some(Account::named(ACCOUNT).unwrap());
        options.waits_for_attempts = true;
        change(&mut options);
        let shutdown = Shutdown::new();
        let (sender, events) = channel();
        let (client, signal) = (client.clone(), shutdown.signal());
        thread::spawn(move || {
            let mut run = Box::pin(work(store, &client, options, None, signal));
            // The test has ended if nothing receives.
            while let Some(event) = pollster::block_on(run.next()) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        FleetWorker { events, shutdown }
    }

    /// Receives events until `wanted` returns a value, and returns that.
    pub fn until<T>(&self, mut wanted: impl FnMut(&IngestEvent) -> Option<T>) -> T {
        let started = Instant::now();
        let mut seen = Vec::new();
        loop {
            let left = PATIENCE.saturating_sub(started.elapsed());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("the event does not come, after: {seen:#?}");
            };
            if let Some(found) = wanted(&event) {
                return found;
            }
            if !matches!(event, IngestEvent::Progress(..) | IngestEvent::Upload(..)) {
                seen.push(format!("{event:.300?}"));
            }
        }
    }
}

/// A network to a server that can stop in both directions, without the end of a connection.
pub struct StoppableNetwork {
    addr: SocketAddr,
    is_stopped: Arc<(Mutex<bool>, Condvar)>,
}

impl StoppableNetwork {
    pub fn to(server: SocketAddr) -> StoppableNetwork {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, is_stopped) =
            (listener.local_addr().unwrap(), Arc::new((Mutex::new(false), Condvar::new())));
        let gate = is_stopped.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, Ok(server)) = (client.unwrap(), TcpStream::connect(server)) else { continue };
                let (back, forth) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                for (from, to) in [(client, server), (forth, back)] {
                    let gate = gate.clone();
                    thread::spawn(move || copy(from, to, &gate));
                }
            }
        });
        StoppableNetwork { addr, is_stopped }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set_stopped(&self, is_stopped: bool) {
        *self.is_stopped.0.lock().unwrap() = is_stopped;
        self.is_stopped.1.notify_all();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: &(Mutex<bool>, Condvar)) {
    let mut block = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut block) {
        drop(gate.1.wait_while(gate.0.lock().unwrap(), |is_stopped| *is_stopped).unwrap());
        if to.write_all(&block[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(HalfClose::Write);
}

/// Longer than any event takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
