//! Dispatch of requests to handlers, and the steps that all requests share: faults, rate limits,
//! authentication, unread bodies, CORS.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CONNECTION, CONTENT_RANGE, EXPECT,
    HeaderMap, HeaderValue,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::task::spawn_blocking;

use super::app_state::AppState;
use super::fault_injection::RequestFault;
use super::fault_plan::{ConnectionEnd, RefusalTiming, RouteClass};
use super::problem::ProblemDetails;
use super::query::QueryString;
use super::rate_limiter::too_many_requests;
use super::request_body::RequestBody;
use super::response::{ApiResponse, HandlerError, ResponseBody};
use super::stats::RequestLogEntry;
use super::{auth, tokens, uploads, videos};

/// Handles one request. Returns an error if the connection must end without a response.
pub(super) async fn serve(
    state: Arc<AppState>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, ConnectionEnd> {
    let (head, body) = request.into_parts();
    let route = ApiRoute::parse(head.uri.path());
    let class = route.class(&head.method);
    let log_entry = log_line(&head);
    let range = log_entry.content_range.as_deref().and_then(|text| text.parse().ok());
    let fault = state.faults.next_fault(class, range);
    state.stats.count(|stats| stats.faults += u64::from(fault.is_some()));
    let entry = state.stats.begin(class, log_entry);
    let body = RequestBody::new(body, state.settings.idle, fault.clone());

    let mut response = respond(&state, &route, &head, body, &fault).await?;
    // On refusals too: a browser hides an answer without these headers from its page (Fetch standard, CORS
    // protocol).
    response.headers.extend(browser_headers());
    let response = fault.corrupt_response(response).await?;
    state.stats.end(entry, response.status().as_u16());
    Ok(response)
}

async fn respond(
    state: &Arc<AppState>,
    route: &ApiRoute,
    head: &Parts,
    mut body: RequestBody,
    fault: &RequestFault,
) -> Result<ApiResponse, ConnectionEnd> {
    // Before the fault: every response states the limit, one that a fault has made, too.
    let rate_status = state.rate_limiter.check(route.class(&head.method), &head.method, Instant::now());
    let replacement = fault.replace_response(body.drain()).await;
    let is_injected = replacement.is_some();
    let handled = match (replacement, rate_status) {
        (Some(replacement), _) => replacement,
        (None, Err(_)) => Err(too_many_requests().into()),
        (None, Ok(_)) => handle(state, route, head, &mut body).await,
    };
    let mut response = match handled {
        Ok(response) => response,
        Err(HandlerError::Disconnect(ending)) => return Err(ending),
        Err(HandlerError::Problem(problem)) => ApiResponse::problem(&problem),
    };
    if let Some(slug) = response.slug() {
        state.stats.refused(slug);
    }
    if let Ok(Some(rate_status)) | Err(rate_status) = rate_status {
        // The fault states the pause of a refusal that it injects, or none.
        let states_pause = is_injected && response.status == StatusCode::TOO_MANY_REQUESTS;
        rate_status.add_headers(&mut response.headers, !states_pause);
    }
    let timing = fault.refusal_timing().unwrap_or(state.settings.refusals);
    finish_body(body, &head.headers, timing, response).await
}

async fn handle(
    state: &Arc<AppState>,
    route: &ApiRoute,
    head: &Parts,
    body: &mut RequestBody,
) -> Result<ApiResponse, HandlerError> {
    let methods = route.methods();
    if methods.is_empty() {
        let title = "There is nothing at this path.";
        return Err(ProblemDetails::new(StatusCode::NOT_FOUND, "unrecognized-request-url", title).into());
    }
    // Before authentication: a browser sends a preflight request without credentials.
    if head.method == Method::OPTIONS {
        return Ok(preflight());
    }
    if !methods.contains(&head.method) {
        return Ok(method_not_allowed(methods));
    }
    // These three carry their credentials in the body or in the query.
    if !matches!(route, ApiRoute::AuthKey | ApiRoute::AuthRefresh | ApiRoute::Upload) {
        auth::check(state, &head.headers)?;
    }
    dispatch(state, route, head, body).await
}

/// Passes an authenticated request to its handler.
async fn dispatch(
    state: &Arc<AppState>,
    route: &ApiRoute,
    head: &Parts,
    body: &mut RequestBody,
) -> Result<ApiResponse, HandlerError> {
    let (database, stats) = (&state.database, &state.stats);
    let query = QueryString::parse(head.uri.query());
    match (route, &head.method) {
        (ApiRoute::AuthKey, _) => auth::with_key(state, &body.json().await?),
        (ApiRoute::AuthRefresh, _) => auth::refresh(state, &body.json().await?),
        (ApiRoute::Videos, &Method::POST) => videos::create(database, stats, body.json().await?),
        (ApiRoute::Videos, _) => videos::list(database, &query),
        (ApiRoute::Video(id), &Method::PATCH) => videos::update(database, id, body.json().await?),
        (ApiRoute::Video(id), &Method::DELETE) => delete(state.clone(), id.clone()).await,
        (ApiRoute::Video(id), _) => videos::get(database, id),
        (ApiRoute::Source(id), &Method::POST) => {
            uploads::upload_to_video(state, id, &head.headers, body).await
        }
        (ApiRoute::Source(id), method) => uploads::download(state, id, method).await,
        (ApiRoute::Status(id), _) => uploads::status(state, id),
        (ApiRoute::Upload, _) => uploads::upload_with_token(state, &query, &head.headers, body).await,
        (ApiRoute::Tokens, &Method::POST) => tokens::create(database, &body.json().await?),
        (ApiRoute::Tokens, _) => tokens::list(database, &query),
        (ApiRoute::Token(name), &Method::DELETE) => tokens::delete(database, name),
        (ApiRoute::Token(name), _) => tokens::get(database, name),
        (ApiRoute::Unknown, _) => Err(ProblemDetails::not_found("").into()),
    }
}

/// A resource of the API, parsed from a path.
enum ApiRoute {
    AuthKey,
    AuthRefresh,
    Videos,
    Video(String),
    Source(String),
    Status(String),
    Upload,
    Tokens,
    Token(String),
    Unknown,
}

impl ApiRoute {
    fn parse(path: &str) -> ApiRoute {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments[..] {
            ["auth", "api-key"] => ApiRoute::AuthKey,
            ["auth", "refresh"] => ApiRoute::AuthRefresh,
            ["videos"] => ApiRoute::Videos,
            ["videos", id] => ApiRoute::Video(decode(id)),
            ["videos", id, "source"] => ApiRoute::Source(decode(id)),
            ["videos", id, "status"] => ApiRoute::Status(decode(id)),
            ["upload"] => ApiRoute::Upload,
            ["upload-tokens"] => ApiRoute::Tokens,
            ["upload-tokens", name] => ApiRoute::Token(decode(name)),
            _ => ApiRoute::Unknown,
        }
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            ApiRoute::AuthKey | ApiRoute::AuthRefresh | ApiRoute::Upload => &[Method::POST],
            ApiRoute::Videos | ApiRoute::Tokens => &[Method::GET, Method::POST],
            ApiRoute::Video(_) => &[Method::GET, Method::PATCH, Method::DELETE],
            ApiRoute::Source(_) => &[Method::POST, Method::GET, Method::HEAD],
            ApiRoute::Status(_) => &[Method::GET],
            ApiRoute::Token(_) => &[Method::GET, Method::DELETE],
            ApiRoute::Unknown => &[],
        }
    }

    fn class(&self, method: &Method) -> RouteClass {
        match self {
            ApiRoute::AuthKey | ApiRoute::AuthRefresh => RouteClass::Auth,
            ApiRoute::Videos if *method == Method::POST => RouteClass::Create,
            ApiRoute::Videos | ApiRoute::Video(_) => RouteClass::Video,
            ApiRoute::Source(_) if *method == Method::POST => RouteClass::Chunk,
            ApiRoute::Source(_) => RouteClass::Source,
            ApiRoute::Status(_) => RouteClass::Status,
            ApiRoute::Upload => RouteClass::Chunk,
            ApiRoute::Tokens | ApiRoute::Token(_) => RouteClass::Token,
            ApiRoute::Unknown => RouteClass::Any,
        }
    }
}

async fn delete(state: Arc<AppState>, id: String) -> Result<ApiResponse, HandlerError> {
    let work = move || state.uploads.delete(&state.database, &state.files, &id);
    spawn_blocking(work).await.map_err(ProblemDetails::server_error)??;
    Ok(ApiResponse::empty(StatusCode::NO_CONTENT))
}

/// Reads or abandons the unread rest of a request body before the response is sent.
///
/// A client that is still sending may never read a response that arrives before its body was read.
async fn finish_body(
    mut body: RequestBody,
    headers: &HeaderMap,
    timing: RefusalTiming,
    response: ApiResponse,
) -> Result<ApiResponse, ConnectionEnd> {
    if body.is_finished() {
        return Ok(response);
    }
    match timing {
        // The client sent `Expect: 100-continue` and waits: this response replaces the 100, and no body
        // follows.
        RefusalTiming::AfterBody if headers.contains_key(EXPECT) && body.is_untouched() => {}
        RefusalTiming::AfterBody => {
            if let Err(HandlerError::Disconnect(ending)) = body.drain().await {
                return Err(ending);
            }
        }
        RefusalTiming::Early => {
            // The runtime owns the task. `MAX_BODY_BYTES` and the idle timeout bound it.
            tokio::spawn(async move { body.drain().await });
            return Ok(response);
        }
        RefusalTiming::EarlyClose => {}
    }
    if body.is_finished() {
        return Ok(response);
    }
    // The unread bytes would be parsed as the next request.
    Ok(response.with(CONNECTION, HeaderValue::from_static("close")))
}

fn method_not_allowed(methods: &[Method]) -> ApiResponse {
    let title = "This method is not allowed here.";
    let problem = ProblemDetails::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title);
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let response = ApiResponse::problem(&problem);
    match HeaderValue::try_from(allowed) {
        Ok(allowed) => response.with(ALLOW, allowed),
        Err(_) => response,
    }
}

/// Responds to a browser's CORS preflight request (Fetch standard, CORS protocol).
fn preflight() -> ApiResponse {
    let headers =
        "authorization, content-type, content-range, av-origin-client, av-origin-app, av-origin-sdk";
    let methods = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
    ApiResponse::empty(StatusCode::NO_CONTENT)
        .with(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods))
        .with(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(headers))
        .with(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"))
}

fn browser_headers() -> HeaderMap {
    let exposed = "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-retry-after, x-content-sha256";
    HeaderMap::from_iter([
        (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed)),
    ])
}

fn log_line(head: &Parts) -> RequestLogEntry {
    let content_range = head.headers.get(CONTENT_RANGE);
    RequestLogEntry {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        content_range: content_range.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        status: None,
    }
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
