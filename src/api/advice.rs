//! What each problem of the service means here, and what to do about it.
//!
//! The slugs are the pages below <https://docs.api.video/reference>.

use crate::error::ErrorKind::{
    self, AlreadyFilled, AlreadySent, NotAuthorized, NotFound, RateLimited, Refused,
};

/// What one problem means here.
#[derive(Debug)]
pub(super) struct Meaning {
    slug: &'static str,
    pub(super) kind: ErrorKind,
    pub(super) advice: &'static str,
}

/// The meaning of the problem called `slug`, unless it is a new one.
pub(super) fn meaning(slug: &str) -> Option<&'static Meaning> {
    MEANINGS.iter().find(|meaning| meaning.slug == slug)
}

/// What a status alone tells a person to do.
pub(super) fn by_status(status: u16) -> Option<&'static str> {
    match status {
        300..=399 => Some("use the URL that it redirects to as the endpoint"),
        405 => Some("check the endpoint's URL: it leads to something that does not take this request"),
        407 => Some("a proxy on the way asks for credentials: go around it, or log in to it"),
        413 => Some("something on the way takes only smaller requests: use a smaller --chunk-size"),
        _ => None,
    }
}

const fn means(slug: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { slug, kind, advice }
}

const CHECK_KEY: &str = "check the API key: the sandbox and production have separate keys";
const DEFECT: &str = "a correct client does not send this: please report it as a defect";
const NEW_VIDEO: &str = "a video takes one source, once: upload to a new video";
const ONE_WAY: &str =
    "this upload was begun another way: go on with the --mode it began with, or use a new video";

#[rustfmt::skip]
const MEANINGS: &[Meaning] = &[
    // The body of an upload.
    means("uploaded-file-no-file", Refused, "the file did not arrive in the request: something on the way may have changed the body"),
    means("uploaded-file-multiple-files", Refused, DEFECT),
    means("uploaded-file-empty", Refused, "the service takes no empty file: check that the file was written completely"),
    means("uploaded-file-invalid-file", Refused, "the service cannot use this file: check that it is a video"),
    means("uploaded-file-extension-invalid", Refused, "the service does not take files of this type here: convert the file, or correct its extension"),
    means("uploaded-file-too-large", Refused, "one request carries at most 200 MiB: send the file in chunks (--mode bytes or --mode parts)"),
    means("video-source-already-uploaded", AlreadyFilled, NEW_VIDEO),
    means("video-source-already-downloaded", AlreadyFilled, "the service fills this video from a URL: upload to a new video"),
    means("video-source-already-copied", AlreadyFilled, "this video is a copy of another one: upload to a new video"),

    // Content-Range, whatever its unit.
    means("video-content-range-malformed", Refused, DEFECT),
    means("video-content-range-already-initiated", Refused, "chunks were sent to this video before: send the rest in chunks too, or use a new video"),
    means("video-content-range-started-with-bytes", Refused, ONE_WAY),
    means("video-content-range-started-with-part", Refused, ONE_WAY),

    // Content-Range in bytes.
    means("video-content-range-by-bytes-from-byte-too-high", Refused, DEFECT),
    means("video-content-range-by-bytes-range-mismatch", Refused, "fewer or more bytes arrived than announced: something on the way may have changed the body"),
    means("video-content-range-by-bytes-range-overlap", AlreadySent, "these bytes are there already: resume the upload, or use a new video"),
    means("video-content-range-by-bytes-range-too-small", Refused, "every chunk but the last has at least 5 MiB: use a larger --chunk-size"),
    means("video-content-range-by-bytes-range-too-large", Refused, "a chunk has at most 200 MiB: use a smaller --chunk-size"),
    means("video-content-range-by-bytes-to-byte-too-high-allowed", Refused, "a file has at most 52428800000 bytes: cut the video into several"),
    means("video-content-range-by-bytes-to-byte-too-high-total", Refused, "the chunk ends behind the file: the file grew, or the video was begun with another file"),
    means("video-content-range-by-bytes-total-bytes-zero", Refused, "the service takes no empty file: check that the file was written completely"),
    means("video-content-range-by-bytes-total-bytes-too-high", Refused, "a file has at most 52428800000 bytes: cut the video into several"),
    means("video-content-range-by-bytes-total-bytes-too-low", Refused, "more was sent to this video than the file has: use a new video for this file"),
    means("video-content-range-by-bytes-different-total-bytes", Refused, "this video was begun with a file of another length: use a new video for this file"),

    // Content-Range in parts.
    means("video-content-range-by-part-part-zero", Refused, DEFECT),
    means("video-content-range-by-part-total-parts-zero", Refused, DEFECT),
    means("video-content-range-by-part-part-too-high-allowed", Refused, "a file has at most 10000 parts: use a larger --chunk-size"),
    means("video-content-range-by-part-total-parts-too-high", Refused, "a file has at most 10000 parts: use a larger --chunk-size"),
    means("video-content-range-by-part-part-too-high-total", Refused, DEFECT),
    means("video-content-range-by-part-total-parts-too-low", Refused, "more parts were sent to this video than the file has: use the --chunk-size it began with, or a new video"),
    means("video-content-range-by-part-different-total-parts", Refused, "this video was begun with another count of parts: use the --chunk-size it began with, or a new video"),
    means("video-content-range-by-part-part-already-sent", AlreadySent, "this part is there already: resume the upload, or use a new video"),
    means("video-content-range-by-part-uploaded-file-too-small", Refused, "every part but the last has at least 5 MiB: use a larger --chunk-size"),

    // Who may do it.
    means("authentication-invalid-api-key", NotAuthorized, CHECK_KEY),
    means("authentication-invalid-user-credentials", NotAuthorized, CHECK_KEY),
    means("authentication-invalid-access-token", NotAuthorized, "the access token is wrong or has expired: obtain a new one, or give the API key"),
    means("authentication-invalid-refresh-token", NotAuthorized, "the refresh token is wrong or was used before: obtain a new one, or give the API key"),
    means("authentication-invalid-authorization-header-value", NotAuthorized, CHECK_KEY),
    means("authentication-missing-authorization-header", NotAuthorized, "this call needs the API key"),
    means("authentication-missing-upload-token", NotAuthorized, "this upload needs an upload token"),
    means("authentication-invalid-upload-token", NotAuthorized, "the upload token is unknown or has expired: create a new one"),
    means("authorization-suspended-account", NotAuthorized, "the account is suspended: ask the service's support"),

    // Any call.
    means("attribute-required", Refused, "give the attribute that is missing"),
    means("invalid-attribute", Refused, "correct the attribute that is named"),
    means("invalid-payload", Refused, DEFECT),
    means("invalid-query-parameter", Refused, "correct the parameter that is named"),
    means("resource-not-found", NotFound, "check the id and the environment: empty videos are deleted after 7 days, sandbox uploads after 24 hours"),
    means("unrecognized-request-url", Refused, "check the endpoint's URL: it leads to something that does not take this request"),
    means("method-not-allowed", Refused, "check the endpoint's URL: it leads to something that does not take this request"),
    means("summary-already-exists", Refused, "the video has a summary already: delete that one first"),
    means("too-many-requests", RateLimited, "wait a minute, or send fewer and larger chunks: every chunk is one request"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_problem_is_listed_once_with_one_sentence() {
        let slugs: HashSet<_> = MEANINGS.iter().map(|meaning| meaning.slug).collect();
        assert_eq!(slugs.len(), MEANINGS.len());
        for Meaning { slug, advice, .. } in MEANINGS {
            assert!(!advice.contains('.') && advice.len() > 20, "{slug}: {advice}");
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
                assert!(meaning(&format!("video-content-range-by-{unit}-{suffix}")).is_some(), "{suffix}");
            }
        }
        assert_eq!(meaning("video-source-already-uploaded").unwrap().kind, AlreadyFilled);
        assert!(meaning("something-new").is_none());
    }
}
