//! What a request is answered with, and what can go wrong on the way there.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::faults::Ending;
use super::problem::Problem;
use super::rules::Refusal;

/// The body that hyper sends.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer, its body still open to change.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
}

pub(super) enum Content {
    Nothing,
    Json(Value),
    /// Any bytes, with their type.
    Text(&'static str, Bytes),
    /// This many bytes of a stored file; none are sent for `HEAD`.
    File(u64, Option<BoxStream<'static, io::Result<Bytes>>>),
}

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: HeaderMap::new(), content: Content::Nothing }
    }

    pub(super) fn json(status: StatusCode, value: Value) -> Answer {
        Answer { content: Content::Json(value), ..Answer::empty(status) }
    }

    pub(super) fn problem(problem: &Problem) -> Answer {
        Answer::json(problem.status, problem.json())
    }

    /// Which problem it is; `None` for an answer that is none.
    pub(super) fn slug(&self) -> Option<&str> {
        match &self.content {
            Content::Json(value) if self.status.as_u16() >= 400 => value["type"].as_str()?.rsplit('/').next(),
            _ => None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Answer {
        self.headers.insert(name, value.into());
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        let body = match self.content {
            Content::Nothing => return response,
            Content::Json(value) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                full(value.to_string())
            }
            Content::Text(kind, bytes) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                full(bytes)
            }
            Content::File(len, stream) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                headers.insert(CONTENT_LENGTH, len.into());
                stream.map_or_else(Body::default, streamed)
            }
        };
        *response.body_mut() = body;
        response
    }
}

/// A body that arrives piece by piece; an error in it cuts the connection.
pub(super) fn streamed(stream: BoxStream<'static, io::Result<Bytes>>) -> Body {
    use futures_util::TryStreamExt;
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why a request gets no regular answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It gets this one.
    Problem(Box<Problem>),
    /// The connection ends without any.
    Severed(Ending),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(Box::new(problem))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Problem::from(refusal).into()
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => disk_full("the server's database").into(),
            _ => Problem::server_error(format!("the server's database: {error}")).into(),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        match error.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(error).into(),
            _ => Problem::server_error(error).into(),
        }
    }
}

/// A file or folder of the server that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct StorageError {
    path: PathBuf,
    source: io::Error,
}

impl StorageError {
    /// For `map_err`.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        |source| StorageError { path: path.to_owned(), source }
    }
}

fn disk_full(what: impl ToString) -> Problem {
    let title = "The server's disk is full; nothing of this request was kept.";
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient-storage", title).detail(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_507_and_names_the_disk() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let Failure::Problem(problem) = StorageError::at(Path::new("/srv/data"))(full).into() else {
            panic!("a full disk is answered")
        };
        assert_eq!(problem.status, StatusCode::INSUFFICIENT_STORAGE);
        assert!(problem.json()["detail"].as_str().unwrap().starts_with("/srv/data: "));
    }
}
