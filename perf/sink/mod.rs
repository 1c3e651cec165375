//! A service that takes everything and keeps nothing, as cheaply as the kernel allows.
//!
//! It stands in for api.video where clients are measured, so it must never be what limits them:
//! request bodies are discarded in the kernel (`MSG_TRUNC`, tcp(7)) or, over TLS, counted record by
//! record without being decrypted. Only request heads are ever looked at.
//!
//! Does not know: files, clients, measurements.

mod http;
mod low_water;
mod service;
mod tls;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use service::Service;

/// How the sink is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What arrived since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    /// Processor time spent on looking out for bytes that had not come.
    pub(crate) busy_poll: Duration,
}

/// A listening sink, with one thread per connection. It closes everything when it is dropped.
pub(crate) struct Sink {
    address: SocketAddr,
    scheme: Scheme,
    ca_pem: Option<String>,
    state: Arc<ServerState>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of loopback.
    pub(crate) fn start(scheme: Scheme) -> io::Result<Sink> {
        Sink::start_with_hook(scheme, || {})
    }

    /// The same, where every thread of the sink says `on_thread_start` first: so that it can be told from others.
    pub(crate) fn start_with_hook(scheme: Scheme, on_thread_start: fn()) -> io::Result<Sink> {
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

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.address)
    }

    /// The certificate to trust, in PEM, when it speaks TLS.
    pub(crate) fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// What arrived since the last call.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            requests: self.state.requests.swap(0, Ordering::Relaxed),
            body_bytes: self.state.body_bytes.swap(0, Ordering::Relaxed),
            busy_poll: self.state.busy_poll.take(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::Relaxed);
        // The accepting thread sees the flag when one more connection arrives.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| woken)
            && accepting.join().is_err()
        {
            eprintln!("the sink's thread panicked");
        }
    }
}

/// What the connections share.
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
            // The client may have closed it already; its thread ends either way.
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

/// A client that goes away is nothing to report.
fn is_hangup(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Buffers are on the heap, and there may be hundreds of connections.
const STACK_BYTES: usize = 256 << 10;
