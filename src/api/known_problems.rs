//! The problems that the service documents, each with its meaning and advice.
//!
//! The slugs are the pages below <https://docs.api.video/reference>.

use super::advice::{CHECK_KEY, CHECK_URL, Explanation};
use crate::error::ErrorKind::{
    self, AlreadyFilled, AlreadySent, NotAuthorized, NotFound, RateLimited, Refused,
};
use crate::error::{Advice, Hint};

/// A problem that the service documents.
#[derive(Debug)]
pub(super) struct KnownProblem {
    pub(super) slug: &'static str,
    pub(super) kind: ErrorKind,
    meaning: &'static str,
    advice: Advice,
}

impl KnownProblem {
    pub(super) fn explanation(&self) -> Explanation {
        Explanation { meaning: self.meaning, advice: self.advice }
    }
}

/// Returns the problem with the name `slug`, current or old; `None` if it is not documented.
pub(super) fn known(slug: &str) -> Option<&'static KnownProblem> {
    let slug = OLD_SLUGS.iter().find(|(old, _)| *old == slug).map_or(slug, |(_, current)| current);
    PROBLEMS.iter().find(|problem| problem.slug == slug)
}

const CHECK_FILE: Advice = Advice::Text("check that the file was written completely");
const CHECK_PATH: Advice = Advice::Text("look for a proxy or a filter on the way that changes bodies");
const DEFECT: Advice = Advice::Text("please report it as a defect: a correct client does not send this");
const NEW_VIDEO: Advice = Advice::Text("upload to a new video");
const RESUME: Advice = Advice::Text("resume the upload, or use a new video");
const SHORTER: Advice = Advice::Text("cut the video into several");

const PROBLEMS: &[KnownProblem] = &[
    // The body of an upload.
    KnownProblem {
        slug: "uploaded-file-no-file",
        kind: Refused,
        meaning: "the file did not arrive in the request",
        advice: CHECK_PATH,
    },
    KnownProblem {
        slug: "uploaded-file-multiple-files",
        kind: Refused,
        meaning: "more than one file arrived in the request",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "uploaded-file-empty",
        kind: Refused,
        meaning: "the service accepts no empty files",
        advice: CHECK_FILE,
    },
    KnownProblem {
        slug: "uploaded-file-invalid-file",
        kind: Refused,
        meaning: "the service cannot use this file",
        advice: Advice::Text("check that it is a video"),
    },
    KnownProblem {
        slug: "uploaded-file-extension-invalid",
        kind: Refused,
        meaning: "the service does not take files of this type here",
        advice: Advice::Text("convert the file, or correct its extension"),
    },
    KnownProblem {
        slug: "uploaded-file-too-large",
        kind: Refused,
        meaning: "one request carries at most 200 MiB",
        advice: Advice::Hint(Hint::SendInChunks),
    },
    KnownProblem {
        slug: "video-source-already-uploaded",
        kind: AlreadyFilled,
        meaning: "a video takes one source, once, and this one has its own",
        advice: NEW_VIDEO,
    },
    KnownProblem {
        slug: "video-source-already-downloaded",
        kind: AlreadyFilled,
        meaning: "the service fills this video from a URL",
        advice: NEW_VIDEO,
    },
    KnownProblem {
        slug: "video-source-already-copied",
        kind: AlreadyFilled,
        meaning: "this video is a copy of another one",
        advice: NEW_VIDEO,
    },
    // Content-Range in either unit.
    KnownProblem {
        slug: "video-content-range-malformed",
        kind: Refused,
        meaning: "the service cannot read the Content-Range",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "video-content-range-already-initiated",
        kind: Refused,
        meaning: "chunks were sent to this video before, and now a whole file",
        advice: Advice::Text("send the rest in chunks too, or use a new video"),
    },
    KnownProblem {
        slug: "video-content-range-started-with-bytes",
        kind: Refused,
        meaning: "this upload was begun in byte ranges",
        advice: Advice::Hint(Hint::SameMode),
    },
    KnownProblem {
        slug: "video-content-range-started-with-part",
        kind: Refused,
        meaning: "this upload was begun in parts",
        advice: Advice::Hint(Hint::SameMode),
    },
    // Content-Range in bytes.
    KnownProblem {
        slug: "video-content-range-by-bytes-from-byte-too-high",
        kind: Refused,
        meaning: "the chunk's first byte comes after its last",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-range-mismatch",
        kind: Refused,
        meaning: "fewer or more bytes arrived than were announced",
        advice: CHECK_PATH,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-range-overlap",
        kind: AlreadySent,
        meaning: "these bytes have arrived already",
        advice: RESUME,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-range-too-small",
        kind: Refused,
        meaning: "every chunk except the last must be at least 5 MiB",
        advice: Advice::Hint(Hint::LargerChunks),
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-range-too-large",
        kind: Refused,
        meaning: "chunks must be at most 200 MiB",
        advice: Advice::Hint(Hint::SmallerChunks),
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-to-byte-too-high-allowed",
        kind: Refused,
        meaning: "a file has at most 52428800000 bytes",
        advice: SHORTER,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-to-byte-too-high-total",
        kind: Refused,
        meaning: "the chunk ends behind the file",
        advice: Advice::Text(
            "check that the file does not grow, and that the video was begun with this file",
        ),
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-total-bytes-zero",
        kind: Refused,
        meaning: "the service accepts no empty files",
        advice: CHECK_FILE,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-total-bytes-too-high",
        kind: Refused,
        meaning: "a file has at most 52428800000 bytes",
        advice: SHORTER,
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-total-bytes-too-low",
        kind: Refused,
        meaning: "more was sent to this video than the file has",
        advice: Advice::Text("use a new video for this file"),
    },
    KnownProblem {
        slug: "video-content-range-by-bytes-different-total-bytes",
        kind: Refused,
        meaning: "this video was begun with a file of another length",
        advice: Advice::Text("use a new video for this file"),
    },
    // Content-Range in parts.
    KnownProblem {
        slug: "video-content-range-by-part-part-zero",
        kind: Refused,
        meaning: "parts are counted from 1",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "video-content-range-by-part-total-parts-zero",
        kind: Refused,
        meaning: "a file has at least 1 part",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "video-content-range-by-part-part-too-high-allowed",
        kind: Refused,
        meaning: "a file has at most 10000 parts",
        advice: Advice::Hint(Hint::LargerChunks),
    },
    KnownProblem {
        slug: "video-content-range-by-part-total-parts-too-high",
        kind: Refused,
        meaning: "a file has at most 10000 parts",
        advice: Advice::Hint(Hint::LargerChunks),
    },
    KnownProblem {
        slug: "video-content-range-by-part-part-too-high-total",
        kind: Refused,
        meaning: "the part comes after the last one",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "video-content-range-by-part-total-parts-too-low",
        kind: Refused,
        meaning: "more parts were sent to this video than the file has",
        advice: Advice::Hint(Hint::SameChunkSize),
    },
    KnownProblem {
        slug: "video-content-range-by-part-different-total-parts",
        kind: Refused,
        meaning: "this video was begun with another count of parts",
        advice: Advice::Hint(Hint::SameChunkSize),
    },
    KnownProblem {
        slug: "video-content-range-by-part-part-already-sent",
        kind: AlreadySent,
        meaning: "this part has arrived already",
        advice: RESUME,
    },
    KnownProblem {
        slug: "video-content-range-by-part-uploaded-file-too-small",
        kind: Refused,
        meaning: "every part except the last must be at least 5 MiB",
        advice: Advice::Hint(Hint::LargerChunks),
    },
    // Authorization.
    KnownProblem {
        slug: "authentication-invalid-api-key",
        kind: NotAuthorized,
        meaning: "the API key is unknown",
        advice: CHECK_KEY,
    },
    KnownProblem {
        slug: "authentication-invalid-user-credentials",
        kind: NotAuthorized,
        meaning: "the API key is unknown",
        advice: CHECK_KEY,
    },
    KnownProblem {
        slug: "authentication-invalid-access-token",
        kind: NotAuthorized,
        meaning: "the access token is wrong or has expired",
        advice: Advice::Text("obtain a new one, or give the API key"),
    },
    KnownProblem {
        slug: "authentication-invalid-refresh-token",
        kind: NotAuthorized,
        meaning: "the refresh token is wrong or was used before",
        advice: Advice::Text("obtain a new one, or give the API key"),
    },
    KnownProblem {
        slug: "authentication-invalid-authorization-header-value",
        kind: NotAuthorized,
        meaning: "the service cannot read the credentials",
        advice: CHECK_KEY,
    },
    KnownProblem {
        slug: "authentication-missing-authorization-header",
        kind: NotAuthorized,
        meaning: "this call needs the API key, and none arrived",
        advice: Advice::Text("give the API key, and look for a proxy on the way that removes it"),
    },
    KnownProblem {
        slug: "authentication-missing-upload-token",
        kind: NotAuthorized,
        meaning: "this upload needs an upload token, and none arrived",
        advice: Advice::Text("give the upload token, and check the endpoint's URL"),
    },
    KnownProblem {
        slug: "authentication-invalid-upload-token",
        kind: NotAuthorized,
        meaning: "the upload token is unknown or has expired",
        advice: Advice::Hint(Hint::NewUploadToken),
    },
    KnownProblem {
        slug: "authorization-suspended-account",
        kind: NotAuthorized,
        meaning: "the account is suspended",
        advice: Advice::Text("ask the service's support"),
    },
    // Any call.
    KnownProblem {
        slug: "attribute-required",
        kind: Refused,
        meaning: "an attribute is missing",
        advice: Advice::Text("give the attribute that is named"),
    },
    KnownProblem {
        slug: "invalid-attribute",
        kind: Refused,
        meaning: "an attribute has an invalid value",
        advice: Advice::Text("correct the attribute that is named"),
    },
    KnownProblem {
        slug: "invalid-payload",
        kind: Refused,
        meaning: "the service cannot read the request's body",
        advice: DEFECT,
    },
    KnownProblem {
        slug: "invalid-query-parameter",
        kind: Refused,
        meaning: "a parameter of the query has an invalid value",
        advice: Advice::Text("correct the parameter that is named"),
    },
    KnownProblem {
        slug: "webhook-limit-reached",
        kind: Refused,
        meaning: "the account has reached its limit of webhooks",
        advice: Advice::Text("delete one of them first"),
    },
    KnownProblem {
        slug: "resource-not-found",
        kind: NotFound,
        meaning: "the video does not exist or has been deleted",
        advice: Advice::Text(
            "check the id and the environment: empty videos are deleted after 7 days, sandbox uploads after 24 hours",
        ),
    },
    KnownProblem {
        slug: "unrecognized-request-url",
        kind: Refused,
        meaning: "the address leads to something that does not take this request",
        advice: CHECK_URL,
    },
    KnownProblem {
        slug: "method-not-allowed",
        kind: Refused,
        meaning: "the address leads to something that does not take this request",
        advice: CHECK_URL,
    },
    KnownProblem {
        slug: "summary-already-exists",
        kind: Refused,
        meaning: "the video has a summary already",
        advice: Advice::Text("delete that one first"),
    },
    KnownProblem {
        slug: "too-many-requests",
        kind: RateLimited,
        meaning: "the account made too many requests in this minute",
        advice: Advice::Hint(Hint::FewerRequests),
    },
];

/// The names that the service used until 2023, each with the current one.
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
    fn every_problem_is_listed_once_with_a_meaning_and_advice() {
        let slugs: HashSet<_> = PROBLEMS.iter().map(|problem| problem.slug).collect();
        assert_eq!(slugs.len(), PROBLEMS.len());
        for KnownProblem { slug, meaning, advice, .. } in PROBLEMS {
            let advice = advice.text();
            assert!(!meaning.ends_with('.') && meaning.len() > 15, "{slug}: {meaning}");
            assert!(!advice.ends_with('.') && advice.len() > 15, "{slug}: {advice}");
        }
    }

    #[test]
    fn old_names_lead_to_current_ones() {
        for (old, current) in OLD_SLUGS {
            assert_eq!(known(old).map(|problem| problem.slug), Some(*current));
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
