//! The queue that several hosts share, on NATS servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringlift::bulk::{Account, JobStore, OwnerId};
use ringlift::fleet::{NatsAddress, NatsJobStore, NatsOptions};
use ringlift::{SharedBudget, Trust};

use super::exit::CommandError;
use super::ingest_args::{NatsArgs, StoreArgs};
use super::store_error::store_error;

/// NATS servers with the jobs of several hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NatsQueue {
    address: NatsAddress,
    credentials: Option<PathBuf>,
    ca_certificates: Vec<PathBuf>,
    lease: Option<Duration>,
    replicas: Option<u8>,
}

impl NatsQueue {
    /// Parses the address, and takes over the other flags. Connects to no server.
    pub(super) fn new(url: &str, args: &StoreArgs, trust: &Trust) -> Result<NatsQueue, CommandError> {
        let address = url.parse().map_err(|flaw| CommandError::usage(format!("--queue: {flaw}")))?;
        let NatsArgs { nats_creds: credentials, lease, replicas } = args.nats.clone();
        let ca_certificates = trust.ca_certs.clone();
        Ok(NatsQueue { address, credentials, ca_certificates, lease, replicas })
    }

    /// Opens the store, and creates it if it is missing.
    pub(super) fn open(&self, account: Account) -> Result<Arc<dyn JobStore>, CommandError> {
        Ok(Arc::new(self.connect(account)?))
    }

    /// Opens the store for a worker, and announces the worker to the others. Returns the store and the shared budget.
    pub(super) fn open_for_work(
        &self,
        account: Account,
        owner: &OwnerId,
    ) -> Result<(Arc<dyn JobStore>, SharedBudget), CommandError> {
        let store = self.connect(account)?;
        store.announce(owner);
        let budget = store.budget();
        Ok((Arc::new(store), budget))
    }

    /// Returns the address as text.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    fn connect(&self, account: Account) -> Result<NatsJobStore, CommandError> {
        let mut options = NatsOptions::new(self.address.clone(), account);
        options.credentials.clone_from(&self.credentials);
        options.ca_certificates.clone_from(&self.ca_certificates);
        options.lease = self.lease.unwrap_or(options.lease);
        options.replicas = self.replicas.map_or(options.replicas, usize::from);
        let store = NatsJobStore::connect(options).map_err(|error| store_error(&error))?;
        if self.lease.is_some_and(|lease| lease != store.lease()) {
            let lease = humantime::format_duration(store.lease());
            tracing::warn!("the workers of this queue have agreed on leases of {lease}: --lease is not used");
        }
        Ok(store)
    }
}
