//! The effects of faults on requests and responses. Faults that affect reading are applied by `request_body`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::fault_plan::{ConnectionEnd, FaultAction, RefusalTiming};
use super::problem::ProblemDetails;
use super::rate_limiter::{self, too_many_requests};
use super::request_body::RequestBody;
use super::response::{self, ApiResponse, HandlerError, ResponseBody, ResponseContent};

/// Returns the result of a request that the fault prevents; `None` if the request is handled normally.
pub(super) async fn replace_response(
    fault: &FaultAction,
    body: &mut RequestBody,
) -> Option<Result<ApiResponse, HandlerError>> {
    Some(match fault {
        FaultAction::Cut { after_bytes: 0, how } => Err(HandlerError::Disconnect(*how)),
        FaultAction::CloseBeforeRecording => Err(match body.drain().await {
            Ok(()) => HandlerError::Disconnect(ConnectionEnd::Close),
            Err(failure) => failure,
        }),
        FaultAction::Refuse { status, slug, .. } => Err(refusal(*status, slug.clone()).into()),
        FaultAction::TooManyRequests { retry_after_s, .. } => {
            let mut headers = HeaderMap::new();
            if let Some(seconds) = retry_after_s {
                headers.insert(rate_limiter::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Ok(ApiResponse { headers, ..ApiResponse::problem(&too_many_requests()) })
        }
        _ => return None,
    })
}

/// Returns the timing of an injected refusal; `None` for other faults.
pub(super) fn refusal_timing(fault: &FaultAction) -> Option<RefusalTiming> {
    match fault {
        FaultAction::Refuse { timing, .. } | FaultAction::TooManyRequests { timing, .. } => Some(*timing),
        _ => None,
    }
}

/// Delays, changes or withholds the response.
pub(super) async fn corrupt_response(
    fault: &FaultAction,
    mut response: ApiResponse,
) -> Result<Response<ResponseBody>, ConnectionEnd> {
    match fault {
        FaultAction::CloseAfterRecording => return Err(ConnectionEnd::Close),
        FaultAction::StallAnswering { for_ms } => sleep(Duration::from_millis(*for_ms)).await,
        FaultAction::TruncatedAnswer => return Ok(truncated(response)),
        FaultAction::MalformedAnswer => {
            response.content =
                ResponseContent::Text("application/json", Bytes::from_static(b"{\"videoId\": \"vi"));
        }
        FaultAction::HtmlAnswer => {
            response.content =
                ResponseContent::Text("text/html", Bytes::from_static(b"<html><body>Sign in</body></html>"));
        }
        FaultAction::OtherVideoId => {
            if let ResponseContent::Json(Value::Object(body)) = &mut response.content {
                body.insert("videoId".into(), "vi0000000000000000000000".into());
            }
        }
        _ => {}
    }
    Ok(response.into_response())
}

fn refusal(status: u16, slug: Option<String>) -> ProblemDetails {
    let is_error = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    let status = StatusCode::from_u16(status).ok().filter(is_error);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let usual = match status.as_u16() {
        400 => "invalid-payload",
        401 => "authentication-invalid-access-token",
        403 => "authorization-suspended-account",
        404 => "resource-not-found",
        405 => "method-not-allowed",
        429 => "too-many-requests",
        _ => "server-error",
    };
    let slug = slug.unwrap_or_else(|| usual.to_owned());
    ProblemDetails::new(status, slug, "This refusal was asked for by the fault plan.")
}

/// Returns half of the body with the `Content-Length` of the whole body.
fn truncated(response: ApiResponse) -> Response<ResponseBody> {
    let text = match &response.content {
        ResponseContent::Json(value) => Bytes::from(value.to_string()),
        ResponseContent::Text(_, bytes) => bytes.clone(),
        ResponseContent::Nothing | ResponseContent::File(..) => Bytes::new(),
    };
    let half = stream::iter([Ok(text.slice(..text.len() / 2))]);
    let end = stream::once(async {
        // hyper drops unflushed bytes when the body fails, so the first half needs time to leave.
        sleep(FLUSH_DELAY).await;
        Err(io::Error::other("truncated by the fault plan"))
    });
    let mut response = response.into_response();
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    *response.body_mut() = response::streamed(half.chain(end).boxed());
    response
}

/// The time for hyper to write the first half of a truncated body to the socket.
const FLUSH_DELAY: Duration = Duration::from_millis(20);
