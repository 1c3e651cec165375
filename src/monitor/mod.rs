//! The monitor of a run: a live page, its data as JSON and events, and metrics for Prometheus.
//!
//! [`Monitor`] serves HTTP on a thread of its own; [`MetricsFile`] writes the metrics to a file. Both show a
//! [`RunView`], which the run supplies by a [`RunSource`]. `access` decides who may see the page, `hub` publishes changes
//! to viewers, `routes` answers requests, and `metrics`, `document` and `limit` are pure.
//!
//! | path | content |
//! |---|---|
//! | `/` | the live page |
//! | `/metrics` | metrics in the format of Prometheus, or OpenMetrics if the client accepts that |
//! | `/api/snapshot` | the state of the run as JSON |
//! | `/api/events` | server-sent events: the state as `snapshot`, then its changed fields as `delta` |
//! | `/api/jobs` | a page of jobs as JSON, selected by `state`, `search`, `after` and `limit` |
//! | `/healthz` | `ok` |

mod access;
mod chunk_times;
mod connection;
mod document;
mod error;
mod hub;
mod limit;
mod metrics;
mod options;
mod page;
mod parameters;
mod process;
mod routes;
mod textfile;
mod view;

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::oneshot;

use self::access::AccessRules;
pub use self::chunk_times::ChunkTimes;
pub use self::error::{MetricsFileError, MonitorError};
use self::hub::Hub;
pub use self::options::MonitorOptions;
use self::routes::Router;
pub use self::textfile::MetricsFile;
pub use self::view::{
    FleetView, FleetWorker, JobList, JobListFuture, JobListQuery, LONGEST_LIST, ListedJob, MOST_FAILURES,
    MOST_RUNNING, MOST_WORKERS, RecentFailure, RunSource, RunView, RunningJob,
};

/// A running monitor. Dropping it stops it and waits for its thread, as [`Monitor::stop`] does.
pub struct Monitor {
    addr: SocketAddr,
    token: Option<String>,
    /// Dropped to stop.
    running: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts a monitor of a run. The monitor accepts connections when this function returns.
    ///
    /// # Errors
    /// The address cannot be used, the token is malformed, or the system refused a thread or random bytes.
    pub fn start(options: MonitorOptions, source: Arc<dyn RunSource>) -> Result<Monitor, MonitorError> {
        let in_listen = |error| MonitorError::listen(options.listen, error);
        // The standard library sets SO_REUSEADDR: the next run can use the port while old connections are in TIME_WAIT.
        let listener = TcpListener::bind(options.listen).map_err(in_listen)?;
        // Required by `TcpListener::from_std`.
        listener.set_nonblocking(true).map_err(in_listen)?;
        // The assigned port: port 0 of the options selects a free one.
        let addr = listener.local_addr().map_err(in_listen)?;
        let rules = AccessRules::new(&options, addr.port())?;
        let token = rules.token().map(str::to_owned);
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(MonitorError::Thread)?;
        let listener = {
            // `from_std` needs the context of the runtime.
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(in_listen)?
        };
        let limits = options.limits;
        let router = Arc::new(Router::new(Arc::new(Hub::new(source, limits)), rules));
        let (running, stop) = oneshot::channel();
        let serve = move || runtime.block_on(connection::serve(listener, router, limits, stop));
        let thread =
            thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(serve).map_err(MonitorError::Thread)?;
        Ok(Monitor { addr, token, running: Some(running), thread: Some(thread) })
    }

    /// Returns the URL of the page without a token, like `http://127.0.0.1:9000/`. A monitor that listens on every
    /// address has the URL of loopback.
    pub fn url(&self) -> String {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}/", SocketAddr::new(ip, self.addr.port()))
    }

    /// Returns the URL that opens the page in a browser: with the token, if one is needed.
    pub fn login_url(&self) -> String {
        match &self.token {
            Some(token) => format!("{}?token={token}", self.url()),
            None => self.url(),
        }
    }

    /// Returns the address that the monitor listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the token of viewers; `None` if none is needed.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends the last state to every viewer, closes the connections, and waits for the thread: a second at most, and the
    /// time of [`RunSource::view`].
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take() {
            // The panic hook has already reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Omits the token.
impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("addr", &self.addr).finish_non_exhaustive()
    }
}

const THREAD_NAME: &str = "ringlift-monitor";

#[cfg(test)]
mod tests;
