//! A server that accepts everything and stores nothing, at the lowest cost that the kernel allows.
//!
//! It replaces api.video when clients are measured, so it must never be the bottleneck:
//! request bodies are discarded in the kernel (`MSG_TRUNC`, tcp(7)) or, over TLS, counted record by
//! record without being decrypted. Only request heads are parsed.
//!
//! The sink is independent of files, clients and measurements.

mod http;
mod low_water;
mod service;
mod tls;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use service::Service;

/// The scheme of the sink's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// TLS with AES-256-GCM, of which the sink decrypts only request heads.
    Https,
}

impl Scheme {
    /// Returns the scheme as in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// Counters since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Processor time spent on polling for bytes that had not arrived.
    pub busy_poll: Duration,
}

/// A listening sink with one thread per connection. Dropping it closes all connections.
pub struct Sink {
    address: SocketAddr,
    scheme: Scheme,
    ca_pem: Option<String>,
    state: Arc<ServerState>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of loopback.
    pub fn start(scheme: Scheme) -> io::Result<Sink> {
        Sink::start_with_hook(scheme, || {})
    }

    /// Starts a sink whose threads call `on_thread_start` first, so that a test can recognise them.
    pub fn start_with_hook(scheme: Scheme, on_thread_start: fn()) -> io::Result<Sink> {
        let identity = match scheme {
            Scheme::Http => None,
            Scheme::Https => Some(tls::Identity::generate()?),
        };
        let ca_pem = identity.as_ref().map(|identity| identity.ca_pem.clone());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(ServerState::new(on_thread_start));
        let accepting = thread::Builder::new().name("sink".to_owned()).spawn({
            let state = Arc::clone(&state);
            move || {
                on_thread_start();
                state.accept(&listener, identity.map(Arc::new));
            }
        })?;
        Ok(Sink { address, scheme, ca_pem, state, accepting: Some(accepting) })
    }

    /// Returns the URL, without a path.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.address)
    }

    /// Returns the certificate to trust in PEM, or `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Returns the counters since the last call.
    pub fn tally(&self) -> Tally {
        Tally {
            requests: self.state.requests.swap(0, Ordering::Relaxed),
            body_bytes: self.state.body_bytes.swap(0, Ordering::Relaxed),
            busy_poll: self.state.busy_poll.take(),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Relaxed);
        // The accepting thread checks the flag at the next connection.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| woken)
            && accepting.join().is_err()
        {
            eprintln!("the sink's thread panicked");
        }
    }
}

/// State shared by the connections.
struct ServerState {
    on_thread_start: fn(),
    closing: AtomicBool,
    requests: AtomicU64,
    body_bytes: AtomicU64,
    busy_poll: Arc<http::BusyPoll>,
    service: Service,
}

impl ServerState {
    fn new(on_thread_start: fn()) -> ServerState {
        let (closing, requests, body_bytes) = Default::default();
        let busy_poll = Arc::default();
        ServerState { on_thread_start, closing, requests, body_bytes, busy_poll, service: Service::default() }
    }

    fn accept(self: Arc<ServerState>, listener: &TcpListener, identity: Option<Arc<tls::Identity>>) {
        let mut connections: Vec<(Weak<TcpStream>, JoinHandle<()>)> = Vec::new();
        for socket in listener.incoming() {
            if self.closing.load(Ordering::Relaxed) {
                break;
            }
            connections.retain(|(_, thread)| !thread.is_finished());
            match socket.and_then(|socket| self.spawn_connection(socket, identity.clone())) {
                Ok(connection) => connections.push(connection),
                Err(error) => eprintln!("sink: a connection was lost: {error}"),
            }
        }
        for (socket, thread) in connections {
            // The client may have closed the socket already; the thread ends in both cases.
            let _ = socket.upgrade().map(|socket| socket.shutdown(Shutdown::Both));
            let _ = thread.join();
        }
    }

    fn spawn_connection(
        self: &Arc<ServerState>,
        socket: TcpStream,
        identity: Option<Arc<tls::Identity>>,
    ) -> io::Result<(Weak<TcpStream>, JoinHandle<()>)> {
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        let handle = Arc::downgrade(&socket);
        let state = Arc::clone(self);
        let builder = thread::Builder::new().name("sink-connection".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            (state.on_thread_start)();
            match state.serve_connection(socket, identity.as_deref()) {
                Err(error) if !is_hangup(&error) => eprintln!("sink: {error}"),
                Ok(()) | Err(_) => {}
            }
        })?;
        Ok((handle, thread))
    }

    fn serve_connection(&self, socket: Arc<TcpStream>, identity: Option<&tls::Identity>) -> io::Result<()> {
        match identity {
            None => self.serve_requests(http::Plain::new(socket, Arc::clone(&self.busy_poll))),
            Some(identity) => self.serve_requests(tls::RecordFilter::accept(socket, identity)?),
        }
    }

    fn serve_requests(&self, channel: impl http::Channel) -> io::Result<()> {
        let mut connection = http::Connection::new(channel);
        while let Some(head) = connection.head()? {
            let len = self.busy_poll.during_body(|| connection.discard_body(&head))?;
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.body_bytes.fetch_add(len, Ordering::Relaxed);
            let answer = self.service.answer(&head);
            connection.answer(&answer)?;
            if head.closes {
                break;
            }
        }
        Ok(())
    }
}

/// Returns `true` for errors of a client that closed its connection, which are not reported.
fn is_hangup(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Small, because buffers are on the heap and there may be hundreds of connections.
const STACK_BYTES: usize = 256 << 10;
