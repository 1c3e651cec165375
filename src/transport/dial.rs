//! From an endpoint's URL to an open lane.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body::Body;
use hyper_rustls::MaybeHttpsStream;
use rustix::net::sockopt;
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::error::{BoxError, FailedAttempt, TransportError};
use super::history::History;
use super::lane::Lane;
use super::peer::Peer;
use super::request_state::Meter;
use super::socket::Socket;
use super::throttle::Bandwidth;
use super::tls::{self, Trust};

/// Opens lanes to one endpoint. Cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Arc<Endpoint>,
    security: Security,
    settings: DialSettings,
    bandwidth: Bandwidth,
    history: Arc<History>,
    /// Which address the next dial tries first, so that lanes spread over the addresses of a name.
    turn: Arc<AtomicUsize>,
}

/// How lanes are opened, and with which socket options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialSettings {
    /// Longest name resolution.
    pub resolve_timeout: Duration,
    /// Longest attempt at one address. Further addresses are tried beside it after a quarter of a second.
    pub connect_timeout: Duration,
    /// Longest TLS handshake.
    pub tls_timeout: Duration,
    /// Longest time that sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`, `tcp(7)`).
    pub tcp_user_timeout: Duration,
    /// Idle time before the first keep-alive probe (`TCP_KEEPIDLE`, `tcp(7)`).
    pub tcp_keepalive: Duration,
    /// The socket's send buffer (`SO_SNDBUF`, `socket(7)`); the kernel adapts it when `None`.
    pub send_buffer_bytes: Option<usize>,
    /// Most bytes that rustls holds encrypted while the socket takes no more.
    pub tls_send_buffer_bytes: usize,
}

impl Default for DialSettings {
    /// Ten seconds for each step, 90 until unacknowledged bytes end a connection, a probe after 30 idle ones.
    fn default() -> DialSettings {
        DialSettings {
            resolve_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            tcp_user_timeout: Duration::from_secs(90),
            tcp_keepalive: Duration::from_secs(30),
            send_buffer_bytes: None,
            tls_send_buffer_bytes: TLS_SEND_BUFFER_BYTES,
        }
    }
}

impl Dialer {
    /// A dialer for `endpoint`, an `http` or `https` URL with an optional base path. Opens no connection.
    ///
    /// Reads the system's certificate authorities (https only) and the files of `trust`.
    ///
    /// # Errors
    ///
    /// `BadEndpoint`, `BadCaCert`, `NoTrust`.
    pub fn new(endpoint: &str, trust: &Trust, settings: DialSettings) -> Result<Dialer, TransportError> {
        let endpoint = Endpoint::parse(endpoint)?;
        let history = Arc::new(History::default());
        let security = if endpoint.is_tls() {
            Security::Tls(Arc::new(tls::client_config(trust, &history)?))
        } else {
            Security::Plain
        };
        let turn = Arc::new(AtomicUsize::new(0));
        let bandwidth = Bandwidth::unlimited();
        Ok(Dialer { endpoint: Arc::new(endpoint), security, settings, bandwidth, history, turn })
    }

    /// The same dialer, whose lanes draw on this budget.
    pub fn limited_to(self, bandwidth: Bandwidth) -> Dialer {
        Dialer { bandwidth, ..self }
    }

    /// Whether lanes are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.security, Security::Tls(_))
    }

    /// The endpoint, whose canonical form is the one to compare and to store.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Host and, unless it is the scheme's own, port: the value of the `Host` header.
    pub fn authority(&self) -> &str {
        self.endpoint.authority()
    }

    /// `path` under the endpoint's base path, for the request line.
    pub fn path(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.endpoint.base())
    }

    /// Opens a lane: resolves the name anew, connects to the first address that answers, shakes hands.
    ///
    /// Needs a tokio runtime with I/O and time; spawns nothing. Dropping the future abandons the attempt.
    ///
    /// # Errors
    ///
    /// `Resolve`, `Connect`, `ConnectTimeout`, `Untrusted`, `TlsRefused`, `Tls`, `TlsTimeout`.
    pub async fn dial<B>(&self) -> Result<Lane<B>, TransportError>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        let addresses = self.resolve().await?;
        let (tcp, address) = self.connect_any(addresses).await?;
        let meter = Arc::new(Meter::default());
        let mut stream = self.secure(Socket::new(tcp, meter.clone())).await?;
        tls::socket(&mut stream).draw_on(self.bandwidth.clone());
        let peer = Peer {
            address,
            authority: self.authority().to_owned(),
            endpoint: self.endpoint.clone(),
            history: self.history.clone(),
        };
        Lane::open(stream, meter, peer).await
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, TransportError> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let failed = |reason| TransportError::Resolve { host: host.to_owned(), reason };
        let mut addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => timeout(self.settings.resolve_timeout, lookup_host((host, port)))
                .await
                .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
                .map_err(failed)?
                .take(ADDRESSES_TRIED)
                .collect(),
        };
        if addresses.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
        addresses.rotate_left(first);
        Ok(addresses)
    }

    /// Tries the addresses in order, each beside those before it (RFC 8305, section 5).
    async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
    ) -> Result<(TcpStream, SocketAddr), TransportError> {
        let mut untried = addresses.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            attempts.extend(untried.next().map(|address| self.connect(address)));
            match timeout(ATTEMPT_STAGGER, attempts.next()).await {
                Ok(Some(Ok(connected))) => return Ok(connected),
                Ok(Some(Err(attempt))) => failed.push(attempt),
                Ok(None) => return Err(self.unreachable(failed)),
                Err(_) => {}
            }
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<(TcpStream, SocketAddr), FailedAttempt> {
        let connecting = async { self.socket(address)?.connect(address).await };
        match timeout(self.settings.connect_timeout, connecting).await {
            Ok(Ok(tcp)) => Ok((tcp, address)),
            Ok(Err(reason)) => Err(FailedAttempt { address, reason }),
            Err(_) => Err(FailedAttempt { address, reason: io::ErrorKind::TimedOut.into() }),
        }
    }

    fn socket(&self, address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let fd = socket.as_fd();
        let user_timeout_ms = self.settings.tcp_user_timeout.as_millis().try_into().unwrap_or(u32::MAX);
        sockopt::set_tcp_nodelay(fd, true)?;
        sockopt::set_tcp_user_timeout(fd, user_timeout_ms)?;
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, self.settings.tcp_keepalive.min(LONGEST_KEEPIDLE))?;
        sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
        if let Some(bytes) = self.settings.send_buffer_bytes {
            sockopt::set_socket_send_buffer_size(fd, bytes)?;
        }
        Ok(socket)
    }

    async fn secure(&self, socket: Socket) -> Result<MaybeHttpsStream<Socket>, TransportError> {
        let Security::Tls(config) = &self.security else {
            return Ok(MaybeHttpsStream::Http(socket));
        };
        let buffer_bytes = self.settings.tls_send_buffer_bytes;
        let handshake = tls::secure(socket, self.endpoint.uri(), config, &self.history, buffer_bytes);
        timeout(self.settings.tls_timeout, handshake).await.unwrap_or_else(|_| {
            let authority = self.authority().to_owned();
            Err(TransportError::TlsTimeout { authority, after: self.settings.tls_timeout })
        })
    }

    fn unreachable(&self, attempts: Vec<FailedAttempt>) -> TransportError {
        let authority = self.authority().to_owned();
        let late = |attempt: &FailedAttempt| attempt.reason.kind() == io::ErrorKind::TimedOut;
        match attempts.iter().all(late) {
            true => {
                TransportError::ConnectTimeout { authority, after: self.settings.connect_timeout, attempts }
            }
            false => TransportError::Connect { authority, attempts },
        }
    }
}

#[derive(Clone, Debug)]
enum Security {
    Plain,
    Tls(Arc<ClientConfig>),
}

/// RFC 8305, section 5, recommends this delay between the starts of two attempts.
const ATTEMPT_STAGGER: Duration = Duration::from_millis(250);

/// Most addresses of one name that a dial tries.
const ADDRESSES_TRIED: usize = 16;

/// Between keep-alive probes (`TCP_KEEPINTVL`, `tcp(7)`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The kernel refuses a longer time before the first probe (`MAX_TCP_KEEPIDLE`).
const LONGEST_KEEPIDLE: Duration = Duration::from_secs(32_767);

/// Sixteen full records, one `sendmsg` each time the socket has room.
const TLS_SEND_BUFFER_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::OwnedFd;

    use hyper::rt::Write as _;
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

    use super::super::metered::MeteredStream;
    use super::super::testing::{Frames, Server, WIRES, Wire, run};
    use super::super::{CaCertFlaw, EndpointFlaw, Trust};
    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    fn dialer(endpoint: &str) -> Result<Dialer, TransportError> {
        Dialer::new(endpoint, &Trust::default(), DialSettings::default())
    }

    fn short() -> DialSettings {
        DialSettings { connect_timeout: SHORT, tls_timeout: SHORT, ..DialSettings::default() }
    }

    async fn failed(dialer: &Dialer) -> TransportError {
        dialer.dial::<Frames>().await.expect_err("no lane")
    }

    /// An address that answers to nobody: its backlog is full, so that the kernel drops what comes.
    struct Dead {
        address: SocketAddr,
        _listener: OwnedFd,
        _backlog: Vec<std::net::TcpStream>,
    }

    impl Dead {
        fn new() -> Dead {
            let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            listen(&listener, 0).unwrap();
            let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
            let patience = Duration::from_millis(50);
            let backlog = (0..4).map_while(|_| std::net::TcpStream::connect_timeout(&address, patience).ok());
            Dead { address, _backlog: backlog.collect(), _listener: listener }
        }
    }

    #[test]
    fn an_endpoint_names_the_host_and_prefixes_the_paths() {
        let plain = dialer("http://127.0.0.1:8080/base/").unwrap();
        assert!(!plain.is_tls());
        assert_eq!(plain.authority(), "127.0.0.1:8080");
        assert_eq!(plain.path("/videos?a=b"), "/base/videos?a=b");
        assert_eq!(plain.path("videos"), "/base/videos");
        let bare = dialer("http://example.test").unwrap();
        assert_eq!((bare.authority(), bare.path("/videos").as_str()), ("example.test", "/videos"));
        assert_eq!((bare.endpoint.host(), bare.endpoint.port()), ("example.test", 80));
        let v6 = dialer("http://[::1]:81/").unwrap();
        assert_eq!((v6.endpoint.host(), v6.endpoint.port()), ("::1", 81));
    }

    #[test]
    fn an_endpoint_that_cannot_be_used_says_why() {
        for (endpoint, expected) in [
            ("", EndpointFlaw::NotAUrl),
            ("/videos", EndpointFlaw::NotAUrl),
            ("ws.api.video", EndpointFlaw::NotAUrl),
            ("ftp://host", EndpointFlaw::Scheme),
            ("http://:80", EndpointFlaw::NoHost),
            ("http://host/?q", EndpointFlaw::Query),
            ("http://host/?key=secret", EndpointFlaw::Query),
            ("https://me:secret@host", EndpointFlaw::Credentials),
        ] {
            let error = dialer(endpoint).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(
                matches!(error, TransportError::BadEndpoint { flaw, .. } if flaw == expected),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_says_why() {
        let trusting = |path: &std::path::Path| {
            let trust = Trust { ca_certs: vec![path.to_owned()] };
            match Dialer::new("https://localhost", &trust, DialSettings::default()) {
                Err(TransportError::BadCaCert { flaw, .. }) => flaw,
                other => panic!("{other:?}"),
            }
        };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(trusting("/nowhere/ca.pem".as_ref()), CaCertFlaw::Unreadable(_)));
        assert!(matches!(trusting(file.path()), CaCertFlaw::NotPem));
        file.write_all(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(trusting(file.path()), CaCertFlaw::NotPem));
        file.as_file().set_len(0).unwrap();
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(matches!(trusting(file.path()), CaCertFlaw::Rejected(_)));
    }

    #[test]
    fn a_refused_connection_names_the_address() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        run(async {
            let error = failed(&dialer(&format!("http://{unused}")).unwrap()).await;
            assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
            assert!(error.to_string().contains(&format!("{unused}: Connection refused")), "{error}");
        });
    }

    #[test]
    fn an_unknown_name_does_not_resolve() {
        run(async {
            let error = failed(&dialer("http://nowhere.invalid").unwrap()).await;
            assert!(matches!(error, TransportError::Resolve { .. }), "{error:?}");
        });
    }

    #[test]
    fn a_dead_address_among_several_costs_little() {
        let dead = Dead::new();
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let live = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let live_address = live.local_addr().unwrap();
        run(async {
            let dialer = dialer("http://several.test").unwrap();
            let (_, address) = dialer.connect_any(vec![dead.address, unused, live_address]).await.unwrap();
            assert_eq!(address, live_address);
        });
    }

    #[test]
    fn only_dead_addresses_are_a_timeout_and_one_refusal_is_not() {
        let (dead, other) = (Dead::new(), Dead::new());
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        run(async {
            let dialer = Dialer { settings: short(), ..dialer("http://several.test").unwrap() };
            let error = dialer.connect_any(vec![dead.address, other.address]).await.unwrap_err();
            let TransportError::ConnectTimeout { after: SHORT, attempts, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(attempts.len(), 2);
            let error = dialer.connect_any(vec![dead.address, unused]).await.unwrap_err();
            assert!(
                matches!(&error, TransportError::Connect { attempts, .. } if attempts.len() == 2),
                "{error:?}"
            );
        });
    }

    #[test]
    fn dials_take_turns_among_the_addresses() {
        let dialer = dialer("http://127.0.0.1").unwrap();
        let clone = dialer.clone();
        run(async {
            dialer.resolve().await.unwrap();
            clone.resolve().await.unwrap();
        });
        assert_eq!(dialer.turn.load(Ordering::Relaxed), 2);
    }

    /// Packets may vanish without anybody saying so: it is the kernel that notices first (tcp(7)).
    #[test]
    fn the_kernel_is_told_when_to_give_a_silent_peer_up() {
        let server = Server::start(Wire::Plain, |server| server.accept().drain());
        run(async {
            for (user_timeout_s, idle_s) in [(90, 30), (7, 3)] {
                let settings = DialSettings {
                    tcp_user_timeout: Duration::from_secs(user_timeout_s),
                    tcp_keepalive: Duration::from_secs(idle_s),
                    ..DialSettings::default()
                };
                let socket = server.dialer(settings).socket(server.address).unwrap();
                assert_eq!(u64::from(sockopt::tcp_user_timeout(&socket).unwrap()), user_timeout_s * 1000);
                assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), Duration::from_secs(idle_s));
                assert!(sockopt::socket_keepalive(&socket).unwrap());
            }
            server.dialer(DialSettings::default()).connect(server.address).await.unwrap();
        });
    }

    #[test]
    fn hyper_sees_vectored_writes_on_both_wires() {
        for wire in WIRES {
            let server = Server::start(wire, |server| server.accept().drain());
            run(async {
                let dialer = server.dialer(DialSettings::default());
                let (tcp, _) = dialer.connect_any(vec![server.address]).await.unwrap();
                let meter = Arc::new(Meter::default());
                let stream = dialer.secure(Socket::new(tcp, meter.clone())).await.unwrap();
                assert!(MeteredStream::new(stream, meter).is_write_vectored());
            });
        }
    }

    #[test]
    fn a_certificate_from_an_unknown_authority_is_refused_with_the_way_out() {
        let server = Server::start(Wire::Tls, |server| server.accept().drain());
        run(async {
            let error = failed(&dialer(&server.endpoint()).unwrap()).await;
            assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
            assert!(error.to_string().contains("--ca-cert FILE"), "{error}");
        });
    }

    #[test]
    fn a_certificate_for_another_name_is_refused() {
        let server = Server::named("elsewhere.test", Wire::Tls, |server| server.accept().drain());
        run(async {
            let error = failed(&server.dialer(DialSettings::default())).await;
            assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
            assert!(error.to_string().contains("elsewhere.test"), "{error}");
        });
    }

    #[test]
    fn a_server_that_speaks_no_tls_or_says_nothing_fails_the_handshake() {
        for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
            let server = Server::start(Wire::Plain, move |server| {
                let mut peer = server.accept();
                peer.answer(greeting);
                peer.drain();
            });
            run(async {
                let endpoint = format!("https://{}", server.address);
                let error = failed(&Dialer::new(&endpoint, &Trust::default(), short()).unwrap()).await;
                match error {
                    // Another attempt would find the same server.
                    TransportError::TlsRefused { .. } if !greeting.is_empty() => {}
                    TransportError::TlsTimeout { after: SHORT, .. } if greeting.is_empty() => {}
                    other => panic!("{other:?}"),
                }
            });
        }
    }
}
