//! The errors of starting a server.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A reason why a server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is reachable from other machines, and no API key is configured.
    #[error(
        "{addr} is reachable from other machines, so the API key must be given (`ServerSettings::api_key`); or \
         listen on 127.0.0.1"
    )]
    KeyNeeded {
        /// The configured address.
        addr: SocketAddr,
    },
    /// The configured API key is empty.
    #[error("the API key is empty: set one, or omit it and the server generates one")]
    EmptyKey,
    /// The intermediate status is not between 200 and 299.
    #[error("{status} cannot be the status of an accepted chunk: use 200 to 299")]
    IntermediateStatus {
        /// The configured status.
        status: u16,
    },
    /// Another server uses the data folder.
    #[error("{} is in use by another server: stop it, or choose another data folder", path.display())]
    InUse {
        /// The data folder.
        path: PathBuf,
    },
    /// The data folder, or a file in it, cannot be used.
    #[error("cannot use the data folder: {}: {source}", path.display())]
    Data {
        /// The folder or file that cannot be used.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database in the data folder cannot be used.
    #[error("cannot use the database in the data folder: {0}")]
    Database(String),
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A certificate cannot be generated, or the one in the data folder cannot be read.
    #[error("cannot create a certificate: {0} (remove ca.pem and ca-key.pem to create a new authority)")]
    Certificate(String),
    /// The system refused to start a thread.
    #[error("cannot start the server's threads: {0}")]
    Threads(io::Error),
    /// The system returned no random bytes for an API key.
    #[error("the system returned no random bytes for an API key")]
    NoRandomness,
}
