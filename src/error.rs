//! The public error: what kind, what was being done, what the service said, and the cause.
//!
//! One opaque type, so that a cause may change without breaking anybody. Decide by
//! [`Error::kind`]; show the error to a person with `Display`, its causes with
//! [`source`](std::error::Error::source) and the way out with [`Error::advice`].
//!
//! Does not know: how often something was tried, and which exit code an error becomes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

mod causes;
mod one_line;
mod redaction;
mod secret_search;

pub use one_line::OneLine;
pub(crate) use one_line::is_unprintable;
pub(crate) use secret_search::{MIN_SECRET_CHARS, mask_secrets};

/// What nearly every function of this crate that can fail returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed.
///
/// Its text is one line and holds no secret: no API key, no access token, no upload token.
#[derive(Debug)]
pub struct Error(Box<ErrorData>);

#[derive(Clone, Debug)]
struct ErrorData {
    kind: ErrorKind,
    doing: String,
    reason: Option<String>,
    refusal: Option<Refusal>,
    meaning: Option<&'static str>,
    advice: Option<&'static str>,
    retry_after: Option<Duration>,
    attempts: u32,
    video_id: Option<String>,
    /// Whether an upload can be taken up although failures of this kind usually end it.
    resumable: bool,
    /// Whether the video certainly lacks bytes.
    incomplete: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure it is: enough to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value that the caller gave cannot be used.
    InvalidInput,
    /// There is no file at that path.
    NoSuchFile,
    /// The file exists and could not be read.
    SourceUnreadable,
    /// The file changed, shrank or was replaced while it was being sent.
    SourceChanged,
    /// The file cannot be sent within the protocol's limits; nothing was sent or created.
    PlanImpossible,
    /// The credentials were refused, or do not suffice (401, 403).
    NotAuthorized,
    /// The service knows no such video or upload token.
    NotFound,
    /// The container has a source already, and takes only one.
    AlreadyFilled,
    /// The service holds this chunk already: on a second attempt, a question rather than an error.
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
    /// What answers at the endpoint does not speak HTTP.
    WrongProtocol,
    /// What the service holds is not what was sent.
    Mismatch,
    /// The journal could not be read or written.
    Journal,
    /// Somebody else is doing this already. Temporary.
    Busy,
    /// The caller cancelled.
    Cancelled,
    /// A defect of this crate.
    Internal,
}

/// What the service said when it refused: its problem document, bounded and without control characters.
///
/// See <https://docs.api.video/reference/errors>.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem: the last path segment of its `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// A short text for a person; changes over time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is particular to this occurrence; or the start of a body that is no problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The offending parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The single problems, when the service found several; these have none of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Refusal>,
}

impl Error {
    /// A failure of `kind` while doing what `doing` says in the infinitive: `create the video`.
    ///
    /// `doing` must hold no secret.
    pub fn new(kind: ErrorKind, doing: impl Into<String>) -> Error {
        Error(Box::new(ErrorData {
            kind,
            doing: doing.into(),
            reason: None,
            refusal: None,
            meaning: None,
            advice: None,
            retry_after: None,
            attempts: 1,
            video_id: None,
            resumable: false,
            incomplete: false,
            source: None,
        }))
    }

    /// Replaces the operation: whoever knows more about it says it better.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Error {
        self.0.doing = doing.into();
        self
    }

    /// Says the reason in words, in place of those of the kind.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Error {
        self.0.reason = Some(reason.into());
        self
    }

    /// Names the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into().into());
        self
    }

    /// Keeps what the service said.
    #[must_use]
    pub fn with_refusal(mut self, refusal: Refusal) -> Error {
        self.0.refusal = Some(refusal);
        self
    }

    /// Says what it means here.
    #[must_use]
    pub fn with_meaning(mut self, meaning: &'static str) -> Error {
        self.0.meaning = Some(meaning);
        self
    }

    /// Says what to do about it, in place of what the kind says.
    #[must_use]
    pub fn with_advice(mut self, advice: &'static str) -> Error {
        self.0.advice = Some(advice);
        self
    }

    /// Says how long the service asked to wait.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Error {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Says how many attempts were made.
    #[must_use]
    pub fn after_attempts(mut self, attempts: u32) -> Error {
        self.0.attempts = attempts;
        self
    }

    /// Names the video that it is about.
    #[must_use]
    pub fn with_video_id(mut self, video_id: impl Into<String>) -> Error {
        self.0.video_id = Some(video_id.into());
        self
    }

    /// Marks the upload as one that can be taken up where it stopped, whatever the kind.
    #[must_use]
    pub fn and_resumable(mut self) -> Error {
        self.0.resumable = true;
        self
    }

    /// Says that the service certainly lacks bytes of the video.
    #[must_use]
    pub fn and_incomplete(mut self) -> Error {
        self.0.incomplete = true;
        self
    }

    /// Changes the kind, and keeps everything that is known of the failure.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done, in the infinitive: `send chunk 3 of 9 of movie.mp4`.
    pub fn operation(&self) -> &str {
        &self.0.doing
    }

    /// What the service said, when it was the service that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.refusal.as_ref()
    }

    /// How long the service asked to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same thing may succeed later, without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        self.0.kind.is_temporary()
    }

    /// Whether an upload that ended with this error can be taken up where it stopped.
    ///
    /// True for every kind that is [resumable](ErrorKind::is_resumable), and for a refusal by something
    /// between here and the service, which says nothing about the upload.
    pub fn is_resumable(&self) -> bool {
        self.0.kind.is_resumable() || self.0.resumable || self.is_from_intermediary()
    }

    /// Whether the answer was no document of the service: an error page of a gateway, a redirect.
    pub fn is_from_intermediary(&self) -> bool {
        self.0.refusal.as_ref().is_some_and(Refusal::is_from_intermediary)
    }

    /// The video that it is about: a container that was created and could not be filled is named here.
    pub fn video_id(&self) -> Option<&str> {
        self.0.video_id.as_deref()
    }

    /// Whether the service certainly lacks bytes of the [video](Error::video_id): its status said so, or not every
    /// byte was sent. `false` while the state of the video is not known.
    pub fn is_video_incomplete(&self) -> bool {
        self.0.incomplete
    }

    /// What it means here: every refusal of the service has a meaning.
    pub fn meaning(&self) -> Option<&'static str> {
        self.0.meaning
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&'static str> {
        self.0.advice.or_else(|| self.0.kind.advice())
    }
}

impl ErrorKind {
    /// Whether the same thing may succeed later, without anybody changing anything.
    pub fn is_temporary(self) -> bool {
        use ErrorKind::*;
        matches!(self, RateLimited | Unavailable | Connect | Stalled | Busy)
    }

    /// Whether an upload that ended so can be taken up where it stopped.
    pub fn is_resumable(self) -> bool {
        use ErrorKind::*;
        self.is_temporary()
            || matches!(self, Cancelled | NotAuthorized | Untrusted | Journal | SourceUnreadable)
            || matches!(self, MalformedAnswer | WrongProtocol | Internal)
    }

    /// A stable name, for logs and machine-readable output: `rate_limited`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::NoSuchFile => "no_such_file",
            ErrorKind::SourceUnreadable => "source_unreadable",
            ErrorKind::SourceChanged => "source_changed",
            ErrorKind::PlanImpossible => "plan_impossible",
            ErrorKind::NotAuthorized => "not_authorized",
            ErrorKind::NotFound => "not_found",
            ErrorKind::AlreadyFilled => "already_filled",
            ErrorKind::AlreadySent => "already_sent",
            ErrorKind::Refused => "refused",
            ErrorKind::RateLimited => "rate_limited",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Connect => "connect",
            ErrorKind::Untrusted => "untrusted",
            ErrorKind::Stalled => "stalled",
            ErrorKind::MalformedAnswer => "malformed_answer",
            ErrorKind::WrongProtocol => "wrong_protocol",
            ErrorKind::Mismatch => "mismatch",
            ErrorKind::Journal => "journal",
            ErrorKind::Busy => "busy",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }

    fn advice(self) -> Option<&'static str> {
        match self {
            ErrorKind::NotAuthorized => {
                Some("check the API key: the sandbox and production have separate keys")
            }
            ErrorKind::RateLimited => {
                Some("wait a minute, or send fewer and larger chunks: every chunk is one request")
            }
            ErrorKind::Unavailable => {
                Some("try again later, and check what stands between here and the service")
            }
            ErrorKind::Stalled => Some(
                "check the network and the endpoint's URL; where the service only needs longer, give it that (--timeout)",
            ),
            ErrorKind::Connect => Some("check the endpoint's URL, the network and the name resolution"),
            ErrorKind::Untrusted => Some(
                "check the endpoint's URL and the clock, or name the authority that signed its certificate",
            ),
            ErrorKind::MalformedAnswer => {
                Some("check the endpoint's URL: a proxy or another service may be answering")
            }
            ErrorKind::WrongProtocol => Some("check the endpoint's scheme, host and port"),
            ErrorKind::SourceChanged => {
                Some("send the file again, to a new video, once nothing writes to it")
            }
            ErrorKind::Internal => Some("this is a defect: please report it with this message"),
            _ => None,
        }
    }
}

/// The reason in words, to stand behind `could not send the chunk:`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::InvalidInput => "a value cannot be used",
            ErrorKind::NoSuchFile => "there is no such file",
            ErrorKind::SourceUnreadable => "the file cannot be read",
            ErrorKind::SourceChanged => "the file changed while it was being sent",
            ErrorKind::PlanImpossible => "it is outside the limits of the protocol",
            ErrorKind::NotAuthorized => "the service refused the credentials",
            ErrorKind::NotFound => "the service knows no such thing",
            ErrorKind::AlreadyFilled => "the video has a source already",
            ErrorKind::AlreadySent => "the service holds this chunk already",
            ErrorKind::Refused => "the service refused the request",
            ErrorKind::RateLimited => "the service asks for fewer requests a minute",
            ErrorKind::Unavailable => "the service did not answer as it should",
            ErrorKind::Connect => "the service cannot be reached",
            ErrorKind::Untrusted => "the service's certificate is not trusted",
            ErrorKind::Stalled => "nothing moved for too long",
            ErrorKind::MalformedAnswer => "the answer is not one of this protocol",
            ErrorKind::WrongProtocol => "what answers there does not speak HTTP",
            ErrorKind::Mismatch => "the service does not hold what was sent",
            ErrorKind::Journal => "the journal cannot be used",
            ErrorKind::Busy => "somebody else is doing this already",
            ErrorKind::Cancelled => "it was cancelled",
            ErrorKind::Internal => "something that cannot happen happened",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ErrorData { kind, doing, reason, refusal, attempts, video_id, .. } = &*self.0;
        write!(f, "could not {}: ", OneLine(doing))?;
        match (reason, refusal) {
            (Some(reason), _) => OneLine(reason).fmt(f)?,
            (None, Some(refusal)) => refusal.fmt(f)?,
            (None, None) => kind.fmt(f)?,
        }
        if *attempts > 1 {
            write!(f, ", after {attempts} attempts")?;
        }
        match video_id {
            Some(video_id) if !doing.contains(video_id) => write!(f, " (video {})", OneLine(video_id)),
            _ => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl Refusal {
    /// Whether the answer names no problem of the service: a page, a redirect, a document of another program.
    fn is_from_intermediary(&self) -> bool {
        self.slug.is_none() && self.problems.iter().all(|problem| problem.slug.is_none())
    }

    fn texts(&mut self) -> Box<dyn Iterator<Item = &mut String> + '_> {
        let own = [&mut self.slug, &mut self.title, &mut self.detail, &mut self.name];
        Box::new(own.into_iter().flatten().chain(self.problems.iter_mut().flat_map(Refusal::texts)))
    }
}

/// One line: `the service answered 400 invalid-attribute on "language": The title. The detail`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered {}", self.status)?;
        if let Some(slug) = &self.slug {
            write!(f, " {}", OneLine(slug))?;
        }
        if let Some(name) = &self.name {
            write!(f, " on \"{}\"", OneLine(name))?;
        }
        let mut before = ": ";
        for text in [&self.title, &self.detail].into_iter().flatten() {
            write!(f, "{before}{}", OneLine(text))?;
            before = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::wire::PlanError;

    fn refusal() -> Refusal {
        Refusal {
            status: 400,
            slug: Some("invalid-attribute".into()),
            title: Some("An attribute is invalid.".into()),
            detail: Some("This is not a known language.".into()),
            name: Some("language".into()),
            problems: vec![Refusal {
                status: 400,
                detail: Some("secret in here".into()),
                ..Refusal::default()
            }],
        }
    }

    #[test]
    fn it_is_one_line_that_names_the_operation_and_the_reason() {
        let error = Error::new(ErrorKind::Connect, "create the video")
            .with_source(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(error.to_string(), "could not create the video: the service cannot be reached");
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
        let error = Error::new(ErrorKind::Refused, "create the video").with_refusal(refusal());
        assert_eq!(
            error.to_string(),
            "could not create the video: the service answered 400 invalid-attribute on \"language\": \
             An attribute is invalid. This is not a known language.",
        );
    }

    #[test]
    fn file_names_cannot_break_the_line_or_steer_a_terminal() {
        let error = Error::new(ErrorKind::Stalled, "send a\nb\u{1b}[31m\u{202e}.mp4");
        assert_eq!(
            error.to_string(),
            "could not send a\u{fffd}b\u{fffd}[31m\u{fffd}.mp4: nothing moved for too long"
        );
    }

    #[test]
    fn a_container_that_was_not_filled_is_named_once() {
        let error = Error::new(ErrorKind::Stalled, "send chunk 3 of 9").with_video_id("vi1");
        assert_eq!(error.video_id(), Some("vi1"));
        assert!(error.to_string().ends_with("too long (video vi1)"));
        let error = error.doing("fill vi1");
        assert_eq!(error.to_string(), "could not fill vi1: nothing moved for too long");
    }

    #[test]
    fn a_secret_that_came_back_is_blotted_out() {
        let error = Error::new(ErrorKind::Refused, "upload")
            .with_refusal(refusal())
            .because("not with secret")
            .hiding("secret")
            .hiding("");
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert_eq!(error.to_string(), "could not upload: not with ***");
    }

    #[test]
    fn a_plan_that_cannot_be_is_an_error_of_its_own_kind_with_the_reason_as_its_source() {
        let error = Error::from(PlanError::Empty);
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::PlanImpossible, false));
        assert_eq!(error.source().unwrap().to_string(), PlanError::Empty.to_string());
    }

    #[test]
    fn what_may_pass_by_itself_is_temporary() {
        assert!(
            Error::new(ErrorKind::RateLimited, "x").with_retry_after(Duration::from_secs(7)).is_temporary()
        );
        assert!(!Error::new(ErrorKind::NotAuthorized, "x").is_temporary());
        assert!(Error::new(ErrorKind::NotAuthorized, "x").advice().unwrap().contains("sandbox"));
        assert_eq!(ErrorKind::RateLimited.name(), "rate_limited");
    }

    #[test]
    fn it_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
    }
}
