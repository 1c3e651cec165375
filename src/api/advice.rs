//! What each problem of the service means here, and what to do about it.
//!
//! The slugs are the pages below <https://docs.api.video/reference>.

use crate::error::ErrorKind::{
    self, AlreadyFilled, AlreadySent, NotAuthorized, NotFound, RateLimited, Refused,
};

/// What one problem means here.
#[derive(Debug)]
pub(super) struct KnownProblem {
    slug: &'static str,
    pub(super) kind: ErrorKind,
    pub(super) words: Explanation,
}

/// What a refusal means here, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) meaning: &'static str,
    pub(super) advice: &'static str,
}

/// The problem called `slug`, today or in earlier years, unless it is a new one.
pub(super) fn known(slug: &str) -> Option<&'static KnownProblem> {
    let slug = OLD_SLUGS.iter().find(|(old, _)| *old == slug).map_or(slug, |(_, today)| today);
    PROBLEMS.iter().find(|problem| problem.slug == slug)
}

/// What a status alone says.
#[rustfmt::skip]
pub(super) fn by_status(status: u16) -> Explanation {
    match status {
        300..=399 => words("the service is somewhere else", "use the URL that it redirects to as the endpoint"),
        401 => words("the credentials are unknown here, or have expired", CHECK_KEY),
        403 => words("the credentials are known and do not suffice", "check that the account may do this, and that no firewall on the way answers in the service's place"),
        404 => words("nothing is at this address: it is not the service that answers, or it lives below another path", CHECK_URL),
        405 => words("what answers does not take this request", CHECK_URL),
        407 => words("a proxy on the way asks for credentials", "go around it, or log in to it"),
        408 => words("the request took longer than the service, or a proxy on the way, waits", "try again; on a slow line send less at once: a smaller --chunk-size, a lower --concurrency"),
        409 => words("the service is in a state in which it cannot do this", "ask for the video's state with `ringlift status`, and try again"),
        413 => words("something on the way takes only smaller requests", "begin anew with a smaller --chunk-size: a begun upload keeps its own, until `ringlift clean --all` gives it up"),
        425 => words("the service does not want this request so early", "try again"),
        429 => words("the account made too many requests in this minute", FEWER_REQUESTS),
        501 | 505 => words("what answers cannot do this at all", CHECK_URL),
        502..=504 => words("what stands before the service answers, the service does not", "try again later; the same command goes on where it stopped"),
        500.. => words("the service failed", "try again later; the same command goes on where it stopped"),
        _ => words("the service does not take this request, and says no more that is known here", "look the problem up below https://docs.api.video/reference, and check the endpoint's URL"),
    }
}

/// What is unknown is not a video but a token.
pub(super) const NO_SUCH_TOKEN: Explanation = words(
    "there is no such upload token here, or it has expired",
    "check the token and the environment: `ringlift token list` shows those that are alive",
);

const fn words(meaning: &'static str, advice: &'static str) -> Explanation {
    Explanation { meaning, advice }
}

const fn means(
    slug: &'static str,
    kind: ErrorKind,
    meaning: &'static str,
    advice: &'static str,
) -> KnownProblem {
    KnownProblem { slug, kind, words: words(meaning, advice) }
}

const CHECK_KEY: &str = "check the API key: the sandbox and production have separate keys";
const CHECK_URL: &str = "check the endpoint's URL";
const CHECK_FILE: &str = "check that the file was written completely";
const CHECK_PATH: &str = "look for a proxy or a filter on the way that changes bodies";
const DEFECT: &str = "please report it as a defect: a correct client does not send this";
const FEWER_REQUESTS: &str = "wait a minute, or send fewer and larger chunks: every chunk is one request";
const LARGER_CHUNKS: &str = "use a larger --chunk-size";
const NEW_VIDEO: &str = "upload to a new video";
const ONE_WAY: &str = "go on with the --mode it began with, or use a new video";
const RESUME: &str = "resume the upload, or use a new video";
const SAME_CHUNKS: &str = "use the --chunk-size it began with, or a new video";
const SHORTER: &str = "cut the video into several";

#[rustfmt::skip]
const PROBLEMS: &[KnownProblem] = &[
    // The body of an upload.
    means("uploaded-file-no-file", Refused, "the file did not arrive in the request", CHECK_PATH),
    means("uploaded-file-multiple-files", Refused, "more than one file arrived in the request", DEFECT),
    means("uploaded-file-empty", Refused, "the service takes no empty file", CHECK_FILE),
    means("uploaded-file-invalid-file", Refused, "the service cannot use this file", "check that it is a video"),
    means("uploaded-file-extension-invalid", Refused, "the service does not take files of this type here", "convert the file, or correct its extension"),
    means("uploaded-file-too-large", Refused, "one request carries at most 200 MiB", "send the file in chunks: --mode bytes or --mode parts"),
    means("video-source-already-uploaded", AlreadyFilled, "a video takes one source, once, and this one has its own", NEW_VIDEO),
    means("video-source-already-downloaded", AlreadyFilled, "the service fills this video from a URL", NEW_VIDEO),
    means("video-source-already-copied", AlreadyFilled, "this video is a copy of another one", NEW_VIDEO),

    // Content-Range, whatever its unit.
    means("video-content-range-malformed", Refused, "the service cannot read which chunk this is", DEFECT),
    means("video-content-range-already-initiated", Refused, "chunks were sent to this video before, and now a whole file", "send the rest in chunks too, or use a new video"),
    means("video-content-range-started-with-bytes", Refused, "this upload was begun in byte ranges", ONE_WAY),
    means("video-content-range-started-with-part", Refused, "this upload was begun in parts", ONE_WAY),

    // Content-Range in bytes.
    means("video-content-range-by-bytes-from-byte-too-high", Refused, "the chunk's first byte comes after its last", DEFECT),
    means("video-content-range-by-bytes-range-mismatch", Refused, "fewer or more bytes arrived than were announced", CHECK_PATH),
    means("video-content-range-by-bytes-range-overlap", AlreadySent, "these bytes are there already", RESUME),
    means("video-content-range-by-bytes-range-too-small", Refused, "every chunk but the last has at least 5 MiB", LARGER_CHUNKS),
    means("video-content-range-by-bytes-range-too-large", Refused, "a chunk has at most 200 MiB", "use a smaller --chunk-size"),
    means("video-content-range-by-bytes-to-byte-too-high-allowed", Refused, "a file has at most 52428800000 bytes", SHORTER),
    means("video-content-range-by-bytes-to-byte-too-high-total", Refused, "the chunk ends behind the file", "check that the file does not grow, and that the video was begun with this file"),
    means("video-content-range-by-bytes-total-bytes-zero", Refused, "the service takes no empty file", CHECK_FILE),
    means("video-content-range-by-bytes-total-bytes-too-high", Refused, "a file has at most 52428800000 bytes", SHORTER),
    means("video-content-range-by-bytes-total-bytes-too-low", Refused, "more was sent to this video than the file has", "use a new video for this file"),
    means("video-content-range-by-bytes-different-total-bytes", Refused, "this video was begun with a file of another length", "use a new video for this file"),

    // Content-Range in parts.
    means("video-content-range-by-part-part-zero", Refused, "parts are counted from 1", DEFECT),
    means("video-content-range-by-part-total-parts-zero", Refused, "a file has at least 1 part", DEFECT),
    means("video-content-range-by-part-part-too-high-allowed", Refused, "a file has at most 10000 parts", LARGER_CHUNKS),
    means("video-content-range-by-part-total-parts-too-high", Refused, "a file has at most 10000 parts", LARGER_CHUNKS),
    means("video-content-range-by-part-part-too-high-total", Refused, "the part comes after the last one", DEFECT),
    means("video-content-range-by-part-total-parts-too-low", Refused, "more parts were sent to this video than the file has", SAME_CHUNKS),
    means("video-content-range-by-part-different-total-parts", Refused, "this video was begun with another count of parts", SAME_CHUNKS),
    means("video-content-range-by-part-part-already-sent", AlreadySent, "this part is there already", RESUME),
    means("video-content-range-by-part-uploaded-file-too-small", Refused, "every part but the last has at least 5 MiB", LARGER_CHUNKS),

    // Who may do it.
    means("authentication-invalid-api-key", NotAuthorized, "the API key is unknown here", CHECK_KEY),
    means("authentication-invalid-user-credentials", NotAuthorized, "the API key is unknown here", CHECK_KEY),
    means("authentication-invalid-access-token", NotAuthorized, "the access token is wrong or has expired", "obtain a new one, or give the API key"),
    means("authentication-invalid-refresh-token", NotAuthorized, "the refresh token is wrong or was used before", "obtain a new one, or give the API key"),
    means("authentication-invalid-authorization-header-value", NotAuthorized, "the service cannot read the credentials", CHECK_KEY),
    means("authentication-missing-authorization-header", NotAuthorized, "this call needs the API key, and none arrived", "give the API key, and look for a proxy on the way that takes it away"),
    means("authentication-missing-upload-token", NotAuthorized, "this upload needs an upload token, and none arrived", "give the upload token, and check the endpoint's URL"),
    means("authentication-invalid-upload-token", NotAuthorized, "the upload token is unknown here, or has expired", "create a new one: `ringlift token create`, with the API key"),
    means("authorization-suspended-account", NotAuthorized, "the account is suspended", "ask the service's support"),

    // Any call.
    means("attribute-required", Refused, "an attribute is missing", "give the attribute that is named"),
    means("invalid-attribute", Refused, "an attribute cannot be used", "correct the attribute that is named"),
    means("invalid-payload", Refused, "the service cannot read the request's body", DEFECT),
    means("invalid-query-parameter", Refused, "a parameter of the query cannot be used", "correct the parameter that is named"),
    means("webhook-limit-reached", Refused, "the account has as many webhooks as it may have", "delete one of them first"),
    means("resource-not-found", NotFound, "there is no such video here, or no longer", "check the id and the environment: empty videos are deleted after 7 days, sandbox uploads after 24 hours"),
    means("unrecognized-request-url", Refused, "the address leads to something that does not take this request", CHECK_URL),
    means("method-not-allowed", Refused, "the address leads to something that does not take this request", CHECK_URL),
    means("summary-already-exists", Refused, "the video has a summary already", "delete that one first"),
    means("too-many-requests", RateLimited, "the account made too many requests in this minute", FEWER_REQUESTS),
];

/// What the service called its problems until 2023.
const OLD_SLUGS: &[(&str, &str)] = &[
    ("filealreadyuploaded", "video-source-already-uploaded"),
    ("filemissing", "uploaded-file-no-file"),
    ("multiplefilesuploaded", "uploaded-file-multiple-files"),
    ("resourcenot_found", "resource-not-found"),
    ("attribute.invalid", "invalid-attribute"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_problem_is_listed_once_with_its_meaning_and_the_way_out() {
        let slugs: HashSet<_> = PROBLEMS.iter().map(|problem| problem.slug).collect();
        assert_eq!(slugs.len(), PROBLEMS.len());
        for KnownProblem { slug, words: Explanation { meaning, advice }, .. } in PROBLEMS {
            assert!(!meaning.ends_with('.') && meaning.len() > 15, "{slug}: {meaning}");
            assert!(!advice.ends_with('.') && advice.len() > 15, "{slug}: {advice}");
        }
    }

    #[test]
    fn old_names_lead_to_those_of_today() {
        for (old, today) in OLD_SLUGS {
            assert_eq!(known(old).map(|problem| problem.slug), Some(*today));
        }
    }

    #[test]
    fn every_problem_of_an_upload_has_a_meaning() {
        let bytes = "from-byte-too-high range-mismatch range-overlap range-too-small range-too-large \
                     to-byte-too-high-allowed to-byte-too-high-total total-bytes-zero total-bytes-too-high \
                     total-bytes-too-low different-total-bytes";
        let parts = "part-zero total-parts-zero part-too-high-allowed total-parts-too-high part-too-high-total \
                     total-parts-too-low different-total-parts part-already-sent uploaded-file-too-small";
        for (unit, suffixes) in [("bytes", bytes), ("part", parts)] {
            for suffix in suffixes.split_whitespace() {
                assert!(known(&format!("video-content-range-by-{unit}-{suffix}")).is_some(), "{suffix}");
            }
        }
        assert_eq!(known("video-source-already-uploaded").unwrap().kind, AlreadyFilled);
        assert!(known("something-new").is_none());
    }
}
