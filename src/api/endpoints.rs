//! The service's JSON endpoints, with the caller's authorization.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;

use super::auth::Auth;
use super::call::{ApiCall, Service};
use super::credentials::Credentials;
use super::exchange::Exchange;
use super::origin::Origin;
use super::redactor::Redactor;
use crate::error::Result;

/// The service's JSON endpoints, over the exchange `E`.
#[derive(Debug)]
pub(crate) struct Api<E> {
    service: Service<E>,
    auth: Auth,
}

impl<E: Exchange> Api<E> {
    /// Returns the way to the service.
    pub(crate) fn exchange(&self) -> &E {
        self.service.exchange()
    }

    /// Creates the API of the service behind `exchange`, authorized by `credentials`.
    ///
    /// The credentials, and each token that the service grants for them, are added to `redactor`, so that no
    /// error holds one of them.
    pub(crate) fn new(exchange: E, credentials: Credentials, origin: Origin, redactor: Redactor) -> Api<E> {
        redactor.add_credentials(&credentials);
        Api { service: Service::new(exchange, origin, redactor), auth: Auth::new(credentials) }
    }

    /// Returns the `Authorization` for one attempt at a request; `None` without credentials.
    ///
    /// Callers that wait for the same token share one renewal. A token is renewed after 80 % of its lifetime. If
    /// the renewal fails, the token stays in use until it expires.
    ///
    /// # Errors
    /// If a token is needed and could not be obtained.
    pub(crate) async fn authorization(&self, now: Instant) -> Result<Option<HeaderValue>> {
        self.auth.authorization(&self.service, now).await
    }

    /// Returns the `Authorization` to use after `used` was answered with 401; `None` if the 401 is final.
    ///
    /// A token is renewed at most once, whatever the number of callers that used it.
    ///
    /// # Errors
    /// If a new token could not be obtained.
    pub(crate) async fn renew_after_401(
        &self,
        used: &HeaderValue,
        now: Instant,
    ) -> Result<Option<HeaderValue>> {
        self.auth.renew_after_401(&self.service, used, now).await
    }

    /// Makes one authorized call, and repeats it once with a renewed token after a 401.
    pub(super) async fn call(&self, call: &ApiCall, now: Instant) -> Result<http::Response<Bytes>> {
        let used = self.authorization(now).await?;
        let refused = match self.service.send(call, used.as_ref()).await {
            // Not after a 403: it means that the credentials are known and do not suffice (RFC 9110, section
            // 15.5.4).
            Err(refused) if refused.refusal().is_some_and(|refusal| refusal.status == 401) => refused,
            answer => return answer,
        };
        // A request without credentials has nothing to renew.
        let Some(used) = used else { return Err(refused) };
        match self.renew_after_401(&used, now).await? {
            Some(fresh) => self.service.send(call, Some(&fresh)).await,
            None => Err(refused),
        }
    }
}
