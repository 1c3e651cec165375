//! The connection to the servers.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::{ConnectErrorKind, ConnectOptions, ServerInfo, Statistics};

use super::address::Login;
use super::options::NatsOptions;
use crate::bulk::{JobStoreError, StoreProblem};
use crate::transport::{Trust, bare_client_config, tls_error};

/// A connection that reconnects by itself.
#[derive(Clone, Debug)]
pub(super) struct NatsConnection {
    pub(super) jetstream: Context,
    /// The counters of the client.
    statistics: Arc<Statistics>,
}

impl NatsConnection {
    /// Connects to the first server that answers. Takes at most ten seconds.
    pub(super) async fn open(options: &NatsOptions) -> Result<NatsConnection, JobStoreError> {
        let place = options.address.to_string();
        let failed = |ConnectFailure { problem, source }| JobStoreError::Store {
            place: place.clone(),
            problem,
            source,
        };
        let settings = settings(options).map_err(failed)?;
        let urls: Vec<String> = options.address.urls().collect();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, settings.connect(urls)).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(failed(refused(error))),
            Err(_) => return Err(failed(StoreProblem::Unreachable.into())),
        };
        check_server(&client.server_info()).map_err(|problem| failed(problem.into()))?;
        let statistics = client.statistics();
        let mut jetstream = async_nats::jetstream::new(client);
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(NatsConnection { jetstream, statistics })
    }

    /// Returns `true` if the connection is there.
    pub(super) fn is_connected(&self) -> bool {
        self.jetstream.client().connection_state() == State::Connected
    }

    /// Returns the number of messages that were sent.
    #[cfg(test)]
    pub(super) fn messages_sent(&self) -> u64 {
        self.statistics.out_messages.load(Ordering::Relaxed)
    }

    /// Returns the name of the server at the other end.
    pub(super) fn server_name(&self) -> String {
        self.jetstream.client().server_info().server_name
    }

    /// Returns the number of connections so far. After a new one, everything that was read before counts as unknown: the
    /// server may have come back with an older copy of its store.
    pub(super) fn number(&self) -> u64 {
        // Not counted by events, which arrive after the first requests of a new connection.
        self.statistics.connects.load(Ordering::Acquire)
    }
}

/// The reason why there is no connection.
struct ConnectFailure {
    problem: StoreProblem,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl From<StoreProblem> for ConnectFailure {
    fn from(problem: StoreProblem) -> ConnectFailure {
        ConnectFailure { problem, source: None }
    }
}

impl StoreProblem {
    fn because(self, source: impl Error + Send + Sync + 'static) -> ConnectFailure {
        ConnectFailure { problem: self, source: Some(Arc::new(source)) }
    }
}

fn settings(options: &NatsOptions) -> Result<ConnectOptions, ConnectFailure> {
    let mut settings = ConnectOptions::new()
        .name("ringlift")
        .connection_timeout(CONNECTION_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        // A connection whose other end has vanished is noticed after three of these.
        .ping_interval(PING_INTERVAL)
        .client_capacity(QUEUE_LEN)
        .require_tls(options.address.is_encrypted())
        .event_callback(|event| {
            tracing::debug!(%event, "the connection to the job store changed");
            std::future::ready(())
        });
    if let Some(login) = options.address.login() {
        settings = with_login(settings, login);
    }
    if let Some(path) = &options.credentials {
        settings = with_credentials(settings, path)?;
    }
    if !options.ca_certificates.is_empty() {
        settings = with_authorities(settings, &options.ca_certificates)?;
    }
    Ok(settings)
}

fn with_login(settings: ConnectOptions, login: &Login) -> ConnectOptions {
    match login {
        Login::Password { user, password } => {
            settings.user_and_password(user.clone(), password.reveal().to_owned())
        }
        Login::Token(token) => settings.token(token.reveal().to_owned()),
    }
}

/// Reads a credentials file here: a later failure would not name the file as the cause.
fn with_credentials(settings: ConnectOptions, path: &Path) -> Result<ConnectOptions, ConnectFailure> {
    // The content is secret, the reason is not.
    let failed = |error| StoreProblem::BadCredentials.because(named(path, &error));
    let text = fs::read_to_string(path).map_err(failed)?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is no credentials file of NATS");
    settings.credentials(&text).map_err(|_| failed(invalid()))
}

/// Trusts the authorities in the files beside those of the system. The client's own option would replace those, and takes
/// one file.
fn with_authorities(settings: ConnectOptions, paths: &[PathBuf]) -> Result<ConnectOptions, ConnectFailure> {
    for path in paths {
        // Opened only to name the file that is missing: the trust reads it below.
        fs::File::open(path).map_err(|error| StoreProblem::BadCertificates.because(named(path, &error)))?;
    }
    let trust = Trust { ca_certs: paths.to_vec() };
    let config = bare_client_config(&trust).map_err(|error| StoreProblem::BadCertificates.because(error))?;
    Ok(settings.tls_client_config(config))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Checks that the server has what the store needs.
fn check_server(info: &ServerInfo) -> Result<(), StoreProblem> {
    // Older servers delete no single key after a time.
    if !is_recent(&info.version) {
        return Err(StoreProblem::OldServer);
    }
    if !info.jetstream {
        return Err(StoreProblem::NoJetStream);
    }
    // Checked now: the first long job would be refused only when its checkpoint is written.
    if info.max_payload < LONGEST_MESSAGE {
        return Err(StoreProblem::SmallMessages { found: info.max_payload, needed: LONGEST_MESSAGE });
    }
    Ok(())
}

/// Returns `true` for the version of a server that is [`OLDEST_SERVER`] or later. A text that is no version is the one of
/// a build from source, which is taken for a recent one.
fn is_recent(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST_SERVER,
        _ => true,
    }
}

fn refused(error: async_nats::ConnectError) -> ConnectFailure {
    // A failed handshake is reported as a failure to read.
    let problem =
        if tls_error(&error).is_some() { StoreProblem::Untrusted } else { problem_of(error.kind()) };
    problem.because(error)
}

fn problem_of(kind: ConnectErrorKind) -> StoreProblem {
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => StoreProblem::Denied,
        ConnectErrorKind::TimedOut
        | ConnectErrorKind::Dns
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => StoreProblem::Unreachable,
        ConnectErrorKind::Tls => StoreProblem::Untrusted,
        ConnectErrorKind::ServerParse => StoreProblem::BadAddress,
    }
}

/// The first version, major and minor, that deletes single keys after a time.
const OLDEST_SERVER: (u64, u64) = (2, 11);
/// The longest time to try the addresses of all servers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time for one address.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time for an answer of JetStream.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The requests that wait while the connection is away.
const QUEUE_LEN: usize = 1024;
/// The longest message: a job and a checkpoint at their limits, of which each byte is escaped to two, and headers.
const LONGEST_MESSAGE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: &str, jetstream: bool, max_payload: usize) -> ServerInfo {
        ServerInfo { version: version.to_owned(), jetstream, max_payload, ..ServerInfo::default() }
    }

    #[test]
    fn servers_from_2_11_on_are_recent_and_builds_from_source_too() {
        for (version, expected) in [
            ("2.11.0", true),
            ("2.11.0-RC.1", true),
            ("v2.12.1", true),
            ("3.0.0", true),
            ("10.0", true),
            ("2.10.29", false),
            ("2.9.25", false),
            ("1.99.0", false),
            ("0.0.0", false),
            ("dev", true),
            ("", true),
        ] {
            assert_eq!(is_recent(version), expected, "{version}");
        }
    }

    #[test]
    fn the_first_thing_that_a_server_lacks_is_named() {
        assert_eq!(check_server(&info("2.11.3", true, LONGEST_MESSAGE)), Ok(()));
        assert_eq!(check_server(&info("2.10.0", false, 1)), Err(StoreProblem::OldServer));
        assert_eq!(check_server(&info("2.11.3", false, 1)), Err(StoreProblem::NoJetStream));
        let small = StoreProblem::SmallMessages { found: 5, needed: LONGEST_MESSAGE };
        assert_eq!(check_server(&info("2.11.3", true, 5)), Err(small));
    }
}
