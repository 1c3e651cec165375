//! TLS 1.3 that decrypts only heads.
//!
//! rustls does the handshake and then exports the keys. After that, a record (RFC 8446, section 5.2)
//! that lies wholly in a request's body is counted by its header and discarded in the kernel, as over plain
//! HTTP; the measured clients do not pad. This takes two system calls per record and a third less
//! time than copying all bytes. More important: if the sink's core reads the bytes, the client's core needs
//! a sixth more time to write to the same memory again. A network has no such effect.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustix::net::{RecvFlags, recv};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ConnectionTrafficSecrets, ServerConfig, ServerConnection};

use super::http::Channel;
use super::low_water::LowWater;

/// A certificate for loopback, and the TLS configuration that uses it.
pub(crate) struct Identity {
    pub(crate) ca_pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// Generates a self-signed certificate.
    pub(crate) fn generate() -> io::Result<Identity> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
        let config = server_config(made.cert.der().clone(), key).map_err(io::Error::other)?;
        Ok(Identity { ca_pem: made.cert.pem(), config: Arc::new(config) })
    }
}

/// Returns a configuration with one cipher suite, the first choice of OpenSSL and of rustls.
fn server_config(
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)?;
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A connection after its handshake.
pub(crate) struct RecordFilter {
    records: Records,
    opening: Direction,
    sealing: Direction,
}

impl RecordFilter {
    pub(crate) fn accept(socket: Arc<TcpStream>, identity: &Identity) -> io::Result<RecordFilter> {
        let mut records = Records::new(socket);
        let secrets = handshake(&mut records, identity)?.dangerous_extract_secrets();
        let secrets = secrets.map_err(io::Error::other)?;
        Ok(RecordFilter {
            records,
            opening: Direction::new(secrets.rx)?,
            sealing: Direction::new(secrets.tx)?,
        })
    }
}

/// Does the handshake. Passes one record at a time, so that rustls never buffers bytes after the handshake.
fn handshake(records: &mut Records, identity: &Identity) -> io::Result<ServerConnection> {
    let mut tls = ServerConnection::new(Arc::clone(&identity.config)).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        let Some(record) = records.next()? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        let mut rest = &*record;
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
        }
        let outcome = tls.process_new_packets();
        while tls.wants_write() {
            tls.write_tls(&mut &*records.socket)?;
        }
        outcome.map_err(io::Error::other)?;
    }
    Ok(tls)
}

impl Channel for RecordFilter {
    fn fill(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        self.records.low_water.update(0)?;
        loop {
            let Some(record) = self.records.next()? else { return Ok(0) };
            let (kind, plain) = self.opening.open(record)?;
            match kind {
                APPLICATION_DATA if plain.is_empty() => {}
                APPLICATION_DATA => {
                    into.extend_from_slice(plain);
                    return Ok(plain.len());
                }
                // Clients end with close_notify (RFC 8446, section 6.1).
                ALERT => return Ok(0),
                kind => {
                    return Err(io::Error::other(format!("a TLS record of kind {kind} after the handshake")));
                }
            }
        }
    }

    fn discard(&mut self, len: u64) -> io::Result<u64> {
        let mut gone = 0;
        while let Some(record_len) = self.next_body_record(len - gone)? {
            let plain = record_len.saturating_sub(HEADER_BYTES + OVERHEAD_BYTES) as u64;
            if gone + plain > len || plain == 0 {
                break;
            }
            self.records.discard(record_len)?;
            self.opening.sequence += 1;
            gone += plain;
        }
        Ok(gone)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(MAX_PLAIN_BYTES) {
            let record = self.sealing.seal(piece)?;
            (&*self.records.socket).write_all(&record)?;
        }
        Ok(())
    }
}

impl RecordFilter {
    /// Returns the length of the next record of a body with `to_come` bytes left, or `None` at its end.
    fn next_body_record(&mut self, to_come: u64) -> io::Result<Option<usize>> {
        // Bytes that are already in the buffer will not arrive again.
        self.records.low_water.update(to_come.saturating_sub(self.records.held() as u64))?;
        match to_come {
            0 => Ok(None),
            _ => self.records.header(),
        }
    }
}

/// Keys and the record counter of one direction (RFC 8446, section 5.3).
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> io::Result<Direction> {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            return Err(io::Error::other("the only suite offered was not the one chosen"));
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(io::Error::other)?;
        let iv = iv.as_ref().try_into().map_err(io::Error::other)?;
        Ok(Direction { key: LessSafeKey::new(key), iv, sequence })
    }

    /// Decrypts a whole record. Returns its inner content type and the plaintext.
    fn open<'a>(&mut self, record: &'a mut [u8]) -> io::Result<(u8, &'a [u8])> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let nonce = self.nonce();
        let plain = self.key.open_in_place(nonce, Aad::from(&*header), sealed).map_err(io::Error::other)?;
        let end = plain.iter().rposition(|byte| *byte != 0).ok_or(io::ErrorKind::InvalidData)?;
        Ok((plain[end], &plain[..end]))
    }

    fn seal(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let len = (plain.len() + OVERHEAD_BYTES) as u16;
        let header = [APPLICATION_DATA, 3, 3, (len >> 8) as u8, len as u8];
        let mut sealed = [plain, &[APPLICATION_DATA]].concat();
        let nonce = self.nonce();
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed).map_err(io::Error::other)?;
        Ok([&header[..], &sealed].concat())
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A reader of TLS records.
struct Records {
    low_water: LowWater,
    socket: Arc<TcpStream>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Records {
    fn new(socket: Arc<TcpStream>) -> Records {
        let low_water = LowWater::new(Arc::clone(&socket), LOW_WATER_BYTES);
        Records { low_water, socket, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Returns the next record with its header, or `None` at the end.
    fn next(&mut self) -> io::Result<Option<&mut [u8]>> {
        let Some(len) = self.ready()? else { return Ok(None) };
        let at = self.start;
        self.skip(len);
        Ok(Some(&mut self.buffer[at..at + len]))
    }

    /// Reads the next record completely into the buffer, and returns its length.
    fn ready(&mut self) -> io::Result<Option<usize>> {
        let Some(len) = self.header()? else { return Ok(None) };
        while self.held() < len {
            if self.receive(BUFFER_BYTES)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(len))
    }

    /// Reads only the header of the next record, and returns the length of the record.
    fn header(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let [_, _, _, high, low, ..] = self.buffer[self.start..self.end] {
                return Ok(Some(HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]))));
            }
            if self.receive(HEADER_BYTES - self.held())? == 0 {
                return Ok(None);
            }
        }
    }

    /// Discards the next record: from the buffer, and the rest in the kernel.
    fn discard(&mut self, len: usize) -> io::Result<()> {
        let here = len.min(self.held());
        self.skip(here);
        let mut left = len - here;
        while left > 0 {
            // The buffer is not written to: only its length is used, as the limit.
            let (_, gone) = recv(&self.socket, &mut self.buffer[..left], RecvFlags::TRUNC)?;
            match gone {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                gone => left -= gone,
            }
        }
        Ok(())
    }

    fn skip(&mut self, len: usize) {
        self.start += len;
    }

    /// Returns the number of received bytes that were not used yet.
    fn held(&self) -> usize {
        self.end - self.start
    }

    /// Returns `true` if all received bytes were used.
    fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Receives at most `most` bytes.
    fn receive(&mut self, most: usize) -> io::Result<usize> {
        if self.buffer.len() - self.end < MAX_RECORD_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.is_drained() {
            (self.start, self.end) = (0, 0);
        }
        let end = self.buffer.len().min(self.end + most);
        let len = (&*self.socket).read(&mut self.buffer[self.end..end])?;
        self.end += len;
        Ok(len)
    }
}

const APPLICATION_DATA: u8 = 23;
const ALERT: u8 = 21;
const HEADER_BYTES: usize = 5;
/// The inner content type and the tag.
const OVERHEAD_BYTES: usize = 1 + 16;
const MAX_PLAIN_BYTES: usize = 1 << 14;
const MAX_RECORD_BYTES: usize = HEADER_BYTES + MAX_PLAIN_BYTES + 256;
/// A client with TLS is slower than the sink and never fills the window.
const LOW_WATER_BYTES: i32 = 1 << 20;
/// Holds heads and the bytes around them. Of bodies, it holds only record headers.
const BUFFER_BYTES: usize = 256 << 10;
