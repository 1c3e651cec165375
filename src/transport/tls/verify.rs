//! The check of the server's certificate.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Verifies by WebPKI, and additionally accepts a server's own certificate if the caller named it.
///
/// WebPKI refuses a server certificate with CA:TRUE, which is what `openssl req -x509` creates.
pub(super) struct Verifier {
    /// The certificates that the caller named, authorities or not.
    given: Vec<CertificateDer<'static>>,
    /// Trusts the named certificates only; `None` if there are none.
    named: Option<Arc<WebPkiServerVerifier>>,
    /// Trusts the authorities of the system, too; `None` if they can verify nothing.
    all: LazyLock<Option<Arc<WebPkiServerVerifier>>, LoadVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

type LoadVerifier = Box<dyn FnOnce() -> Option<Arc<WebPkiServerVerifier>> + Send>;

impl Verifier {
    /// Creates a verifier from the trusted authorities.
    pub(super) fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Verifier, String> {
        let algorithms = provider.signature_verification_algorithms;
        let webpki = webpki(roots, provider)?;
        let all: LoadVerifier = Box::new(|| Some(webpki));
        Ok(Verifier { given: Vec::new(), named: None, all: LazyLock::new(all), algorithms })
    }

    /// Creates a verifier from the certificates `given` by the caller, which `roots` consists of, and from the
    /// authorities of the system.
    ///
    /// Calls `system` only for a server that the given certificates do not verify: a system has hundreds of files of
    /// authorities, and reading them takes longer than a handshake.
    pub(super) fn with_given(
        given: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
        system: impl FnOnce() -> RootCertStore + Send + 'static,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let algorithms = provider.signature_verification_algorithms;
        let named = Some(webpki(roots.clone(), provider.clone())?);
        let all: LoadVerifier = Box::new(|| {
            let mut roots = roots;
            roots.extend(system().roots);
            webpki(roots, provider).ok()
        });
        Ok(Verifier { given, named, all: LazyLock::new(all), algorithms })
    }

    /// Verifies the certificate with the authorities of one of the verifiers.
    fn verify_with(
        &self,
        webpki: &WebPkiServerVerifier,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused =
            match webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                Err(refused) if self.given.contains(end_entity) => refused,
                verified => return verified,
            };
        // WebPKI checks the validity period before the errors that `is_about_its_issuer` matches, so the
        // period is valid here. Without the intermediates every error is about the certificate itself.
        let alone = webpki.verify_server_cert(end_entity, &[], server_name, ocsp_response, now);
        match alone {
            Err(error) if is_about_its_issuer(&error) => {
                // WebPKI checks the name last, so that the error came before that check.
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Err(_) => Err(refused),
            verified => verified,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("given", &self.given.len()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |webpki: &WebPkiServerVerifier| {
            self.verify_with(webpki, end_entity, intermediates, server_name, ocsp_response, now)
        };
        let refused = match self.named.as_deref().map(verify) {
            Some(Ok(verified)) => return Ok(verified),
            Some(Err(refused)) => refused,
            None => Error::InvalidCertificate(CertificateError::UnknownIssuer),
        };
        self.all.as_deref().map_or(Err(refused), verify)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn webpki(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.build().map_err(|error| error.to_string())
}

/// Returns `true` if the only error is the issuer, which the caller accepted by naming the certificate.
fn is_about_its_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(other) => is_ca_as_end_entity(other),
        _ => false,
    }
}

/// Returns `true` if the certificate is refused only for its CA:TRUE.
pub(super) fn is_ca_as_end_entity(error: &CertificateError) -> bool {
    let CertificateError::Other(other) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn store(authorities: &[&Authority]) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        authorities.iter().for_each(|authority| roots.add(authority.der().clone()).unwrap());
        roots
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    /// Verifies a certificate for `a.test` that `issuer` signed.
    fn is_trusted(verifier: &Verifier, issuer: &Authority) -> bool {
        let params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        let cert = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap();
        let name = "a.test".try_into().unwrap();
        verifier.verify_server_cert(cert.der(), &[], &name, &[], UnixTime::now()).is_ok()
    }

    fn naming(given: &Authority, system: impl FnOnce() -> RootCertStore + Send + 'static) -> Verifier {
        Verifier::with_given(vec![given.der().clone()], store(&[given]), system, provider()).unwrap()
    }

    #[test]
    fn the_authorities_of_the_system_are_read_only_for_a_server_that_the_given_ones_do_not_verify() {
        let given = authority();
        let verifier = naming(&given, || panic!("the system's authorities were read"));
        assert!(is_trusted(&verifier, &given));
    }

    #[test]
    fn given_authorities_and_those_of_the_system_are_both_trusted_and_no_others_are() {
        let (given, system) = (authority(), authority());
        let roots = store(&[&system]);
        let verifier = naming(&given, move || roots);
        assert!(is_trusted(&verifier, &system));
        assert!(is_trusted(&verifier, &given));
        assert!(!is_trusted(&verifier, &authority()));
        let verifier = Verifier::new(store(&[&system]), provider()).unwrap();
        assert!(is_trusted(&verifier, &system) && !is_trusted(&verifier, &given));
    }

    #[test]
    fn a_system_without_authorities_leaves_the_given_ones() {
        let given = authority();
        let verifier = naming(&given, RootCertStore::empty);
        assert!(!is_trusted(&verifier, &authority()));
        assert!(is_trusted(&verifier, &given));
    }
}
