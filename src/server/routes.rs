//! From a request to its handler, and what holds for all of them: faults, rate limits, authentication,
//! bodies nobody read, CORS.

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

use super::answer::{Answer, Body, Failure};
use super::faults::{Action, Ending, RefusalTiming, RouteClass};
use super::intake::Intake;
use super::problem::Problem;
use super::query::Query;
use super::rate::too_many_requests;
use super::site::Site;
use super::tally::Logged;
use super::{auth, sabotage, tokens, uploads, videos};

/// Answers one request, or says how the connection ends instead.
pub(super) async fn serve(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Body>, Ending> {
    let (head, body) = request.into_parts();
    let route = Route::of(head.uri.path());
    let class = route.class(&head.method);
    let logged = log_line(&head);
    let range = logged.content_range.as_deref().and_then(|text| text.parse().ok());
    let fault = site.faults.strike(class, range);
    site.tallies.count(|tally| tally.faults += u64::from(fault.is_some()));
    let entry = site.tallies.begin(class, logged);
    let intake = Intake::new(body, site.settings.idle, fault.clone());

    let mut answer = answer(&site, &route, &head, intake, fault.as_ref()).await?;
    answer.headers.extend(browser_headers());
    let response = match &fault {
        Some(fault) => sabotage::spoil(fault, answer).await?,
        None => answer.into_response(),
    };
    site.tallies.end(entry, response.status().as_u16());
    Ok(response)
}

async fn answer(
    site: &Arc<Site>,
    route: &Route,
    head: &Parts,
    mut intake: Intake,
    fault: Option<&Action>,
) -> Result<Answer, Ending> {
    let standing = site.rate.take(route.class(&head.method), &head.method, Instant::now());
    let instead = match fault {
        Some(fault) => sabotage::instead(fault, &mut intake).await,
        None => None,
    };
    let handled = match (instead, standing) {
        (Some(instead), _) => instead,
        (None, Err(_)) => Err(too_many_requests().into()),
        (None, Ok(_)) => handle(site, route, head, &mut intake).await,
    };
    let mut answer = match handled {
        Ok(answer) => answer,
        Err(Failure::Severed(ending)) => return Err(ending),
        Err(Failure::Problem(problem)) => Answer::problem(&problem),
    };
    if let Some(slug) = answer.slug() {
        site.tallies.refused(slug);
    }
    if let Ok(Some(standing)) | Err(standing) = standing {
        standing.write(&mut answer.headers);
    }
    let timing = fault.and_then(sabotage::timing).unwrap_or(site.settings.refusals);
    settle_body(intake, &head.headers, timing, answer).await
}

async fn handle(
    site: &Arc<Site>,
    route: &Route,
    head: &Parts,
    intake: &mut Intake,
) -> Result<Answer, Failure> {
    let (store, tallies) = (&site.store, &site.tallies);
    let query = Query::parse(head.uri.query());
    let methods = route.methods();
    if methods.is_empty() {
        let title = "There is nothing at this path.";
        return Err(Problem::new(StatusCode::NOT_FOUND, "unrecognized-request-url", title).into());
    }
    if head.method == Method::OPTIONS {
        return Ok(preflight());
    }
    if !methods.contains(&head.method) {
        return Ok(wrong_method(methods));
    }
    if !matches!(route, Route::AuthKey | Route::AuthRefresh | Route::Upload) {
        auth::check(site, &head.headers)?;
    }
    match (route, &head.method) {
        (Route::AuthKey, _) => auth::with_key(site, &intake.json().await?),
        (Route::AuthRefresh, _) => auth::refresh(site, &intake.json().await?),
        (Route::Videos, &Method::POST) => videos::create(store, tallies, intake.json().await?),
        (Route::Videos, _) => videos::list(store, &query),
        (Route::Video(id), &Method::PATCH) => videos::update(store, id, intake.json().await?),
        (Route::Video(id), &Method::DELETE) => delete(site.clone(), id.clone()).await,
        (Route::Video(id), _) => videos::get(store, id),
        (Route::Source(id), &Method::POST) => uploads::into_container(site, id, &head.headers, intake).await,
        (Route::Source(id), method) => uploads::download(site, id, method).await,
        (Route::Status(id), _) => uploads::status(site, id),
        (Route::Upload, _) => uploads::delegated(site, &query, &head.headers, intake).await,
        (Route::Tokens, &Method::POST) => tokens::create(store, &intake.json().await?),
        (Route::Tokens, _) => tokens::list(store, &query),
        (Route::Token(name), &Method::DELETE) => tokens::delete(store, name),
        (Route::Token(name), _) => tokens::get(store, name),
        (Route::Unknown, _) => Err(Problem::not_found("").into()),
    }
}

/// What a path stands for.
enum Route {
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

impl Route {
    fn of(path: &str) -> Route {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments[..] {
            ["auth", "api-key"] => Route::AuthKey,
            ["auth", "refresh"] => Route::AuthRefresh,
            ["videos"] => Route::Videos,
            ["videos", id] => Route::Video(decode(id)),
            ["videos", id, "source"] => Route::Source(decode(id)),
            ["videos", id, "status"] => Route::Status(decode(id)),
            ["upload"] => Route::Upload,
            ["upload-tokens"] => Route::Tokens,
            ["upload-tokens", name] => Route::Token(decode(name)),
            _ => Route::Unknown,
        }
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Route::AuthKey | Route::AuthRefresh | Route::Upload => &[Method::POST],
            Route::Videos | Route::Tokens => &[Method::GET, Method::POST],
            Route::Video(_) => &[Method::GET, Method::PATCH, Method::DELETE],
            Route::Source(_) => &[Method::POST, Method::GET, Method::HEAD],
            Route::Status(_) => &[Method::GET],
            Route::Token(_) => &[Method::GET, Method::DELETE],
            Route::Unknown => &[],
        }
    }

    fn class(&self, method: &Method) -> RouteClass {
        match self {
            Route::AuthKey | Route::AuthRefresh => RouteClass::Auth,
            Route::Videos if *method == Method::POST => RouteClass::Create,
            Route::Videos | Route::Video(_) => RouteClass::Video,
            Route::Source(_) if *method == Method::POST => RouteClass::Chunk,
            Route::Source(_) => RouteClass::Source,
            Route::Status(_) => RouteClass::Status,
            Route::Upload => RouteClass::Chunk,
            Route::Tokens | Route::Token(_) => RouteClass::Token,
            Route::Unknown => RouteClass::Any,
        }
    }
}

async fn delete(site: Arc<Site>, id: String) -> Result<Answer, Failure> {
    let work = move || site.containers.delete(&site.store, &site.shelves, &id);
    spawn_blocking(work).await.map_err(Problem::server_error)??;
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

/// A client that is still sending might never read an answer given before its body is read.
async fn settle_body(
    mut intake: Intake,
    headers: &HeaderMap,
    timing: RefusalTiming,
    answer: Answer,
) -> Result<Answer, Ending> {
    if intake.is_finished() {
        return Ok(answer);
    }
    match timing {
        // It asked before sending, and this is the answer.
        RefusalTiming::AfterBody if headers.contains_key(EXPECT) && intake.is_untouched() => {}
        RefusalTiming::AfterBody => {
            if let Err(Failure::Severed(ending)) = intake.drain().await {
                return Err(ending);
            }
        }
        RefusalTiming::Early => {
            // The runtime owns the task and ends it; the intake bounds it.
            tokio::spawn(async move { intake.drain().await });
            return Ok(answer);
        }
        RefusalTiming::EarlyClose => {}
    }
    match intake.is_finished() {
        true => Ok(answer),
        false => Ok(answer.with(CONNECTION, HeaderValue::from_static("close"))),
    }
}

fn wrong_method(methods: &[Method]) -> Answer {
    let title = "This method is not allowed here.";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title);
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let answer = Answer::problem(&problem);
    match HeaderValue::try_from(allowed) {
        Ok(allowed) => answer.with(ALLOW, allowed),
        Err(_) => answer,
    }
}

/// What a browser asks before it sends headers of its own (the Fetch standard, CORS protocol).
fn preflight() -> Answer {
    let headers =
        "authorization, content-type, content-range, av-origin-client, av-origin-app, av-origin-sdk";
    let methods = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
    Answer::empty(StatusCode::NO_CONTENT)
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

fn log_line(head: &Parts) -> Logged {
    let content_range = head.headers.get(CONTENT_RANGE);
    Logged {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        content_range: content_range.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        status: None,
    }
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
