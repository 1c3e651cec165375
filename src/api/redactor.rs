//! Removal of a client's secrets from texts.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::credentials::Credentials;
use super::secret::Secret;
use crate::error::{Error, MIN_SECRET_CHARS, mask_secrets};

/// The secrets of a client, to be removed from texts.
///
/// Every text from a service or a proxy is redacted before an [`Error`] holds it, because error pages repeat the
/// request. A secret is found unchanged, in Base64 as the user name of `Basic`, and in every usual encoding:
/// percent-encoded, as a form, for JSON, for HTML. It is replaced by `***`.
///
/// Clones share the secrets. A secret of fewer than four characters is found in Base64 only, because ordinary
/// words contain it.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Arc<RwLock<KnownSecrets>>,
    /// The secrets of one request, in addition to those of the client. Shared, because each chunk has a clone.
    carried: Arc<[Secret]>,
}

#[derive(Default)]
struct KnownSecrets {
    given: Vec<Secret>,
    /// Access and refresh tokens that the service granted, the latest last.
    granted: VecDeque<Secret>,
}

impl Redactor {
    /// Creates a redactor without secrets.
    pub fn new() -> Redactor {
        Redactor::default()
    }

    /// Adds an API key, a token or a password.
    pub fn add(&self, secret: &Secret) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for spelling in spellings(secret) {
            if !known.given.contains(&spelling) {
                known.given.push(spelling);
            }
        }
        longest_first(&mut known.given);
    }

    /// Adds the `user:password` of a URL.
    pub fn add_userinfo_of(&self, url: &str) {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        let strict = authority.split(['/', '?', '#']).next().unwrap_or_default();
        // A password may hold an unescaped `/`, which ends the authority for a strict reader.
        let is_cut = strict.split_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_err());
        let authority = if is_cut && !strict.contains('@') { authority } else { strict };
        let Some((userinfo, _)) = authority.rsplit_once('@') else { return };
        let password = userinfo.split_once(':').map_or(userinfo, |(_, password)| password);
        // As written and decoded, since a proxy may repeat either form.
        for text in [userinfo, password] {
            self.add(&Secret::new(text));
            self.add(&Secret::new(percent_encoding::percent_decode_str(text).decode_utf8_lossy()));
        }
    }

    /// Adds the secrets of credentials.
    pub(crate) fn add_credentials(&self, credentials: &Credentials) {
        match credentials {
            Credentials::None => {}
            Credentials::ApiKey(key) | Credentials::ExchangedApiKey(key) => self.add(key),
            Credentials::AccessToken { token, refresh_token } => {
                self.add(token);
                refresh_token.iter().for_each(|token| self.add(token));
            }
        }
    }

    /// Adds a token that the service granted. Only the latest [`MAX_GRANTED`] are kept.
    pub(super) fn add_granted(&self, token: &Secret) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.granted.len() >= MAX_GRANTED {
            known.granted.pop_front();
        }
        known.granted.push_back(token.clone());
    }

    /// Returns a redactor with these secrets and that of one request: an upload token or a refresh token.
    #[must_use]
    pub fn with(&self, secret: Option<&Secret>) -> Redactor {
        let Some(secret) = secret else { return self.clone() };
        let mut carried = self.carried.to_vec();
        carried.extend(spellings(secret));
        longest_first(&mut carried);
        Redactor { known: self.known.clone(), carried: carried.into() }
    }

    /// Returns `text` without the secrets.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let secrets = self.carried.iter().chain(&known.given).chain(&known.granted);
        mask_secrets(text, secrets.map(Secret::reveal)).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Removes the secrets from all texts of `error` and its causes.
    pub(crate) fn clean(&self, error: Error) -> Error {
        error.redacted(|text| self.redact(text))
    }
}

/// Shows the number of secrets only.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let count = self.carried.len() + known.given.len() + known.granted.len();
        f.debug_struct("Redactor").field("secrets", &count).finish_non_exhaustive()
    }
}

/// Returns the secret unchanged, and in Base64: alone, and as a user name of `Basic` (RFC 7617).
fn spellings(secret: &Secret) -> Vec<Secret> {
    let text = secret.reveal();
    if text.is_empty() {
        return Vec::new();
    }
    let mut all = vec![secret.clone()];
    for plain in [format!("{text}:"), text.to_owned()] {
        let encoded = Secret::new(BASE64_STANDARD.encode(&plain));
        // Decoders accept it without the padding.
        let unpadded = Secret::new(encoded.reveal().trim_end_matches('='));
        let url_safe = Secret::new(BASE64_URL_SAFE_NO_PAD.encode(&plain));
        all.extend([encoded, unpadded, url_safe]);
    }
    // The Base64 of `secret:password` begins with this, up to the last whole group of three bytes.
    let start = Secret::new(BASE64_STANDARD.encode(&text.as_bytes()[..text.len() / 3 * 3]));
    all.push(start);
    // A short Base64 text is found in ordinary words.
    let long_enough =
        |spelling: &Secret| spelling == secret || spelling.reveal().len() >= 2 * MIN_SECRET_CHARS;
    all.retain(long_enough);
    longest_first(&mut all);
    all.dedup();
    all
}

/// Sorts the longest first: if one secret begins with another, the longer one has to be replaced.
fn longest_first(secrets: &mut [Secret]) {
    secrets.sort_by(|a, b| b.reveal().len().cmp(&a.reveal().len()).then_with(|| a.reveal().cmp(b.reveal())));
}

/// The most granted tokens that are kept. Two are granted per hour, and an answer repeats only its own request.
const MAX_GRANTED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::new();
        redactor.add(&Secret::new(secret));
        redactor
    }

    #[test]
    fn a_key_is_hidden_as_it_is_and_as_basic_has_it() {
        let redactor = knowing("sk-live/key+1");
        for plain in ["sk-live/key+1", "sk-live/key+1:"] {
            let (padded, url_safe) = (BASE64_STANDARD.encode(plain), BASE64_URL_SAFE_NO_PAD.encode(plain));
            let text = format!("<{padded}> <{}> <{url_safe}>", padded.trim_end_matches('='));
            assert_eq!(redactor.redact(&text), "<***> <***> <***>", "{text}");
        }
        let with_password = BASE64_STANDARD.encode("sk-live/key+1:password");
        assert!(!redactor.redact(&with_password).contains(&with_password[..16]));
        let escaped = BASE64_STANDARD.encode("sk-live/key+1:").replace('=', "%3d");
        assert_eq!(redactor.redact(&escaped), "***");
    }

    #[test]
    fn a_short_key_leaves_the_text_readable_and_hides_as_basic() {
        assert_eq!(knowing("key").redact("the key of a2V5Og=="), "the key of ***");
        assert_eq!(knowing("a").redact("an answer"), "an answer");
        assert_eq!(knowing("").redact("an answer"), "an answer");
    }

    #[test]
    fn clones_share_their_secrets_and_one_request_keeps_its_own() {
        let redactor = knowing("hunter2");
        let clone = redactor.clone();
        clone.add(&Secret::new("hunter3"));
        clone.add_granted(&Secret::new("granted-1"));
        let request = redactor.with(Some(&Secret::new("to1/abc")));
        assert_eq!(redactor.redact("hunter3 granted-1 to1/abc"), "*** *** to1/abc");
        assert_eq!(request.redact("hunter2 to1%2fabc"), "*** ***");
        assert!(!format!("{request:?}").contains("hunter"));
    }

    #[test]
    fn only_the_latest_granted_tokens_are_kept() {
        let redactor = knowing("hunter2");
        (0..100).for_each(|number| redactor.add_granted(&Secret::new(format!("granted-{number:03}"))));
        assert_eq!(redactor.redact("hunter2 granted-099 granted-000"), "*** *** granted-000");
    }

    #[test]
    fn the_password_of_a_url_is_hidden_wherever_it_stands() {
        for url in ["http://me:pass%2Fword@proxy:3128/x", "me:pass%2Fword@proxy", "http://me:pass/word@proxy"]
        {
            let redactor = Redactor::new();
            redactor.add_userinfo_of(url);
            let shown = redactor.redact("no pass/word, nor pass%2Fword, nor bWU6cGFzcy93b3Jk").into_owned();
            assert!(!shown.contains("word"), "{url}: {shown}");
        }
        let redactor = Redactor::new();
        redactor.add_userinfo_of("https://example.com/a");
        assert_eq!(redactor.redact("https://example.com/a"), "https://example.com/a");
    }
}
