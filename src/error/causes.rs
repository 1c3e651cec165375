//! From the leaves' errors to the public one.

use super::{Error, ErrorKind};
use crate::source::SourceError;
use crate::transport::TransportError;
use crate::wire::PlanError;

impl From<PlanError> for Error {
    fn from(refused: PlanError) -> Error {
        Error::new(ErrorKind::PlanImpossible, "plan the upload").with_source(refused)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Error {
        let kind = match &error {
            SourceError::NotFound { .. } => ErrorKind::NoSuchFile,
            SourceError::IsDirectory { .. } | SourceError::NotAFile { .. } | SourceError::Budget { .. } => {
                ErrorKind::InvalidInput
            }
            SourceError::Unreadable { .. } | SourceError::Read { .. } => ErrorKind::SourceUnreadable,
            SourceError::Silent { .. } => {
                let silent = Error::new(ErrorKind::Stalled, "read the source").with_advice(SILENT_SOURCE);
                return silent.because(error.to_string()).with_source(error);
            }
            SourceError::Changed { .. } => ErrorKind::SourceChanged,
            SourceError::EmptyPipe { .. } => ErrorKind::PlanImpossible,
            SourceError::PastEnd { .. } | SourceError::TooLong { .. } | SourceError::WrongLength { .. } => {
                ErrorKind::Internal
            }
        };
        // It names the file, and has the way out.
        Error::new(kind, "read the source").because(error.to_string()).with_source(error)
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
            | TransportError::ConnectTimeout { .. }
            | TransportError::TlsTimeout { .. } => ErrorKind::Connect,
            TransportError::Tls { sent, .. } if sent.body_bytes == 0 && !sent.whole => ErrorKind::Connect,
            TransportError::Stalled { .. }
            | TransportError::TooSlow { .. }
            | TransportError::BodyStalled { .. }
            | TransportError::NoAnswer { .. } => ErrorKind::Stalled,
            TransportError::Tls { .. }
            | TransportError::Closed { .. }
            | TransportError::Reset { .. }
            | TransportError::Lost { .. } => ErrorKind::Unavailable,
            TransportError::Malformed { wrong_protocol: true, .. } => ErrorKind::WrongProtocol,
            TransportError::Malformed { .. } | TransportError::AnswerTooLarge { .. } => {
                ErrorKind::MalformedAnswer
            }
            TransportError::FileTruncated { .. } => ErrorKind::SourceChanged,
            TransportError::FileRead { .. } => ErrorKind::SourceUnreadable,
            TransportError::Body(body) => return from_body(body),
        };
        let (doing, advice) = match &error {
            TransportError::BadEndpoint { .. } => ("use the endpoint's URL", ENDPOINT_FORM),
            TransportError::BadCaCert { .. } => ("use the certificates", CA_FORM),
            TransportError::TlsRefused { advice, .. } => ("make a secure connection", *advice),
            _ => return Error::new(kind, "exchange a request for its answer").with_source(error),
        };
        // It names the value, and what is wrong with it.
        Error::new(kind, doing).because(error.to_string()).with_advice(advice).with_source(error)
    }
}

/// A request's body is a chunk of a source, and fails as its source does.
fn from_body(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<SourceError>() {
        Ok(error) => Error::from(*error),
        Err(error) => Error::new(ErrorKind::Internal, "write the request's body").with_source(error),
    }
}

const ENDPOINT_FORM: &str = "give it as http://HOST or https://HOST, with a port and a path where it has them, or leave \
     it out for https://ws.api.video";
const SILENT_SOURCE: &str = "look at the disk or the network file system that the file is on; where that only needs longer, give it \
     more time (--timeout)";
const CA_FORM: &str = "name a file of certificates in PEM: the authority's, or the server's own";
