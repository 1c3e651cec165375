//! Fault injection: the only module that applies the faults of a plan to requests and responses.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;
use tokio::time::sleep;

use super::fault_plan::{ConnectionEnd, FaultAction, FaultPlan, RefusalTiming, RouteClass};
use super::problem::ProblemDetails;
use super::rate_limiter::{self, too_many_requests};
use super::response::{self, ApiResponse, HandlerError, ResponseBody, ResponseContent};
use crate::wire::ContentRange;

/// Selects the fault of each request, if any, according to a fault plan.
pub(super) struct FaultInjector {
    plan: FaultPlan,
    /// For each fault: the number of requests that matched, and the number that were affected.
    counters: Mutex<Vec<(u64, u64)>>,
}

impl FaultInjector {
    pub(super) fn new(plan: FaultPlan) -> FaultInjector {
        let counters = Mutex::new(vec![(0, 0); plan.faults.len()]);
        FaultInjector { plan, counters }
    }

    /// Returns the fault that affects this request, and counts it.
    pub(super) fn next_fault(&self, class: RouteClass, range: Option<ContentRange>) -> RequestFault {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut effect = None;
        for (fault, (matched, affected)) in self.plan.faults.iter().zip(counters.iter_mut()) {
            if !fault.matches(class, range) {
                continue;
            }
            // Every matching fault counts the request, even if an earlier fault takes it.
            *matched += 1;
            // 0 stands for no limit.
            let used_up = fault.times != 0 && *affected >= fault.times;
            if effect.is_none() && *matched >= fault.nth && !used_up {
                *affected += 1;
                effect = Some(fault.action.clone());
            }
        }
        RequestFault(effect)
    }
}

/// The fault of one request, or none. The methods without a matching fault do nothing.
#[derive(Clone, Debug)]
pub(super) struct RequestFault(Option<FaultAction>);

impl RequestFault {
    /// Returns `true` if the request has a fault.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the result of a request that the fault prevents; `None` if the request is handled normally.
    /// `drain` reads the rest of the request body; it is awaited only by faults that read the body first.
    pub(super) async fn replace_response(
        &self,
        drain: impl Future<Output = Result<(), HandlerError>>,
    ) -> Option<Result<ApiResponse, HandlerError>> {
        Some(match self.0.as_ref()? {
            // No read of the body would apply a cut at its first byte.
            FaultAction::Cut { after_bytes: 0, how } => Err(HandlerError::Disconnect(*how)),
            FaultAction::CloseBeforeRecording => Err(match drain.await {
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
    pub(super) fn refusal_timing(&self) -> Option<RefusalTiming> {
        match self.0 {
            Some(FaultAction::Refuse { timing, .. } | FaultAction::TooManyRequests { timing, .. }) => {
                Some(timing)
            }
            _ => None,
        }
    }

    /// Applies the fault before the next read of the body. `received` bytes were read so far.
    pub(super) async fn before_read(&mut self, received: u64) -> Result<(), HandlerError> {
        match self.0 {
            Some(FaultAction::Cut { after_bytes, how }) if received >= after_bytes => {
                Err(HandlerError::Disconnect(how))
            }
            Some(FaultAction::StallReading { after_bytes, for_ms }) if received >= after_bytes => {
                // One pause per request.
                self.0 = None;
                sleep(Duration::from_millis(for_ms)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Applies the fault after a read of `len` bytes. `received` bytes were read so far, including these.
    pub(super) async fn after_read(&self, received: u64, len: usize) -> Result<(), HandlerError> {
        match self.0 {
            // Checked after the frame as well: after the last frame, `before_read` is not called again.
            Some(FaultAction::Cut { after_bytes, how }) if received >= after_bytes => {
                Err(HandlerError::Disconnect(how))
            }
            Some(FaultAction::Throttle { bytes_per_second }) => {
                // A rate of zero would never end.
                sleep(Duration::from_secs_f64(len as f64 / bytes_per_second.max(1) as f64)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Delays, changes or withholds the response.
    pub(super) async fn corrupt_response(
        &self,
        mut response: ApiResponse,
    ) -> Result<Response<ResponseBody>, ConnectionEnd> {
        match self.0 {
            Some(FaultAction::CloseAfterRecording) => return Err(ConnectionEnd::Close),
            Some(FaultAction::StallAnswering { for_ms }) => sleep(Duration::from_millis(for_ms)).await,
            Some(FaultAction::TruncatedAnswer) => return Ok(truncated(response)),
            Some(FaultAction::MalformedAnswer) => {
                response.content =
                    ResponseContent::Text("application/json", Bytes::from_static(b"{\"videoId\": \"vi"));
            }
            Some(FaultAction::HtmlAnswer) => {
                response.content = ResponseContent::Text(
                    "text/html",
                    Bytes::from_static(b"<html><body>Sign in</body></html>"),
                );
            }
            Some(FaultAction::OtherVideoId) => {
                if let ResponseContent::Json(Value::Object(body)) = &mut response.content {
                    body.insert("videoId".into(), "vi0000000000000000000000".into());
                }
            }
            _ => {}
        }
        Ok(response.into_response())
    }
}

fn refusal(status: u16, slug: Option<String>) -> ProblemDetails {
    // A refusal with a status of success would be none.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fault_plan::Fault;

    #[test]
    fn a_fault_starts_at_nth_and_ends_after_times() {
        let injector = FaultInjector::new(
            vec![Fault::new(RouteClass::Chunk, FaultAction::HtmlAnswer).nth(2).times(2)].into(),
        );
        let effects: Vec<bool> =
            (0..5).map(|_| injector.next_fault(RouteClass::Chunk, None).0.is_some()).collect();
        assert_eq!(effects, [false, true, true, false, false]);
        assert_eq!(injector.next_fault(RouteClass::Status, None).0, None);
    }

    #[test]
    fn faults_can_select_chunks_by_part_and_by_offset() {
        let fault = |action| Fault::new(RouteClass::Chunk, action).times(0);
        let injector = FaultInjector::new(
            vec![fault(FaultAction::HtmlAnswer).part(2), fault(FaultAction::MalformedAnswer).offset(7)]
                .into(),
        );
        let next_fault = |header: &str| injector.next_fault(RouteClass::Chunk, header.parse().ok()).0;
        assert_eq!(next_fault("part 1/3"), None);
        assert_eq!(next_fault("part 2/3"), Some(FaultAction::HtmlAnswer));
        assert_eq!(next_fault("bytes 7-9/*"), Some(FaultAction::MalformedAnswer));
        assert_eq!(next_fault("bytes 2-9/*"), None);
    }
}
