//! The local api.video-compatible server, for tests, benchmarks, demonstrations and `ringlift serve`.
//!
//! The server implements the published protocol down to the slugs of its errors, keeps uploads and tokens
//! across restarts, and injects the faults of a [`FaultPlan`]. `routes` dispatches requests to handlers,
//! `rules` validates uploads, `file_store` holds the chunks on disk, and `database` holds everything else.
//!
//! This module does not depend on the client.

mod app_state;
mod attributes;
mod auth;
mod clock;
mod connection;
mod database;
mod fault_injection;
pub mod fault_plan;
mod file_store;
mod form;
mod ids;
mod multipart;
mod pagination;
mod problem;
mod query;
mod rate_limiter;
mod refusal;
mod request_body;
mod response;
mod routes;
mod rules;
mod serve_error;
mod settings;
mod stats;
mod status;
mod tls;
mod tokens;
mod upload_registry;
mod uploads;
mod videos;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use self::app_state::AppState;
pub use self::fault_plan::{
    ConnectionEnd, Fault, FaultAction, FaultPlan, FaultPlanError, RefusalTiming, RouteClass,
};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use self::multipart::fuzzing;
pub use self::rate_limiter::{Limits, RequestBudget};
pub use self::serve_error::ServeError;
pub use self::settings::{ServerSettings, TlsMode, WrongKey};
pub use self::stats::{RequestLogEntry, ServerStats};
use self::tls::Authority;

/// A running server. Dropping it stops it and waits for its threads, as [`Server::stop`] does.
pub struct Server {
    url: String,
    addr: SocketAddr,
    authority: Option<Authority>,
    state: Arc<AppState>,
    /// Dropped to stop.
    running: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server. The server accepts connections when this function returns.
    ///
    /// # Errors
    /// Fails if the settings contradict each other, if the data folder cannot be used or is in use, or if the
    /// address is taken.
    pub fn start(settings: ServerSettings) -> Result<Server, ServeError> {
        check(&settings)?;
        // Without a thread no connection would be accepted.
        let (listen, tls_mode, threads) = (settings.listen, settings.tls, settings.threads.max(1));
        let state = Arc::new(AppState::open(settings)?);
        let in_listen = |source| ServeError::Listen { addr: listen, source };
        let listener = listen_on(listen).map_err(in_listen)?;
        let addr = listener.local_addr().map_err(in_listen)?;
        let (authority, acceptor) = match tls_mode {
            TlsMode::Off => (None, None),
            TlsMode::OwnAuthority => {
                let (authority, acceptor) = tls::acceptor(&state.settings.data, addr.ip())?;
                (Some(authority), Some(acceptor))
            }
        };
        let runtime = runtime(threads).map_err(ServeError::Threads)?;
        let listener = {
            // `from_std` registers the socket with the runtime that is entered, and panics without one.
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(in_listen)?
        };
        let (running, stop) = oneshot::channel();
        let serving = connection::accept(listener, acceptor, state.clone(), stop);
        let run = move || runtime.block_on(serving);
        let thread = thread::Builder::new()
            .name("ringlift-serve".to_owned())
            .spawn(run)
            .map_err(ServeError::Threads)?;
        let scheme = if authority.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(addr));
        Ok(Server { url, addr, authority, state, running: Some(running), thread: Some(thread) })
    }

    /// Returns the URL for clients, like `http://127.0.0.1:8080`, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the API key: the configured one, or the one that the server generated.
    pub fn api_key(&self) -> &str {
        &self.state.api_key
    }

    /// Returns the CA certificate that clients must trust, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.pem)
    }

    /// Returns the path of the CA certificate that clients must trust; `None` without TLS.
    pub fn ca_path(&self) -> Option<&Path> {
        self.authority.as_ref().map(|authority| &*authority.path)
    }

    /// Returns the counters since the server started.
    pub fn stats(&self) -> ServerStats {
        self.state.stats.snapshot()
    }

    /// Returns the latest requests, at most 16384, oldest first.
    pub fn requests(&self) -> Vec<RequestLogEntry> {
        self.state.stats.log()
    }

    /// Returns the SHA-256 of the file of a video, in lower-case hex, as the header `x-content-sha256` of
    /// `GET /videos/{videoId}/source` has it. `None` if there is no such video, if its file is not complete, or if the file
    /// cannot be read.
    ///
    /// Blocks while the file is read; the digest is kept for later calls.
    pub fn source_sha256(&self, video_id: &str) -> Option<String> {
        uploads::sha256(&self.state, video_id).ok().flatten()
    }

    /// Closes every connection, completes the writes in progress, and waits for the threads.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        // First: the runtime waits for its blocking threads, which end early only then.
        self.state.stopping.store(true, Ordering::Relaxed);
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the server's thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Omits the API key.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).finish_non_exhaustive()
    }
}

fn check(settings: &ServerSettings) -> Result<(), ServeError> {
    match &settings.api_key {
        None if !settings.listen.ip().is_loopback() => Err(ServeError::KeyNeeded { addr: settings.listen }),
        Some(key) if key.is_empty() => Err(ServeError::EmptyKey),
        _ if !(200..300).contains(&settings.intermediate_status) => {
            Err(ServeError::IntermediateStatus { status: settings.intermediate_status })
        }
        _ => Ok(()),
    }
}

/// Binds the listening socket. The standard library sets SO_REUSEADDR, so a restarted server can bind its
/// port while old connections are in TIME_WAIT.
fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    // Required by `TcpListener::from_std`.
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

/// Replaces an unspecified address by loopback, because clients cannot connect to an unspecified address.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
        addr => addr,
    }
}

/// The number of threads that write, read and hash files; further work is queued.
const BLOCKING_THREADS: usize = 16;

#[cfg(test)]
mod tests;
