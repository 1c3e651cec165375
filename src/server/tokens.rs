//! Handlers of upload tokens. An upload token permits an upload without an API key.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::database::{Database, TokenSortKey, UploadTokenRecord};
use super::pagination::PageRequest;
use super::problem::ProblemDetails;
use super::query::QueryString;
use super::response::{ApiResponse, HandlerError};
use super::{clock, ids};

/// Handles `POST /upload-tokens`. The service responds with 200, not 201.
pub(super) fn create(database: &Database, body: &Value) -> Result<ApiResponse, HandlerError> {
    let ttl = match &body["ttl"] {
        Value::Null => 0,
        value => value
            .as_u64()
            .and_then(|ttl| u32::try_from(ttl).ok())
            .filter(|ttl| *ttl <= MAX_TTL_S)
            .ok_or_else(|| {
                ProblemDetails::bad_request("invalid-attribute", "This attribute is invalid.")
                    .named("ttl")
                    .range(0, MAX_TTL_S.into())
            })?,
    };
    let created_ms = clock::now_ms();
    // A token with a `ttl` of 0 never expires.
    let expires_ms = (ttl > 0).then(|| created_ms + i64::from(ttl) * 1000);
    let token = UploadTokenRecord { token: ids::upload_token()?, ttl, created_ms, expires_ms };
    database.insert_upload_token(&token)?;
    Ok(ApiResponse::json(StatusCode::OK, token.json()))
}

/// Handles `GET /upload-tokens`: lists the tokens that have not expired.
pub(super) fn list(database: &Database, query: &QueryString) -> Result<ApiResponse, HandlerError> {
    let page = PageRequest::from_query(query)?;
    let sort_key = match query.word("sortBy", &["createdAt", "ttl"])? {
        "ttl" => TokenSortKey::Ttl,
        _ => TokenSortKey::CreatedAt,
    };
    let is_descending = query.word("sortOrder", &["asc", "desc"])? == "desc";
    let tokens = database.valid_upload_tokens(clock::now_ms(), sort_key, is_descending)?;
    page.response("/upload-tokens", &tokens, |token| Ok(token.json()))
}

/// Handles `GET /upload-tokens/{uploadToken}`.
pub(super) fn get(database: &Database, name: &str) -> Result<ApiResponse, HandlerError> {
    let token = find(database, name)?.ok_or_else(|| ProblemDetails::not_found("uploadToken"))?;
    Ok(ApiResponse::json(StatusCode::OK, token.json()))
}

/// Handles `DELETE /upload-tokens/{uploadToken}`.
pub(super) fn delete(database: &Database, name: &str) -> Result<ApiResponse, HandlerError> {
    if !database.delete_upload_token(name)? {
        return Err(ProblemDetails::not_found("uploadToken").into());
    }
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
}

/// Checks the token of a delegated upload: it must exist and must not have expired.
pub(super) fn check(database: &Database, name: Option<&str>) -> Result<(), HandlerError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let title = "The upload token is missing.";
        return Err(ProblemDetails::unauthorized("authentication-missing-upload-token", title).into());
    };
    match find(database, name)? {
        Some(_) => Ok(()),
        None => {
            let title = "The upload token is unknown or has expired.";
            Err(ProblemDetails::unauthorized("authentication-invalid-upload-token", title).into())
        }
    }
}

/// Returns a token that has not expired; `None` for unknown and expired tokens.
fn find(database: &Database, name: &str) -> Result<Option<UploadTokenRecord>, HandlerError> {
    let token = database.upload_token(name)?;
    let now_ms = clock::now_ms();
    Ok(token.filter(|token| token.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)))
}

impl UploadTokenRecord {
    fn json(&self) -> Value {
        json!({
            "token": self.token,
            "ttl": self.ttl,
            "createdAt": clock::format_date(self.created_ms),
            "expiresAt": self.expires_ms.map(clock::format_date),
        })
    }
}

/// The longest lifetime of a token (`/reference/api/Upload-Tokens`), in seconds.
const MAX_TTL_S: u32 = 2_147_483_647;
