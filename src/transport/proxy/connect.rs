//! The CONNECT exchange with a proxy (RFC 9110, section 9.3.6).

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::refusal::ProxyRefusal;
use crate::transport::protocol::{DETECTION_BYTES, ForeignProtocol, ProtocolDetector};

/// The reason why there is no tunnel.
#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(ProxyRefusal),
    Io(io::Error),
    Closed,
    HeadTooLarge,
    Malformed,
    Foreign(ForeignProtocol),
}

/// Sends the request's head and reads the answer's, up to a status of 2xx. The bytes after that head stay unread.
///
/// Has no timeout for the head. Dropping the future leaves the stream in the middle of the exchange.
pub(super) async fn exchange<S>(stream: &mut S, request: &[u8]) -> Result<(), ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    // The answer decides: a proxy may refuse and close before it has read the request.
    tokio::select! {
        answer = read_answer(&mut reader) => answer,
        never = send(&mut writer, request) => match never {},
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), request: &[u8]) -> Infallible {
    // After an error, reading returns the reason or the end of the stream.
    if writer.write_all(request).await.is_ok() {
        // A failed flush shows in the answer's side too.
        let _ = writer.flush().await;
    }
    pending().await
}

async fn read_answer(reader: &mut (impl AsyncRead + Unpin)) -> Result<(), ConnectError> {
    let mut left = HEAD_LIMIT_BYTES;
    loop {
        let head = read_head(reader, &mut left).await?;
        let Head { status, headers } = Head::parse(&head).ok_or(ConnectError::Malformed)?;
        if status.is_informational() {
            continue;
        }
        // A 2xx has no body, whatever its headers announce: the tunnel begins after the head.
        if status.is_success() {
            return Ok(());
        }
        let body = read_body(reader, &headers).await;
        return Err(ConnectError::Refused(ProxyRefusal::new(status, &headers, &body)));
    }
}

/// Reads up to the empty line, and takes the bytes from `left`.
///
/// Reads one byte at a time, as the following bytes belong to the tunnel. That is some 100 reads for a connection that
/// carries megabytes.
async fn read_head(reader: &mut (impl AsyncRead + Unpin), left: &mut usize) -> Result<Vec<u8>, ConnectError> {
    let mut head = Vec::new();
    let mut detector = ProtocolDetector::default();
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        let byte = match reader.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ConnectError::Closed),
            Err(error) => return Err(ConnectError::Io(error)),
        };
        *left = left.checked_sub(1).ok_or(ConnectError::HeadTooLarge)?;
        // A recipient skips empty lines before the status line (RFC 9112, section 2.2).
        if head.is_empty() && matches!(byte, b'\r' | b'\n') {
            continue;
        }
        head.push(byte);
        if detector.check(&[byte]).is_some() {
            return Err(ConnectError::Foreign(identify(reader, head)));
        }
    }
    Ok(head)
}

/// Identifies a protocol other than HTTP by its first bytes. Takes bytes that have arrived, and does not wait.
fn identify(reader: &mut (impl AsyncRead + Unpin), mut first: Vec<u8>) -> ForeignProtocol {
    let mut more = [0; DETECTION_BYTES];
    if let Some(Ok(len)) = reader.read(&mut more).now_or_never() {
        first.extend_from_slice(&more[..len]);
    }
    ProtocolDetector::default().check(&first).unwrap_or(ForeignProtocol::Unknown)
}

/// Reads the beginning of a refusal's body. A part that does not arrive soon is left out: the status is enough.
async fn read_body(reader: &mut (impl AsyncRead + Unpin), headers: &HeaderMap) -> Vec<u8> {
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    let announced = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.trim().parse().ok());
    // `Transfer-Encoding` overrides `Content-Length` (RFC 9112, section 6.3).
    let most = announced.filter(|_| !is_chunked).unwrap_or(BODY_LIMIT_BYTES).min(BODY_LIMIT_BYTES);
    let mut body = Vec::new();
    let read = async {
        let mut block = [0; 512];
        // The last chunk has the size 0 (RFC 9112, section 7.1): on an open connection nothing would follow it.
        while body.len() < most && !(is_chunked && body.ends_with(b"0\r\n\r\n")) {
            match reader.read(&mut block).await {
                Ok(len @ 1..) => body.extend_from_slice(&block[..len]),
                Ok(0) | Err(_) => break,
            }
        }
    };
    // A body that is late is left out, because the status decides.
    let _ = timeout(BODY_WAIT, read).await;
    body.truncate(most);
    if is_chunked { unchunked(&body) } else { body }
}

/// Returns the content of a chunked body (RFC 9112, section 7.1), as far as it is there.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = body.iter().position(|&byte| byte == b'\n') {
        let size = String::from_utf8_lossy(&body[..end]);
        let size = size.split(';').next().unwrap_or_default().trim();
        let Ok(len @ 1..) = usize::from_str_radix(size, 16) else { break };
        let chunk = &body[end + 1..];
        // The body was read up to a limit, which may lie within a chunk.
        let len = len.min(chunk.len());
        content.extend_from_slice(&chunk[..len]);
        body = chunk[len..].trim_ascii_start();
    }
    content
}

/// The status and the headers of an answer.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
}

impl Head {
    /// Parses a head of HTTP/1.0 or 1.1. Lines that are no header are left out: only the status decides.
    fn parse(head: &[u8]) -> Option<Head> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.")?.get(1..)?.trim_start().get(..3)?.parse().ok()?;
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Some(Head { status, headers: map })
    }
}

/// The most bytes of the heads of an answer, interim answers included. Proxies add a few KiB of cookies and notices.
pub(super) const HEAD_LIMIT_BYTES: usize = 16 * 1024;

/// The part of a refusal's body that is searched for words. The pages of squid begin with 2 KiB of style.
const BODY_LIMIT_BYTES: usize = 8 * 1024;

/// The longest wait for the body of a refusal, which only explains the status.
const BODY_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::testing::run;

    /// Returns the result for a proxy that sends `answer` in pieces of `piece` bytes, and the bytes that stay unread.
    fn connect(answer: &[u8], piece: usize) -> (Result<(), ConnectError>, Vec<u8>) {
        run(async {
            let (mut ours, mut proxys) = tokio::io::duplex(1024);
            let answered = async {
                let mut request = [0; 4];
                proxys.read_exact(&mut request).await.unwrap();
                for piece in answer.chunks(piece) {
                    let _ = proxys.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                drop(proxys);
            };
            let read = async {
                let result = exchange(&mut ours, b"head").await;
                let mut unread = Vec::new();
                ours.read_to_end(&mut unread).await.unwrap();
                (result, unread)
            };
            tokio::join!(answered, read).1
        })
    }

    #[test]
    fn a_tunnel_begins_after_the_head_however_it_is_cut() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200\r\n\r\n",
            "\r\nHTTP/1.1 204 No\nContent-Length: 5\n\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &format!("HTTP/1.1 200 OK\r\nX-Notice: {}\r\n\r\n", "x".repeat(9000)),
        ] {
            for piece in [1, 7, 20_000] {
                let (result, unread) = connect(format!("{head}after").as_bytes(), piece);
                assert!(result.is_ok(), "{head}: {result:?}");
                assert_eq!(unread, b"after", "{head}");
            }
        }
    }

    #[test]
    fn a_refusal_keeps_its_status_and_its_words() {
        for (answer, status, words) in [
            ("HTTP/1.0 403 Filtered\r\n\r\nby policy", 403, "by policy"),
            ("HTTP/1.1 502 x\r\nContent-Length: 4\r\n\r\nlostmore", 502, "lost"),
            (
                "HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nthe \r\n5;x=y\r\nwords\r\n0\r\n\r\n",
                503,
                "the words",
            ),
            ("HTTP/1.1 302 Found\r\nLocation: http://login\r\nContent-Length: 2\r\n\r\nin", 302, "in"),
        ] {
            let (result, _) = connect(answer.as_bytes(), 3);
            let Err(ConnectError::Refused(refusal)) = result else { panic!("{answer}: {result:?}") };
            assert_eq!((refusal.status, refusal.words.as_deref()), (status, Some(words)), "{answer}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_refused_by_its_flaw() {
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_LIMIT_BYTES));
        let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(HEAD_LIMIT_BYTES / 20);
        let of = |answer: &str| connect(answer.as_bytes(), 5).0.unwrap_err();
        assert!(matches!(of(&endless), ConnectError::HeadTooLarge));
        assert!(matches!(of(&interim), ConnectError::HeadTooLarge));
        assert!(matches!(of("HTTP/1.1 200 OK\r\nX: y\r\n"), ConnectError::Closed));
        assert!(matches!(of(""), ConnectError::Closed));
        assert!(matches!(of("HTTP/2 200\r\n\r\n"), ConnectError::Malformed));
        assert!(matches!(of("HTTP/1.1 2\u{e9} OK\r\n\r\n"), ConnectError::Malformed));
        let ssh = connect(b"SSH-2.0-OpenSSH_9.6\r\n", 64).0.unwrap_err();
        assert!(matches!(ssh, ConnectError::Foreign(ForeignProtocol::Ssh)), "{ssh:?}");
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_parser(head in proptest::collection::vec(any::<u8>(), 0..64), body: Vec<u8>) {
            let _ = Head::parse(&head);
            let _ = unchunked(&body);
            let _ = ProxyRefusal::new(StatusCode::FORBIDDEN, &HeaderMap::new(), &body);
        }
    }
}
