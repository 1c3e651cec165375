//! Stands in for `fleet_queue.rs` in a build without the feature `fleet`.
//!
//! No [`NatsQueue`] exists: [`NatsQueue::new`] always fails.

use std::sync::Arc;

use ringlift::bulk::{Account, JobStore, OwnerId};
use ringlift::{SharedBudget, Trust};

use super::exit::CommandError;
use super::ingest_args::StoreArgs;

/// NATS servers, which this build cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NatsQueue {}

/// The docs of the methods are in `fleet_queue.rs`.
impl NatsQueue {
    /// Refuses the address.
    pub(super) fn new(_: &str, _: &StoreArgs, _: &Trust) -> Result<NatsQueue, CommandError> {
        Err(CommandError::usage(
            "--queue: this build has no fleet support: give a file, or install a build with the feature `fleet`",
        ))
    }

    pub(super) fn open(&self, _: Account) -> Result<Arc<dyn JobStore>, CommandError> {
        match *self {}
    }

    pub(super) fn open_for_work(
        &self,
        _: Account,
        _: &OwnerId,
    ) -> Result<(Arc<dyn JobStore>, SharedBudget), CommandError> {
        match *self {}
    }

    pub(super) fn name(&self) -> String {
        match *self {}
    }
}
