//! A server that runs a test's script, plain or over TLS, and bodies for the client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::net::sockopt;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::{DialSettings, Dialer, Lane, Timeouts, Trust};

/// Nothing in these tests takes nearly as long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `test` as a worker runs its lanes: on one thread.
pub(super) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(6 * TIMEOUT, test).await.expect("a test ended in time") })
}

/// Waits that outlast any test.
pub(super) fn long_timeouts() -> Timeouts {
    Timeouts { stall: TIMEOUT, body: TIMEOUT, answer: TIMEOUT, min_speed: None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Plain,
    Tls,
}

pub(super) const WIRES: [Wire; 2] = [Wire::Plain, Wire::Tls];

/// A thread that runs a script against each connection it accepts by hand. Joined when dropped.
pub(super) struct Server {
    wire: Wire,
    pub(super) address: SocketAddr,
    ca: tempfile::NamedTempFile,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(wire: Wire, script: impl FnOnce(Acceptor) + Send + 'static) -> Server {
        Server::named("127.0.0.1", wire, script)
    }

    /// A server whose certificate is for `name`.
    pub(super) fn named(name: &str, wire: Wire, script: impl FnOnce(Acceptor) + Send + 'static) -> Server {
        Server::certified(wire, certified(name), script)
    }

    /// A server with this configuration, and the certificates to trust it by.
    pub(super) fn certified(
        wire: Wire,
        (config, ca_pem): (Arc<ServerConfig>, String),
        script: impl FnOnce(Acceptor) + Send + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sockopt::set_socket_timeout(&listener, sockopt::Timeout::Recv, Some(TIMEOUT)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(ca_pem.as_bytes()).unwrap();
        let acceptor = Acceptor { listener, config: (wire == Wire::Tls).then_some(config) };
        let thread = Some(std::thread::spawn(move || script(acceptor)));
        Server { wire, address, ca, thread }
    }

    pub(super) fn endpoint(&self) -> String {
        let scheme = if self.wire == Wire::Tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(super) fn dialer(&self, settings: DialSettings) -> Dialer {
        Dialer::new(&self.endpoint(), &self.trust(), settings).unwrap()
    }

    pub(super) fn trust(&self) -> Trust {
        Trust { ca_certs: vec![self.ca.path().to_owned()] }
    }

    pub(super) async fn lane(&self) -> Lane<Frames> {
        self.dialer(DialSettings::default()).dial().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the server's script passed");
        }
    }
}

pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    config: Option<Arc<ServerConfig>>,
}

impl Acceptor {
    pub(super) fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        tcp.set_write_timeout(Some(TIMEOUT)).unwrap();
        let raw = tcp.try_clone().unwrap();
        let io: Box<dyn ReadWrite> = match &self.config {
            None => Box::new(tcp),
            Some(config) => {
                let session = ServerConnection::new(config.clone()).unwrap();
                Box::new(StreamOwned::new(session, tcp))
            }
        };
        Peer { io: BufReader::new(io), tcp: raw }
    }
}

pub(super) trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// The server's end of a connection.
pub(super) struct Peer {
    io: BufReader<Box<dyn ReadWrite>>,
    tcp: TcpStream,
}

/// What a server has read of a request.
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Peer {
    /// The request's head, with its empty line.
    pub(super) fn read_head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.io.read_line(&mut head).unwrap() > 0, "the client left in its head: {head:?}");
        }
        head
    }

    /// The next request, if the client sends another.
    pub(super) fn next_request(&mut self) -> Option<Received> {
        let is_over = self.io.fill_buf().map_or(true, <[u8]>::is_empty);
        (!is_over).then(|| self.read_request())
    }

    pub(super) fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.io.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(super) fn read_request(&mut self) -> Received {
        let head = self.read_head();
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = self.read_exactly(len.map_or(0, |len| len.parse().unwrap()));
        Received { head, body }
    }

    pub(super) fn answer(&mut self, answer: &str) {
        self.io.get_mut().write_all(answer.as_bytes()).unwrap();
        self.io.get_mut().flush().unwrap();
    }

    /// Answers a client that may leave before the end.
    pub(super) fn try_answer(&mut self, answer: &str) {
        let _ = self.io.get_mut().write_all(answer.as_bytes());
    }

    /// Reads until the client is gone, in whatever way.
    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 65536];
        while self.io.read(&mut bytes).is_ok_and(|len| len > 0) {}
    }

    /// Waits until the client is gone without reading its bytes.
    pub(super) fn wait_unread(&mut self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.tcp, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::try_from(TIMEOUT).unwrap())).unwrap();
    }

    pub(super) fn reset(self) {
        sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO)).unwrap();
    }

    /// Sends nothing more, to a client that may be gone.
    pub(super) fn shut_down(&mut self) {
        let _ = self.tcp.shutdown(std::net::Shutdown::Write);
    }
}

/// A body of frames as they are given; `None` waits for ever.
pub(super) struct Frames {
    frames: VecDeque<Option<Bytes>>,
    len: Option<u64>,
}

impl Frames {
    pub(super) fn new(frames: impl IntoIterator<Item = Bytes>) -> Frames {
        let frames: VecDeque<_> = frames.into_iter().map(Some).collect();
        let len = Some(frames.iter().flatten().map(|frame| frame.len() as u64).sum());
        Frames { frames, len }
    }

    pub(super) fn then_silence(mut self) -> Frames {
        self.frames.push_back(None);
        self.of_unknown_length()
    }

    pub(super) fn of_unknown_length(self) -> Frames {
        Frames { len: None, ..self }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.front() {
            Some(None) => Poll::Pending,
            _ => {
                let frame = self.frames.pop_front().flatten();
                let len = frame.as_ref().map_or(0, Bytes::len) as u64;
                self.len = self.len.map(|left| left - len);
                Poll::Ready(frame.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub(super) fn post(body: Frames) -> Request<Frames> {
    Request::post("/videos/vi1/source").body(body).unwrap()
}

pub(super) fn get() -> Request<Frames> {
    Request::get("/").body(Frames::new([])).unwrap()
}

/// Bytes that differ from those a few places further.
pub(super) fn pattern(len: usize) -> Bytes {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect::<Vec<_>>().into()
}

fn certified(name: &str) -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    (config(rustls::ALL_VERSIONS, None, &cert, &key), authority.pem())
}

/// A certificate that is its own authority, with CA:TRUE as `openssl req -x509` makes it.
pub(super) fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (Arc<ServerConfig>, String) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    (config(rustls::ALL_VERSIONS, None, &cert, &key), cert.pem())
}

/// A server that requires a client certificate.
pub(super) fn wanting_certificates(
    version: &'static SupportedProtocolVersion,
) -> (Arc<ServerConfig>, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    (config(&[version], Some(roots), &cert, &key), authority.pem())
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<RootCertStore>,
    cert: &Certificate,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = match clients {
        None => builder.unwrap().with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.unwrap().with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = key.serialize_der().try_into().unwrap();
    let mut config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
