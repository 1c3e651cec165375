//! Classes of requests, and the budgets of the service and the user.

use std::time::{Duration, Instant};

/// A class of requests. The service gives each class its own budget a minute.
///
/// `/reference/README`, "Rate limiting"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Chunks and whole files.
    Uploads,
    /// Requests that create, change or delete.
    Writes,
    /// Requests that only read.
    Reads,
}

/// The budget in the rate headers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests a minute, `X-RateLimit-Limit`.
    pub per_minute: u32,
    /// The remaining requests of this window, `X-RateLimit-Remaining`.
    pub remaining: u32,
    /// The time until the window ends, `X-RateLimit-Retry-After`.
    pub resets_in: Option<Duration>,
}

/// The known budget of a class at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetReading {
    /// Requests a minute.
    pub per_minute: u32,
    /// The remaining requests of this window, without those in flight.
    pub left: u32,
    /// The end of the window.
    pub resets: Instant,
}

/// The published budgets of the service, used until its first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaPreset {
    /// 100 uploads, 200 writes, 500 reads a minute.
    Production,
    /// 40 uploads, 40 writes, 100 reads a minute.
    Sandbox,
}

/// The limits of the user. The default sets none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caps {
    /// Requests of all classes a second.
    pub requests_a_second: Option<f64>,
    /// Upload requests a minute.
    pub uploads_a_minute: Option<u32>,
    /// The budgets to assume before the first answer; `None` for no limit until then.
    pub preset: Option<QuotaPreset>,
}

impl Caps {
    /// Returns the uploads a minute that all limits allow, rounded up, with those of the preset; `None` without a
    /// limit.
    pub fn most_uploads_a_minute(&self) -> Option<u32> {
        // A rate that is not positive sets no limit, as in the pacer. The cast saturates.
        let of_all =
            // Rounded up: a limit of less than one a minute still allows one.
            self.requests_a_second.filter(|&rate| rate > 0.0).map(|rate| (rate * 60.0).ceil() as u32);
        let preset = self.preset.map(|preset| preset.per_minute(Class::Uploads));
        of_all.into_iter().chain(self.uploads_a_minute).chain(preset).min()
    }
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 3] = [Class::Uploads, Class::Writes, Class::Reads];

    /// Returns a stable name for logs and machine-readable output: `uploads`.
    pub fn name(self) -> &'static str {
        match self {
            Class::Uploads => "uploads",
            Class::Writes => "writes",
            Class::Reads => "reads",
        }
    }
}

impl QuotaPreset {
    /// Returns the requests of a class that the service permits each minute (`/reference/README`, "Rate limiting").
    pub fn per_minute(self, class: Class) -> u32 {
        match (self, class) {
            (QuotaPreset::Production, Class::Uploads) => 100,
            (QuotaPreset::Production, Class::Writes) => 200,
            (QuotaPreset::Production, Class::Reads) => 500,
            (QuotaPreset::Sandbox, Class::Uploads | Class::Writes) => 40,
            (QuotaPreset::Sandbox, Class::Reads) => 100,
        }
    }
}
