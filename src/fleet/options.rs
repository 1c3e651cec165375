//! Settings of a job store in NATS.

use std::path::PathBuf;
use std::time::Duration;

use super::address::NatsAddress;
use crate::bulk::Account;
use crate::bulk::lease::DEFAULT_LEASE;

/// The settings of a [`super::NatsJobStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The servers.
    pub address: NatsAddress,
    /// The account whose jobs are used.
    pub account: Account,
    /// The length of a lease, 3 seconds to 10 minutes, by default 60 seconds. The length that the first process chose
    /// is used by all; see [`super::NatsJobStore::lease`].
    pub lease: Duration,
    /// The file with the credentials of the user, as `nsc` writes it.
    pub credentials: Option<PathBuf>,
    /// The files with CA certificates (PEM) of the servers, beside those of the system.
    pub ca_certificates: Vec<PathBuf>,
    /// The number of servers that keep a copy of each record, 1 to 5. It counts at the first use of the store.
    pub replicas: usize,
}

impl NatsOptions {
    /// Creates the settings for the jobs of `account`, with leases of 60 seconds and one copy of each record.
    pub fn new(address: NatsAddress, account: Account) -> NatsOptions {
        let (lease, credentials, ca_certificates, replicas) = (DEFAULT_LEASE, None, Vec::new(), 1);
        NatsOptions { address, account, lease, credentials, ca_certificates, replicas }
    }
}
