//! The server's own certificate authority.
//!
//! `ca.pem` is created once per data folder, so that clients that trust it also trust the server after a
//! restart. The server's certificate is new at each start.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::serve_error::ServeError;

/// The CA certificate that clients must trust.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) path: PathBuf,
    pub(super) pem: String,
}

/// Returns the folder's authority, and an acceptor with a certificate for `ip` and for loopback.
pub(super) fn acceptor(data: &Path, ip: IpAddr) -> Result<(Authority, TlsAcceptor), ServeError> {
    let (authority, issuer) = authority(data)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = leaf(ip).and_then(|leaf| leaf.signed_by(&key, &issuer)).map_err(failed)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .map_err(failed)?;
    // A client that offers HTTP/2 too must not choose it: the server has none.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((authority, TlsAcceptor::from(Arc::new(config))))
}

fn authority(data: &Path) -> Result<(Authority, Issuer<'static, KeyPair>), ServeError> {
    let (path, key_path) = (data.join("ca.pem"), data.join("ca-key.pem"));
    let params = authority_params().map_err(failed)?;
    let (pem, key) = match (fs::read_to_string(&path), fs::read_to_string(&key_path)) {
        (Ok(pem), Ok(key)) => (pem, KeyPair::from_pem(&key).map_err(failed)?),
        _ => {
            let key = KeyPair::generate().map_err(failed)?;
            let pem = params.self_signed(&key).map_err(failed)?.pem();
            // Before the certificate, which clients may trust as soon as it is there.
            write_private(&key_path, &key.serialize_pem())?;
            fs::write(&path, &pem).map_err(|source| ServeError::Data { path: path.clone(), source })?;
            (pem, key)
        }
    };
    Ok((Authority { path, pem }, Issuer::new(params, key)))
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "ringlift serve, local authority");
    // The authority signs servers, and no other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(ip: IpAddr) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    if !loopback.contains(&ip) && !ip.is_unspecified() {
        params.subject_alt_names.push(SanType::IpAddress(ip));
    }
    params.distinguished_name.push(DnType::CommonName, "ringlift serve");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn failed(error: impl ToString) -> ServeError {
    ServeError::Certificate(error.to_string())
}

fn write_private(path: &Path, text: &str) -> Result<(), ServeError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| ServeError::Data { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_authority_that_aws_lc_wrote_is_still_used() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = (folder.path().join("ca.pem"), folder.path().join("ca-key.pem"));
        fs::write(&pem, "as it was").unwrap();
        fs::write(&key, AWS_LC_KEY).unwrap();
        let (authority, _) = acceptor(folder.path(), Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(authority.pem, "as it was");
        assert_eq!(fs::read_to_string(&key).unwrap(), AWS_LC_KEY);
    }

    /// The `ca-key.pem` of a version that used aws-lc-rs. The key protects nothing.
    const AWS_LC_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwiR1J8Ho/R4xjIE+
OhAp9fH4X4tjEaroegaJgiTeZuShRANCAATmOQv7NgrArYHYDshymck7xVZJHSdg
fZMpBH4+kImmxzFjWcDFyNbgOGKMSlTx/fYD9Z3lw6pNZvkUzP/voaHW
-----END PRIVATE KEY-----
";
}
