//! Validation of secrets from files, variables and flags.

use super::credentials::Credentials;
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// The reason why a text cannot be a secret. Shows no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFlaw {
    /// The text is empty or only white space.
    #[error("is empty")]
    Empty,
    /// A comment before the value.
    #[error("begins with `#` like a comment; only the value may stand there")]
    Comment,
    /// More than one line.
    #[error("has more than one line; only the value may stand there")]
    Lines,
    /// A quotation mark at one end.
    #[error("is in quotation marks; write it without them")]
    Quoted,
    /// A line of a shell script or of a file of variables.
    #[error("is written as NAME=value; only the value may stand there")]
    Assignment,
    /// A space or a tab inside.
    #[error("has white space inside")]
    WhiteSpace,
    /// A control character, such as NUL.
    #[error("has a control character in it")]
    Control,
    /// A character outside ASCII, such as a zero-width space.
    #[error("has a character in it that is not ASCII, and may be invisible")]
    NotAscii,
    /// Longer than any secret of the service.
    #[error("is longer than {MOST_BYTES} bytes")]
    TooLong,
}

impl Secret {
    /// Parses a secret from a file, a variable or a flag.
    ///
    /// Ignores white space and line ends at both ends, and a UTF-8 byte order mark.
    ///
    /// # Errors
    /// If the rest cannot be a secret of the service, which would refuse it only after the file was sent.
    pub fn parse(text: &str) -> Result<Secret, SecretFlaw> {
        let text = text.trim();
        // Some editors begin a file with a byte order mark, which `trim` keeps.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        match flaw(text) {
            Some(flaw) => Err(flaw),
            None => Ok(Secret::new(text)),
        }
    }

    /// Parses this secret as [`Secret::parse`] does. An error calls it `name`.
    pub(crate) fn parsed(&self, name: &str) -> Result<Secret> {
        Secret::parse(self.reveal()).map_err(|flaw| {
            Error::new(ErrorKind::InvalidInput, format!("use the {name}"))
                .because(format!("the {name} {flaw}"))
                .with_source(flaw)
        })
    }
}

impl Credentials {
    /// Parses each secret of the credentials as [`Secret::parse`] does.
    pub(crate) fn parsed(&self) -> Result<Credentials> {
        Ok(match self {
            Credentials::None => Credentials::None,
            Credentials::ApiKey(key) => Credentials::ApiKey(key.parsed(API_KEY)?),
            Credentials::ExchangedApiKey(key) => Credentials::ExchangedApiKey(key.parsed(API_KEY)?),
            Credentials::AccessToken { token, refresh_token } => Credentials::AccessToken {
                token: token.parsed("access token")?,
                refresh_token: refresh_token
                    .as_ref()
                    .map(|token| token.parsed("refresh token"))
                    .transpose()?,
            },
        })
    }
}

fn flaw(text: &str) -> Option<SecretFlaw> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '`' | '“' | '”' | '‘' | '’' | '«' | '»');
    let has = |is_it: fn(char) -> bool| text.contains(is_it);
    // The first flaw is the one to correct: comments and assignments have white space, too.
    if text.is_empty() {
        Some(SecretFlaw::Empty)
    } else if text.len() > MOST_BYTES {
        Some(SecretFlaw::TooLong)
    } else if text.starts_with('#') {
        Some(SecretFlaw::Comment)
    } else if has(|c| matches!(c, '\n' | '\r')) {
        Some(SecretFlaw::Lines)
    } else if text.starts_with(is_quote) || text.ends_with(is_quote) {
        Some(SecretFlaw::Quoted)
    } else if is_assignment(text) {
        Some(SecretFlaw::Assignment)
    } else if has(char::is_control) {
        Some(SecretFlaw::Control)
    } else if has(char::is_whitespace) {
        Some(SecretFlaw::WhiteSpace)
    } else if !text.is_ascii() {
        Some(SecretFlaw::NotAscii)
    } else {
        None
    }
}

/// Returns `true` for a line such as `export API_KEY=abc`. Base64 has `=` at its end only.
fn is_assignment(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else { return false };
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name && !value.trim_matches('=').is_empty()
}

const API_KEY: &str = "API key";

/// The longest secret. Access tokens are the longest real ones, with about a thousand bytes.
const MOST_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_at_the_ends_and_a_byte_order_mark_are_ignored() {
        for text in ["k+/9-_.~=", "k+/9-_.~=\n", "k+/9-_.~=\r\n", " k+/9-_.~=\t", "\u{feff}k+/9-_.~=\r\n"] {
            assert_eq!(Secret::parse(text).unwrap().reveal(), "k+/9-_.~=", "{text:?}");
        }
        assert_eq!(Secret::parse("k\u{a0}").unwrap().reveal(), "k");
        assert_eq!(Secret::parse("YWJj==").unwrap().reveal(), "YWJj==");
    }

    #[test]
    fn a_text_that_cannot_be_a_secret_is_refused_and_not_shown() {
        use SecretFlaw::*;
        for (text, expected) in [
            ("", Empty),
            (" \r\n", Empty),
            ("\u{feff}", Empty),
            ("# prod\nhunter2", Comment),
            ("hunter2\nhunter3", Lines),
            ("hunter2\rhunter3", Lines),
            ("\"hunter2\"", Quoted),
            ("'hunter2'", Quoted),
            ("hunter2\"", Quoted),
            ("\u{201c}hunter2\u{201d}", Quoted),
            ("APIVIDEO_API_KEY=hunter2", Assignment),
            ("export KEY=hunter2", Assignment),
            ("KEY = hunter2", Assignment),
            ("Bearer hunter2", WhiteSpace),
            ("hun\tter2", Control),
            ("hunter2\0", Control),
            ("hunter2\x1b[0m", Control),
            ("\u{200b}hunter2", NotAscii),
            ("hunter2\u{200d}", NotAscii),
            ("hüter", NotAscii),
        ] {
            let flaw = Secret::parse(text).unwrap_err();
            assert_eq!(flaw, expected, "{text:?}");
            assert!(!flaw.to_string().contains("hunter"), "{flaw}");
        }
        assert_eq!(Secret::parse(&"a".repeat(MOST_BYTES + 1)).unwrap_err(), TooLong);
    }

    #[test]
    fn every_kind_of_credentials_is_read_the_same_way() {
        let clean = Credentials::AccessToken { token: " a\n".into(), refresh_token: Some("b\r\n".into()) };
        let Ok(Credentials::AccessToken { token, refresh_token: Some(refresh_token) }) = clean.parsed()
        else {
            panic!("no tokens")
        };
        assert_eq!((token.reveal(), refresh_token.reveal()), ("a", "b"));
        for credentials in [
            Credentials::ApiKey("hun ter2".into()),
            Credentials::ExchangedApiKey("hun ter2".into()),
            Credentials::AccessToken { token: "hun ter2".into(), refresh_token: None },
            Credentials::AccessToken { token: "a".into(), refresh_token: Some("hun ter2".into()) },
        ] {
            let error = credentials.parsed().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(
                error.to_string().contains("white space") && !error.to_string().contains("hun"),
                "{error}"
            );
        }
    }
}
