//! Authentication: API keys, access tokens, refresh tokens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::app_state::AppState;
use super::database::Database;
use super::problem::ProblemDetails;
use super::response::{ApiResponse, HandlerError};
use super::settings::{ServerSettings, WrongKey};
use super::{clock, ids};

/// Checks that a request carries the API key (Basic) or a valid access token (Bearer).
pub(super) fn check(state: &AppState, headers: &HeaderMap) -> Result<(), HandlerError> {
    // A value that is not ASCII has no known scheme, and is refused below.
    let value = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or("not ASCII").trim());
    // One official client sends an empty header if it has no key.
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Err(ProblemDetails::unauthorized(
            "authentication-missing-authorization-header",
            "The Authorization header is missing.",
        )
        .into());
    };
    let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
    // RFC 9110, section 11.1: schemes have no case.
    if scheme.eq_ignore_ascii_case("basic") {
        check_key(state, credentials)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        check_access_token(&state.database, credentials.trim())
    } else {
        Err(invalid_header().into())
    }
}

/// Handles `POST /auth/api-key`.
pub(super) fn with_key(state: &AppState, body: &Value) -> Result<ApiResponse, HandlerError> {
    let key = text(body, "apiKey")?;
    // In constant time: the time of the answer must not help to guess the key byte by byte.
    if !bool::from(key.as_bytes().ct_eq(state.api_key.as_bytes())) {
        return Err(
            wrong(&state.settings, "authentication-invalid-api-key", "The API key is invalid.").into()
        );
    }
    issue(state)
}

/// Handles `POST /auth/refresh`. A refresh token can be used once.
pub(super) fn refresh(state: &AppState, body: &Value) -> Result<ApiResponse, HandlerError> {
    let token = text(body, "refreshToken")?;
    if !state.database.delete_refresh_token(token)? {
        let title = "The refresh token is invalid.";
        return Err(wrong(&state.settings, "authentication-invalid-refresh-token", title).into());
    }
    issue(state)
}

fn issue(state: &AppState) -> Result<ApiResponse, HandlerError> {
    let (access_token, refresh_token) = (ids::secret()?, ids::secret()?);
    let lifetime = state.settings.token_lifetime;
    let now_ms = clock::now_ms();
    // The lifetime is a setting: one beyond the range of the clock never ends.
    let expires_ms = now_ms.saturating_add(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
    state.database.insert_access_token(&access_token, expires_ms, &refresh_token, now_ms)?;
    Ok(ApiResponse::json(
        StatusCode::OK,
        json!({
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
            "access_token": access_token,
            "refresh_token": refresh_token,
        }),
    ))
}

/// Checks the API key, which is the user name of the Basic credentials; the password is empty.
fn check_key(state: &AppState, credentials: &str) -> Result<(), HandlerError> {
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| invalid_header())?;
    // No colon can be part of a user name (RFC 7617, section 2).
    let user = decoded.split(|byte| *byte == b':').next().unwrap_or_default();
    if bool::from(user.ct_eq(state.api_key.as_bytes())) {
        return Ok(());
    }
    Err(ProblemDetails::unauthorized("authentication-invalid-api-key", "The API key is invalid.").into())
}

fn check_access_token(database: &Database, token: &str) -> Result<(), HandlerError> {
    let expires_ms = database.access_token_expiry(token)?;
    if expires_ms.is_some_and(|expires_ms| clock::now_ms() < expires_ms) {
        return Ok(());
    }
    let title = "The access token is invalid or has expired.";
    Err(ProblemDetails::unauthorized("authentication-invalid-access-token", title).into())
}

/// Returns the problem for wrong credentials. The OpenAPI description and the error reference state different
/// ones.
fn wrong(settings: &ServerSettings, documented: &'static str, title: &'static str) -> ProblemDetails {
    match settings.wrong_key {
        WrongKey::BadRequest => {
            // With an empty name, as in the example of the OpenAPI description.
            ProblemDetails::bad_request("authentication-invalid-user-credentials", title).named("")
        }
        WrongKey::Unauthorized => ProblemDetails::unauthorized(documented, title),
    }
}

fn invalid_header() -> ProblemDetails {
    ProblemDetails::unauthorized(
        "authentication-invalid-authorization-header-value",
        "The Authorization header is neither Basic nor Bearer.",
    )
}

fn text<'a>(body: &'a Value, name: &'static str) -> Result<&'a str, ProblemDetails> {
    let title = "This attribute is required.";
    body[name].as_str().ok_or_else(|| ProblemDetails::bad_request("attribute-required", title).named(name))
}
