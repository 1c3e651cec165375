//! The local api.video-compatible server, for tests, benchmarks, demonstrations and `ringlift serve`.
//!
//! It follows the published protocol to its slugs, keeps every byte and every answer over restarts, and
//! goes wrong where a [`FaultPlan`] says so. `rules` holds what an upload may look like, `assembly`
//! the bytes on disk, `routes` the way from a request to its handler.
//!
//! Does not know: the client.

mod answer;
mod assembly;
mod attributes;
mod auth;
mod connection;
mod containers;
mod dates;
pub mod faults;
mod form;
mod ids;
mod intake;
mod list;
mod multipart;
mod problem;
mod query;
mod rate;
mod refusal;
mod routes;
mod rules;
mod sabotage;
mod settings;
mod site;
mod status;
mod store;
mod tally;
mod tls;
mod tokens;
mod uploads;
mod videos;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

pub use self::faults::{Action, Ending, Fault, FaultPlan, FaultPlanError, RefusalTiming, RouteClass};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::multipart::fuzzing;
pub use self::rate::{Budget, Limits};
pub use self::settings::{Settings, TlsMode, WrongKey};
use self::site::Site;
pub use self::tally::{Logged, Tally};
use self::tls::Authority;

/// A running server. Dropping it stops it and waits for its threads, as [`Server::stop`] does.
pub struct Server {
    url: String,
    addr: SocketAddr,
    authority: Option<Authority>,
    site: Arc<Site>,
    /// Dropped to stop.
    running: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server; it listens when this returns.
    ///
    /// # Errors
    /// When the settings contradict each other, the folder cannot be used or is in use, or the address
    /// is taken.
    pub fn start(settings: Settings) -> Result<Server, ServeError> {
        check(&settings)?;
        let (listen, tls_mode, threads) = (settings.listen, settings.tls, settings.threads.max(1));
        let site = Arc::new(Site::open(settings)?);
        let in_listen = |source| ServeError::Listen { addr: listen, source };
        let listener = listen_on(listen).map_err(in_listen)?;
        let addr = listener.local_addr().map_err(in_listen)?;
        let (authority, acceptor) = match tls_mode {
            TlsMode::Off => (None, None),
            TlsMode::OwnAuthority => {
                let (authority, acceptor) = tls::acceptor(&site.settings.data, addr.ip())?;
                (Some(authority), Some(acceptor))
            }
        };
        let runtime = runtime(threads).map_err(ServeError::Threads)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(in_listen)?
        };
        let (running, stop) = oneshot::channel();
        let serving = connection::accept(listener, acceptor, site.clone(), stop);
        let run = move || runtime.block_on(serving);
        let thread = thread::Builder::new()
            .name("ringlift-serve".to_owned())
            .spawn(run)
            .map_err(ServeError::Threads)?;
        let scheme = if authority.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(addr));
        Ok(Server { url, addr, authority, site, running: Some(running), thread: Some(thread) })
    }

    /// Where clients reach it, `http://127.0.0.1:8080`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The API key, given or made.
    pub fn api_key(&self) -> &str {
        &self.site.api_key
    }

    /// The certificate to trust, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.pem)
    }

    /// The file of the certificate to trust; `None` without TLS.
    pub fn ca_path(&self) -> Option<&Path> {
        self.authority.as_ref().map(|authority| &*authority.path)
    }

    /// Counters since the start.
    pub fn tally(&self) -> Tally {
        self.site.tallies.tally()
    }

    /// The latest requests, oldest first.
    pub fn requests(&self) -> Vec<Logged> {
        self.site.tallies.log()
    }

    /// Ends every connection, finishes what is being recorded, and waits for the threads.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.site.stopping.store(true, Ordering::Relaxed);
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Without the API key.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Anybody could reach it and nobody chose the key.
    #[error(
        "{addr} is reachable from other machines, so the API key must be given (APIVIDEO_API_KEY or \
         --api-key-file); or listen on 127.0.0.1"
    )]
    KeyNeeded {
        /// Where it was to listen.
        addr: SocketAddr,
    },
    /// The given key is empty.
    #[error("the API key is empty: give one, or none to have one made")]
    EmptyKey,
    /// Not a success status.
    #[error("{status} is no status for an accepted chunk: use one from 200 to 299")]
    IntermediateStatus {
        /// What was given.
        status: u16,
    },
    /// Another server works there.
    #[error("{} is in use by another server: stop it, or choose another --data folder", path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder, or a file in it, cannot be used.
    #[error("cannot use the data folder: {}: {source}", path.display())]
    Data {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database in the data folder cannot be used.
    #[error("cannot use the database in the data folder: {0}")]
    Database(String),
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Where it was to listen.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No certificate could be made, or the one in the data folder cannot be read.
    #[error("cannot make a certificate: {0} (removing ca.pem and ca-key.pem makes a new authority)")]
    Certificate(String),
    /// The system gives no threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(io::Error),
    /// The system gives no random bytes for a key.
    #[error("the system has no random bytes for an API key")]
    NoRandomness,
}

fn check(settings: &Settings) -> Result<(), ServeError> {
    match &settings.api_key {
        None if !settings.listen.ip().is_loopback() => Err(ServeError::KeyNeeded { addr: settings.listen }),
        Some(key) if key.is_empty() => Err(ServeError::EmptyKey),
        _ if !(200..300).contains(&settings.intermediate_status) => {
            Err(ServeError::IntermediateStatus { status: settings.intermediate_status })
        }
        _ => Ok(()),
    }
}

/// std sets SO_REUSEADDR: a server that starts again right away gets its port back.
fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("ringlift-serve")
        .enable_all()
        .build()
}

/// Where a client on this machine finds a server that listens everywhere.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        addr => addr,
    }
}

/// Threads for writing, reading and digesting files; more work waits for its turn.
const BLOCKING_THREADS: usize = 16;

#[cfg(test)]
mod tests;
