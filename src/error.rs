//! The public error: the kind, the failed operation, the service's refusal, and the cause.
//!
//! The type is opaque, so that a cause may change without breaking callers. Decide by [`Error::kind`]. To show
//! an error to a person, use `Display`, its causes by [`source`](std::error::Error::source), and
//! [`Error::advice`] on what to do about it.
//!
//! Does not know: retries, and exit codes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

mod causes;
mod hint;
mod kind;
mod one_line;
mod redaction;
mod refusal;
mod secret_search;

pub use hint::Hint;
pub(crate) use hint::{Advice, RESOURCE_LIMITS_ADVICE};
pub use kind::ErrorKind;
pub use one_line::OneLine;
pub(crate) use one_line::is_unprintable;
pub use refusal::Refusal;
pub(crate) use secret_search::{MIN_SECRET_CHARS, mask_secrets};

/// The result of nearly every function of this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate.
///
/// Its text is one line and holds no secret: no API key, no access token, no upload token. Clones share the cause.
#[derive(Clone, Debug)]
pub struct Error(Box<ErrorData>);

/// The content of an [`Error`], in a box to keep every `Result` small.
#[derive(Clone, Debug)]
struct ErrorData {
    kind: ErrorKind,
    doing: String,
    reason: Option<String>,
    refusal: Option<Refusal>,
    meaning: Option<&'static str>,
    advice: Option<Advice>,
    retry_after: Option<Duration>,
    attempts: u32,
    video_id: Option<String>,
    /// `true` if the upload can be resumed although failures of this kind usually end it.
    resumable: bool,
    /// `true` if the service certainly lacks bytes of the video.
    incomplete: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates a failure of `kind`. `doing` names the operation in the infinitive: `create the video`.
    ///
    /// `doing` must hold no secret.
    pub(crate) fn new(kind: ErrorKind, doing: impl Into<String>) -> Error {
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

    /// Replaces the operation.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Error {
        self.0.doing = doing.into();
        self
    }

    /// Sets the reason in words, in place of that of the kind.
    #[must_use]
    pub(crate) fn because(mut self, reason: impl Into<String>) -> Error {
        self.0.reason = Some(reason.into());
        self
    }

    /// Sets the cause.
    #[must_use]
    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into().into());
        self
    }

    /// Sets the service's refusal.
    #[must_use]
    pub(crate) fn with_refusal(mut self, refusal: Refusal) -> Error {
        self.0.refusal = Some(refusal);
        self
    }

    /// Sets the meaning of the refusal.
    #[must_use]
    pub(crate) fn with_meaning(mut self, meaning: &'static str) -> Error {
        self.0.meaning = Some(meaning);
        self
    }

    /// Sets advice, in place of that of the kind.
    #[must_use]
    pub(crate) fn with_advice(self, advice: &'static str) -> Error {
        self.advised(Advice::Text(advice))
    }

    /// Sets a hint as advice, in place of that of the kind.
    #[must_use]
    pub(crate) fn with_hint(self, hint: Hint) -> Error {
        self.advised(Advice::Hint(hint))
    }

    pub(crate) fn advised(mut self, advice: Advice) -> Error {
        self.0.advice = Some(advice);
        self
    }

    /// Sets the wait that the service asked for.
    #[must_use]
    pub(crate) fn with_retry_after(mut self, retry_after: Duration) -> Error {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Sets the number of attempts that were made.
    #[must_use]
    pub(crate) fn after_attempts(mut self, attempts: u32) -> Error {
        self.0.attempts = attempts;
        self
    }

    /// Sets the id of the video concerned.
    #[must_use]
    pub(crate) fn with_video_id(mut self, video_id: impl Into<String>) -> Error {
        self.0.video_id = Some(video_id.into());
        self
    }

    /// Marks the upload as resumable, whatever the kind.
    #[must_use]
    pub(crate) fn and_resumable(mut self) -> Error {
        self.0.resumable = true;
        self
    }

    /// Marks the video as incomplete: the service certainly lacks bytes of it.
    #[must_use]
    pub(crate) fn and_incomplete(mut self) -> Error {
        self.0.incomplete = true;
        self
    }

    /// Changes the kind and keeps the rest.
    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the reason without the operation and the video: `the service answered 503`.
    pub(crate) fn why(&self) -> impl fmt::Display + '_ {
        Why(&self.0)
    }

    /// Returns the operation that failed, in the infinitive: `send chunk 3 of 9 of movie.mp4`.
    pub fn operation(&self) -> &str {
        &self.0.doing
    }

    /// Returns the refusal, if the service refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.0.refusal.as_ref()
    }

    /// Returns the wait before the next request that the service asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns `true` if the same operation may succeed later without any change.
    pub fn is_temporary(&self) -> bool {
        self.0.kind.is_temporary()
    }

    /// Returns `true` if an upload that failed with this error can be resumed.
    ///
    /// That is so for every [resumable](ErrorKind::is_resumable) kind, and for a refusal by an intermediary,
    /// which does not depend on the upload.
    pub fn is_resumable(&self) -> bool {
        self.0.kind.is_resumable() || self.0.resumable || self.is_from_intermediary()
    }

    /// Returns `true` if the refusal is not a document of the service but, for example, a gateway's error page
    /// or a redirect.
    pub fn is_from_intermediary(&self) -> bool {
        self.0.refusal.as_ref().is_some_and(Refusal::is_from_intermediary)
    }

    /// Returns the id of the video concerned, such as one that was created and could not be filled.
    pub fn video_id(&self) -> Option<&str> {
        self.0.video_id.as_deref()
    }

    /// Returns `true` if the service certainly lacks bytes of the [video](Error::video_id): its status lists
    /// fewer, or not every byte was sent. Returns `false` if the state of the video is not known.
    pub fn is_video_incomplete(&self) -> bool {
        self.0.incomplete
    }

    /// Returns the meaning of the refusal. Every refusal of the service has one.
    pub fn meaning(&self) -> Option<&'static str> {
        self.0.meaning
    }

    /// Returns what to do about the failure.
    pub fn advice(&self) -> Option<&'static str> {
        self.chosen_advice().map(Advice::text)
    }

    /// Returns the hint behind [`advice`](Error::advice), if the advice names a setting.
    pub fn hint(&self) -> Option<Hint> {
        match self.chosen_advice() {
            Some(Advice::Hint(hint)) => Some(hint),
            Some(Advice::Text(_)) | None => None,
        }
    }

    /// Returns the texts of the causes, nearest first, without one that only ends the text above it.
    pub fn causes(&self) -> Vec<String> {
        // The chain ends at the first cause that repeats the text above it, as wrappers of `io::Error` do.
        let mut causes = Vec::new();
        let mut above = self.to_string();
        for cause in self.sources() {
            let text = cause.to_string();
            if !above.ends_with(&text) {
                causes.push(text.clone());
            }
            above = text;
        }
        causes
    }

    fn sources(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        iter::successors(self.source(), |&cause| cause.source())
    }

    fn chosen_advice(&self) -> Option<Advice> {
        let of_limits = || self.is_out_of_files().then_some(Advice::Text(RESOURCE_LIMITS_ADVICE));
        self.0.advice.or_else(of_limits).or_else(|| self.0.kind.advice())
    }

    /// Returns `true` if the cause is a limit of open files, whatever was to be opened.
    fn is_out_of_files(&self) -> bool {
        self.sources().any(|cause| cause.downcast_ref().is_some_and(causes::is_out_of_files))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ErrorData { doing, video_id, .. } = &*self.0;
        write!(f, "could not {}: {}", OneLine(doing), self.why())?;
        match video_id {
            // The operation often names the video, and one line need not name it twice.
            Some(video_id) if !doing.contains(video_id) => write!(f, " (video {})", OneLine(video_id)),
            _ => Ok(()),
        }
    }
}

/// The reason of an error, without its operation and its video.
struct Why<'a>(&'a ErrorData);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ErrorData { kind, reason, refusal, attempts, .. } = self.0;
        match (reason, refusal) {
            (Some(reason), _) => OneLine(reason).fmt(f)?,
            (None, Some(refusal)) => refusal.fmt(f)?,
            (None, None) => kind.fmt(f)?,
        }
        if *attempts > 1 { write!(f, ", after {attempts} attempts") } else { Ok(()) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::source::SourceError;
    use crate::transport::{FailedAttempt, TransportError};
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
    fn the_text_is_one_line_with_the_operation_and_the_reason() {
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
            "could not send a\u{fffd}b\u{fffd}[31m\u{fffd}.mp4: the transfer timed out"
        );
    }

    #[test]
    fn the_video_id_is_written_once() {
        let error = Error::new(ErrorKind::Stalled, "send chunk 3 of 9").with_video_id("vi1");
        assert_eq!(error.video_id(), Some("vi1"));
        assert!(error.to_string().ends_with("timed out (video vi1)"));
        let error = error.doing("fill vi1");
        assert_eq!(error.to_string(), "could not fill vi1: the transfer timed out");
    }

    #[test]
    fn a_secret_in_a_refusal_is_masked() {
        let error = Error::new(ErrorKind::Refused, "upload")
            .with_refusal(refusal())
            .because("not with secret")
            .hiding("secret")
            .hiding("");
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert_eq!(error.to_string(), "could not upload: not with ***");
    }

    #[test]
    fn the_advice_for_too_many_open_files_is_that_of_the_limit_whatever_was_opened() {
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            let io = || io::Error::from(errno);
            let source = SourceError::Unreadable { path: "film.mp4".into(), io: io() };
            let attempts = vec![FailedAttempt { address: ([127, 0, 0, 1], 80).into(), reason: io() }];
            let connect = TransportError::Connect { authority: "host:80".to_owned(), attempts };
            let other = Error::new(ErrorKind::Journal, "record it").with_source(io());
            for error in [Error::from(source), Error::from(connect), other] {
                assert_eq!(error.advice(), Some(RESOURCE_LIMITS_ADVICE), "{error:?}");
            }
        }
    }

    #[test]
    fn a_plan_error_keeps_its_reason_as_the_source() {
        let error = Error::from(PlanError::Empty);
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::PlanImpossible, false));
        assert_eq!(error.source().unwrap().to_string(), PlanError::Empty.to_string());
    }

    #[test]
    fn advice_names_a_setting_through_a_hint_and_replaces_that_of_the_kind() {
        let error = Error::new(ErrorKind::Stalled, "x");
        assert_eq!(
            (error.hint(), error.advice()),
            (Some(Hint::LongerTimeout), Some(Hint::LongerTimeout.text()))
        );
        let error = error.with_hint(Hint::SmallerChunks);
        assert_eq!(error.hint(), Some(Hint::SmallerChunks));
        let error = error.with_advice("wait");
        assert_eq!((error.hint(), error.advice()), (None, Some("wait")));
    }

    #[test]
    fn rate_limits_are_temporary_and_refused_credentials_are_not() {
        assert!(
            Error::new(ErrorKind::RateLimited, "x").with_retry_after(Duration::from_secs(7)).is_temporary()
        );
        assert!(!Error::new(ErrorKind::NotAuthorized, "x").is_temporary());
        assert!(Error::new(ErrorKind::NotAuthorized, "x").advice().unwrap().contains("sandbox"));
        assert_eq!(ErrorKind::RateLimited.name(), "rate_limited");
    }

    #[test]
    fn repeated_causes_are_omitted() {
        let inner = Error::new(ErrorKind::Connect, "reach it").with_source(std::io::Error::other("refused"));
        let error = Error::new(ErrorKind::Connect, "create the video").with_source(inner);
        assert_eq!(error.causes(), ["could not reach it: the service cannot be reached", "refused"]);
    }

    #[test]
    fn errors_are_send_and_sync() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
    }
}
