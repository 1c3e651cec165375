//! The limit that binds a run, and the reason of the estimated time. Pure.

use std::time::Instant;

use crate::bulk::JobStateName;
use crate::bulk::totals::LimitedBy;
use crate::pacing::ThrottleReason;

use super::view::RunView;

/// The limit that binds a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BindingLimit {
    /// The stable name.
    pub(super) name: &'static str,
    /// A sentence for a person.
    pub(super) text: String,
    /// The end of the wait, if it is known.
    pub(super) until: Option<Instant>,
    /// The beginning of the wait, if it is known.
    pub(super) since: Option<Instant>,
}

impl BindingLimit {
    /// Returns the limit that binds the run.
    pub(super) fn of(view: &RunView) -> BindingLimit {
        if view.exit_code.is_some() {
            return BindingLimit::new("nothing", "The run has ended.");
        }
        match view.totals.limited_by {
            LimitedBy::Throttle { until, reason } => {
                let (name, text) = throttle(reason);
                BindingLimit { until: Some(until), ..BindingLimit::new(name, text) }
            }
            LimitedBy::Retry { until } => {
                let text = "Failures: every file under way waits for its next attempt.";
                BindingLimit { until: Some(until), ..BindingLimit::new("retry", text) }
            }
            LimitedBy::Answer { since } => {
                let text = "The service: every byte under way is sent, and no answer has come.";
                BindingLimit { since: Some(since), ..BindingLimit::new("answer", text) }
            }
            LimitedBy::Stalled { since } => {
                let text = "The network: no byte has moved for a while.";
                BindingLimit { since: Some(since), ..BindingLimit::new("stalled", text) }
            }
            _ => moving(view),
        }
    }

    fn new(name: &'static str, text: impl Into<String>) -> BindingLimit {
        BindingLimit { name, text: text.into(), until: None, since: None }
    }
}

/// Returns the limit of a run in which nothing waits.
fn moving(view: &RunView) -> BindingLimit {
    let (client, lanes) = (&view.client, &view.client.lanes);
    if view.totals.files.running == 0 {
        return if view.jobs(JobStateName::Queued) > 0 {
            BindingLimit::new("nothing", "Nothing: the next file is about to begin.")
        } else if view.totals.files.is_complete {
            BindingLimit::new("nothing", "Nothing: every file was processed.")
        } else {
            BindingLimit::new("files", "The sources: all files found so far were processed.")
        };
    }
    let speed = view.totals.bytes_per_second.now;
    if let Some(cap) = client.bandwidth_limit_bytes.filter(|cap| at_least(speed, *cap)) {
        return BindingLimit::new("bandwidth", format!("The bandwidth limit of {} a second.", amount(cap)));
    }
    if client.buffer_limit_bytes > 0 && at_least(client.buffer_bytes, client.buffer_limit_bytes) {
        let limit = amount(client.buffer_limit_bytes);
        return BindingLimit::new("memory", format!("The memory for chunks of streams, {limit}."));
    }
    // Lanes beyond the number in use are idle whatever there is to send.
    let all = match lanes.permitted {
        0 => lanes.busy + lanes.idle + lanes.connecting,
        permitted => permitted,
    };
    if lanes.busy + lanes.connecting >= all && all > 0 {
        let lanes = if all == 1 { "the only lane is".to_owned() } else { format!("all {all} lanes are") };
        return BindingLimit::new("connection", format!("The connection or the disk: {lanes} busy."));
    }
    BindingLimit::new("files", "The number of files under way: some lanes are idle.")
}

fn throttle(reason: ThrottleReason) -> (&'static str, &'static str) {
    let text = match reason {
        ThrottleReason::Budget => "The service's rate limit: the requests of this minute are used up.",
        ThrottleReason::TooManyRequests => "The service's rate limit: it answered 429 and requested a pause.",
        ThrottleReason::SharedBudget => {
            "The service's rate limit: the hosts of this account share its requests."
        }
        ThrottleReason::Failures => "Failures of the service: several requests in a row failed.",
        ThrottleReason::Probe => "Failures of the service: one request is testing if it is back.",
        ThrottleReason::RetryBudget => "Failures: too many requests were repetitions.",
        _ => "The rate limit that was set for this run.",
    };
    (reason.name(), text)
}

/// Returns the reason of the estimated time, or of its absence.
pub(super) fn eta_reason(view: &RunView) -> &'static str {
    let totals = &view.totals;
    match (totals.eta, totals.limited_by) {
        _ if view.exit_code.is_some() => "the run has ended",
        (Some(eta), _) if eta.is_zero() => "every byte is sent",
        (Some(_), LimitedBy::Throttle { .. }) => "at the speed of the whole run, with its pauses",
        (Some(_), _) if totals.bytes_per_second.minute > 0 => "at the speed of the last minute",
        (Some(_), _) => "at the speed of the whole run",
        (None, _) if !totals.files.is_complete => "unknown: files are still being found",
        (None, _) if totals.bytes.total.is_none() => "unknown: the length of a file is unknown",
        (None, LimitedBy::Stalled { .. }) => "unknown: no byte moves",
        (None, _) => "unknown: too little has moved so far",
    }
}

/// Returns an amount of bytes in three digits or so, such as `1.50 GiB`.
pub(super) fn amount(bytes: u64) -> String {
    let exponent = (bytes.max(1).ilog2() / 10).min(UNITS.len() as u32 - 1);
    let value = bytes as f64 / (1u64 << (10 * exponent)) as f64;
    // The bounds of rounding: 9.996 would be written as 10.00.
    let digits = match value {
        _ if exponent == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[exponent as usize])
}

/// Returns `true` if `value` reaches the limit but for the noise of its measurement.
fn at_least(value: u64, limit: u64) -> bool {
    u128::from(value) * 10 >= u128::from(limit) * 9
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
