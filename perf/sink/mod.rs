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
    pub(crate) looked_out: Duration,
}

/// A listening sink, with one thread per connection. It closes everything when it is dropped.
pub(crate) struct Sink {
    address: SocketAddr,
    scheme: Scheme,
    ca_pem: Option<String>,
    house: Arc<House>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of loopback.
    pub(crate) fn start(scheme: Scheme) -> io::Result<Sink> {
        Sink::start_apart(scheme, || {})
    }

    /// The same, where every thread of the sink says `hello` first: so that it can be told from others.
    pub(crate) fn start_apart(scheme: Scheme, hello: fn()) -> io::Result<Sink> {
        let identity = match scheme {
            Scheme::Http => None,
            Scheme::Https => Some(tls::Identity::draw()?),
        };
        let ca_pem = identity.as_ref().map(|identity| identity.ca_pem.clone());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let house = Arc::new(House::new(hello));
        let accepting = thread::Builder::new().name("sink".to_owned()).spawn({
            let house = Arc::clone(&house);
            move || {
                hello();
                house.accept(&listener, identity.map(Arc::new));
            }
        })?;
        Ok(Sink { address, scheme, ca_pem, house, accepting: Some(accepting) })
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
            requests: self.house.requests.swap(0, Ordering::Relaxed),
            body_bytes: self.house.body_bytes.swap(0, Ordering::Relaxed),
            looked_out: self.house.lookout.take(),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.house.closing.store(true, Ordering::Relaxed);
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
struct House {
    hello: fn(),
    closing: AtomicBool,
    requests: AtomicU64,
    body_bytes: AtomicU64,
    lookout: Arc<http::Lookout>,
    service: Service,
}

impl House {
    fn new(hello: fn()) -> House {
        let (closing, requests, body_bytes) = Default::default();
        let lookout = Arc::default();
        House { hello, closing, requests, body_bytes, lookout, service: Service::default() }
    }

    fn accept(self: Arc<House>, listener: &TcpListener, identity: Option<Arc<tls::Identity>>) {
        let mut guests: Vec<(Weak<TcpStream>, JoinHandle<()>)> = Vec::new();
        for socket in listener.incoming() {
            if self.closing.load(Ordering::Relaxed) {
                break;
            }
            guests.retain(|(_, thread)| !thread.is_finished());
            match socket.and_then(|socket| self.welcome(socket, identity.clone())) {
                Ok(guest) => guests.push(guest),
                Err(error) => eprintln!("sink: a connection was lost: {error}"),
            }
        }
        for (socket, thread) in guests {
            // The client may have closed it already; its thread ends either way.
            let _ = socket.upgrade().map(|socket| socket.shutdown(Shutdown::Both));
            let _ = thread.join();
        }
    }

    fn welcome(
        self: &Arc<House>,
        socket: TcpStream,
        identity: Option<Arc<tls::Identity>>,
    ) -> io::Result<(Weak<TcpStream>, JoinHandle<()>)> {
        socket.set_nodelay(true)?;
        let socket = Arc::new(socket);
        let handle = Arc::downgrade(&socket);
        let house = Arc::clone(self);
        let guest = thread::Builder::new().name("sink-guest".to_owned()).stack_size(STACK_BYTES);
        let thread = guest.spawn(move || {
            (house.hello)();
            match house.serve(socket, identity.as_deref()) {
                Err(error) if !is_hangup(&error) => eprintln!("sink: {error}"),
                Ok(()) | Err(_) => {}
            }
        })?;
        Ok((handle, thread))
    }

    fn serve(&self, socket: Arc<TcpStream>, identity: Option<&tls::Identity>) -> io::Result<()> {
        match identity {
            None => self.converse(http::Plain::new(socket, Arc::clone(&self.lookout))),
            Some(identity) => self.converse(tls::Sieve::accept(socket, identity)?),
        }
    }

    fn converse(&self, channel: impl http::Channel) -> io::Result<()> {
        let mut connection = http::Connection::new(channel);
        while let Some(head) = connection.head()? {
            let len = self.lookout.over_body(|| connection.discard_body(&head))?;
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
