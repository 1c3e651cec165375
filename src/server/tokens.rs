//! Upload tokens: who holds one may upload without an API key.

use hyper::StatusCode;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::list::Page;
use super::problem::Problem;
use super::query::Query;
use super::store::Store;
use super::{dates, ids};

struct Token {
    token: String,
    ttl: u32,
    created_ms: i64,
    expires_ms: Option<i64>,
}

/// `POST /upload-tokens`: status 200, not 201.
pub(super) fn create(store: &Store, body: &Value) -> Result<Answer, Failure> {
    let ttl = match &body["ttl"] {
        Value::Null => 0,
        value => value
            .as_u64()
            .and_then(|ttl| u32::try_from(ttl).ok())
            .filter(|ttl| *ttl <= MAX_TTL_S)
            .ok_or_else(|| {
                Problem::bad_request("invalid-attribute", "This attribute is invalid.")
                    .named("ttl")
                    .range(0, MAX_TTL_S.into())
            })?,
    };
    let created_ms = dates::now_ms();
    // 0 stands for a token that never expires.
    let expires_ms = (ttl > 0).then(|| created_ms + i64::from(ttl) * 1000);
    let token = Token { token: ids::upload_token()?, ttl, created_ms, expires_ms };
    store.with(|db| {
        db.execute(
            "INSERT INTO upload_tokens (token, ttl, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4)",
            params![token.token, token.ttl, token.created_ms, token.expires_ms],
        )
    })?;
    Ok(Answer::json(StatusCode::OK, token.json()))
}

/// `GET /upload-tokens`: the living ones.
pub(super) fn list(store: &Store, query: &Query) -> Result<Answer, Failure> {
    let page = Page::of(query)?;
    let column = match query.word("sortBy", &["createdAt", "ttl"])? {
        "ttl" => "ttl",
        _ => "created_ms",
    };
    let order = query.word("sortOrder", &["asc", "desc"])?;
    let tokens = store.with(|db| {
        let living = "expires_ms IS NULL OR expires_ms > ?1";
        db.prepare(&format!("{SELECT} WHERE {living} ORDER BY {column} {order}, rowid {order}"))?
            .query_map([dates::now_ms()], Token::read)?
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    page.answer("/upload-tokens", &tokens, |token| Ok(token.json()))
}

/// `GET /upload-tokens/{uploadToken}`
pub(super) fn get(store: &Store, name: &str) -> Result<Answer, Failure> {
    let token = find(store, name)?.ok_or_else(|| Problem::not_found("uploadToken"))?;
    Ok(Answer::json(StatusCode::OK, token.json()))
}

/// `DELETE /upload-tokens/{uploadToken}`
pub(super) fn delete(store: &Store, name: &str) -> Result<Answer, Failure> {
    match store.with(|db| db.execute("DELETE FROM upload_tokens WHERE token = ?1", [name]))? {
        0 => Err(Problem::not_found("uploadToken").into()),
        _ => Ok(Answer::empty(StatusCode::NO_CONTENT)),
    }
}

/// Lets a delegated upload pass whose token lives.
pub(super) fn check(store: &Store, name: Option<&str>) -> Result<(), Failure> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        let title = "The upload token is missing.";
        return Err(Problem::unauthorized("authentication-missing-upload-token", title).into());
    };
    match find(store, name)? {
        Some(_) => Ok(()),
        None => {
            let title = "The upload token is unknown or has expired.";
            Err(Problem::unauthorized("authentication-invalid-upload-token", title).into())
        }
    }
}

fn find(store: &Store, name: &str) -> Result<Option<Token>, Failure> {
    let token = store.with(|db| {
        db.prepare_cached(&format!("{SELECT} WHERE token = ?1"))?.query_row([name], Token::read).optional()
    })?;
    let now_ms = dates::now_ms();
    Ok(token.filter(|token| token.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)))
}

impl Token {
    fn read(row: &Row<'_>) -> rusqlite::Result<Token> {
        Ok(Token { token: row.get(0)?, ttl: row.get(1)?, created_ms: row.get(2)?, expires_ms: row.get(3)? })
    }

    fn json(&self) -> Value {
        json!({
            "token": self.token,
            "ttl": self.ttl,
            "createdAt": dates::atom(self.created_ms),
            "expiresAt": self.expires_ms.map(dates::atom),
        })
    }
}

const SELECT: &str = "SELECT token, ttl, created_ms, expires_ms FROM upload_tokens";

/// The longest life of a token (`/reference/api/Upload-Tokens`), in seconds.
const MAX_TTL_S: u32 = 2_147_483_647;
