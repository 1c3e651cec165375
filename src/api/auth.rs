//! The `Authorization` of requests, and its renewal.
//!
//! Access tokens live an hour, and each renewal gives a new refresh token, of which only the latest
//! counts (<https://docs.api.video/reference/disposable-bearer-token-authentication>). The time
//! is an argument and monotonic: no jump of the wall clock expires a token.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Method};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::call::{ApiCall, Service};
use super::credentials::Credentials;
use super::de::{default_on_error, number};
use super::exchange::Exchange;
use super::redactor::Redactor;
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// The source of the `Authorization` of requests.
#[derive(Debug)]
pub(super) enum Auth {
    /// The same for every request.
    Fixed(Option<HeaderValue>),
    /// An access token.
    Bearer(SharedBearer),
}

/// An access token that callers share. A caller holds the lock while it renews, and the others wait.
#[derive(Debug)]
pub(super) struct SharedBearer {
    bearer: Mutex<Bearer>,
    /// The number of renewals that have failed.
    failures: Arc<AtomicU64>,
}

impl SharedBearer {
    /// Locks the token. Also returns the failure of a renewal that ended while this caller waited: repeating the
    /// renewal at once would be one request per caller, without the pause that the service may have asked for.
    async fn lock(&self) -> (MutexGuard<'_, Bearer>, Option<Error>) {
        // Relaxed: the lock orders the second reading after the failures of its earlier holders.
        let seen = self.failures.load(Ordering::Relaxed);
        let bearer = self.bearer.lock().await;
        let failed_meanwhile = self.failures.load(Ordering::Relaxed) != seen;
        let failure =
            bearer.failure.as_ref().filter(|_| failed_meanwhile).map(|failure| failure.error.shared());
        (bearer, failure)
    }
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Auth {
        match credentials {
            Credentials::None => Auth::Fixed(None),
            Credentials::ApiKey(key) => Auth::Fixed(basic(&key)),
            Credentials::ExchangedApiKey(key) => Auth::bearer(Bearer::from_api_key(key)),
            Credentials::AccessToken { token, refresh_token } => {
                Auth::bearer(Bearer::from_token(&token, refresh_token))
            }
        }
    }

    fn bearer(bearer: Bearer) -> Auth {
        Auth::Bearer(SharedBearer { failures: bearer.failures.clone(), bearer: Mutex::new(bearer) })
    }

    /// Returns the `Authorization` for one attempt. Renews a token that is due.
    pub(super) async fn authorization<E: Exchange>(
        &self,
        service: &Service<E>,
        now: Instant,
    ) -> Result<Option<HeaderValue>> {
        match self {
            Auth::Fixed(header) => Ok(header.clone()),
            Auth::Bearer(shared) => {
                let (mut bearer, failed) = shared.lock().await;
                bearer.current(service, failed, now).await.map(Some)
            }
        }
    }

    /// Returns the `Authorization` to use after `used` was refused with 401; `None` if there is no other.
    pub(super) async fn renew_after_401<E: Exchange>(
        &self,
        service: &Service<E>,
        used: &HeaderValue,
        now: Instant,
    ) -> Result<Option<HeaderValue>> {
        let Auth::Bearer(shared) = self else { return Ok(None) };
        let (mut bearer, failed) = shared.lock().await;
        match &bearer.access {
            // Another caller has renewed the token since.
            Some(access) if access.header != used => Ok(Some(access.header.clone())),
            _ if bearer.can_renew() => {
                let fresh = bearer.renew_unless(failed, service, now).await?;
                // The service would refuse the same token again.
                Ok((fresh != used).then_some(fresh))
            }
            _ => Ok(None),
        }
    }
}

/// An access token, and the secrets to obtain the next one.
#[derive(Debug)]
pub(super) struct Bearer {
    access: Option<BearerToken>,
    refresh_token: Option<Secret>,
    api_key: Option<Secret>,
    /// `true` once the service refused the secrets too. Another attempt would only lock the account.
    rejected: bool,
    /// The failure of the last renewal.
    failure: Option<FailedRenewal>,
    failures: Arc<AtomicU64>,
}

/// The failure of a renewal.
#[derive(Debug)]
struct FailedRenewal {
    error: Error,
    /// The earliest time of the next renewal, if the service asked for a wait.
    until: Option<Instant>,
}

impl Bearer {
    fn from_api_key(key: Secret) -> Bearer {
        Bearer::new(None, None, Some(key))
    }

    fn from_token(token: &Secret, refresh_token: Option<Secret>) -> Bearer {
        let access = bearer(token).map(|header| BearerToken { header, life: None });
        Bearer::new(access, refresh_token, None)
    }

    fn new(access: Option<BearerToken>, refresh_token: Option<Secret>, api_key: Option<Secret>) -> Bearer {
        Bearer { access, refresh_token, api_key, rejected: false, failure: None, failures: Arc::default() }
    }

    async fn current<E: Exchange>(
        &mut self,
        service: &Service<E>,
        failed: Option<Error>,
        now: Instant,
    ) -> Result<HeaderValue> {
        if let Some(access) = self.access.as_ref().filter(|access| !access.is_due(now)) {
            return Ok(access.header.clone());
        }
        let renewed = self.renew_unless(failed, service, now).await;
        // A failed renewal is no failure of the call while the old token is valid.
        match self.access.as_mut().filter(|access| access.is_alive(now)) {
            Some(access) if renewed.is_err() => Ok(access.postpone_renewal(now)),
            _ => renewed,
        }
    }

    fn can_renew(&self) -> bool {
        !self.rejected && (self.refresh_token.is_some() || self.api_key.is_some())
    }

    /// Renews the token, unless a renewal has just `failed` or the service asked for a wait.
    async fn renew_unless<E: Exchange>(
        &mut self,
        failed: Option<Error>,
        service: &Service<E>,
        now: Instant,
    ) -> Result<HeaderValue> {
        if let Some(error) = failed.or_else(|| self.too_early(now)) {
            return Err(error);
        }
        let renewed = self.renew(service, now).await;
        self.failure = renewed.as_ref().err().map(|error| FailedRenewal {
            error: error.shared(),
            until: error.retry_after().and_then(|wait| now.checked_add(wait)),
        });
        if renewed.is_err() {
            // Relaxed: the lock on the token, which is held here, orders it for `SharedBearer::lock`.
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        renewed
    }

    /// Returns the last failure while the wait that the service asked for has not ended.
    fn too_early(&self, now: Instant) -> Option<Error> {
        let FailedRenewal { error, until } = self.failure.as_ref()?;
        let left = until.filter(|until| now < *until)? - now;
        Some(error.shared().with_retry_after(left))
    }

    async fn renew<E: Exchange>(&mut self, service: &Service<E>, now: Instant) -> Result<HeaderValue> {
        if !self.can_renew() {
            return Err(no_credentials());
        }
        if let Some(refresh_token) = self.refresh_token.clone() {
            let granted = grant(service, "/auth/refresh", "refreshToken", &refresh_token).await;
            match granted {
                Ok(grant) => return self.accept(grant, service.redactor(), now),
                // A refresh token is valid once. If it is lost, the API key obtains a new pair.
                Err(refused) if !refused.is_temporary() && self.api_key.is_some() => {
                    self.refresh_token = None
                }
                Err(error) => return Err(self.note(error)),
            }
        }
        let Some(api_key) = self.api_key.clone() else { return Err(no_credentials()) };
        match grant(service, "/auth/api-key", "apiKey", &api_key).await {
            Ok(grant) => self.accept(grant, service.redactor(), now),
            Err(error) => Err(self.note(error)),
        }
    }

    fn accept(&mut self, grant: Grant, redactor: &Redactor, now: Instant) -> Result<HeaderValue> {
        // First, so that no text from here on can hold the tokens.
        redactor.add_granted(&grant.access_token);
        grant.refresh_token.iter().for_each(|token| redactor.add_granted(token));
        let header =
            bearer(&grant.access_token).ok_or_else(|| Error::new(ErrorKind::MalformedAnswer, DOING))?;
        // A service may keep the refresh token and send none (RFC 6749, section 6).
        self.refresh_token = grant.refresh_token.or(self.refresh_token.take());
        self.access = Some(BearerToken {
            header: header.clone(),
            life: grant.expires_in.and_then(|s| Lifetime::new(s, now)),
        });
        Ok(header)
    }

    fn note(&mut self, error: Error) -> Error {
        // Temporary failures do not set it: the service did not judge the secrets then.
        self.rejected |= error.kind() == ErrorKind::NotAuthorized;
        error
    }
}

/// An access token as a header value.
#[derive(Debug)]
struct BearerToken {
    header: HeaderValue,
    /// `None` if the lifetime is unknown: the token is used until the service refuses it.
    life: Option<Lifetime>,
}

#[derive(Clone, Copy, Debug)]
struct Lifetime {
    renew_at: Instant,
    ends_at: Instant,
}

impl Lifetime {
    /// Returns `None` for a lifetime of zero seconds, or one that ends beyond the clock's range.
    fn new(seconds: u64, now: Instant) -> Option<Lifetime> {
        let life = Duration::from_secs(seconds);
        let ends_at = now.checked_add(life).filter(|_| seconds > 0)?;
        // 80 % leaves time for several attempts at renewal before the token expires.
        Some(Lifetime { renew_at: now + life / 5 * 4, ends_at })
    }
}

impl BearerToken {
    fn is_due(&self, now: Instant) -> bool {
        self.life.is_some_and(|life| life.renew_at <= now)
    }

    fn is_alive(&self, now: Instant) -> bool {
        self.life.is_none_or(|life| now < life.ends_at)
    }

    /// Postpones the renewal of a token that is still valid; the service may have recovered by then.
    fn postpone_renewal(&mut self, now: Instant) -> HeaderValue {
        if let Some(life) = &mut self.life {
            life.renew_at = now + RENEWAL_PAUSE;
        }
        self.header.clone()
    }
}

/// The answer of both calls. Unlike the rest of the API, its keys are in snake case.
#[derive(Deserialize)]
struct Grant {
    access_token: Secret,
    #[serde(default, deserialize_with = "default_on_error")]
    refresh_token: Option<Secret>,
    #[serde(default, deserialize_with = "number")]
    expires_in: Option<u64>,
}

async fn grant<E: Exchange>(service: &Service<E>, path: &str, key: &str, secret: &Secret) -> Result<Grant> {
    let call =
        ApiCall::new(DOING, Method::POST, path).carrying(secret).json(&json!({ key: secret.reveal() }))?;
    call.read_secret(&service.send(&call, None).await?)
}

/// Returns `Basic` credentials: the key is the user name, and the password is empty.
fn basic(key: &Secret) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(format!("{}:", key.reveal()))))
}

fn bearer(token: &Secret) -> Option<HeaderValue> {
    if token.reveal().is_empty() { None } else { sensitive(&format!("Bearer {}", token.reveal())) }
}

/// Returns a header value that is not logged; `None` for characters that no header can carry.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    // `Debug` does not show a sensitive value.
    header.set_sensitive(true);
    Some(header)
}

fn no_credentials() -> Error {
    Error::new(ErrorKind::NotAuthorized, DOING)
        .because("there is no valid access token, and nothing to obtain one with")
}

const DOING: &str = "obtain an access token";

/// The pause between two attempts to renew a token that is still valid.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Response;

    use super::*;
    use crate::api::scripted::{ScriptedServer, response, start};

    fn granted(access: &str, refresh: &str) -> Response<Bytes> {
        response(
            200,
            json!({
                "token_type": "Bearer", "expires_in": 3600, "access_token": access, "refresh_token": refresh,
            }),
        )
    }

    fn refuses() -> Response<Bytes> {
        let page = "https://docs.api.video/reference/authentication-invalid-user-credentials";
        response(400, json!({"type": page, "title": "Invalid", "name": "", "status": 400}))
    }

    fn key() -> Secret {
        Secret::new("key-123456")
    }

    fn given(refresh_token: Option<&str>) -> Credentials {
        Credentials::AccessToken {
            token: Secret::new("given"),
            refresh_token: refresh_token.map(Secret::new),
        }
    }

    fn after(seconds: u64) -> Instant {
        start() + Duration::from_secs(seconds)
    }

    fn shown(header: Option<HeaderValue>) -> String {
        header.map_or("none".into(), |header| header.to_str().unwrap().into())
    }

    #[tokio::test]
    async fn an_api_key_is_a_user_name_without_a_password() {
        let service = ScriptedServer::new([]).await;
        let api = service.api(Credentials::ApiKey(Secret::new("key")));
        let header = api.authorization(start()).await.unwrap().unwrap();
        assert_eq!(header, "Basic a2V5Og==");
        assert!(header.is_sensitive());
        assert_eq!(api.renew_after_401(&header, start()).await.unwrap(), None);
        let anonymous = service.api(Credentials::None);
        assert_eq!(anonymous.authorization(start()).await.unwrap(), None);
        assert!(service.seen().is_empty());
    }

    #[tokio::test]
    async fn a_key_is_exchanged_once_and_its_token_renewed_at_four_fifths_of_its_life() {
        let service =
            ScriptedServer::new([granted("a1", "r1"), granted("a2", "r2"), granted("a3", "r3")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        for (seconds, token) in [(0, "a1"), (2879, "a1"), (2880, "a2"), (2880 + 2879, "a2"), (9000, "a3")] {
            let header = api.authorization(after(seconds)).await.unwrap();
            assert_eq!(shown(header), format!("Bearer {token}"), "{seconds}");
        }
        let sent: Vec<_> = service.seen().iter().map(|seen| (seen.line(), seen.json())).collect();
        assert_eq!(sent[0], ("POST /auth/api-key".into(), json!({"apiKey": "key-123456"})));
        assert_eq!(sent[1], ("POST /auth/refresh".into(), json!({"refreshToken": "r1"})));
        assert_eq!(sent[2], ("POST /auth/refresh".into(), json!({"refreshToken": "r2"})));
        assert_eq!(service.seen()[0].header("authorization"), "");
        assert_eq!(service.seen()[0].header("content-type"), "application/json");
    }

    #[tokio::test]
    async fn callers_that_wait_share_one_renewal() {
        let service = ScriptedServer::new([granted("a1", "r1"), granted("a2", "r2")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        let (a, b, c) =
            tokio::join!(api.authorization(start()), api.authorization(start()), api.authorization(start()));
        let used = a.unwrap().unwrap();
        assert_eq!((b.unwrap().as_ref(), c.unwrap().as_ref()), (Some(&used), Some(&used)));
        let (a, b) = tokio::join!(api.renew_after_401(&used, start()), api.renew_after_401(&used, start()));
        assert_eq!((shown(a.unwrap()), shown(b.unwrap())), ("Bearer a2".into(), "Bearer a2".into()));
        assert_eq!(service.lines(), ["POST /auth/api-key", "POST /auth/refresh"]);
    }

    #[tokio::test]
    async fn callers_that_wait_share_a_failure_as_they_share_a_success() {
        let mut busy = response(429, "");
        busy.headers_mut().insert("retry-after", "7".parse().unwrap());
        let service = ScriptedServer::new([busy, granted("a1", "r1")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        let (a, b, c) =
            tokio::join!(api.authorization(start()), api.authorization(start()), api.authorization(start()));
        for outcome in [a, b, c] {
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind(), error.retry_after()),
                (ErrorKind::RateLimited, Some(Duration::from_secs(7)))
            );
        }
        let early = api.authorization(after(5)).await.unwrap_err();
        assert_eq!(early.retry_after(), Some(Duration::from_secs(2)), "the service asked for seven seconds");
        assert_eq!(service.seen().len(), 1);
        assert_eq!(shown(api.authorization(after(7)).await.unwrap()), "Bearer a1");
    }

    #[tokio::test]
    async fn a_caller_after_a_failure_without_a_wait_tries_again() {
        let service = ScriptedServer::new([response(503, ""), granted("a1", "r1")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        assert!(api.authorization(start()).await.is_err());
        assert_eq!(shown(api.authorization(start()).await.unwrap()), "Bearer a1");
    }

    #[tokio::test]
    async fn a_refused_refresh_token_falls_back_to_the_key() {
        let service = ScriptedServer::new([granted("a1", "r1"), refuses(), granted("a2", "r2")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        api.authorization(start()).await.unwrap();
        assert_eq!(shown(api.authorization(after(3000)).await.unwrap()), "Bearer a2");
        assert_eq!(service.lines(), ["POST /auth/api-key", "POST /auth/refresh", "POST /auth/api-key"]);
    }

    #[tokio::test]
    async fn a_valid_token_outlasts_a_renewal_that_fails() {
        let service = ScriptedServer::new([
            granted("a1", "r1"),
            response(503, ""),
            response(503, ""),
            granted("a2", "r2"),
        ])
        .await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        for (seconds, token) in [(0, "a1"), (2880, "a1"), (2889, "a1"), (2890, "a1"), (2900, "a2")] {
            assert_eq!(shown(api.authorization(after(seconds)).await.unwrap()), format!("Bearer {token}"));
        }
        assert_eq!(service.seen().len(), 4);
    }

    #[tokio::test]
    async fn an_expired_token_does_not_outlast_a_failed_renewal() {
        let service = ScriptedServer::new([granted("a1", "r1"), response(503, "")]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        api.authorization(start()).await.unwrap();
        let error = api.authorization(after(3600)).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Unavailable, "obtain an access token"));
    }

    #[tokio::test]
    async fn a_refused_key_is_not_offered_twice() {
        let service = ScriptedServer::new([refuses()]).await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        for _ in 0..2 {
            let error = api.authorization(start()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotAuthorized);
        }
        assert_eq!(service.seen().len(), 1);
    }

    #[tokio::test]
    async fn a_given_token_is_used_until_it_is_refused_and_its_refresh_token_once() {
        let service = ScriptedServer::new([granted("a1", "r1")]).await;
        let api = service.api(given(Some("r0")));
        let header = api.authorization(after(100_000)).await.unwrap().unwrap();
        assert_eq!(header, "Bearer given");
        assert_eq!(shown(api.renew_after_401(&header, start()).await.unwrap()), "Bearer a1");
        assert_eq!(shown(api.renew_after_401(&header, start()).await.unwrap()), "Bearer a1");
        assert_eq!(service.seen()[0].json(), json!({"refreshToken": "r0"}));
        assert_eq!(service.seen().len(), 1);
        let api = service.api(given(None));
        assert_eq!(api.renew_after_401(&header, start()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_same_token_again_is_no_renewal() {
        let service = ScriptedServer::new([granted("given", "r1")]).await;
        let api = service.api(given(Some("r0")));
        let header = api.authorization(start()).await.unwrap().unwrap();
        assert_eq!(api.renew_after_401(&header, start()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_token_with_an_invalid_lifetime_is_used_until_a_401() {
        for life in [json!(null), json!(0), json!(-5), json!("soon"), json!(u64::MAX)] {
            let grant = json!({"access_token": "a1", "expires_in": life});
            let service = ScriptedServer::new([response(200, grant)]).await;
            let api = service.api(Credentials::ExchangedApiKey(key()));
            for seconds in [0, 100_000] {
                assert_eq!(shown(api.authorization(after(seconds)).await.unwrap()), "Bearer a1", "{life}");
            }
        }
    }

    #[tokio::test]
    async fn a_granted_token_that_comes_back_is_hidden_everywhere() {
        let echo = json!({"title": "no access-t0ken here", "detail": "nor access%2Dt0ken or refresh-t0ken"});
        let unread = json!({"videoId": ["access-t0ken"], "x": "refresh-t0ken"});
        let service = ScriptedServer::new([
            granted("access-t0ken", "refresh-t0ken"),
            response(400, echo),
            response(200, unread),
            response(200, json!({"videoId": 5, "access-t0ken": 1})),
        ])
        .await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        for _ in 0..3 {
            let error = api.videos(start()).get("vi1").await.unwrap_err();
            let mut texts = format!("{error} {error:?} {error:#?} {:?}", error.refusal());
            let mut next = std::error::Error::source(&error);
            while let Some(cause) = next {
                texts += &format!("{cause} {cause:?}");
                next = cause.source();
            }
            assert!(!texts.contains("t0ken"), "{texts}");
        }
    }

    #[tokio::test]
    async fn no_secret_is_ever_shown() {
        let echo = "you sent key-123456, did you not";
        let service = ScriptedServer::new([
            response(400, json!({"title": echo, "problems": [{"detail": echo}]})),
            response(200, json!({"access_token": ["secret-token"], "refresh_token": "secret-refresh"})),
            granted("secret-token", "secret-refresh"),
        ])
        .await;
        let api = service.api(Credentials::ExchangedApiKey(key()));
        let mut texts = vec![format!("{:?}", Credentials::ExchangedApiKey(key()))];
        for _ in 0..2 {
            let error = api.authorization(start()).await.unwrap_err();
            texts.push(format!("{error} {error:?}"));
        }
        let header = api.authorization(start()).await.unwrap();
        texts.push(format!("{api:?} {header:?}"));
        for text in texts {
            assert!(!text.contains("key-123456") && !text.contains("secret-"), "{text}");
        }
    }
}
