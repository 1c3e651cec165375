//! TLS by rustls: whom to trust, the handshake, and what a failed one means.

mod clock;
mod refusal;
mod verify;

use std::error::Error;
use std::fs::File;
use std::future::{Ready, ready};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};
use tower_service::Service;

use super::error::{BoxError, CaCertFlaw, Sent, TransportError};
use super::history::{History, NoClientCertificate};
use super::socket::Socket;
use clock::Clock;
use verify::Verifier;

pub(super) use refusal::{Stage, refusal, refused};

/// Whose certificates are believed: the system's authorities, and these.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM files of further certificate authorities.
    pub ca_certs: Vec<PathBuf>,
}

/// TLS 1.2 and 1.3 by aws-lc-rs, HTTP/1.1 by ALPN (RFC 7301). Sessions are resumed across lanes.
pub(super) fn client_config(trust: &Trust, history: &Arc<History>) -> Result<ClientConfig, TransportError> {
    client_config_at(trust, history, Clock::of_the_system())
}

fn client_config_at(
    trust: &Trust,
    history: &Arc<History>,
    clock: Clock,
) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| handshake_failed("", error.to_string()))?;
    let (roots, given) = trusted(trust)?;
    let verifier = Verifier::new(roots, given, provider).map_err(|reason| handshake_failed("", reason))?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(NoClientCertificate(history.clone())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of one PEM file, of at most [`MOST_CA_BYTES`].
pub(super) fn ca_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let flawed = |flaw| TransportError::BadCaCert { path: path.to_owned(), flaw };
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| flawed(CaCertFlaw::Unreadable(error)))?;
    file.take(MOST_CA_BYTES).read_to_end(&mut pem).map_err(|error| flawed(CaCertFlaw::Unreadable(error)))?;
    // Editors on Windows begin a text with a byte order mark, which would hide the first certificate.
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&pem);
    let certs = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    certs.ok().filter(|certs| !certs.is_empty()).ok_or_else(|| flawed(CaCertFlaw::NotPem))
}

/// Makes `socket` a stream to `uri`: with TLS if its scheme says so, as it is if not.
///
/// Dropping the future closes the socket.
pub(super) async fn secure(
    socket: Socket,
    uri: &Uri,
    config: &Arc<ClientConfig>,
    history: &History,
    send_buffer_bytes: usize,
) -> Result<MaybeHttpsStream<Socket>, TransportError> {
    let mut connector = HttpsConnector::from((Connected(Some(socket)), config.clone()));
    let mut stream = connector.call(uri.clone()).await.map_err(|error| explain(uri, history, &*error))?;
    if let MaybeHttpsStream::Https(tls) = &mut stream {
        let (_, session) = tls.inner_mut().get_mut();
        session.set_buffer_limit(Some(send_buffer_bytes));
    }
    Ok(stream)
}

/// The socket below.
pub(super) fn socket(stream: &mut MaybeHttpsStream<Socket>) -> &mut Socket {
    match stream {
        MaybeHttpsStream::Http(socket) => socket,
        MaybeHttpsStream::Https(tls) => tls.inner_mut().get_mut().0.inner_mut(),
    }
}

/// The TLS error inside `error`, however deep: `io::Error::source` skips the error that it wraps.
pub(super) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    let inner: Option<&'a (dyn Error + 'static)> = match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => error.source(),
    };
    inner.and_then(tls_error)
}

fn explain(uri: &Uri, history: &History, error: &(dyn Error + 'static)) -> TransportError {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match tls_error(error) {
        Some(tls) => refused(authority, history, tls, Stage::Handshake, Sent::default()),
        None => handshake_failed(authority, error.to_string()),
    }
}

fn handshake_failed(authority: &str, reason: String) -> TransportError {
    TransportError::Tls { authority: authority.to_owned(), reason, sent: Sent::default() }
}

/// The authorities, and the certificates that the caller named.
fn trusted(trust: &Trust) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TransportError> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &trust.ca_certs {
        for cert in ca_certs(path)? {
            given.push(cert.clone());
            roots.add(cert).map_err(|error| TransportError::BadCaCert {
                path: path.clone(),
                flaw: CaCertFlaw::Rejected(error.to_string()),
            })?;
        }
    }
    if roots.is_empty() { Err(TransportError::NoTrust) } else { Ok((roots, given)) }
}

/// Hands hyper-rustls a socket that is connected already, so that each step of a dial has its own bound.
struct Connected(Option<Socket>);

impl Service<Uri> for Connected {
    type Response = Socket;
    type Error = BoxError;
    type Future = Ready<Result<Socket, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| "a connected socket serves one handshake".into()))
    }
}

/// Several times what a system's bundle of authorities has; a device file given by mistake has no end.
const MOST_CA_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{SanType, date_time_ymd};

    use super::super::testing::{
        Frames, Server, Wire, get, patient, pattern, post, run, self_signed, wanting_certificates,
    };
    use super::super::{DialSettings, Dialer};
    use super::*;

    /// The error of the first request to a server that reads and answers nothing.
    fn refused(certified: (Arc<rustls::ServerConfig>, String)) -> TransportError {
        let server = Server::certified(Wire::Tls, certified, |server| server.accept().drain());
        run(async { first_answer(&server.dialer(DialSettings::default()), get()).await.unwrap_err() })
    }

    async fn first_answer(dialer: &Dialer, request: http::Request<Frames>) -> Result<(), TransportError> {
        let mut lane = dialer.dial().await?;
        lane.send(request, &patient()).await.map(drop)
    }

    #[test]
    fn a_self_signed_certificate_that_was_named_is_accepted_though_it_says_ca() {
        let server = Server::certified(Wire::Tls, self_signed(|_| {}), |server| {
            let mut peer = server.accept();
            peer.read_request();
            peer.answer("HTTP/1.1 204 No Content\r\n\r\n");
        });
        run(async { first_answer(&server.dialer(DialSettings::default()), get()).await.unwrap() });
    }

    #[test]
    fn a_named_certificate_still_has_to_be_for_the_host_and_for_today() {
        let elsewhere = refused(self_signed(|params| {
            params.subject_alt_names = vec![SanType::DnsName("elsewhere.test".try_into().unwrap())];
        }));
        assert!(matches!(elsewhere, TransportError::Untrusted { .. }), "{elsewhere:?}");
        assert!(elsewhere.to_string().contains("elsewhere.test"), "{elsewhere}");
        let expired = refused(self_signed(|params| params.not_after = date_time_ymd(2001, 1, 1)));
        assert!(expired.to_string().contains("expired"), "{expired}");
        let early = refused(self_signed(|params| params.not_before = date_time_ymd(3000, 1, 1)));
        assert!(matches!(early, TransportError::Untrusted { .. }), "{early:?}");
    }

    #[test]
    fn another_certificate_of_the_same_name_is_not_the_one_that_was_named() {
        let (config, _) = self_signed(|_| {});
        let (_, other) = self_signed(|_| {});
        let error = refused((config, other));
        assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
        assert!(error.to_string().contains("pass this very certificate"), "{error}");
    }

    #[test]
    fn a_server_that_requires_a_client_certificate_is_refused_by_that_name() {
        for version in [&version::TLS12, &version::TLS13] {
            for len in [0, 8 << 20] {
                let certified = wanting_certificates(version);
                let server = Server::certified(Wire::Tls, certified, |server| server.accept().drain());
                run(async {
                    let request = post(Frames::new([pattern(len)]));
                    let error =
                        first_answer(&server.dialer(DialSettings::default()), request).await.unwrap_err();
                    assert!(
                        matches!(error, TransportError::TlsRefused { .. }),
                        "{version:?} {len}: {error:?}"
                    );
                    assert!(error.to_string().contains("client certificate"), "{error}");
                    assert!(!error.sent_all());
                });
            }
        }
    }

    /// Answers the first connection with these bytes, whatever it sends.
    fn answering(answer: &'static [u8]) -> Server {
        Server::start(Wire::Plain, move |server| {
            let (mut tcp, _) = server.listener.accept().unwrap();
            let mut bytes = [0; 4096];
            let _ = tcp.read(&mut bytes).unwrap();
            tcp.write_all(answer).unwrap();
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
            while tcp.read(&mut bytes).is_ok_and(|len| len > 0) {}
        })
    }

    #[test]
    fn a_fatal_alert_is_final_and_an_end_without_one_is_not() {
        for (answer, word) in [
            (&b"\x15\x03\x03\0\x02\x02\x28"[..], "cipher suite"),
            (&b"\x15\x03\x03\0\x02\x02\x46"[..], "TLS 1.2"),
            (&b"\x15\x03\x03\0\x02\x02\x70"[..], "host name"),
            (&b"\x15\x03\x03\0\x02\x02\x2f"[..], "IllegalParameter"),
            (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak TLS"),
        ] {
            let server = answering(answer);
            let dialer = https(&server);
            let error = run(async { dialer.dial::<Frames>().await.unwrap_err() });
            assert!(matches!(error, TransportError::TlsRefused { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
        for answer in [&b""[..], b"\x15\x03\x03\0\x02\x02\x50", b"\x16\x03"] {
            let server = answering(answer);
            let dialer = https(&server);
            let error = run(async { dialer.dial::<Frames>().await.unwrap_err() });
            assert!(matches!(error, TransportError::Tls { .. }), "{answer:?}: {error:?}");
        }
    }

    fn https(server: &Server) -> Dialer {
        let endpoint = format!("https://{}", server.address);
        let (_, ca_pem) = self_signed(|_| {});
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(ca_pem.as_bytes()).unwrap();
        let trust = Trust { ca_certs: vec![ca.path().to_owned()] };
        Dialer::new(&endpoint, &trust, DialSettings::default()).unwrap()
    }

    #[test]
    fn a_file_of_certificates_may_begin_with_a_byte_order_mark() {
        let (_, pem) = self_signed(|_| {});
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"\xef\xbb\xbf").unwrap();
        file.write_all(pem.replace('\n', "\r\n").as_bytes()).unwrap();
        assert_eq!(ca_certs(file.path()).unwrap().len(), 1);
        // It has no end, and no certificate either.
        let endless = ca_certs("/dev/zero".as_ref()).unwrap_err();
        assert!(matches!(endless, TransportError::BadCaCert { flaw: CaCertFlaw::NotPem, .. }), "{endless:?}");
    }

    #[test]
    fn a_clock_before_1970_is_named() {
        static READ: AtomicUsize = AtomicUsize::new(0);
        let clock = Clock(|| {
            READ.fetch_add(1, Ordering::Relaxed);
            UNIX_EPOCH - Duration::from_secs(1)
        });
        let server = Server::start(Wire::Tls, |server| server.accept().drain());
        let history = Arc::new(History::default());
        let trust = server.trust();
        let config = Arc::new(client_config_at(&trust, &history, clock).unwrap());
        run(async {
            let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
            let socket = Socket::new(tcp, Arc::default());
            let uri = server.endpoint().parse().unwrap();
            let Err(error) = secure(socket, &uri, &config, &history, 1 << 16).await else {
                panic!("secured")
            };
            assert!(matches!(error, TransportError::TlsRefused { .. }), "{error:?}");
            assert!(error.to_string().contains("1970"), "{error}");
        });
        assert!(READ.load(Ordering::Relaxed) > 0);
    }
}
