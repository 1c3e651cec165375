//! Handlers of upload tokens. An upload token permits an upload without an API key.

use hyper::StatusCode;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::database::Database;
use super::pagination::PageRequest;
use super::problem::ProblemDetails;
use super::query::QueryString;
use super::response::{ApiResponse, HandlerError};
use super::{clock, ids};

struct UploadTokenRecord {
    token: String,
    ttl: u32,
    created_ms: i64,
    expires_ms: Option<i64>,
}

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
    database.with(|db| {
        db.execute(
            "INSERT INTO upload_tokens (token, ttl, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4)",
            params![token.token, token.ttl, token.created_ms, token.expires_ms],
        )
    })?;
    Ok(ApiResponse::json(StatusCode::OK, token.json()))
}

/// Handles `GET /upload-tokens`: lists the tokens that have not expired.
pub(super) fn list(database: &Database, query: &QueryString) -> Result<ApiResponse, HandlerError> {
    let page = PageRequest::from_query(query)?;
    let column = match query.word("sortBy", &["createdAt", "ttl"])? {
        "ttl" => "ttl",
        _ => "created_ms",
    };
    let order = query.word("sortOrder", &["asc", "desc"])?;
    let tokens = database.with(|db| {
        let living = "expires_ms IS NULL OR expires_ms > ?1";
        db.prepare(&format!("{SELECT} WHERE {living} ORDER BY {column} {order}, rowid {order}"))?
            .query_map([clock::now_ms()], UploadTokenRecord::read)?
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    page.response("/upload-tokens", &tokens, |token| Ok(token.json()))
}

/// Handles `GET /upload-tokens/{uploadToken}`.
pub(super) fn get(database: &Database, name: &str) -> Result<ApiResponse, HandlerError> {
    let token = find(database, name)?.ok_or_else(|| ProblemDetails::not_found("uploadToken"))?;
    Ok(ApiResponse::json(StatusCode::OK, token.json()))
}

/// Handles `DELETE /upload-tokens/{uploadToken}`.
pub(super) fn delete(database: &Database, name: &str) -> Result<ApiResponse, HandlerError> {
    match database.with(|db| db.execute("DELETE FROM upload_tokens WHERE token = ?1", [name]))? {
        0 => Err(ProblemDetails::not_found("uploadToken").into()),
        _ => Ok(ApiResponse::empty(StatusCode::NO_CONTENT)),
    }
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

fn find(database: &Database, name: &str) -> Result<Option<UploadTokenRecord>, HandlerError> {
    let token = database.with(|db| {
        db.prepare_cached(&format!("{SELECT} WHERE token = ?1"))?
            .query_row([name], UploadTokenRecord::read)
            .optional()
    })?;
    let now_ms = clock::now_ms();
    Ok(token.filter(|token| token.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)))
}

impl UploadTokenRecord {
    fn read(row: &Row<'_>) -> rusqlite::Result<UploadTokenRecord> {
        Ok(UploadTokenRecord {
            token: row.get(0)?,
            ttl: row.get(1)?,
            created_ms: row.get(2)?,
            expires_ms: row.get(3)?,
        })
    }

    fn json(&self) -> Value {
        json!({
            "token": self.token,
            "ttl": self.ttl,
            "createdAt": clock::format_date(self.created_ms),
            "expiresAt": self.expires_ms.map(clock::format_date),
        })
    }
}

const SELECT: &str = "SELECT token, ttl, created_ms, expires_ms FROM upload_tokens";

/// The longest lifetime of a token (`/reference/api/Upload-Tokens`), in seconds.
const MAX_TTL_S: u32 = 2_147_483_647;
