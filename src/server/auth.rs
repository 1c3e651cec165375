//! Who may ask: API keys, access tokens, refresh tokens.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::problem::Problem;
use super::settings::{Settings, WrongKey};
use super::site::Site;
use super::store::Store;
use super::{dates, ids};

/// Lets a request pass that carries the API key (Basic) or a living access token (Bearer).
pub(super) fn check(site: &Site, headers: &HeaderMap) -> Result<(), Failure> {
    let value = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or("not ASCII").trim());
    // One official client sends an empty header where it has no key.
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Err(Problem::unauthorized(
            "authentication-missing-authorization-header",
            "The Authorization header is missing.",
        )
        .into());
    };
    let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        check_key(site, credentials)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        check_access_token(&site.store, credentials.trim())
    } else {
        Err(invalid_header().into())
    }
}

/// `POST /auth/api-key`
pub(super) fn with_key(site: &Site, body: &Value) -> Result<Answer, Failure> {
    let key = text(body, "apiKey")?;
    if verify_slices_are_equal(key.as_bytes(), site.api_key.as_bytes()).is_err() {
        return Err(wrong(&site.settings, "authentication-invalid-api-key", "The API key is invalid.").into());
    }
    issue(site)
}

/// `POST /auth/refresh`: each refresh token works once.
pub(super) fn refresh(site: &Site, body: &Value) -> Result<Answer, Failure> {
    let token = text(body, "refreshToken")?;
    let taken = site.store.with(|db| db.execute("DELETE FROM refresh_tokens WHERE token = ?1", [token]))?;
    if taken == 0 {
        let title = "The refresh token is invalid.";
        return Err(wrong(&site.settings, "authentication-invalid-refresh-token", title).into());
    }
    issue(site)
}

fn issue(site: &Site) -> Result<Answer, Failure> {
    let (access_token, refresh_token) = (ids::secret()?, ids::secret()?);
    let lifetime = site.settings.token_lifetime;
    let now_ms = dates::now_ms();
    let expires_ms = now_ms.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
    site.store.with(|db| {
        let transaction = db.transaction()?;
        transaction.execute("DELETE FROM access_tokens WHERE expires_ms < ?1", [now_ms])?;
        transaction
            .execute("INSERT INTO access_tokens VALUES (?1, ?2)", params![access_token, expires_ms])?;
        transaction.execute("INSERT INTO refresh_tokens VALUES (?1)", [&refresh_token])?;
        transaction.commit()
    })?;
    Ok(Answer::json(
        StatusCode::OK,
        json!({
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
            "access_token": access_token,
            "refresh_token": refresh_token,
        }),
    ))
}

fn check_key(site: &Site, credentials: &str) -> Result<(), Failure> {
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| invalid_header())?;
    let user = decoded.split(|byte| *byte == b':').next().unwrap_or_default();
    verify_slices_are_equal(user, site.api_key.as_bytes()).map_err(|_| {
        Problem::unauthorized("authentication-invalid-api-key", "The API key is invalid.").into()
    })
}

fn check_access_token(store: &Store, token: &str) -> Result<(), Failure> {
    let expires_ms: Option<i64> = store.with(|db| {
        db.prepare_cached("SELECT expires_ms FROM access_tokens WHERE token = ?1")?
            .query_row([token], |row| row.get(0))
            .optional()
    })?;
    if expires_ms.is_some_and(|expires_ms| dates::now_ms() < expires_ms) {
        return Ok(());
    }
    let title = "The access token is invalid or has expired.";
    Err(Problem::unauthorized("authentication-invalid-access-token", title).into())
}

/// The specification and the documentation disagree about this one.
fn wrong(settings: &Settings, documented: &'static str, title: &'static str) -> Problem {
    match settings.wrong_key {
        WrongKey::BadRequest => {
            Problem::bad_request("authentication-invalid-user-credentials", title).named("")
        }
        WrongKey::Unauthorized => Problem::unauthorized(documented, title),
    }
}

fn invalid_header() -> Problem {
    Problem::unauthorized(
        "authentication-invalid-authorization-header-value",
        "The Authorization header is neither Basic nor Bearer.",
    )
}

fn text<'a>(body: &'a Value, name: &'static str) -> Result<&'a str, Problem> {
    let title = "This attribute is required.";
    body[name].as_str().ok_or_else(|| Problem::bad_request("attribute-required", title).named(name))
}
