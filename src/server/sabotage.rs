//! What the faults of a plan do to a request and to its answer; reading is the intake's part.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::answer::{self, Answer, Body, Content, Failure};
use super::faults::{Action, Ending, RefusalTiming};
use super::intake::Intake;
use super::problem::Problem;
use super::rate::{self, too_many_requests};

/// What happens instead of the request, if anything does.
pub(super) async fn instead(fault: &Action, intake: &mut Intake) -> Option<Result<Answer, Failure>> {
    Some(match fault {
        Action::Cut { after_bytes: 0, how } => Err(Failure::Severed(*how)),
        Action::CloseBeforeRecording => Err(match intake.drain().await {
            Ok(()) => Failure::Severed(Ending::Close),
            Err(failure) => failure,
        }),
        Action::Refuse { status, slug, .. } => Err(refusal(*status, slug.clone()).into()),
        Action::TooManyRequests { retry_after_s, .. } => {
            let mut headers = HeaderMap::new();
            if let Some(seconds) = retry_after_s {
                headers.insert(rate::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Ok(Answer { headers, ..Answer::problem(&too_many_requests()) })
        }
        _ => return None,
    })
}

/// When a refusal is answered that the fault makes.
pub(super) fn timing(fault: &Action) -> Option<RefusalTiming> {
    match fault {
        Action::Refuse { timing, .. } | Action::TooManyRequests { timing, .. } => Some(*timing),
        _ => None,
    }
}

/// What the client sees of the answer.
pub(super) async fn spoil(fault: &Action, mut answer: Answer) -> Result<Response<Body>, Ending> {
    match fault {
        Action::CloseAfterRecording => return Err(Ending::Close),
        Action::StallAnswering { for_ms } => sleep(Duration::from_millis(*for_ms)).await,
        Action::TruncatedAnswer => return Ok(truncated(answer)),
        Action::MalformedAnswer => {
            answer.content = Content::Text("application/json", Bytes::from_static(b"{\"videoId\": \"vi"));
        }
        Action::HtmlAnswer => {
            answer.content =
                Content::Text("text/html", Bytes::from_static(b"<html><body>Sign in</body></html>"));
        }
        Action::OtherVideoId => {
            if let Content::Json(Value::Object(body)) = &mut answer.content {
                body.insert("videoId".into(), "vi0000000000000000000000".into());
            }
        }
        _ => {}
    }
    Ok(answer.into_response())
}

fn refusal(status: u16, slug: Option<String>) -> Problem {
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
    Problem::new(status, slug, "This refusal was asked for by the fault plan.")
}

/// Half of the body, with the length of the whole.
fn truncated(answer: Answer) -> Response<Body> {
    let text = match &answer.content {
        Content::Json(value) => Bytes::from(value.to_string()),
        Content::Text(_, bytes) => bytes.clone(),
        Content::Nothing | Content::File(..) => Bytes::new(),
    };
    let half = stream::iter([Ok(text.slice(..text.len() / 2))]);
    let end = stream::once(async {
        // hyper drops what it has not flushed when the body fails: give it a moment.
        sleep(FLUSH).await;
        Err(io::Error::other("cut by the fault plan"))
    });
    let mut response = answer.into_response();
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    *response.body_mut() = answer::streamed(half.chain(end).boxed());
    response
}

const FLUSH: Duration = Duration::from_millis(20);
