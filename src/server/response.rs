//! Responses, and the errors that handlers return instead.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::database::DatabaseError;
use super::fault_plan::ConnectionEnd;
use super::file_store::StorageError;
use super::problem::ProblemDetails;
use super::rules::UploadRefusal;

/// The response body in hyper's type.
pub(super) type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// A response whose content can still be changed.
pub(super) struct ApiResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: ResponseContent,
}

pub(super) enum ResponseContent {
    Nothing,
    Json(Value),
    /// The content type and the bytes.
    Text(&'static str, Bytes),
    /// The length of a stored file and its bytes; `None` for `HEAD`.
    File(u64, Option<BoxStream<'static, io::Result<Bytes>>>),
}

impl ApiResponse {
    pub(super) fn empty(status: StatusCode) -> ApiResponse {
        ApiResponse { status, headers: HeaderMap::new(), content: ResponseContent::Nothing }
    }

    pub(super) fn json(status: StatusCode, value: Value) -> ApiResponse {
        ApiResponse { content: ResponseContent::Json(value), ..ApiResponse::empty(status) }
    }

    pub(super) fn problem(problem: &ProblemDetails) -> ApiResponse {
        ApiResponse::json(problem.status, problem.json())
    }

    /// Returns the slug of a problem document; `None` for other responses.
    pub(super) fn slug(&self) -> Option<&str> {
        match &self.content {
            ResponseContent::Json(value) if self.status.as_u16() >= 400 => {
                value["type"].as_str()?.rsplit('/').next()
            }
            _ => None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> ApiResponse {
        self.headers.insert(name, value.into());
        self
    }

    pub(super) fn into_response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::default());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let headers = response.headers_mut();
        let body = match self.content {
            ResponseContent::Nothing => return response,
            ResponseContent::Json(value) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                full(value.to_string())
            }
            ResponseContent::Text(kind, bytes) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                full(bytes)
            }
            ResponseContent::File(len, stream) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                headers.insert(CONTENT_LENGTH, len.into());
                stream.map_or_else(ResponseBody::default, streamed)
            }
        };
        *response.body_mut() = body;
        response
    }
}

/// Returns a streamed body. An error in the stream aborts the connection.
pub(super) fn streamed(stream: BoxStream<'static, io::Result<Bytes>>) -> ResponseBody {
    use futures_util::TryStreamExt;
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The reason why a request gets no regular response.
#[derive(Debug)]
pub(super) enum HandlerError {
    /// The response is this problem document.
    Problem(Box<ProblemDetails>),
    /// The connection ends without a response.
    Disconnect(ConnectionEnd),
}

impl From<ProblemDetails> for HandlerError {
    fn from(problem: ProblemDetails) -> HandlerError {
        HandlerError::Problem(Box::new(problem))
    }
}

impl From<UploadRefusal> for HandlerError {
    fn from(refusal: UploadRefusal) -> HandlerError {
        ProblemDetails::from(refusal).into()
    }
}

impl From<DatabaseError> for HandlerError {
    fn from(error: DatabaseError) -> HandlerError {
        if error.is_disk_full() {
            disk_full("the server's database").into()
        } else {
            ProblemDetails::server_error(format!("the server's database: {error}")).into()
        }
    }
}

impl From<StorageError> for HandlerError {
    fn from(error: StorageError) -> HandlerError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(error).into(),
            _ => ProblemDetails::server_error(error).into(),
        }
    }
}

fn disk_full(what: impl ToString) -> ProblemDetails {
    let title = "The server's disk is full; nothing of this request was kept.";
    ProblemDetails::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient-storage", title).detail(what)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_full_disk_is_507_with_the_path() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let HandlerError::Problem(problem) = StorageError::at(Path::new("/srv/data"))(full).into() else {
            panic!("a full disk is answered")
        };
        assert_eq!(problem.status, StatusCode::INSUFFICIENT_STORAGE);
        assert!(problem.json()["detail"].as_str().unwrap().starts_with("/srv/data: "));
    }
}
