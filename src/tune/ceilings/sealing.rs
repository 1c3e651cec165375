//! The rate of TLS encryption alone.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::ceiling::{Ceiling, CeilingPart};
use crate::error::{Error, ErrorKind, Result};
use crate::usage::cpu_time;

/// Measures the encryption of TLS on this thread for about `time`, with the cipher suite that this machine prefers.
/// Nothing is sent.
///
/// # Errors
/// If the handshake in memory fails, which no input causes.
pub fn measure_sealing(time: Duration) -> Result<Ceiling> {
    seal(time).map_err(|error| {
        Error::new(ErrorKind::Internal, "measure the encryption")
            .because(error.to_string())
            .with_source(error)
    })
}

fn seal(time: Duration) -> io::Result<Ceiling> {
    let mut client = connected_client()?;
    let plain = vec![0x5a; PLAIN_BYTES];
    let (cpu, started, mut bytes) = (cpu_time(), Instant::now(), 0);
    while started.elapsed() < time {
        for _ in 0..RECORDS_A_LOOK {
            client.writer().write_all(&plain)?;
            // The records are dropped at once, so that the buffer of rustls never fills.
            while client.wants_write() {
                client.write_tls(&mut io::sink())?;
            }
            bytes += plain.len() as u64;
        }
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
    Ok(Ceiling::new(CeilingPart::Sealing, bytes, elapsed, cpu))
}

/// Returns a client after a handshake with a server in memory.
fn connected_client() -> io::Result<ClientConnection> {
    // A certificate of its own: the handshake only sets the keys, and the server is this function.
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).map_err(io::Error::other)?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let cert = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone()).map_err(io::Error::other)?;
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![cert], key))
        .map_err(io::Error::other)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::new(client), name).map_err(io::Error::other)?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(io::Error::other)?;
    shake_hands(&mut client, &mut server)?;
    Ok(client)
}

fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> io::Result<()> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent)?;
        }
        let mut answer = Vec::new();
        let mut unread = sent.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread)?;
            server.process_new_packets().map_err(io::Error::other)?;
        }
        while server.wants_write() {
            server.write_tls(&mut answer)?;
        }
        // Neither side has sent anything: a handshake that cannot continue would loop for ever.
        if sent.is_empty() && answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut unread = answer.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread)?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
    }
    Ok(())
}

const NAME: &str = "localhost";
/// The plaintext of a full record (RFC 8446, section 5.1).
const PLAIN_BYTES: usize = 1 << 14;
/// A look at the clock costs a part of a percent then.
const RECORDS_A_LOOK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_has_a_rate_and_a_cost() {
        let sealing = measure_sealing(Duration::from_millis(20)).unwrap();
        assert!(sealing.bytes_per_second > 1e6 && sealing.cpu_seconds_per_gib > 0.0, "{sealing:?}");
    }
}
