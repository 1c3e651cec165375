//! From an answer that is no success to an [`Error`].

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::{Map, Value};

use super::advice::{Words, by_status, known};
use super::rate::RateLimit;
use crate::error::{Error, ErrorKind, OneLine, Refusal};

/// What an answer that is not 2xx means, while doing what `doing` says in the infinitive.
///
/// Reads a problem document of whatever content type. Of any other body the beginning is kept,
/// without control characters.
pub fn refused(doing: &str, answer: &Response<Bytes>) -> Error {
    let refusal = read(answer);
    let Words { meaning, advice } = words(&refusal);
    let error = Error::new(kind(&refusal), doing).with_meaning(meaning).with_advice(advice);
    let error = match RateLimit::from_headers(answer.headers()).retry_after {
        Some(retry_after) if error.is_temporary() => error.with_retry_after(retry_after),
        _ => error,
    };
    error.with_refusal(refusal)
}

/// What a 2xx means whose body is not what the protocol says.
pub(super) fn malformed(doing: &str, status: StatusCode, body: &[u8]) -> Error {
    let excerpt = excerpt(body).unwrap_or_else(|| "nothing".into());
    Error::new(ErrorKind::MalformedAnswer, doing)
        .because(format!("the service answered {} with {excerpt}", status.as_u16()))
}

fn read(answer: &Response<Bytes>) -> Refusal {
    let status = answer.status();
    if let Ok(Value::Object(document)) = serde_json::from_slice(answer.body()) {
        return from_document(status, &document);
    }
    Refusal {
        status: status.as_u16(),
        title: status.canonical_reason().map(Into::into),
        detail: redirection(answer).or_else(|| excerpt(answer.body())),
        ..Refusal::default()
    }
}

fn from_document(status: StatusCode, document: &Map<String, Value>) -> Refusal {
    let problems = document.get("problems").and_then(Value::as_array);
    Refusal {
        problems: problems
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .take(MAX_PROBLEMS)
            .map(|problem| one_problem(status, problem))
            .collect(),
        ..one_problem(status, document)
    }
}

fn one_problem(status: StatusCode, document: &Map<String, Value>) -> Refusal {
    let text = |key| document.get(key).and_then(Value::as_str).and_then(bounded);
    Refusal {
        status: status.as_u16(),
        slug: text("type").as_deref().and_then(slug),
        title: text("title"),
        detail: text("detail"),
        name: text("name"),
        problems: Vec::new(),
    }
}

/// `https://docs.api.video/reference/request-invalid-attribute` is `invalid-attribute`.
///
/// `None` for a type that is no page of the service's reference: gateways and web frameworks answer with
/// problem documents of their own (RFC 9457).
fn slug(problem_type: &str) -> Option<String> {
    let path = problem_type.split(['?', '#']).next()?.trim_end_matches('/');
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    let slug = last.strip_prefix("request-").unwrap_or(last);
    let is_own = folder.ends_with("/reference") || known(slug).is_some();
    (is_own && !slug.is_empty()).then(|| slug.to_owned())
}

fn kind(refusal: &Refusal) -> ErrorKind {
    match refusal.status {
        401 | 403 => ErrorKind::NotAuthorized,
        408 | 425 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited,
        ..=399 | 501 | 505 => ErrorKind::Refused,
        500.. => ErrorKind::Unavailable,
        _ => kind_by_slug(refusal),
    }
}

/// Several problems are more than a refusal only when all of them mean the same.
fn kind_by_slug(refusal: &Refusal) -> ErrorKind {
    let mut kinds = slugs(refusal).map(|slug| known(slug).map_or(ErrorKind::Refused, |problem| problem.kind));
    let first = kinds.next().unwrap_or(ErrorKind::Refused);
    if kinds.all(|kind| kind == first) { first } else { ErrorKind::Refused }
}

/// Of several problems the first that is known; where the service failed, that is what counts.
fn words(refusal: &Refusal) -> Words {
    let by_slug = slugs(refusal).find_map(known).filter(|_| refusal.status < 500);
    by_slug.map_or_else(|| by_status(refusal.status), |problem| problem.words)
}

fn slugs(refusal: &Refusal) -> impl Iterator<Item = &str> {
    let own = refusal.slug.as_deref();
    own.into_iter().chain(refusal.problems.iter().filter_map(|problem| problem.slug.as_deref()))
}

fn redirection(answer: &Response<Bytes>) -> Option<String> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    bounded(&format!("It redirects to {location}"))
}

/// The beginning of a body; at most four bytes make a character.
fn excerpt(body: &[u8]) -> Option<String> {
    bounded(&String::from_utf8_lossy(&body[..body.len().min(4 * MAX_TEXT_CHARS)]))
}

/// One line of at most [`MAX_TEXT_CHARS`], unless there is nothing to say.
fn bounded(text: &str) -> Option<String> {
    let mut words = text.split_whitespace().flat_map(|word| [" ", word]);
    words.next()?;
    let line = OneLine(&words.collect::<String>()).to_string();
    let Some((end, _)) = line.char_indices().nth(MAX_TEXT_CHARS) else { return Some(line) };
    Some(format!("{}...", &line[..end]))
}

const MAX_TEXT_CHARS: usize = 300;
const MAX_PROBLEMS: usize = 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::api::scripted::says;

    fn problem(status: u16, slug: &str) -> Error {
        let page = format!("https://docs.api.video/reference/{slug}");
        refused("try", &says(status, json!({"type": page, "title": "T", "status": status})))
    }

    #[test]
    fn a_problem_document_is_kept_whole() {
        let error = refused(
            "create the video",
            &says(
                400,
                json!({
                    "type": "https://docs.api.video/reference/attribute-required",
                    "title": "This attribute is required.",
                    "name": "title",
                    "status": 400,
                    "problems": [
                        {"type": "https://docs.api.video/reference/attribute-required", "name": "title"},
                        {"type": "https://docs.api.video/reference/invalid-attribute", "name": "tags",
                         "detail": "This must be an array."},
                    ],
                }),
            ),
        );
        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.slug.as_deref(), Some("attribute-required"));
        assert_eq!(refusal.problems[1].detail.as_deref(), Some("This must be an array."));
        assert_eq!(
            error.to_string(),
            "could not create the video: the service answered 400 attribute-required on \"title\": \
             This attribute is required.",
        );
    }

    #[test]
    fn kinds_follow_from_status_and_slug() {
        for (status, slug, kind) in [
            (400, "video-source-already-uploaded", ErrorKind::AlreadyFilled),
            (400, "video-content-range-by-bytes-range-overlap", ErrorKind::AlreadySent),
            (400, "video-content-range-by-part-part-already-sent", ErrorKind::AlreadySent),
            (400, "request-invalid-query-parameter", ErrorKind::Refused),
            (400, "something-new", ErrorKind::Refused),
            (400, "authentication-invalid-user-credentials", ErrorKind::NotAuthorized),
            (401, "authentication-invalid-upload-token", ErrorKind::NotAuthorized),
            (403, "authorization-suspended-account", ErrorKind::NotAuthorized),
            (404, "resource-not-found", ErrorKind::NotFound),
            (302, "video-content-range-by-bytes-range-overlap", ErrorKind::Refused),
            (404, "unrecognized-request-url", ErrorKind::Refused),
            (408, "", ErrorKind::Unavailable),
            (413, "", ErrorKind::Refused),
            (429, "too-many-requests", ErrorKind::RateLimited),
            (500, "", ErrorKind::Unavailable),
            (503, "resource-not-found", ErrorKind::Unavailable),
        ] {
            assert_eq!(problem(status, slug).kind(), kind, "{status} {slug}");
        }
    }

    #[test]
    fn a_chunk_counts_as_there_only_when_that_is_the_whole_problem() {
        let several = |other: &str| {
            let problem = json!({"type": format!("https://docs.api.video/reference/{other}")});
            let overlap = "https://docs.api.video/reference/video-content-range-by-bytes-range-overlap";
            refused("try", &says(400, json!({"type": overlap, "problems": [{"type": overlap}, problem]})))
                .kind()
        };
        assert_eq!(several("video-content-range-by-bytes-range-overlap"), ErrorKind::AlreadySent);
        assert_eq!(several("video-content-range-by-bytes-range-mismatch"), ErrorKind::Refused);
    }

    #[test]
    fn a_page_of_a_proxy_is_cut_and_cleaned() {
        let page = format!("<html>\r\n<h1>Bad\tGateway\u{1b}[2J</h1>{}", "é".repeat(5000));
        let error = refused("list the videos", &says(502, page));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.starts_with(
            "could not list the videos: the service answered 502: Bad Gateway <html> <h1>Bad Gateway"
        ));
        assert!(text.ends_with("..."), "{text}");
        assert!(text.chars().count() < 400 && !text.contains(char::is_control), "{text}");
    }

    #[test]
    fn a_404_without_a_document_does_not_say_that_the_video_is_gone() {
        assert_eq!(refused("try", &says(404, "")).kind(), ErrorKind::Refused);
        assert_eq!(
            refused("try", &says(404, "")).to_string(),
            "could not try: the service answered 404: Not Found"
        );
    }

    #[test]
    fn a_document_with_odd_values_gives_what_can_be_read() {
        let odd = json!({"type": 5, "title": null, "detail": "D", "problems": {"a": 1}, "status": "400"});
        let error = refused("try", &says(400, odd));
        assert_eq!(error.to_string(), "could not try: the service answered 400: D");
        assert_eq!(
            refused("try", &says(400, "[1]")).to_string(),
            "could not try: the service answered 400: Bad Request [1]"
        );
    }

    #[test]
    fn a_redirection_says_where_to() {
        let mut answer = says(301, "");
        answer.headers_mut().insert(header::LOCATION, "https://ws.api.video/videos".parse().unwrap());
        let error = refused("list the videos", &answer);
        assert!(error.to_string().ends_with("It redirects to https://ws.api.video/videos"), "{error}");
        assert!(error.advice().unwrap().contains("endpoint"));
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_kept_when_waiting_helps() {
        let ask = |status| {
            let mut answer = says(status, "");
            answer.headers_mut().insert("x-ratelimit-retry-after", "7".parse().unwrap());
            refused("try", &answer).retry_after()
        };
        assert_eq!((ask(429), ask(503)), (Some(Duration::from_secs(7)), Some(Duration::from_secs(7))));
        assert_eq!(ask(400), None);
    }

    #[test]
    fn slugs_are_found_in_every_spelling_of_the_type() {
        for (problem_type, found) in [
            ("https://docs.api.video/reference/invalid-attribute", Some("invalid-attribute")),
            ("https://docs.api.video/reference/invalid-attribute/?x#y", Some("invalid-attribute")),
            (
                "https://docs.api.video/reference/request-invalid-query-parameter",
                Some("invalid-query-parameter"),
            ),
            ("invalid-attribute", Some("invalid-attribute")),
            ("about:blank", None),
            ("/", None),
        ] {
            assert_eq!(slug(problem_type).as_deref(), found, "{problem_type}");
        }
    }
}
