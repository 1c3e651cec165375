//! Conversions from the errors of the lower modules.

use std::io;

use rustix::io::Errno;

use super::{Advice, Error, ErrorKind, Hint, RESOURCE_LIMITS_ADVICE};
use crate::source::SourceError;
use crate::transport::{ProxyFailure, ProxyLogin, ProxyRefusal, TransportError};
use crate::wire::PlanError;
use crate::wire::limits::MAX_TOTAL_BYTES;

impl From<PlanError> for Error {
    fn from(refused: PlanError) -> Error {
        let advice = match refused {
            PlanError::Empty => None,
            PlanError::TooLong { .. } => Some(Advice::Text("cut the video into several")),
            PlanError::TooLongForOneRequest { .. } => Some(Advice::Hint(Hint::SendInChunks)),
            // No chunk size can lift the protocol's limit of bytes.
            PlanError::StreamTooLong { max_bytes: MAX_TOTAL_BYTES.., .. } => {
                Some(Advice::Text("cut the video into several"))
            }
            PlanError::ChunkTooSmall { .. }
            | PlanError::TooManyChunks { .. }
            | PlanError::StreamTooLong { .. } => Some(Advice::Hint(Hint::LargerChunks)),
            PlanError::ChunkTooLarge { .. } => Some(Advice::Hint(Hint::SmallerChunks)),
        };
        let error = Error::new(ErrorKind::PlanImpossible, "plan the upload").with_source(refused);
        match advice {
            Some(advice) => error.advised(advice),
            None => error,
        }
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Error {
        let kind = match &error {
            SourceError::NotFound { .. } => ErrorKind::NoSuchFile,
            SourceError::IsDirectory { .. }
            | SourceError::NotAFile { .. }
            | SourceError::Budget { .. }
            | SourceError::ShorterThanStated { .. }
            | SourceError::LongerThanStated { .. } => ErrorKind::InvalidInput,
            SourceError::Unreadable { .. } | SourceError::Read { .. } => ErrorKind::SourceUnreadable,
            SourceError::Silent { .. } => {
                // No error of the kernel: the wait was ended here, and the setting for it may be too short.
                let silent =
                    Error::new(ErrorKind::Stalled, "read the source").with_hint(Hint::LongerReadTimeout);
                return silent.because(error.to_string()).with_source(error);
            }
            SourceError::Changed { .. } => ErrorKind::SourceChanged,
            SourceError::EmptyPipe { .. } => ErrorKind::PlanImpossible,
            // The plan bounds every read, so these are defects of this crate.
            SourceError::PastEnd { .. } | SourceError::TooLong { .. } | SourceError::WrongLength { .. } => {
                ErrorKind::Internal
            }
        };
        // The source's text names the file and what to do, so it replaces the reason of the kind.
        let unread = Error::new(kind, "read the source").because(error.to_string());
        let unread = match error {
            SourceError::Budget { .. } => unread.with_hint(Hint::MoreStreamMemory),
            SourceError::IsDirectory { .. } => unread.with_hint(Hint::FilesOfDirectory),
            _ => unread,
        };
        unread.with_source(error)
    }
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Error {
        let kind = match error {
            TransportError::BadEndpoint { .. } | TransportError::BadCaCert { .. } => ErrorKind::InvalidInput,
            TransportError::NoTrust
            | TransportError::Untrusted { .. }
            | TransportError::TlsRefused { .. } => ErrorKind::Untrusted,
            TransportError::Resolve { .. }
            | TransportError::Connect { .. }
            // A timeout of a dial is as temporary as a refused connection, and no byte was sent.
            | TransportError::ConnectTimeout { .. }
            | TransportError::TlsTimeout { .. } => ErrorKind::Connect,
            // No byte of the request was sent: the secure connection itself failed.
            TransportError::Tls { sent, .. } if sent.body_bytes == 0 && !sent.whole => ErrorKind::Connect,
            TransportError::Stalled { .. }
            | TransportError::TooSlow { .. }
            | TransportError::BodyStalled { .. }
            | TransportError::NoAnswer { .. } => ErrorKind::Stalled,
            // Bytes were sent, so the service may have the request.
            TransportError::Tls { .. }
            | TransportError::Closed { .. }
            | TransportError::Reset { .. }
            | TransportError::Lost { .. } => ErrorKind::Unavailable,
            TransportError::Malformed { wrong_protocol: true, .. } => ErrorKind::WrongProtocol,
            TransportError::Malformed { .. } | TransportError::AnswerTooLarge { .. } => {
                ErrorKind::MalformedAnswer
            }
            // `sendfile(2)` found the end of the file before the planned one.
            TransportError::FileTruncated { .. } => ErrorKind::SourceChanged,
            TransportError::FileRead { .. } => ErrorKind::SourceUnreadable,
            TransportError::Proxy { ref failure, .. } => {
                let failed = from_proxy(failure, error.to_string());
                return failed.with_source(error);
            }
            // The body's error is a source's error, which has kinds of its own.
            TransportError::Body(body) => return from_body(body),
        };
        let (doing, advice) = match &error {
            TransportError::Connect { attempts, .. }
                if attempts.iter().any(|attempt| is_out_of_files(&attempt.reason)) =>
            {
                let failed = Error::new(kind, "exchange a request for its answer");
                return failed.with_advice(RESOURCE_LIMITS_ADVICE).with_source(error);
            }
            TransportError::BadEndpoint { .. } => ("use the endpoint's URL", ENDPOINT_FORM),
            TransportError::BadCaCert { .. } => ("use the certificates", CA_FORM),
            TransportError::TlsRefused { advice, .. } => ("make a secure connection", *advice),
            _ => return Error::new(kind, "exchange a request for its answer").with_source(error),
        };
        // The transport's text names the value and its flaw, so it replaces the reason of the kind.
        Error::new(kind, doing).because(error.to_string()).with_advice(advice).with_source(error)
    }
}

/// Converts the failure of a proxy. `text` names the proxy and the failure.
fn from_proxy(failure: &ProxyFailure, text: String) -> Error {
    let failed = |kind| Error::new(kind, "connect through the proxy").because(text);
    match failure {
        ProxyFailure::Unreachable(cause) => match **cause {
            TransportError::Untrusted { .. } => failed(ErrorKind::Untrusted),
            // The same TLS parameters would fail again, so the failure is final.
            TransportError::TlsRefused { .. } => failed(ErrorKind::Untrusted).with_hint(Hint::CheckProxy),
            _ => failed(ErrorKind::Connect).with_hint(Hint::CheckProxy),
        },
        ProxyFailure::Refused(refusal) => {
            let kind = if refusal.is_temporary() { ErrorKind::Unavailable } else { ErrorKind::Refused };
            // A refusal of the proxy says nothing about the upload, which can be resumed by another route.
            let refused = failed(kind).advised(proxy_advice(refusal)).and_resumable();
            match refusal.retry_after {
                // A delay on a permanent refusal would promise that the same request succeeds later.
                Some(delay) if refusal.is_temporary() => refused.with_retry_after(delay),
                _ => refused,
            }
        }
        ProxyFailure::WrongProtocol { is_final: true, .. } => {
            failed(ErrorKind::WrongProtocol).with_hint(Hint::CheckProxy)
        }
        // Other failures of the proxy's connection may pass.
        _ => failed(ErrorKind::Connect).with_hint(Hint::CheckProxy),
    }
}

fn proxy_advice(refusal: &ProxyRefusal) -> Advice {
    match refusal.login {
        ProxyLogin::Unsupported => Advice::Text(
            "this proxy takes no plain password (Basic), but a login such as NTLM or Kerberos, which is not \
             supported: run cntlm or px on this machine, and use that as the proxy",
        ),
        ProxyLogin::Password => Advice::Hint(Hint::ProxyCredentials),
        _ if refusal.is_temporary() => Advice::Hint(Hint::CheckProxy),
        _ => Advice::Text(
            "ask the administrator of the proxy to permit connections to the service's host and port",
        ),
    }
}

/// Converts the failure of a request's body: a body is a chunk of a source, and fails as its source does.
fn from_body(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<SourceError>() {
        Ok(error) => Error::from(*error),
        Err(error) => Error::new(ErrorKind::Internal, "write the request's body").with_source(error),
    }
}

/// Returns `true` for the limits of open files: that of the process (`EMFILE`) and that of the machine (`ENFILE`).
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

const ENDPOINT_FORM: &str = "use the form http://HOST or https://HOST, with an optional port and path, or leave it out for \
     https://ws.api.video";
const CA_FORM: &str = "name a file of certificates in PEM: the authority's, or the server's own";
