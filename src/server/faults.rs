//! Faults on purpose: what goes wrong, on which requests, how often.
//!
//! A plan is a list of faults in Rust or in TOML. For each request the first fault that matches and
//! is not used up takes effect, one per request:
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
//! nth = 5                      # from the fifth matching request on; the first when left out
//! times = 3                    # three times; once when left out, without end when 0
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
//! The other actions: `close-before-recording`, `{ stall-reading = { after_bytes, for_ms } }`,
//! `{ throttle = { bytes_per_second } }`, `truncated-answer`, `malformed-answer`, `html-answer`,
//! `other-video-id`. `refuse` and `too-many-requests` take `timing = "after-body"`, `"early"` (answered
//! before the body, which is then read) or `"early-close"`. Bytes are counted in the request's body,
//! the multipart envelope included.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
#[cfg(fuzzing)]
use serde::Serialize;

use crate::wire::ContentRange;

/// What goes wrong; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// Tried in order.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// One rule of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    pub on: RouteClass,
    /// Only the chunk with this part number.
    #[serde(default)]
    pub part: Option<u32>,
    /// Only the chunk that starts at this byte of the file.
    #[serde(default)]
    pub offset: Option<u64>,
    /// Takes effect from the nth matching request on, counted from 1.
    #[serde(default = "once")]
    pub nth: u64,
    /// How often it takes effect; 0 is without end.
    #[serde(default = "once")]
    pub times: u64,
    /// What happens.
    pub action: Action,
}

/// What a request is for.
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
    /// Everything else about videos.
    Video,
    /// `/upload-tokens...`
    Token,
    /// In a fault: every request. In a tally: the requests that fit no other.
    Any,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// The connection ends once this many bytes of the body arrived; with 0, before any is read.
    Cut {
        /// Bytes of the body.
        after_bytes: u64,
        /// In which way.
        #[serde(default)]
        how: Ending,
    },
    /// The whole body is read, nothing is recorded, the connection is closed.
    CloseBeforeRecording,
    /// The request takes effect, the connection is closed instead of an answer.
    CloseAfterRecording,
    /// An error answer without any effect.
    Refuse {
        /// The HTTP status, from 400 to 599; anything else becomes 500.
        status: u16,
        /// The slug of its problem document; the usual one of the status when left out.
        #[serde(default)]
        slug: Option<String>,
        /// When.
        #[serde(default)]
        timing: RefusalTiming,
    },
    /// Status 429.
    TooManyRequests {
        /// `X-RateLimit-Retry-After`, in seconds; without the header when left out.
        #[serde(default)]
        retry_after_s: Option<u64>,
        /// When.
        #[serde(default)]
        timing: RefusalTiming,
    },
    /// The server stops reading for a while.
    StallReading {
        /// Bytes of the body that are read before.
        #[serde(default)]
        after_bytes: u64,
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// The body is read this fast.
    Throttle {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// The request takes effect, the answer comes later.
    StallAnswering {
        /// How long, in milliseconds.
        for_ms: u64,
    },
    /// The request takes effect; the connection ends in the middle of the answer.
    TruncatedAnswer,
    /// The request takes effect; the answer is not JSON although it says so.
    MalformedAnswer,
    /// The request takes effect; the answer is a page, as from a proxy.
    HtmlAnswer,
    /// The request takes effect; the answer names another video.
    OtherVideoId,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// A reset, whatever is in flight.
    #[default]
    Reset,
    /// `close(2)`. Linux makes a reset of it when received bytes are unread (RFC 2525, section 2.17).
    Close,
}

/// When a refusal that needs no body is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(fuzzing, derive(Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum RefusalTiming {
    /// After the body, so that every client can read it.
    #[default]
    AfterBody,
    /// At once; the body is then read, and the connection lives on.
    Early,
    /// At once; the connection is closed although the client may still send.
    EarlyClose,
}

impl FaultPlan {
    /// Reads a plan in TOML.
    ///
    /// # Errors
    /// Names the line and what was expected there.
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
    /// `action` on the first request of this class, once.
    pub const fn new(on: RouteClass, action: Action) -> Fault {
        Fault { on, part: None, offset: None, nth: 1, times: 1, action }
    }

    /// Only for the chunk with this part number.
    pub const fn part(mut self, number: u32) -> Fault {
        self.part = Some(number);
        self
    }

    /// Only for the chunk that starts at this byte of the file.
    pub const fn offset(mut self, offset: u64) -> Fault {
        self.offset = Some(offset);
        self
    }

    /// From the nth matching request on, counted from 1.
    pub const fn nth(mut self, nth: u64) -> Fault {
        self.nth = nth;
        self
    }

    /// So often; 0 is without end.
    pub const fn times(mut self, times: u64) -> Fault {
        self.times = times;
        self
    }

    fn matches(&self, class: RouteClass, range: Option<ContentRange>) -> bool {
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

impl Action {
    /// A 401 as for an access token that expired.
    pub const fn unauthorized() -> Action {
        Action::Refuse { status: 401, slug: None, timing: RefusalTiming::AfterBody }
    }

    /// A 503 as from an overloaded server.
    pub const fn unavailable() -> Action {
        Action::Refuse { status: 503, slug: None, timing: RefusalTiming::AfterBody }
    }
}

/// A plan with its counters.
pub(super) struct Armed {
    plan: FaultPlan,
    /// Matched and taken effect, for each fault.
    counters: Mutex<Vec<(u64, u64)>>,
}

impl Armed {
    pub(super) fn new(plan: FaultPlan) -> Armed {
        let counters = Mutex::new(vec![(0, 0); plan.faults.len()]);
        Armed { plan, counters }
    }

    /// What is to happen to this request.
    pub(super) fn strike(&self, class: RouteClass, range: Option<ContentRange>) -> Option<Action> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut struck = None;
        for (fault, (matched, taken)) in self.plan.faults.iter().zip(counters.iter_mut()) {
            if !fault.matches(class, range) {
                continue;
            }
            *matched += 1;
            let used_up = fault.times != 0 && *taken >= fault.times;
            if struck.is_none() && *matched >= fault.nth && !used_up {
                *taken += 1;
                struck = Some(fault.action.clone());
            }
        }
        struck
    }
}

fn once() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_above_is_a_plan() {
        let source = include_str!("faults.rs");
        let example = source.split("//! ```").nth(1).unwrap().trim_start_matches("toml\n");
        let plan = FaultPlan::parse(&example.replace("//! ", "").replace("//!", "")).unwrap();
        assert_eq!(plan.faults.len(), 5);
        let cut = Action::Cut { after_bytes: 1 << 20, how: Ending::Reset };
        assert_eq!(plan.faults[0], Fault::new(RouteClass::Chunk, cut).part(2));
        assert_eq!(plan.faults[2], Fault::new(RouteClass::Any, Action::unavailable()).nth(5).times(3));
    }

    #[test]
    fn a_misspelt_plan_says_where() {
        let error = FaultPlan::parse("[[fault]]\non = \"chunk\"\naction = \"explode\"").unwrap_err();
        assert!(error.to_string().contains("explode"), "{error}");
        assert!(FaultPlan::parse("[[fault]]\non = \"chunk\"\nntth = 1\naction = \"html-answer\"").is_err());
    }

    #[test]
    fn a_fault_takes_effect_from_its_turn_on_and_as_often_as_it_says() {
        let armed =
            Armed::new(vec![Fault::new(RouteClass::Chunk, Action::HtmlAnswer).nth(2).times(2)].into());
        let strikes: Vec<bool> = (0..5).map(|_| armed.strike(RouteClass::Chunk, None).is_some()).collect();
        assert_eq!(strikes, [false, true, true, false, false]);
        assert_eq!(armed.strike(RouteClass::Status, None), None);
    }

    #[test]
    fn chunks_are_told_apart_by_part_and_offset() {
        let fault = |action| Fault::new(RouteClass::Chunk, action).times(0);
        let armed = Armed::new(
            vec![fault(Action::HtmlAnswer).part(2), fault(Action::MalformedAnswer).offset(7)].into(),
        );
        let strike = |header: &str| armed.strike(RouteClass::Chunk, header.parse().ok());
        assert_eq!(strike("part 1/3"), None);
        assert_eq!(strike("part 2/3"), Some(Action::HtmlAnswer));
        assert_eq!(strike("bytes 7-9/*"), Some(Action::MalformedAnswer));
        assert_eq!(strike("bytes 2-9/*"), None);
    }
}
