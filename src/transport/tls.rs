//! TLS by rustls: whom to trust, the handshake, and what a failed one means.

use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{CertificateError, ClientConfig, RootCertStore, version};
use tower_service::Service;

use super::error::{BoxError, CaCertFlaw, Sent, TransportError};
use super::sendfile::Socket;

/// Whose certificates are believed: the system's authorities, and these.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM files of further certificate authorities.
    pub ca_certs: Vec<PathBuf>,
}

/// TLS 1.2 and 1.3 by aws-lc-rs, HTTP/1.1 by ALPN (RFC 7301). Sessions are resumed across lanes.
pub(super) fn client_config(trust: &Trust) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(|error| handshake_failed("", error.to_string()))?;
    let mut config = builder.with_root_certificates(roots(trust)?).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of one PEM file.
pub(super) fn ca_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let flawed = |flaw| TransportError::BadCaCert { path: path.to_owned(), flaw };
    let certs = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
            pem::Error::Io(error) => flawed(CaCertFlaw::Unreadable(error)),
            _ => flawed(CaCertFlaw::NotPem),
        })?;
    if certs.is_empty() { Err(flawed(CaCertFlaw::NotPem)) } else { Ok(certs) }
}

/// Makes `socket` a stream to `uri`: with TLS if its scheme says so, as it is if not.
///
/// Dropping the future closes the socket.
pub(super) async fn secure(
    socket: Socket,
    uri: &Uri,
    config: &Arc<ClientConfig>,
    send_buffer_bytes: usize,
) -> Result<MaybeHttpsStream<Socket>, TransportError> {
    let mut connector = HttpsConnector::from((Connected(Some(socket)), config.clone()));
    let mut stream = connector.call(uri.clone()).await.map_err(|error| explain(uri, &*error))?;
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

/// What a TLS error means to the user: a refused certificate, or anything else.
pub(super) fn refused(authority: &str, error: &rustls::Error, sent: Sent) -> TransportError {
    let authority = authority.to_owned();
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            TransportError::Untrusted { authority, reason: reason.to_string(), advice: advice(reason) }
        }
        other => TransportError::Tls { authority, reason: other.to_string(), sent },
    }
}

fn explain(uri: &Uri, error: &(dyn Error + 'static)) -> TransportError {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    match tls_error(error) {
        Some(tls) => refused(authority, tls, Sent::default()),
        None => handshake_failed(authority, error.to_string()),
    }
}

fn handshake_failed(authority: &str, reason: String) -> TransportError {
    TransportError::Tls { authority: authority.to_owned(), reason, sent: Sent::default() }
}

fn advice(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => "; for a private authority pass its certificate: --ca-cert FILE",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "; it has expired, or the clock of this machine is wrong"
        }
        _ => "",
    }
}

fn roots(trust: &Trust) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in &trust.ca_certs {
        for cert in ca_certs(path)? {
            roots.add(cert).map_err(|error| TransportError::BadCaCert {
                path: path.clone(),
                flaw: CaCertFlaw::Rejected(error.to_string()),
            })?;
        }
    }
    if roots.is_empty() { Err(TransportError::NoTrust) } else { Ok(roots) }
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
