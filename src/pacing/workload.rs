//! The work and the request budget beside the upload that is being planned.

/// The work beside one upload, and the request budget that all of it shares. The default is an upload alone, with no
/// known budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Workload {
    /// The number of other uploads without a plan: queued, or announced by the caller.
    pub waiting: u64,
    /// The bytes of those of the waiting uploads whose length is known.
    pub waiting_bytes: u64,
    /// The number of those of the waiting uploads whose length is unknown. Each counts as long as the planned upload.
    pub unmeasured: u64,
    /// The bytes that uploads under way still have to send.
    pub planned_bytes: u64,
    /// The upload requests a minute that all limits allow; `None` if unknown.
    pub uploads_per_minute: Option<u32>,
    /// The upload requests left in this minute, without those that are in flight or belong to a plan; `None` if
    /// unknown, which counts as a whole minute's.
    pub uploads_left: Option<u32>,
}

impl Workload {
    /// Creates an upload alone, under a budget of `uploads_per_minute` requests that is not used yet.
    pub fn alone(uploads_per_minute: Option<u32>) -> Workload {
        Workload { uploads_per_minute, ..Workload::default() }
    }

    /// Returns the bytes of the waiting uploads if an unknown length counts as `len` bytes.
    pub(super) fn waiting_bytes(&self, len: u64) -> u64 {
        self.waiting_bytes.saturating_add(self.unmeasured.saturating_mul(len))
    }

    /// Returns the requests left in this minute; `None` without a budget.
    pub(super) fn left(&self) -> Option<u32> {
        let per_minute = self.uploads_per_minute?;
        Some(self.uploads_left.map_or(per_minute, |left| left.min(per_minute)))
    }
}
