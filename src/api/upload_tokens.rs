//! The calls about upload tokens, which authorize uploads without the API key.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::advice::NO_SUCH_TOKEN;
use super::call::ApiCall;
use super::de::{id, number, text};
use super::endpoints::Api;
use super::exchange::Exchange;
use super::page::{Page, SortOrder};
use super::path_builder::{PathBuilder, escape};
use super::secret::Secret;
use crate::error::{Error, ErrorKind, Result};

/// The calls about upload tokens, each one attempt; see [`Api::upload_tokens`].
///
/// <https://docs.api.video/reference/api/Upload-Tokens>
#[derive(Debug)]
pub(crate) struct UploadTokens<'a, E> {
    pub(super) api: &'a Api<E>,
    pub(super) now: Instant,
}

/// An upload token. Serialization shows the token, because the caller needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UploadToken {
    /// The token itself, which authorizes uploads.
    #[serde(serialize_with = "reveal", deserialize_with = "token")]
    pub token: Secret,
    /// The lifetime in seconds from the creation; 0 is unlimited.
    #[serde(default, deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// The time of creation.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// The time of expiry; `None` is never.
    #[serde(default, deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A query for upload tokens. `None` uses the service's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadTokenQuery {
    /// The sort key.
    pub sort_by: Option<UploadTokenSort>,
    /// The sort order.
    pub sort_order: Option<SortOrder>,
    /// The page, counted from 1.
    pub current_page: Option<u64>,
    /// The number of tokens per page, 1 to 100; the service's default is 25.
    pub page_size: Option<u64>,
}

/// The sort key of a list of upload tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UploadTokenSort {
    /// The time of creation.
    CreatedAt,
    /// The lifetime.
    Ttl,
}

impl<E: Exchange> Api<E> {
    /// Returns the calls about upload tokens. `now` decides whether an access token is due for renewal.
    pub(crate) fn upload_tokens(&self, now: Instant) -> UploadTokens<'_, E> {
        UploadTokens { api: self, now }
    }
}

impl<E: Exchange> UploadTokens<'_, E> {
    /// Creates a token with the lifetime `ttl`, in whole seconds; `None` is unlimited.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for less than 1 or more than 2,147,483,647 seconds; any refusal of the
    /// service, and any failure of the exchange.
    pub(crate) async fn create(&self, ttl: Option<Duration>) -> Result<UploadToken> {
        let doing = "create an upload token";
        let seconds = ttl.map_or(0, |ttl| ttl.as_secs());
        // The service takes 0 as unlimited: a lifetime below a second must not become that.
        if seconds > MAX_TTL_SECONDS || (ttl.is_some() && seconds == 0) {
            let reason = format!("it can live for 1 to {MAX_TTL_SECONDS} seconds, or for ever");
            return Err(Error::new(ErrorKind::InvalidInput, doing).because(reason));
        }
        self.ask(&ApiCall::new(doing, Method::POST, PATH).json(&json!({ "ttl": seconds }))?).await
    }

    /// Lists one page of the tokens that have not expired.
    ///
    /// # Errors
    /// The same as those of [`create`](UploadTokens::create).
    pub(crate) async fn list(&self, query: &UploadTokenQuery) -> Result<Page<UploadToken>> {
        let page: Page<UploadToken> =
            self.ask(&ApiCall::new("list the upload tokens", Method::GET, query.to_path())).await?;
        if page.unreadable > 0 {
            tracing::warn!(
                "{} upload tokens of the list could not be read, and are left out",
                page.unreadable
            );
        }
        Ok(page.with_request(query.current_page, query.page_size))
    }

    /// Fetches the description of a token.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, or the errors of [`create`](UploadTokens::create).
    pub(crate) async fn get(&self, token: &Secret) -> Result<UploadToken> {
        self.ask(&about("read the upload token", token, Method::GET)?).await
    }

    /// Deletes a token. It authorizes no further upload.
    ///
    /// # Errors
    /// The same as those of [`get`](UploadTokens::get).
    pub(crate) async fn delete(&self, token: &Secret) -> Result<()> {
        let call = about("delete the upload token", token, Method::DELETE)?;
        self.call(&call).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, call: &ApiCall) -> Result<T> {
        call.read_secret(&self.call(call).await?)
    }

    /// Makes a call. A 404 is explained as a missing token, not as a missing video.
    async fn call(&self, call: &ApiCall) -> Result<Response<Bytes>> {
        self.api.call(call, self.now).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.with_meaning(NO_SUCH_TOKEN.meaning).advised(NO_SUCH_TOKEN.advice),
            _ => error,
        })
    }
}

fn about(doing: &str, token: &Secret, method: Method) -> Result<ApiCall> {
    let flaw = match token.reveal() {
        "" => Some("it is empty"),
        // A proxy may decode even an escaped dot, and read a step in the path.
        "." | ".." => Some("it is a step in a path"),
        _ => None,
    };
    if let Some(flaw) = flaw {
        return Err(Error::new(ErrorKind::InvalidInput, doing).because(flaw));
    }
    Ok(ApiCall::new(doing, method, format!("{PATH}/{}", escape(token.reveal()))).carrying(token))
}

impl UploadTokenQuery {
    /// Queries all tokens, from the first page.
    pub fn new() -> UploadTokenQuery {
        UploadTokenQuery::default()
    }

    fn to_path(&self) -> String {
        PathBuilder::new(PATH)
            .add_all("sortBy", self.sort_by.map(UploadTokenSort::name))
            .add_all("sortOrder", self.sort_order.map(SortOrder::name))
            .add_all("currentPage", self.current_page)
            .add_all("pageSize", self.page_size)
            .into_path()
    }
}

impl UploadTokenSort {
    fn name(self) -> &'static str {
        match self {
            UploadTokenSort::CreatedAt => "createdAt",
            UploadTokenSort::Ttl => "ttl",
        }
    }
}

fn reveal<S: Serializer>(token: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.reveal())
}

/// Deserializes as an id, because a token is part of a path and of a terminal's line.
fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    id(deserializer).map(Secret::new)
}

const PATH: &str = "/upload-tokens";
const MAX_TTL_SECONDS: u64 = i32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Credentials;
    use crate::api::scripted::{ScriptedServer, response, start};

    #[tokio::test]
    async fn a_token_is_created_listed_read_and_deleted() {
        let token = json!({"token": "to1abc", "ttl": 60, "createdAt": "2020-12-02T10:13:19+00:00", "expiresAt": null});
        let page = json!({"data": [&token], "pagination": {"currentPage": 1, "pagesTotal": 1}});
        let service = ScriptedServer::new([
            response(200, &token),
            response(200, page),
            response(200, &token),
            response(204, ""),
        ])
        .await;
        let api = service.api(Credentials::ApiKey(Secret::new("key")));
        let tokens = api.upload_tokens(start());
        let created = tokens.create(Some(Duration::from_secs(60))).await.unwrap();
        assert_eq!((created.token.reveal(), created.ttl, &created.expires_at), ("to1abc", Some(60), &None));
        let query = UploadTokenQuery { sort_by: Some(UploadTokenSort::Ttl), ..UploadTokenQuery::new() };
        assert_eq!(tokens.list(&query).await.unwrap().data[0], created);
        tokens.get(&created.token).await.unwrap();
        tokens.delete(&created.token).await.unwrap();
        assert_eq!(service.seen()[0].json(), json!({"ttl": 60}));
        assert_eq!(
            service.lines()[1..],
            ["GET /upload-tokens?sortBy=ttl", "GET /upload-tokens/to1abc", "DELETE /upload-tokens/to1abc"],
        );
        assert!(!format!("{created:?}").contains("to1abc"));
        assert_eq!(serde_json::to_value(&created).unwrap()["token"], "to1abc");
    }

    #[tokio::test]
    async fn no_error_shows_a_token() {
        let service = ScriptedServer::new([
            response(404, "no /upload-tokens/to1abc here"),
            response(200, json!({"token": ["to1abc"], "ttl": "to1abc"})),
        ])
        .await;
        let api = service.api(Credentials::None);
        for _ in 0..2 {
            let error = api.upload_tokens(start()).get(&Secret::new("to1abc")).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("to1abc"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_life_outside_the_limits_is_refused_before_it_is_sent() {
        let service = ScriptedServer::new([response(200, json!({"token": "to1"}))]).await;
        let api = service.api(Credentials::None);
        for ttl in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(1 << 31)] {
            let error = api.upload_tokens(start()).create(Some(ttl)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        api.upload_tokens(start()).create(None).await.unwrap();
        assert_eq!(service.seen()[0].json(), json!({"ttl": 0}));
    }
}
