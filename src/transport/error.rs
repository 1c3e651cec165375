//! The errors of connections and requests: one variant for each reason.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::HEADER_LINES_LIMIT;
use super::proxy::refusal::ProxyRefusal;

/// An error of any type, as a request's body returns it.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a connection or a request.
///
/// Variants up to [`TlsTimeout`](Self::TlsTimeout) come from dialing, before any byte of a request was sent.
/// [`Proxy`](Self::Proxy) comes from dialing, or from a request that the proxy did not pass on. The others come
/// from one request, after which its lane is closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The endpoint's URL cannot be used.
    #[error("endpoint {endpoint:?}: {flaw}")]
    BadEndpoint {
        /// The URL as given, without credentials.
        endpoint: String,
        /// The flaw.
        flaw: EndpointFlaw,
    },
    /// A file of extra certificate authorities cannot be used.
    #[error("CA file {}: {flaw}", path.display())]
    BadCaCert {
        /// The file.
        path: PathBuf,
        /// The flaw.
        flaw: CaCertFlaw,
    },
    /// The system has no certificate authority, and [`Trust`](super::Trust) names none.
    #[error(
        "no certificate authorities on this system: install ca-certificates, or add a certificate to the trusted ones"
    )]
    NoTrust,
    /// The endpoint's name has no address.
    #[error("cannot resolve {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The error of the resolver.
        reason: io::Error,
    },
    /// No address accepted a connection, and at least one refused it.
    #[error("cannot connect to {authority}: {}", listed(authority, attempts))]
    Connect {
        /// Host and port.
        authority: String,
        /// Every address that was tried, never empty.
        attempts: Vec<FailedAttempt>,
    },
    /// No address answered in time.
    #[error("cannot connect to {authority}: no answer within {after:?} from {}", addresses(attempts))]
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// The bound of each attempt.
        after: Duration,
        /// Every address that was tried, never empty.
        attempts: Vec<FailedAttempt>,
    },
    /// The server's certificate was refused. A retry cannot help.
    #[error("the certificate of {authority} is not trusted: {reason}{advice}")]
    Untrusted {
        /// Host and port.
        authority: String,
        /// The flaw of the certificate.
        reason: String,
        /// The advice, or an empty text.
        advice: &'static str,
    },
    /// The server and this library have no common TLS parameters. A retry cannot help.
    #[error("no TLS connection with {authority}: {reason}")]
    TlsRefused {
        /// Host and port.
        authority: String,
        /// The incompatibility.
        reason: String,
        /// The advice.
        advice: &'static str,
    },
    /// TLS failed for another reason than the certificate, in the handshake or later.
    #[error("TLS with {authority}: {reason}")]
    Tls {
        /// Host and port.
        authority: String,
        /// The reason.
        reason: String,
        /// The progress of the request; zero if the handshake failed.
        sent: SentProgress,
    },
    /// The TLS handshake took too long.
    #[error("TLS handshake with {authority} not finished within {after:?}")]
    TlsTimeout {
        /// Host and port.
        authority: String,
        /// The bound.
        after: Duration,
    },
    /// The proxy could not be used, or refused. The service received no byte of the request.
    #[error("the proxy {proxy} {failure}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// The failure.
        failure: ProxyFailure,
    },
    /// The connection accepted no byte for too long while there were bytes to send.
    #[error("no byte accepted for {after:?}, after {} of the body", sent.body_bytes)]
    Stalled {
        /// The bound.
        after: Duration,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The connection was slower than the minimum speed over a whole window.
    #[error(
        "slower than {minimum_bytes_per_s} bytes/s over {window:?}, after {} bytes of the body",
        sent.body_bytes
    )]
    TooSlow {
        /// The minimum speed.
        minimum_bytes_per_s: u64,
        /// The time over which it was measured.
        window: Duration,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The request's own body yielded nothing for too long.
    #[error("the request's body yielded nothing for {after:?}, after {} bytes", sent.body_bytes)]
    BodyStalled {
        /// The bound.
        after: Duration,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The answer did not come, or did not end, in time.
    #[error("no complete answer within {after:?}")]
    NoAnswer {
        /// The bound.
        after: Duration,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The server closed the connection before a complete answer.
    #[error("connection closed before an answer, after {} bytes of the body", sent.body_bytes)]
    Closed {
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The server reset the connection before a complete answer.
    #[error("connection reset before an answer, after {} bytes of the body", sent.body_bytes)]
    Reset {
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The system gave the connection up: no route, no acknowledgement for `tcp_user_timeout`, no memory.
    #[error("connection lost after {} bytes of the body: {reason}", sent.body_bytes)]
    Lost {
        /// The error of the system.
        reason: io::Error,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The answer is not HTTP/1.1.
    #[error("malformed answer: {reason}")]
    Malformed {
        /// The parser's error, or the protocol detected.
        reason: String,
        /// `true` if the peer speaks another protocol than HTTP and no connection to the endpoint ever
        /// received an HTTP answer: a retry cannot help.
        wrong_protocol: bool,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The answer or its head is larger than the limit.
    #[error("answer larger than {limit_bytes} bytes, or with more than {HEADER_LINES_LIMIT} header lines")]
    AnswerTooLarge {
        /// The bound.
        limit_bytes: usize,
        /// The progress of the request.
        sent: SentProgress,
    },
    /// The request's body failed. The error is the body's own and can be restored by `downcast_ref`.
    #[error("the request's body failed: {0}")]
    Body(#[source] BoxError),
    /// The file behind the lane's [`FileRegion`](super::FileRegion) ends before its map does.
    #[error("file truncated while it was sent: nothing at offset {offset}")]
    FileTruncated {
        /// The first missing byte, from the start of the file.
        offset: u64,
    },
    /// The file behind the lane's [`FileRegion`](super::FileRegion) cannot be read.
    #[error("cannot read the file at offset {offset}: {reason}")]
    FileRead {
        /// The offset at which reading failed, from the start of the file.
        offset: u64,
        /// The error of the system.
        reason: io::Error,
    },
}

impl TransportError {
    /// Returns `true` if the socket accepted the whole request.
    ///
    /// `false` is certain: the server cannot have the whole request. After `true` the server may or may not
    /// have processed it.
    pub fn sent_all(&self) -> bool {
        self.sent().whole
    }

    /// Returns the progress of the request; zero for errors of dialing and of the body.
    pub fn sent(&self) -> SentProgress {
        match self {
            Self::Stalled { sent, .. }
            | Self::Tls { sent, .. }
            | Self::TooSlow { sent, .. }
            | Self::BodyStalled { sent, .. }
            | Self::NoAnswer { sent, .. }
            | Self::Closed { sent }
            | Self::Reset { sent }
            | Self::Lost { sent, .. }
            | Self::Malformed { sent, .. }
            | Self::AnswerTooLarge { sent, .. } => *sent,
            Self::BadEndpoint { .. }
            | Self::BadCaCert { .. }
            | Self::NoTrust
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Untrusted { .. }
            | Self::TlsRefused { .. }
            | Self::TlsTimeout { .. }
            | Self::Proxy { .. }
            | Self::Body(_)
            | Self::FileTruncated { .. }
            | Self::FileRead { .. } => SentProgress::default(),
        }
    }
}

/// A failure of a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyFailure {
    /// There is no connection to the proxy itself.
    #[error("cannot be used: {0}")]
    Unreachable(#[source] Box<TransportError>),
    /// The proxy refused.
    #[error("refuses: {0}")]
    Refused(ProxyRefusal),
    /// The proxy did not answer in time.
    #[error("gave no complete answer within {after:?}")]
    NoAnswer {
        /// The bound.
        after: Duration,
    },
    /// The proxy closed the connection before a complete answer.
    #[error("closed the connection before a complete answer")]
    Closed,
    /// The head of the proxy's answer is larger than the limit.
    #[error("answered with a head of more than {limit_bytes} bytes")]
    HeadTooLarge {
        /// The bound.
        limit_bytes: usize,
    },
    /// The answer begins like HTTP/1 and is none.
    #[error("gave a malformed answer")]
    Malformed,
    /// The program at the address of the proxy does not speak HTTP.
    #[error("does not speak HTTP: {reason}")]
    WrongProtocol {
        /// The protocol detected.
        reason: String,
        /// `true` if no connection to the proxy ever received an HTTP answer: a retry cannot help.
        is_final: bool,
    },
}

/// The progress of a request when it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentProgress {
    /// Bytes of the body that the connection had accepted.
    pub body_bytes: u64,
    /// `true` if the socket accepted the whole request, to its last byte.
    pub whole: bool,
}

/// One address that could not be connected.
#[derive(Debug)]
pub struct FailedAttempt {
    /// The address.
    pub address: SocketAddr,
    /// The reason; `TimedOut` if the address did not answer.
    pub reason: io::Error,
}

/// A flaw of an endpoint's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFlaw {
    /// It does not parse.
    #[error("not a URL; expected http://HOST or https://HOST")]
    NotAUrl,
    /// Another scheme than the two.
    #[error("the scheme must be http or https")]
    Scheme,
    /// No host.
    #[error("no host")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("the host must be a name in ASCII, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// An IPv6 address with a zone.
    #[error("IPv6 zones (%25eth0) are not supported; use a name, or an address without a zone")]
    Zone,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
    /// A user name or password in the URL.
    #[error("credentials in the URL are not used; pass the API key on its own")]
    Credentials,
    /// A query after the path.
    #[error("a base URL has no query")]
    Query,
    /// A fragment after the path.
    #[error("a base URL has no fragment")]
    Fragment,
}

/// A flaw of a certificate authority file.
#[derive(Debug, thiserror::Error)]
pub enum CaCertFlaw {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(io::Error),
    /// It holds no PEM certificate.
    #[error("no PEM certificate in it")]
    NotPem,
    /// It holds a PEM certificate that is not one.
    #[error("not a certificate authority: {0}")]
    Rejected(String),
}

fn addresses(attempts: &[FailedAttempt]) -> String {
    attempts.iter().map(|attempt| attempt.address.to_string()).collect::<Vec<_>>().join(", ")
}

/// Lists the attempts with their addresses. A single attempt at the address `authority` is listed without it.
fn listed(authority: &str, attempts: &[FailedAttempt]) -> String {
    if let [attempt] = attempts
        && attempt.address.to_string() == authority
    {
        return attempt.reason.to_string();
    }
    let each = attempts.iter().map(|attempt| format!("{}: {}", attempt.address, attempt.reason));
    each.collect::<Vec<_>>().join("; ")
}
