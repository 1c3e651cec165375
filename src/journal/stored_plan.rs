//! A plan in the form in which a row stores it.

use serde::{Deserialize, Serialize};

use crate::wire::{Addressing, Plan, PlanError};

/// The numbers from which a [`Plan`] is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPlan {
    len: u64,
    chunk_bytes: u64,
    addressing: Addressing,
}

impl From<Plan> for StoredPlan {
    fn from(plan: Plan) -> StoredPlan {
        StoredPlan { len: plan.len(), chunk_bytes: plan.chunk_bytes(), addressing: plan.addressing() }
    }
}

impl StoredPlan {
    /// Returns the plan.
    ///
    /// # Errors
    /// The stored numbers are outside the protocol's limits.
    pub(super) fn plan(self) -> Result<Plan, PlanError> {
        Plan::new(self.len, self.chunk_bytes, self.addressing)
    }
}
