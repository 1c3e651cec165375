//! The kinds of failure, and the fixed texts of each kind.

use std::fmt;

use super::hint::{Advice, Hint};

/// The kind of a failure: enough to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value that the caller gave cannot be used.
    InvalidInput,
    /// There is no file at that path.
    NoSuchFile,
    /// The file or the stream exists and could not be read: a disk, a mount or a permission. Temporary.
    SourceUnreadable,
    /// The file changed, shrank or was replaced during the upload.
    SourceChanged,
    /// The file cannot be sent within the protocol's limits. Nothing was sent or created.
    PlanImpossible,
    /// The credentials were refused, or do not suffice (401, 403).
    NotAuthorized,
    /// The service has no such video or upload token.
    NotFound,
    /// The video has a source already, and a video takes only one.
    AlreadyFilled,
    /// The service holds this chunk already. After a repeated request this may mean success.
    AlreadySent,
    /// The service refused the request for another reason (other 3xx and 4xx).
    Refused,
    /// Too many requests in this minute (429). Temporary.
    RateLimited,
    /// The service failed, or the connection was lost before its answer (5xx, 408). Temporary.
    Unavailable,
    /// No connection to the service could be made. Temporary.
    Connect,
    /// The service's certificate is not trusted, or no secure connection was agreed on.
    Untrusted,
    /// Nothing moved for too long. Temporary.
    Stalled,
    /// The service answered with something that is not this protocol.
    MalformedAnswer,
    /// The program at the endpoint does not speak HTTP.
    WrongProtocol,
    /// The service holds other content than was sent.
    Mismatch,
    /// The journal could not be read or written.
    Journal,
    /// Another process is doing the same thing, or has locked the journal. Temporary.
    Busy,
    /// The caller cancelled.
    Cancelled,
    /// A defect of this crate.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 22] = {
        use ErrorKind::*;
        [
            InvalidInput,
            NoSuchFile,
            SourceUnreadable,
            SourceChanged,
            PlanImpossible,
            NotAuthorized,
            NotFound,
            AlreadyFilled,
            AlreadySent,
            Refused,
            RateLimited,
            Unavailable,
            Connect,
            Untrusted,
            Stalled,
            MalformedAnswer,
            WrongProtocol,
            Mismatch,
            Journal,
            Busy,
            Cancelled,
            Internal,
        ]
    };

    /// Returns `true` if the same request may succeed later without any change.
    pub fn is_temporary(self) -> bool {
        use ErrorKind::*;
        // A failed read does not predict the next one: a mount returns, a disk or a file server recovers.
        matches!(self, RateLimited | Unavailable | Connect | Stalled | Busy | SourceUnreadable)
    }

    /// Returns `true` if an upload that failed with this kind can be resumed.
    pub fn is_resumable(self) -> bool {
        use ErrorKind::*;
        self.is_temporary()
            // Each of these stops the upload without a statement about the stored chunks.
            || matches!(self, Cancelled | NotAuthorized | Untrusted | Journal)
            || matches!(self, MalformedAnswer | WrongProtocol | Internal)
    }

    /// Returns a stable name for logs and machine-readable output, such as `rate_limited`.
    pub fn name(self) -> &'static str {
        self.name_and_reason().0
    }

    /// Returns the name, and the reason that `Display` writes.
    fn name_and_reason(self) -> (&'static str, &'static str) {
        use ErrorKind::*;
        match self {
            InvalidInput => ("invalid_input", "a value cannot be used"),
            NoSuchFile => ("no_such_file", "no such file"),
            SourceUnreadable => ("source_unreadable", "the file cannot be read"),
            SourceChanged => ("source_changed", "the file changed while it was being sent"),
            PlanImpossible => ("plan_impossible", "not possible within the limits of the protocol"),
            NotAuthorized => ("not_authorized", "the service refused the credentials"),
            NotFound => ("not_found", "not found"),
            AlreadyFilled => ("already_filled", "the video has a source already"),
            AlreadySent => ("already_sent", "the service holds this chunk already"),
            Refused => ("refused", "the service refused the request"),
            RateLimited => ("rate_limited", "the service asks for fewer requests a minute"),
            Unavailable => ("unavailable", "the service did not answer as it should"),
            Connect => ("connect", "the service cannot be reached"),
            Untrusted => ("untrusted", "the service's certificate is not trusted"),
            Stalled => ("stalled", "the transfer timed out"),
            MalformedAnswer => {
                ("malformed_answer", "unexpected response; this does not look like the api.video API")
            }
            WrongProtocol => ("wrong_protocol", "the program at the endpoint does not speak HTTP"),
            Mismatch => ("mismatch", "the service does not hold what was sent"),
            Journal => ("journal", "the journal cannot be used"),
            Busy => ("busy", "another process is doing this already"),
            Cancelled => ("cancelled", "cancelled"),
            Internal => ("internal", "internal error"),
        }
    }

    /// Returns the advice that fits every error of this kind, if there is any.
    pub(super) fn advice(self) -> Option<Advice> {
        use ErrorKind::*;
        let text = match self {
            RateLimited => return Some(Advice::Hint(Hint::FewerRequests)),
            Untrusted => return Some(Advice::Hint(Hint::TrustCertificate)),
            Stalled => return Some(Advice::Hint(Hint::LongerTimeout)),
            SourceChanged => "send the file again, to a new video, once nothing writes to it",
            NotAuthorized => "check the API key: the sandbox and production have separate keys",
            Unavailable => "try again later, and check the proxies and firewalls on the way to the service",
            Connect => "check the endpoint's URL, the network and DNS",
            MalformedAnswer => "check the endpoint's URL: a proxy or another service may be answering",
            WrongProtocol => "check the endpoint's scheme, host and port",
            SourceUnreadable => "check the permissions and the disk or mount of the source, and try again",
            Internal => "this is a defect: please report it with this message",
            // What to do depends on the error, which brings its own advice.
            InvalidInput | NoSuchFile | PlanImpossible | NotFound | AlreadyFilled | AlreadySent | Refused
            | Mismatch | Journal | Busy | Cancelled => return None,
        };
        Some(Advice::Text(text))
    }
}

/// Writes the reason in words, to follow `could not send the chunk:`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name_and_reason().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holds_every_kind_in_order() {
        for (index, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
        assert_eq!(ErrorKind::ALL.len(), ErrorKind::Internal as usize + 1);
    }

    #[test]
    fn every_name_is_used_once() {
        let mut names: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }
}
