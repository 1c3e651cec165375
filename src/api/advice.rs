//! The meaning of a status, with advice, for a refusal without a known problem.

use crate::error::{Advice, Hint};

/// The meaning of a refusal, and advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) meaning: &'static str,
    pub(super) advice: Advice,
}

/// Explains an HTTP status without a known problem.
pub(super) fn by_status(status: u16) -> Explanation {
    let (meaning, advice) = match status {
        300..=399 => (
            "the service is somewhere else",
            Advice::Text("use the URL that it redirects to as the endpoint"),
        ),
        401 => ("the credentials are unknown or have expired", CHECK_KEY),
        403 => (
            "the credentials are known and do not suffice",
            Advice::Text("check that the account may do this, and that the answer is not a firewall's"),
        ),
        404 => (
            "nothing is at this address: it is not the service that answers, or it lives below another path",
            CHECK_URL,
        ),
        405 => ("the program at the endpoint does not take this request", CHECK_URL),
        407 => (
            "a proxy on the way asks for credentials",
            Advice::Text("use a route without the proxy, or log in to it"),
        ),
        408 => (
            "the request took longer than the service, or a proxy on the way, waits",
            Advice::Hint(Hint::SendLessAtOnce),
        ),
        409 => ("the service is in a state in which it cannot do this", Advice::Hint(Hint::CheckStatus)),
        413 => (
            "a proxy or the service takes only smaller requests",
            Advice::Hint(Hint::SmallerChunksInNewUpload),
        ),
        425 => ("the service does not want this request so early", Advice::Text("try again")),
        429 => ("the account made too many requests in this minute", Advice::Hint(Hint::FewerRequests)),
        501 | 505 => ("the program at the endpoint cannot do this at all", CHECK_URL),
        502..=504 => {
            ("a gateway in front of the service answers, not the service", Advice::Hint(Hint::RetryLater))
        }
        500.. => ("the service failed", Advice::Hint(Hint::RetryLater)),
        _ => (
            "the service does not take this request, for a reason that is not known here",
            Advice::Text(
                "look the problem up below https://docs.api.video/reference, and check the endpoint's URL",
            ),
        ),
    };
    Explanation { meaning, advice }
}

/// Replaces the explanation of a 404 if the missing resource is an upload token, not a video.
pub(super) const NO_SUCH_TOKEN: Explanation = Explanation {
    meaning: "there is no such upload token here, or it has expired",
    advice: Advice::Hint(Hint::ListUploadTokens),
};

pub(super) const CHECK_KEY: Advice =
    Advice::Text("check the API key: the sandbox and production have separate keys");
pub(super) const CHECK_URL: Advice = Advice::Text("check the endpoint's URL");
