//! Opening lanes to an endpoint: name resolution, TCP connection, tunnel through a proxy, TLS handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use http_body::Body;
use hyper::rt::{Read, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::Connection;
use rustix::net::sockopt;
use rustls::ClientConfig;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::error::{BoxError, FailedAttempt, TransportError};
use super::history::History;
use super::lane::Lane;
use super::limits::TLS_SEND_BUFFER_BYTES;
use super::peer::Peer;
use super::proxy::{Gateway, Opening, Proxy};
use super::request_state::RequestState;
use super::socket::LaneSocket;
use super::throttle::Bandwidth;
use super::tls::{self, LaneStream, Trust};

/// Opens lanes to one endpoint. Cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Arc<Endpoint>,
    security: Security,
    settings: DialSettings,
    bandwidth: Bandwidth,
    history: Arc<History>,
    /// `None` if connections are direct.
    gateway: Option<Arc<Gateway>>,
    /// The index of the address that the next dial tries first, so that lanes spread over a name's addresses.
    turn: Arc<AtomicUsize>,
}

/// The settings of new lanes: proxy, timeouts and socket options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialSettings {
    /// The proxy.
    pub proxy: Proxy,
    /// Longest name resolution.
    pub resolve_timeout: Duration,
    /// Longest attempt at one address, and longest CONNECT through a proxy. Further addresses are tried beside the
    /// first after a quarter of a second.
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
    /// No proxy, ten seconds for each step, 90 for unacknowledged bytes, a keep-alive probe after 30 idle seconds.
    fn default() -> DialSettings {
        DialSettings {
            proxy: Proxy::none(),
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
    /// Creates a dialer for `endpoint`, an `http` or `https` URL with an optional base path. Opens no
    /// connection.
    ///
    /// For https, to the endpoint or to the proxy, reads the files of `trust`, or the system's certificate authorities
    /// if `trust` names none. With `trust`, the system's are read in the first handshake with a server that the files
    /// do not verify.
    ///
    /// # Errors
    ///
    /// `BadEndpoint`, `BadCaCert`, `NoTrust`.
    pub fn new(endpoint: &str, trust: &Trust, settings: DialSettings) -> Result<Dialer, TransportError> {
        let endpoint = Arc::new(Endpoint::parse(endpoint)?);
        let history = Arc::new(History::default());
        let security = if endpoint.is_tls() {
            Security::Tls(Arc::new(tls::client_config(trust, &history)?))
        } else {
            Security::Plain
        };
        let gateway = Gateway::new(&settings.proxy, &endpoint, trust)?;
        let turn = Arc::new(AtomicUsize::new(0));
        let bandwidth = Bandwidth::unlimited();
        Ok(Dialer { endpoint, security, settings, bandwidth, history, gateway, turn })
    }

    /// Returns the dialer with lanes limited to this bandwidth.
    pub fn with_bandwidth(self, bandwidth: Bandwidth) -> Dialer {
        Dialer { bandwidth, ..self }
    }

    /// Returns `true` if lanes are encrypted, for the endpoint or for the proxy: this process then reads every byte.
    pub fn is_tls(&self) -> bool {
        let is_tls_to_proxy = self.gateway.as_ref().is_some_and(|gateway| gateway.tls().is_some());
        is_tls_to_proxy || matches!(self.security, Security::Tls(_))
    }

    /// Returns the endpoint, whose canonical form is the one to compare and to store.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the value of the `Host` header: the host and, unless it is the scheme's default, the port.
    pub fn authority(&self) -> &str {
        self.endpoint.authority()
    }

    /// Returns `path` under the endpoint's base path, for the request line.
    pub fn path(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.endpoint.base())
    }

    /// Returns `true` if the last connections were cut off after about the same number of bytes, as by a firewall or
    /// proxy with a limit on the size of requests.
    pub fn is_cut_at_one_size(&self) -> bool {
        self.history.cut_sizes().are_alike()
    }

    /// Opens a lane: resolves the name again, connects to the first address that answers, makes the TLS
    /// handshake. Through a proxy, that is the name of the proxy, and a CONNECT comes before the handshake.
    ///
    /// Needs a tokio runtime with I/O and time; spawns nothing. Dropping the future abandons the attempt.
    ///
    /// # Errors
    ///
    /// `Resolve`, `Connect`, `ConnectTimeout`, `Untrusted`, `TlsRefused`, `Tls`, `TlsTimeout`, `Proxy`.
    pub async fn dial<B>(&self) -> Result<Lane<B>, TransportError>
    where
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        let state = Arc::new(RequestState::default());
        let Link { stream, address, gateway } = match &self.gateway {
            Some(gateway) => self.link_through(gateway, &state).await?,
            None => self.link_directly(&state).await?,
        };
        let (mut stream, authority) = match &gateway {
            Some(gateway) => (MaybeHttpsStream::Http(stream), gateway.authority().to_owned()),
            None => (self.secure(stream).await?, self.authority().to_owned()),
        };
        // After the handshakes, which the limit does not count.
        tls::socket(&mut stream).limit_to(self.bandwidth.clone());
        let peer = Peer {
            address,
            authority,
            endpoint: self.endpoint.clone(),
            history: self.history.clone(),
            gateway,
        };
        Lane::open(stream, state, peer).await
    }

    async fn link_directly(&self, state: &Arc<RequestState>) -> Result<Link, TransportError> {
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let (tcp, address) = self.connect_to(host, port, self.authority()).await?;
        let stream = MaybeHttpsStream::Http(LaneSocket::new(tcp, state.clone()));
        Ok(Link { stream, address, gateway: None })
    }

    async fn link_through(
        &self,
        gateway: &Arc<Gateway>,
        state: &Arc<RequestState>,
    ) -> Result<Link, TransportError> {
        if gateway.uses_connect() {
            let (mut stream, address) = self.connect_proxy(gateway, state).await?;
            if gateway.connect(&mut stream, self.settings.connect_timeout).await? == Opening::Tunnel {
                return Ok(Link { stream, address, gateway: None });
            }
        }
        // Proxies close the connection after they refused, with or without announcing it.
        let (stream, address) = self.connect_proxy(gateway, state).await?;
        Ok(Link { stream, address, gateway: Some(gateway.clone()) })
    }

    /// Connects to the proxy itself, with TLS for an https proxy.
    async fn connect_proxy(
        &self,
        gateway: &Gateway,
        state: &Arc<RequestState>,
    ) -> Result<(MaybeHttpsStream<LaneSocket>, SocketAddr), TransportError> {
        let connected = self.connect_to(gateway.host(), gateway.port(), gateway.authority()).await;
        let (tcp, address) = connected.map_err(|error| gateway.unreachable(error))?;
        let socket = LaneSocket::new(tcp, state.clone());
        let Some((uri, config, history)) = gateway.tls() else {
            return Ok((MaybeHttpsStream::Http(socket), address));
        };
        let handshake = self.handshake(socket, gateway.authority(), uri, config, history);
        let stream = handshake.await.map_err(|error| gateway.unreachable(error))?;
        Ok((stream, address))
    }

    /// Resolves a name and connects to the first address that answers.
    async fn connect_to(
        &self,
        host: &str,
        port: u16,
        authority: &str,
    ) -> Result<(TcpStream, SocketAddr), TransportError> {
        let addresses = self.resolve(host, port).await?;
        self.connect_any(addresses, authority).await
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, TransportError> {
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
        // Relaxed: the counter only spreads lanes, and orders no other memory.
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len();
        addresses.rotate_left(first);
        Ok(addresses)
    }

    /// Tries the addresses in order, each in parallel with the earlier ones (RFC 8305, section 5).
    async fn connect_any(
        &self,
        addresses: Vec<SocketAddr>,
        authority: &str,
    ) -> Result<(TcpStream, SocketAddr), TransportError> {
        let mut untried = addresses.into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut failed = Vec::new();
        loop {
            // Reached at once after a failed attempt, and after the delay while one is under way.
            attempts.extend(untried.next().map(|address| self.attempt(address)));
            match timeout(ATTEMPT_STAGGER, attempts.next()).await {
                Ok(Some(Ok(connected))) => return Ok(connected),
                Ok(Some(Err(attempt))) => failed.push(attempt),
                // No attempt is left only once every address has failed: an untried one would be under way.
                Ok(None) => return Err(self.connect_error(failed, authority)),
                Err(_) => {}
            }
        }
    }

    async fn attempt(&self, address: SocketAddr) -> Result<(TcpStream, SocketAddr), FailedAttempt> {
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
        // The option has 32 bits of milliseconds, 49 days.
        let user_timeout_ms = self.settings.tcp_user_timeout.as_millis().try_into().unwrap_or(u32::MAX);
        // Nagle's algorithm would hold back the end of each request until the peer acknowledges.
        sockopt::set_tcp_nodelay(fd, true)?;
        sockopt::set_tcp_user_timeout(fd, user_timeout_ms)?;
        // While the answer is awaited no byte is unacknowledged: only probes find out that the peer is gone.
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(
            fd,
            self.settings.tcp_keepalive.clamp(SHORTEST_KEEPIDLE, LONGEST_KEEPIDLE),
        )?;
        sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
        if let Some(bytes) = self.settings.send_buffer_bytes {
            sockopt::set_socket_send_buffer_size(fd, bytes)?;
        }
        Ok(socket)
    }

    /// Makes the TLS handshake with the endpoint, if it is an https endpoint.
    async fn secure(&self, stream: MaybeHttpsStream<LaneSocket>) -> Result<LaneStream, TransportError> {
        let Security::Tls(config) = &self.security else {
            return Ok(MaybeHttpsStream::Http(stream));
        };
        self.handshake(stream, self.authority(), self.endpoint.uri(), config, &self.history).await
    }

    async fn handshake<S>(
        &self,
        stream: S,
        authority: &str,
        uri: &Uri,
        config: &Arc<ClientConfig>,
        history: &History,
    ) -> Result<MaybeHttpsStream<S>, TransportError>
    where
        S: Connection + Read + Write + Send + Unpin + 'static,
    {
        let buffer_bytes = self.settings.tls_send_buffer_bytes;
        let handshake = tls::secure(stream, uri, config, history, buffer_bytes);
        timeout(self.settings.tls_timeout, handshake).await.unwrap_or_else(|_| {
            let authority = authority.to_owned();
            Err(TransportError::TlsTimeout { authority, after: self.settings.tls_timeout })
        })
    }

    fn connect_error(&self, attempts: Vec<FailedAttempt>, authority: &str) -> TransportError {
        let authority = authority.to_owned();
        let late = |attempt: &FailedAttempt| attempt.reason.kind() == io::ErrorKind::TimedOut;
        if attempts.iter().all(late) {
            TransportError::ConnectTimeout { authority, after: self.settings.connect_timeout, attempts }
        } else {
            TransportError::Connect { authority, attempts }
        }
    }
}

/// An open connection to the endpoint or to the proxy, before TLS with the endpoint.
struct Link {
    stream: MaybeHttpsStream<LaneSocket>,
    address: SocketAddr,
    /// The proxy that receives requests in absolute form.
    gateway: Option<Arc<Gateway>>,
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

/// The option has whole seconds, and 0 is refused (tcp(7)).
const SHORTEST_KEEPIDLE: Duration = Duration::from_secs(1);

/// The kernel refuses a longer time before the first probe (`MAX_TCP_KEEPIDLE`).
const LONGEST_KEEPIDLE: Duration = Duration::from_secs(32_767);

#[cfg(test)]
mod tests;
