//! TLS by rustls: trust, the handshake, and the meaning of its errors.

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
use hyper::rt::{Read as HyperRead, Write as HyperWrite};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::Connection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, version};
use tower_service::Service;

use super::error::{BoxError, CaCertFlaw, SentProgress, TransportError};
use super::history::{History, NoClientCertificate};
use super::socket::LaneSocket;
use clock::Clock;
use verify::Verifier;

pub(super) use refusal::{TlsStage, refusal, refused};

/// The trusted certificate authorities: those of the system, and these.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM files of further certificate authorities, or of a server's own certificate.
    pub ca_certs: Vec<PathBuf>,
}

/// Configures TLS 1.2 and 1.3 by the crate `ring`, with HTTP/1.1 by ALPN (RFC 7301). Sessions are resumed across
/// lanes.
pub(super) fn client_config(trust: &Trust, history: &Arc<History>) -> Result<ClientConfig, TransportError> {
    client_config_at(trust, history, Clock::system())
}

fn client_config_at(
    trust: &Trust,
    history: &Arc<History>,
    clock: Clock,
) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| handshake_failed("", error.to_string()))?;
    let verifier = verifier(trust, provider)?;
    let mut config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(NoClientCertificate(history.clone())));
    // Without ALPN a server may choose HTTP/2, which a lane does not speak.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Configures TLS for a connection that is not HTTP, with the trust of the service's connections.
#[allow(dead_code)] // Only the fleet uses it, which a build may leave out.
pub(crate) fn bare_client_config(trust: &Trust) -> Result<ClientConfig, TransportError> {
    let mut config = client_config(trust, &Arc::new(History::default()))?;
    // A server that knows ALPN and not HTTP would refuse the connection.
    config.alpn_protocols.clear();
    Ok(config)
}

/// Reads the certificates of one PEM file, of at most [`MOST_CA_BYTES`].
pub(super) fn ca_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let flawed = |flaw| TransportError::BadCaCert { path: path.to_owned(), flaw };
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| flawed(CaCertFlaw::Unreadable(error)))?;
    file.take(MOST_CA_BYTES).read_to_end(&mut pem).map_err(|error| flawed(CaCertFlaw::Unreadable(error)))?;
    // Editors on Windows put a byte order mark at the start, which would hide the first certificate.
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&pem);
    let certs = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    certs.ok().filter(|certs| !certs.is_empty()).ok_or_else(|| flawed(CaCertFlaw::NotPem))
}

/// The stream of a lane: TLS to the endpoint or not, over TLS to a proxy or not.
pub(super) type LaneStream = MaybeHttpsStream<MaybeHttpsStream<LaneSocket>>;

/// Turns `stream` into a stream to `uri`, with TLS for an https URL.
///
/// Dropping the future closes the stream.
pub(super) async fn secure<S>(
    stream: S,
    uri: &Uri,
    config: &Arc<ClientConfig>,
    history: &History,
    send_buffer_bytes: usize,
) -> Result<MaybeHttpsStream<S>, TransportError>
where
    S: Connection + HyperRead + HyperWrite + Send + Unpin + 'static,
{
    let mut connector = HttpsConnector::from((Connected(Some(stream)), config.clone()));
    let mut stream = connector.call(uri.clone()).await.map_err(|error| explain(uri, history, &*error))?;
    if let MaybeHttpsStream::Https(tls) = &mut stream {
        let (_, session) = tls.inner_mut().get_mut();
        session.set_buffer_limit(Some(send_buffer_bytes));
    }
    Ok(stream)
}

/// Returns the socket under the stream.
pub(super) fn socket(stream: &mut LaneStream) -> &mut LaneSocket {
    under(under(stream))
}

/// Returns `true` if bytes are encrypted before they reach the socket, for the endpoint or for a proxy.
pub(super) fn is_encrypted(stream: &LaneStream) -> bool {
    !matches!(stream, MaybeHttpsStream::Http(MaybeHttpsStream::Http(_)))
}

fn under<S>(stream: &mut MaybeHttpsStream<S>) -> &mut S {
    match stream {
        MaybeHttpsStream::Http(inner) => inner,
        MaybeHttpsStream::Https(tls) => tls.inner_mut().get_mut().0.inner_mut(),
    }
}

/// Returns the TLS error inside `error`, at any depth: `io::Error::source` skips the error that it wraps.
pub(crate) fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
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
        Some(tls) => refused(authority, history, tls, TlsStage::Handshake, SentProgress::default()),
        None => handshake_failed(authority, error.to_string()),
    }
}

fn handshake_failed(authority: &str, reason: String) -> TransportError {
    TransportError::Tls { authority: authority.to_owned(), reason, sent: SentProgress::default() }
}

/// Creates the verifier of `trust`. Reads the authorities of the system only if the caller named no certificate; else
/// they are read once a server needs them.
fn verifier(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Verifier, TransportError> {
    let verifier = if trust.ca_certs.is_empty() {
        let roots = system_authorities();
        if roots.is_empty() {
            return Err(TransportError::NoTrust);
        }
        Verifier::new(roots, provider)
    } else {
        let (roots, given) = named(trust)?;
        Verifier::with_given(given, roots, system_authorities, provider)
    };
    verifier.map_err(|reason| handshake_failed("", reason))
}

fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // One certificate that cannot be parsed must not make the other authorities of the system useless.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Returns the certificates that the caller named, as trusted authorities and as they are.
fn named(trust: &Trust) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TransportError> {
    let mut roots = RootCertStore::empty();
    let mut given = Vec::new();
    for path in &trust.ca_certs {
        for cert in ca_certs(path)? {
            given.push(cert.clone());
            roots.add(cert).map_err(|error| TransportError::BadCaCert {
                path: path.clone(),
                flaw: CaCertFlaw::Rejected(error.to_string()),
            })?;
        }
    }
    Ok((roots, given))
}

/// A connector that passes hyper-rustls an open stream, so that each step of a dial has its own timeout.
struct Connected<S>(Option<S>);

impl<S> Service<Uri> for Connected<S> {
    type Response = S;
    type Error = BoxError;
    type Future = Ready<Result<S, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| "a connected stream serves one handshake".into()))
    }
}

/// Several times the size of a system's bundle of authorities. A device file given by mistake has no end.
const MOST_CA_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests;
