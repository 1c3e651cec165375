//! Requests: checks them, and dispatches them to answers.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::bulk::JobStateName;

use super::access::{AccessRules, Granted, Refused};
use super::document::{RunDocument, list_json};
use super::hub::Hub;
use super::metrics::{self, MetricsFormat};
use super::page;
use super::parameters::Parameters;
use super::view::{JOBS_TIMEOUT, JobList, JobListQuery, LONGEST_LIST};

/// Everything that answers depend on.
pub(super) struct Router {
    pub(super) hub: Arc<Hub>,
    pub(super) rules: AccessRules,
    /// Pages of jobs that are being read. A search may read a whole store.
    searches: Semaphore,
}

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<AnswerBody>;

impl Router {
    pub(super) fn new(hub: Arc<Hub>, rules: AccessRules) -> Router {
        Router { hub, rules, searches: Semaphore::new(SEARCHES) }
    }

    /// Returns a page of jobs, or the status and the message of an error.
    async fn jobs(&self, query: JobListQuery) -> Result<JobList, (StatusCode, String)> {
        let read = async {
            // Never closed.
            let _permit = self.searches.acquire().await;
            self.hub.source().jobs(query).await
        };
        // With the wait for a place: a viewer waits for both together.
        match timeout(JOBS_TIMEOUT, read).await {
            Ok(Ok(list)) => Ok(list),
            Ok(Err(message)) => Err((StatusCode::BAD_GATEWAY, message)),
            Err(_) => Err((StatusCode::GATEWAY_TIMEOUT, "the job store took too long: try again".to_owned())),
        }
    }
}

/// Answers a request.
pub(super) async fn answer(router: &Router, request: Request<impl Body>) -> Answer {
    let mut answer = match checked(router, &request) {
        Ok(parameters) => dispatch(router, &request, parameters).await,
        Err(answer) => *answer,
    };
    let fixed: [(HeaderName, &str); 5] = [
        // The state changes several times a second, and a shared cache must not have what a token protects.
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // The URL may hold the token.
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ];
    for (name, value) in fixed {
        // The page has set a policy of its own by now.
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    if request.method() == Method::HEAD {
        *answer.body_mut() = empty();
    }
    answer
}

/// Checks everything that does not depend on the route. Returns the answer to a request that is refused or redirected.
fn checked<'a>(router: &Router, request: &'a Request<impl Body>) -> Result<Parameters<'a>, Box<Answer>> {
    let (headers, uri) = (request.headers(), request.uri());
    router.rules.check_origin(headers, uri).map_err(refused)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = failure(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
        return Err(Box::new(with(answer, header::ALLOW, "GET, HEAD")));
    }
    let parameters = Parameters::new(uri.query());
    // Probes have no token, and learn nothing but that the monitor answers.
    if uri.path() == "/healthz" {
        return Ok(parameters);
    }
    match router.rules.check_token(headers, parameters).map_err(refused)? {
        Granted::Answer => Ok(parameters),
        Granted::Redirect { cookie } => Err(Box::new(redirect(uri.path(), parameters, &cookie))),
    }
}

async fn dispatch(router: &Router, request: &Request<impl Body>, parameters: Parameters<'_>) -> Answer {
    match request.uri().path() {
        "/" => html_page(router, parameters).await,
        "/metrics" => scrape(router, request),
        "/api/snapshot" => {
            let fields = RunDocument::new(&router.hub.view()).fields();
            // Serializing a map with text keys cannot fail.
            text("application/json", serde_json::to_string(&fields).unwrap_or_default())
        }
        // Without a subscription, which would take the place of a viewer.
        "/api/events" if request.method() == Method::HEAD => text(EVENT_STREAM, ""),
        // `Last-Event-ID` needs no reading: a viewer that connects again receives the whole state, too.
        "/api/events" => events(router),
        "/api/jobs" => job_list(router, parameters).await,
        "/healthz" => text("text/plain; charset=utf-8", "ok\n"),
        _ => failure(StatusCode::NOT_FOUND, "there is no such page: see /"),
    }
}

async fn html_page(router: &Router, parameters: Parameters<'_>) -> Answer {
    let query = match job_query(parameters) {
        Ok(query) => query,
        Err(message) => return failure(StatusCode::BAD_REQUEST, &message),
    };
    let list = router.jobs(query.clone()).await.map_err(|(_, message)| message);
    let Some(nonce) = page::nonce() else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "the system returned no random bytes");
    };
    let html = page::html(&router.hub.view(), &router.hub.history(), &query, &list, &nonce);
    with(text("text/html; charset=utf-8", html), header::CONTENT_SECURITY_POLICY, &page::policy(&nonce))
}

fn scrape(router: &Router, request: &Request<impl Body>) -> Answer {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = MetricsFormat::accepted(accept.unwrap_or_default());
    match metrics::scraped(router.hub.view(), format) {
        Ok(metrics) => with(text(format.content_type(), metrics), header::VARY, "Accept"),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn events(router: &Router) -> Answer {
    let Some(events) = router.hub.subscribe() else {
        let answer =
            failure(StatusCode::SERVICE_UNAVAILABLE, "too many viewers: close a page, or read /api/snapshot");
        return with(answer, header::RETRY_AFTER, "10");
    };
    let body = StreamBody::new(events.map(|event| Ok(Frame::data(event)))).boxed_unsync();
    let answer = with(Response::new(body), header::CONTENT_TYPE, EVENT_STREAM);
    // Proxies such as nginx collect a response before they pass it on, unless asked not to.
    with(answer, HeaderName::from_static("x-accel-buffering"), "no")
}

async fn job_list(router: &Router, parameters: Parameters<'_>) -> Answer {
    let query = match job_query(parameters) {
        Ok(query) => query,
        Err(message) => return failure(StatusCode::BAD_REQUEST, &message),
    };
    match router.jobs(query).await {
        Ok(list) => text("application/json", list_json(&list)),
        Err((status, message)) => failure(status, &message),
    }
}

/// Returns the selection of jobs. Empty parameters count as missing: forms send them.
fn job_query(parameters: Parameters<'_>) -> Result<JobListQuery, String> {
    let given = |name| parameters.get(name).filter(|value| !value.is_empty());
    let state = given("state").map(|name| {
        let state = JobStateName::ALL.into_iter().find(|state| state.as_str() == name);
        let names = || JobStateName::ALL.map(JobStateName::as_str).join(", ");
        state.ok_or_else(|| format!("`state` is not one of {}", names()))
    });
    let limit = given("limit").map(|limit| {
        let limit = limit.parse().ok().filter(|limit| (1..=LONGEST_LIST).contains(limit));
        limit.ok_or_else(|| format!("`limit` is not a number from 1 to {LONGEST_LIST}"))
    });
    let short = |name| match given(name) {
        Some(value) if value.len() > LONGEST_TEXT => {
            Err(format!("`{name}` is longer than {LONGEST_TEXT} bytes"))
        }
        value => Ok(value),
    };
    Ok(JobListQuery {
        state: state.transpose()?,
        after: short("after")?,
        limit: limit.transpose()?.unwrap_or(DEFAULT_LIMIT),
        search: short("search")?,
    })
}

fn refused(refused: Refused) -> Box<Answer> {
    Box::new(match refused {
        Refused::NoHost => failure(StatusCode::BAD_REQUEST, "the request needs one `Host` header"),
        Refused::ForeignHost => failure(
            StatusCode::FORBIDDEN,
            "this name does not belong to the monitor: use its IP address or localhost",
        ),
        Refused::ForeignOrigin => {
            failure(StatusCode::FORBIDDEN, "pages of other sites may not read the monitor: open its own page")
        }
        Refused::Token => {
            // A browser withholds a strict cookie from the redirect after a link on another site; a reload sends it.
            let message = "the token is missing or wrong: open the URL with `?token=` that was printed at the start, send \
                           `Authorization: Bearer`, or reload the page";
            with(failure(StatusCode::UNAUTHORIZED, message), header::WWW_AUTHENTICATE, "Bearer")
        }
    })
}

/// Redirects to the same route without the token, so that the token is in no history and no bookmark.
fn redirect(path: &str, parameters: Parameters<'_>, cookie: &str) -> Answer {
    // A path like `//example.com` would lead to another host.
    let path = if ROUTES.contains(&path) { path } else { "/" };
    let query = parameters.without("token");
    let location = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    with(with(answer, header::LOCATION, &location), header::SET_COOKIE, cookie)
}

fn failure(status: StatusCode, message: &str) -> Answer {
    let mut answer = text("application/json", json!({ "error": message }).to_string());
    *answer.status_mut() = status;
    answer
}

fn text(kind: &str, text: impl Into<Bytes>) -> Answer {
    let text = text.into();
    let len = text.len();
    let body = if len == 0 { empty() } else { Full::new(text).boxed_unsync() };
    let mut answer = with(Response::new(body), header::CONTENT_TYPE, kind);
    if len > 0 {
        // Kept for HEAD, which has no body to count.
        answer.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    }
    answer
}

/// Adds a header. A value that is no header is left out; all values here are ASCII.
fn with(mut answer: Answer, name: HeaderName, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn empty() -> AnswerBody {
    Full::default().boxed_unsync()
}

const ROUTES: [&str; 6] = ["/", "/metrics", "/api/snapshot", "/api/events", "/api/jobs", "/healthz"];

const EVENT_STREAM: &str = "text/event-stream";

/// The jobs of a page unless the viewer chooses.
const DEFAULT_LIMIT: usize = 50;

/// The longest text to search for, and the longest start of a page, in bytes.
const LONGEST_TEXT: usize = 512;

/// The most pages of jobs that are read at the same time; further ones wait.
const SEARCHES: usize = 4;
