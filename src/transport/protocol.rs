//! Detection of peers that do not speak HTTP, by the first bytes of the connection.

/// A protocol other than HTTP. The bytes are not kept: an echo of the request would contain its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForeignProtocol {
    /// RFC 4253, section 4.2.
    #[error("an SSH server answers there")]
    Ssh,
    /// A TLS record, an alert or a part of a handshake (RFC 8446, section 5.1).
    #[error("a TLS server answers there, which takes https:// only")]
    Tls,
    /// The greeting of SMTP and FTP.
    #[error("a mail or FTP server answers there")]
    Greeting,
    /// An empty SETTINGS frame, or one with entries (RFC 9113, section 6.5).
    #[error("an HTTP/2 server answers there, which does not speak HTTP/1.1")]
    Http2,
    #[error("what answers there does not speak HTTP")]
    Unknown,
}

/// The comparison of a connection's first bytes with those of a status line.
#[derive(Debug, Default)]
pub(super) struct ProtocolDetector {
    matched: usize,
    is_foreign: bool,
}

impl ProtocolDetector {
    /// Returns `true` if further bytes cannot change the result.
    pub(super) fn is_decided(&self) -> bool {
        self.is_foreign || self.matched == STATUS_LINE.len()
    }

    /// Compares the next bytes of the connection. Returns the protocol at the first byte that is not HTTP.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Option<ForeignProtocol> {
        for &byte in bytes {
            if self.is_decided() {
                break;
            }
            // A recipient skips empty lines before the status line, as hyper's parser does.
            if self.matched == 0 && matches!(byte, b'\r' | b'\n') {
                continue;
            }
            if byte != STATUS_LINE[self.matched] {
                self.is_foreign = true;
                return Some(protocol(bytes));
            }
            self.matched += 1;
        }
        None
    }
}

fn protocol(bytes: &[u8]) -> ForeignProtocol {
    match bytes {
        // The identification string (RFC 4253, section 4.2).
        [b'S', b'S', b'H', b'-', ..] => ForeignProtocol::Ssh,
        // A record with an alert or a handshake, of a version that begins with 3 (RFC 8446, section 5.1).
        [0x15 | 0x16, 0x03, ..] => ForeignProtocol::Tls,
        // "Service ready" of SMTP and FTP (RFC 5321, section 4.2.2; RFC 959, section 4.2.1).
        [b'2', b'2', b'0', b' ' | b'-', ..] => ForeignProtocol::Greeting,
        // A short SETTINGS frame (type 4), with which a server begins (RFC 9113, sections 3.4 and 6.5).
        [0, 0, _, 4, ..] => ForeignProtocol::Http2,
        _ => ForeignProtocol::Unknown,
    }
}

const STATUS_LINE: &[u8] = b"HTTP/";

/// The number of bytes that identify a protocol.
pub(super) const DETECTION_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reads: &[&[u8]]) -> Option<ForeignProtocol> {
        let mut detector = ProtocolDetector::default();
        reads.iter().find_map(|bytes| detector.check(bytes))
    }

    #[test]
    fn a_status_line_is_http_however_it_is_cut() {
        for reads in [&[&b"HTTP/1.1 200"[..]][..], &[b"H", b"TT", b"P/", b"1.0"], &[b"\r\n", b"\r\nHTTP/9"]] {
            assert_eq!(check(reads), None, "{reads:?}");
        }
    }

    #[test]
    fn other_protocols_are_detected_by_their_first_bytes() {
        for (reads, expected) in [
            (&[&b"SSH-2.0-OpenSSH_9.6\r\n"[..]][..], ForeignProtocol::Ssh),
            (&[b"\x15\x03\x01\0\x02\x02\x46"], ForeignProtocol::Tls),
            (&[b"220 mail.example ESMTP\r\n"], ForeignProtocol::Greeting),
            (&[b"\0\0\x12\x04\0"], ForeignProtocol::Http2),
            (&[b"HT", b"ML"], ForeignProtocol::Unknown),
            (&[b"\0"], ForeignProtocol::Unknown),
        ] {
            assert_eq!(check(reads), Some(expected), "{reads:?}");
        }
    }
}
