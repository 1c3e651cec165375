//! Fault plans: the faults to inject, the requests that they affect, and their number.
//!
//! A plan is a list of faults, written in Rust or in TOML. Each request is affected by the first fault that
//! matches and is not used up, and by no other:
//!
//! ```toml
//! [[fault]]
//! on = "chunk"                 # auth, create, chunk, status, source, video, token or any
//! part = 2                     # only `Content-Range: part 2/...`
//! action = { cut = { after_bytes = 1048576, how = "reset" } }
//!
//! [[fault]]
//! on = "chunk"
//! offset = 104857600           # only `Content-Range: bytes 104857600-...`
//! action = "close-after-recording"
//!
//! [[fault]]
//! on = "any"
//! nth = 5                      # from the fifth matching request on; default: the first
//! times = 3                    # three times; default: once; 0 means always
//! action = { refuse = { status = 503 } }
//!
//! [[fault]]
//! on = "create"
//! action = { too-many-requests = { retry_after_s = 7 } }
//!
//! [[fault]]
//! on = "status"
//! action = { stall-answering = { for_ms = 1500 } }
//! ```
//!
//! The other actions: `close-before-recording`, `{ stall-reading = { after_bytes, for_ms } }`, `{ throttle =
//! { bytes_per_second } }`, `truncated-answer`, `malformed-answer`, `html-answer`, `other-video-id`. `refuse`
//! and `too-many-requests` take `timing = "after-body"`, `"early"` (the response is sent before the body is
//! read, then the body is read) or `"early-close"`. Byte counts refer to the body of the request, including
//! the multipart envelope.

use serde::Deserialize;
#[cfg(fuzzing)]
use serde::Serialize;

use crate::wire::ContentRange;

/// The faults to inject; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// The faults, in order of precedence.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The class of the affected requests.
    pub on: RouteClass,
    /// The part number of the affected chunk; `None` affects all.
    #[serde(default)]
    pub part: Option<u32>,
    /// The offset of the affected chunk's first byte in the file; `None` affects all.
    #[serde(default)]
    pub offset: Option<u64>,
    /// The number of the first matching request that is affected, counted from 1.
    #[serde(default = "once")]
    pub nth: u64,
    /// The number of affected requests; 0 means no limit.
    #[serde(default = "once")]
    pub times: u64,
    /// The effect on the request.
    pub action: FaultAction,
}

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum RouteClass {
    /// `/auth/...`
    Auth,
    /// `POST /videos`
    Create,
    /// `POST /videos/{videoId}/source` and `POST /upload`
    Chunk,
    /// `GET /videos/{videoId}/status`
    Status,
    /// `GET` and `HEAD /videos/{videoId}/source`
    Source,
    /// All other requests about videos.
    Video,
    /// `/upload-tokens...`
    Token,
    /// In a fault: every request. In the statistics: requests of no other class.
    Any,
}

/// The effect of a fault on a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultAction {
    /// The connection ends after this many bytes of the body arrived; with 0, before any byte is read.
    Cut {
        /// Bytes of the body that arrive first.
        after_bytes: u64,
        /// The way in which the connection ends.
        #[serde(default)]
        how: ConnectionEnd,
    },
    /// The whole body is read, nothing is stored, and the connection is closed.
    CloseBeforeRecording,
    /// The request takes effect, and the connection is closed without a response.
    CloseAfterRecording,
    /// The request has no effect, and the response is an error.
    Refuse {
        /// The HTTP status, from 400 to 599; any other value becomes 500.
        status: u16,
        /// The slug of the problem document; `None` means the usual slug of the status.
        #[serde(default)]
        slug: Option<String>,
        /// When.
        #[serde(default)]
        timing: RefusalTiming,
    },
    /// The request has no effect, and the response has status 429.
    TooManyRequests {
        /// The value of `X-RateLimit-Retry-After`, in seconds; `None` omits the header.
        #[serde(default)]
        retry_after_s: Option<u64>,
        /// When.
        #[serde(default)]
        timing: RefusalTiming,
    },
    /// The server pauses reading the body.
    StallReading {
        /// Bytes of the body that are read before the pause.
        #[serde(default)]
        after_bytes: u64,
        /// The duration, in milliseconds.
        for_ms: u64,
    },
    /// The body is read at a limited rate.
    Throttle {
        /// The rate, in bytes per second.
        bytes_per_second: u64,
    },
    /// The request takes effect, and the response is delayed.
    StallAnswering {
        /// The duration, in milliseconds.
        for_ms: u64,
    },
    /// The request takes effect, and the connection ends in the middle of the response.
    TruncatedAnswer,
    /// The request takes effect, and the response declares JSON but contains invalid JSON.
    MalformedAnswer,
    /// The request takes effect, and the response is an HTML page, as from a proxy.
    HtmlAnswer,
    /// The request takes effect, and the response contains the id of another video.
    OtherVideoId,
}

/// The way in which a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionEnd {
    /// A TCP reset, even if data is in flight.
    #[default]
    Reset,
    /// `close(2)`. Linux sends a reset instead if received bytes are unread (RFC 2525, section 2.17).
    Close,
}

/// The time at which a refusal is sent that does not depend on the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum RefusalTiming {
    /// After the body was read, so that every client can read the response.
    #[default]
    AfterBody,
    /// Immediately; the body is read afterwards, and the connection stays open.
    Early,
    /// Immediately; the connection is then closed, even if the client is still sending.
    EarlyClose,
}

impl FaultPlan {
    /// Parses a plan in TOML.
    ///
    /// # Errors
    /// Fails if the text is not a plan. The error contains the line and the expected values.
    pub fn parse(text: &str) -> Result<FaultPlan, FaultPlanError> {
        toml::from_str(text).map_err(|error| FaultPlanError { message: error.to_string() })
    }
}

/// A plan that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fault plan cannot be read: {message}")]
pub struct FaultPlanError {
    message: String,
}

impl Fault {
    /// Returns a fault that affects the first request of this class, once.
    pub const fn new(on: RouteClass, action: FaultAction) -> Fault {
        Fault { on, part: None, offset: None, nth: 1, times: 1, action }
    }

    /// Restricts the fault to the chunk with this part number.
    pub const fn part(mut self, number: u32) -> Fault {
        self.part = Some(number);
        self
    }

    /// Restricts the fault to the chunk that starts at this byte of the file.
    pub const fn offset(mut self, offset: u64) -> Fault {
        self.offset = Some(offset);
        self
    }

    /// Starts the fault at the nth matching request, counted from 1.
    pub const fn nth(mut self, nth: u64) -> Fault {
        self.nth = nth;
        self
    }

    /// Sets the number of affected requests; 0 means no limit.
    pub const fn times(mut self, times: u64) -> Fault {
        self.times = times;
        self
    }

    /// Returns `true` if a request of this class and `Content-Range` is affected.
    pub(super) fn matches(&self, class: RouteClass, range: Option<ContentRange>) -> bool {
        let class_matches = self.on == RouteClass::Any || self.on == class;
        let part_matches = self
            .part
            .is_none_or(|part| matches!(range, Some(ContentRange::Part { number, .. }) if number == part));
        let offset_matches = self.offset.is_none_or(
            |offset| matches!(range, Some(ContentRange::Bytes { extent, .. }) if extent.offset() == offset),
        );
        class_matches && part_matches && offset_matches
    }
}

impl From<Vec<Fault>> for FaultPlan {
    fn from(faults: Vec<Fault>) -> FaultPlan {
        FaultPlan { faults }
    }
}

impl FaultAction {
    /// Returns a 401, as for an expired access token.
    pub const fn unauthorized() -> FaultAction {
        FaultAction::Refuse { status: 401, slug: None, timing: RefusalTiming::AfterBody }
    }

    /// Returns a 503, as from an overloaded server.
    pub const fn unavailable() -> FaultAction {
        FaultAction::Refuse { status: 503, slug: None, timing: RefusalTiming::AfterBody }
    }
}

fn once() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_module_docs_is_a_valid_plan() {
        let source = include_str!("fault_plan.rs");
        let example = source.split("//! ```").nth(1).unwrap().trim_start_matches("toml\n");
        let plan = FaultPlan::parse(&example.replace("//! ", "").replace("//!", "")).unwrap();
        assert_eq!(plan.faults.len(), 5);
        let cut = FaultAction::Cut { after_bytes: 1 << 20, how: ConnectionEnd::Reset };
        assert_eq!(plan.faults[0], Fault::new(RouteClass::Chunk, cut).part(2));
        assert_eq!(plan.faults[2], Fault::new(RouteClass::Any, FaultAction::unavailable()).nth(5).times(3));
    }

    #[test]
    fn the_error_of_a_misspelt_plan_contains_the_wrong_value() {
        let error = FaultPlan::parse("[[fault]]\non = \"chunk\"\naction = \"explode\"").unwrap_err();
        assert!(error.to_string().contains("explode"), "{error}");
        assert!(FaultPlan::parse("[[fault]]\non = \"chunk\"\nntth = 1\naction = \"html-answer\"").is_err());
    }
}
