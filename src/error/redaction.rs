//! Removes secrets from an [`Error`]: a service, a proxy or a parser may have repeated them.

use super::*;

impl Error {
    /// Replaces `secret`, in every usual encoding, by `***` in all texts of the error and its causes.
    ///
    /// A secret of fewer than four characters stays, because ordinary words contain it.
    #[must_use]
    pub fn hiding(self, secret: &str) -> Error {
        self.redacted(|text| mask_secrets(text, [secret].into_iter()).map_or(text.into(), Cow::Owned))
    }

    /// Applies `redact` to each text of the error and of its causes.
    #[must_use]
    pub(crate) fn redacted(mut self, redact: impl Fn(&str) -> Cow<'_, str>) -> Error {
        let ErrorData { doing, reason, refusal, video_id, source, .. } = &mut *self.0;
        let refusal = refusal.iter_mut().flat_map(Refusal::texts);
        for text in refusal.chain(reason).chain(video_id).chain([doing]) {
            if let Cow::Owned(clean) = redact(text) {
                *text = clean;
            }
        }
        // A cause has a type of another crate and cannot be changed, so its texts replace it.
        if let Some(clean) = source.as_deref().and_then(|source| RedactedCause::redacting(source, &redact)) {
            *source = Some(Arc::new(clean));
        }
        self
    }

    /// Returns a copy for another caller that waited for the same operation.
    pub(crate) fn shared(&self) -> Error {
        Error(self.0.clone())
    }
}

/// The redacted texts of a cause that held a secret.
struct RedactedCause {
    display: String,
    debug: String,
    source: Option<Box<RedactedCause>>,
}

impl RedactedCause {
    /// Redacts `cause` and its own causes. Returns `None` if none of them held a secret.
    fn redacting<'a>(
        cause: &'a (dyn StdError + 'static),
        redact: &dyn Fn(&str) -> Cow<'_, str>,
    ) -> Option<RedactedCause> {
        let mut chain: Vec<&'a (dyn StdError + 'static)> = vec![cause];
        let mut next = cause.source();
        while let Some(cause) = next.filter(|_| chain.len() < MAX_CAUSES) {
            chain.push(cause);
            next = cause.source();
        }
        let mut held_secret = false;
        let mut clean = |text: String| match redact(&text) {
            Cow::Owned(clean) => {
                held_secret = true;
                clean
            }
            Cow::Borrowed(_) => text,
        };
        let behind = chain.iter().rev().fold(None, |source, cause| {
            // `Debug` is redacted as well: `{error:?}` of a cause often quotes the whole request.
            let (display, debug) = (clean(cause.to_string()), clean(format!("{cause:?}")));
            Some(RedactedCause { display, debug, source: source.map(Box::new) })
        });
        // A clean chain keeps its types, so that callers can still downcast.
        behind.filter(|_| held_secret)
    }
}

impl fmt::Display for RedactedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

impl fmt::Debug for RedactedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.debug)
    }
}

impl StdError for RedactedCause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Bounds the chain of causes, which could be a cycle. No real chain is that long.
const MAX_CAUSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outside")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn caused_by(text: &str) -> Error {
        Error::new(ErrorKind::Unavailable, "try").with_source(Outer(std::io::Error::other(text)))
    }

    #[test]
    fn a_secret_in_a_cause_of_a_cause_is_masked_and_the_chain_kept() {
        let error = caused_by("no hunter2 here").hiding("hunter2");
        assert!(!format!("{error} {error:?} {error:#?}").contains("hunter2"));
        let outer = error.source().unwrap();
        assert_eq!(
            (outer.to_string(), outer.source().unwrap().to_string()),
            ("outside".into(), "no *** here".into())
        );
    }

    #[test]
    fn a_cause_without_a_secret_keeps_its_type() {
        let error = caused_by("nothing").hiding("hunter2");
        assert!(error.source().unwrap().is::<Outer>());
    }

    #[test]
    fn the_operation_and_the_video_are_hidden_too() {
        let error =
            Error::new(ErrorKind::Refused, "read video hunter2").with_video_id("hunter2").hiding("hunter2");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert_eq!((error.operation(), error.video_id()), ("read video ***", Some("***")));
    }
}
