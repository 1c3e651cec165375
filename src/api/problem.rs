//! Conversion of an unsuccessful answer to an [`Error`].

use bytes::Bytes;
use http::{HeaderName, Response, header};
use serde_json::{Map, Value};

use super::advice::{Explanation, by_status};
use super::de;
use super::known_problems::known;
use super::rate::RateLimit;
use super::redactor::Redactor;
use crate::error::{Error, ErrorKind, OneLine, Refusal};

/// Returns the error for an answer that is not 2xx. `doing` names the operation in the infinitive.
///
/// Reads a problem document of any content type. Of any other body, keeps the beginning without control
/// characters. No text holds a secret of `redactor`.
pub fn refused(doing: &str, answer: &Response<Bytes>, redactor: &Redactor) -> Error {
    let refusal = ErrorBody { answer, redactor }.refusal();
    let Explanation { meaning, advice } = explain(&refusal);
    let error = Error::new(kind(&refusal), doing).with_meaning(meaning).advised(advice);
    let error = match RateLimit::from_headers(answer.headers()).asked_wait(answer.status()) {
        Some(retry_after) => error.with_retry_after(retry_after),
        None => error,
    };
    error.with_refusal(refusal)
}

/// Returns the error for a 2xx whose body does not follow the protocol.
pub(super) fn malformed(doing: &str, answer: &Response<Bytes>, redactor: &Redactor) -> Error {
    let excerpt = ErrorBody { answer, redactor }.excerpt().unwrap_or_else(|| "nothing".into());
    Error::new(ErrorKind::MalformedAnswer, doing)
        .because(format!("the service answered {} with {excerpt}", answer.status().as_u16()))
}

/// The body of an answer, to be quoted in an error.
struct ErrorBody<'a> {
    answer: &'a Response<Bytes>,
    redactor: &'a Redactor,
}

impl ErrorBody<'_> {
    fn refusal(&self) -> Refusal {
        if let Ok(Value::Object(document)) = de::read(self.answer.body()) {
            return self.of_document(&document);
        }
        let status = self.answer.status();
        Refusal {
            status: status.as_u16(),
            title: status.canonical_reason().map(Into::into),
            detail: self.detail(),
            ..Refusal::default()
        }
    }

    fn of_document(&self, document: &Map<String, Value>) -> Refusal {
        let problems = document.get("problems").and_then(Value::as_array);
        Refusal {
            problems: problems
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .take(MAX_PROBLEMS)
                .map(|problem| self.one_problem(problem))
                .collect(),
            ..self.one_problem(document)
        }
    }

    fn one_problem(&self, document: &Map<String, Value>) -> Refusal {
        let text = |key| self.bounded(document.get(key)?.as_str()?);
        Refusal {
            status: self.answer.status().as_u16(),
            slug: document.get("type").and_then(Value::as_str).and_then(|name| self.slug(name)),
            title: text("title"),
            detail: text("detail"),
            name: text("name"),
            problems: Vec::new(),
        }
    }

    /// Returns the name of the problem. A known name stays unredacted even if it contains a secret, because the kind of
    /// the error depends on it.
    fn slug(&self, problem_type: &str) -> Option<String> {
        let slug = slug(problem_type)?;
        if known(slug).is_some() { Some(slug.to_owned()) } else { self.bounded(slug) }
    }

    fn redirection(&self) -> Option<String> {
        let location = self.answer.headers().get(header::LOCATION)?.to_str().ok()?;
        self.bounded(&format!("It redirects to {location}"))
    }

    /// Returns the target of a redirect or the beginning of the body, and the programs that answered.
    fn detail(&self) -> Option<String> {
        let text = self.redirection().or_else(|| self.excerpt());
        let program = |name: HeaderName| {
            let value = self.answer.headers().get(&name)?;
            Some(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        };
        // A page that is not the service's is often a proxy's, which these headers name (RFC 9110, sections 7.6.3
        // and 10.2.4).
        let named: Vec<_> = [header::SERVER, header::VIA].into_iter().filter_map(program).collect();
        if named.is_empty() {
            return text;
        }
        let named = self.bounded(&format!("({})", named.join(", ")));
        Some(text.into_iter().chain(named).collect::<Vec<_>>().join(" "))
    }

    /// Returns the beginning of the body.
    fn excerpt(&self) -> Option<String> {
        if let Some(coding) = compression(self.answer) {
            return self.bounded(&format!("a compressed answer ({coding}), which was not asked for"));
        }
        let body = self.answer.body();
        self.bounded(&String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]))
    }

    /// Returns one line of at most [`MAX_TEXT_CHARS`]; `None` if it would be empty. The text is redacted before it is
    /// cut, because the beginning of a secret is not recognised as one.
    fn bounded(&self, text: &str) -> Option<String> {
        // The redactor looks at every position, so that a huge body is cut before.
        let window = text.char_indices().nth(EXCERPT_BYTES).map_or(text, |(end, _)| &text[..end]);
        let text = self.redactor.redact(window);
        let mut words = text.split_whitespace().flat_map(|word| [" ", word]);
        words.next()?;
        let line = OneLine(&words.collect::<String>()).to_string();
        let Some((end, _)) = line.char_indices().nth(MAX_TEXT_CHARS) else { return Some(line) };
        Some(format!("{}...", &line[..end]))
    }
}

/// Returns the compression of a body, by its first bytes (RFC 1952, RFC 8878, RFC 1950) or by its header.
fn compression(answer: &Response<Bytes>) -> Option<&str> {
    let declared = answer.headers().get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    let declared = declared.map(str::trim).filter(|coding| !coding.is_empty() && *coding != "identity");
    match answer.body().as_ref() {
        // Some servers send the header without compressing. These first bytes are JSON or HTML.
        [b'{' | b'[' | b'<', ..] | [] => None,
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some("deflate"),
        _ => declared,
    }
}

/// Returns `invalid-attribute` for `https://docs.api.video/reference/request-invalid-attribute`.
///
/// Returns `None` for a type outside the service's reference: gateways and web frameworks send problem documents
/// of their own (RFC 9457).
fn slug(problem_type: &str) -> Option<&str> {
    let path = problem_type.split(['?', '#']).next()?.trim_end_matches('/');
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    let slug = last.strip_prefix("request-").unwrap_or(last);
    let is_own = folder.ends_with("/reference") || known(slug).is_some();
    (is_own && !slug.is_empty()).then_some(slug)
}

fn kind(refusal: &Refusal) -> ErrorKind {
    match refusal.status {
        401 | 403 => ErrorKind::NotAuthorized,
        // The request was given up (408), or refused unread (425, RFC 8470): both may be repeated.
        408 | 425 => ErrorKind::Unavailable,
        429 => ErrorKind::RateLimited,
        // A repeated redirect, or a request that the server does not implement, ends the same way.
        ..=399 | 501 | 505 => ErrorKind::Refused,
        500.. => ErrorKind::Unavailable,
        _ => kind_by_slug(refusal),
    }
}

/// Returns the kind by the problems. Several problems of different kinds are a plain refusal: a chunk counts as
/// already sent only if that is the whole problem.
fn kind_by_slug(refusal: &Refusal) -> ErrorKind {
    let mut kinds = slugs(refusal).map(|slug| known(slug).map_or(ErrorKind::Refused, |problem| problem.kind));
    let first = kinds.next().unwrap_or(ErrorKind::Refused);
    if kinds.all(|kind| kind == first) { first } else { ErrorKind::Refused }
}

/// Explains the first known problem. A 5xx is explained by its status.
fn explain(refusal: &Refusal) -> Explanation {
    let by_slug = slugs(refusal).find_map(known).filter(|_| refusal.status < 500);
    by_slug.map_or_else(|| by_status(refusal.status), |problem| problem.explanation())
}

fn slugs(refusal: &Refusal) -> impl Iterator<Item = &str> {
    let own = refusal.slug.as_deref();
    own.into_iter().chain(refusal.problems.iter().filter_map(|problem| problem.slug.as_deref()))
}

const MAX_TEXT_CHARS: usize = 300;
const MAX_PROBLEMS: usize = 20;

/// The bytes of a body that are searched for a text. More than is shown, as white space is left out and escapes are
/// long.
const EXCERPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::api::scripted::response;

    fn refused(doing: &str, answer: &Response<Bytes>) -> Error {
        super::refused(doing, answer, &Redactor::new())
    }

    fn problem(status: u16, slug: &str) -> Error {
        let page = format!("https://docs.api.video/reference/{slug}");
        refused("try", &response(status, json!({"type": page, "title": "T", "status": status})))
    }

    #[test]
    fn a_problem_document_is_kept_whole() {
        let error = refused(
            "create the video",
            &response(
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
            refused("try", &response(400, json!({"type": overlap, "problems": [{"type": overlap}, problem]})))
                .kind()
        };
        assert_eq!(several("video-content-range-by-bytes-range-overlap"), ErrorKind::AlreadySent);
        assert_eq!(several("video-content-range-by-bytes-range-mismatch"), ErrorKind::Refused);
    }

    #[test]
    fn a_page_names_the_programs_that_answered() {
        let mut answer = response(413, json!("<h1>Too large</h1>"));
        answer.headers_mut().insert(header::VIA, "1.1 SRV-TMG".parse().unwrap());
        answer.headers_mut().append(header::SERVER, "nginx".parse().unwrap());
        let error = refused("send a chunk", &answer);
        assert!(error.to_string().ends_with("(server: nginx, via: 1.1 SRV-TMG)"), "{error}");
        assert_eq!(error.hint(), Some(crate::error::Hint::SmallerChunksInNewUpload));
    }

    #[test]
    fn a_page_of_a_proxy_is_cut_and_cleaned() {
        let page = format!("<html>\r\n<h1>Bad\tGateway\u{1b}[2J</h1>{}", "é".repeat(5000));
        let error = refused("list the videos", &response(502, page));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.starts_with(
            "could not list the videos: the service answered 502: Bad Gateway <html> <h1>Bad Gateway"
        ));
        assert!(text.ends_with("..."), "{text}");
        assert!(text.chars().count() < 400 && !text.contains(char::is_control), "{text}");
    }

    #[test]
    fn a_404_without_a_document_does_not_mean_that_the_video_is_gone() {
        assert_eq!(refused("try", &response(404, "")).kind(), ErrorKind::Refused);
        assert_eq!(
            refused("try", &response(404, "")).to_string(),
            "could not try: the service answered 404: Not Found"
        );
    }

    #[test]
    fn a_document_with_odd_values_gives_what_can_be_read() {
        let odd = json!({"type": 5, "title": null, "detail": "D", "problems": {"a": 1}, "status": "400"});
        let error = refused("try", &response(400, odd));
        assert_eq!(error.to_string(), "could not try: the service answered 400: D");
        assert_eq!(
            refused("try", &response(400, "[1]")).to_string(),
            "could not try: the service answered 400: Bad Request [1]"
        );
    }

    #[test]
    fn a_redirection_names_its_target() {
        let mut answer = response(301, "");
        answer.headers_mut().insert(header::LOCATION, "https://ws.api.video/videos".parse().unwrap());
        let error = refused("list the videos", &answer);
        assert!(error.to_string().ends_with("It redirects to https://ws.api.video/videos"), "{error}");
        assert!(error.advice().unwrap().contains("endpoint"));
    }

    #[test]
    fn the_wait_that_the_service_asks_for_is_kept_whatever_the_status() {
        for status in [302, 400, 404, 408, 429, 500, 502, 503] {
            for header in ["x-ratelimit-retry-after", "retry-after"] {
                let mut answer = response(status, "");
                answer.headers_mut().insert(header, "7".parse().unwrap());
                let asked = refused("try", &answer).retry_after();
                assert_eq!(asked, Some(Duration::from_secs(7)), "{status} {header}");
            }
        }
    }

    #[test]
    fn a_compressed_answer_is_called_one() {
        let compressed = |coding: &'static str, body: &'static [u8]| {
            let mut answer = response(502, "").map(|_| Bytes::from_static(body));
            answer.headers_mut().insert("content-encoding", coding.parse().unwrap());
            let refused = refused("try", &answer).to_string();
            let unread = malformed("try", &answer, &Redactor::new()).to_string();
            for text in [&refused, &unread] {
                assert!(text.contains("a compressed answer"), "{text}");
                assert!(!text.contains(char::is_control) && !text.contains('\u{fffd}'), "{text}");
            }
            refused
        };
        assert!(compressed("identity", b"\x1f\x8b\x08\0\0").contains("(gzip)"));
        assert!(compressed("", b"\x28\xb5\x2f\xfd\0").contains("(zstd)"));
        assert!(compressed("br", b"\x0b\x02\x80").contains("(br)"));
        let mut plain = response(502, "<h1>Bad</h1>");
        plain.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        assert!(refused("try", &plain).to_string().ends_with("<h1>Bad</h1>"));
    }

    #[test]
    fn a_secret_is_hidden_before_a_text_is_cut() {
        let redactor = Redactor::new();
        redactor.add(&crate::api::Secret::new("hunter2-hunter2"));
        for fill in 280..302 {
            let page = format!("{}hunter2-hunter2", "x".repeat(fill));
            let error = super::refused("try", &response(400, &page), &redactor);
            assert!(!format!("{error} {error:?}").contains("hunt"), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_part_of_a_known_name_does_not_change_what_it_means() {
        let redactor = Redactor::new();
        redactor.add(&crate::api::Secret::new("video"));
        let page = "https://docs.api.video/reference/video-source-already-uploaded";
        let error =
            super::refused("try", &response(400, json!({"type": page, "title": "A video"})), &redactor);
        assert_eq!(error.kind(), ErrorKind::AlreadyFilled);
        assert_eq!(error.refusal().unwrap().title.as_deref(), Some("A ***"));
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
            assert_eq!(slug(problem_type), found, "{problem_type}");
        }
    }
}
