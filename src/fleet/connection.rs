//! The connection to the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};

use super::address::Login;
use super::options::NatsOptions;
use crate::bulk::{JobStoreError, StoreProblem};

/// A connection that reconnects by itself.
#[derive(Clone, Debug)]
pub(super) struct NatsConnection {
    pub(super) jetstream: Context,
    /// The number of connections so far. After a new one, everything that was read before counts as unknown: the server
    /// may have come back with an older copy of its store.
    connections: Arc<AtomicU64>,
}

impl NatsConnection {
    /// Connects to the first server that answers. Takes at most ten seconds.
    pub(super) async fn open(options: &NatsOptions) -> Result<NatsConnection, JobStoreError> {
        let place = options.address.to_string();
        let failed = |problem, source: Option<async_nats::ConnectError>| JobStoreError::Store {
            place: place.clone(),
            problem,
            source: source.map(|source| Arc::new(source) as _),
        };
        let connections = Arc::new(AtomicU64::new(0));
        let settings =
            settings(options, Arc::clone(&connections)).map_err(|problem| failed(problem, None))?;
        let urls: Vec<String> = options.address.urls().collect();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, settings.connect(urls)).await;
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(failed(problem_of(error.kind()), Some(error))),
            Err(_) => return Err(failed(StoreProblem::Unreachable, None)),
        };
        check_server(&client).map_err(|problem| failed(problem, None))?;
        let mut jetstream = async_nats::jetstream::new(client);
        jetstream.set_timeout(REQUEST_TIMEOUT);
        Ok(NatsConnection { jetstream, connections })
    }

    /// Returns `true` if the connection is there.
    pub(super) fn is_connected(&self) -> bool {
        self.jetstream.client().connection_state() == State::Connected
    }

    /// Returns the number of connections so far.
    pub(super) fn number(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }
}

fn settings(options: &NatsOptions, connections: Arc<AtomicU64>) -> Result<ConnectOptions, StoreProblem> {
    let mut settings = ConnectOptions::new()
        .name("ringlift")
        .connection_timeout(CONNECTION_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        // A connection whose other end has vanished is noticed after three of these.
        .ping_interval(PING_INTERVAL)
        .client_capacity(QUEUE_LEN)
        .require_tls(options.address.is_encrypted())
        .event_callback(move |event| {
            if matches!(event, Event::Connected) {
                connections.fetch_add(1, Ordering::AcqRel);
            }
            tracing::debug!(%event, "the connection to the job store changed");
            std::future::ready(())
        });
    settings = match options.address.login() {
        Some(Login::Password { user, password }) => {
            settings.user_and_password(user.clone(), password.reveal().to_owned())
        }
        Some(Login::Token(token)) => settings.token(token.reveal().to_owned()),
        None => settings,
    };
    if let Some(path) = &options.credentials {
        // Read here: a later failure would not name the file as the cause.
        let text = std::fs::read_to_string(path).map_err(|_| StoreProblem::BadCredentials)?;
        settings = settings.credentials(&text).map_err(|_| StoreProblem::BadCredentials)?;
    }
    if let Some(path) = &options.ca_certificates {
        std::fs::File::open(path).map_err(|_| StoreProblem::BadCredentials)?;
        settings = settings.add_root_certificates(path.clone());
    }
    Ok(settings)
}

/// Checks that the server has what the store needs.
fn check_server(client: &Client) -> Result<(), StoreProblem> {
    // Older servers delete no single key after a time.
    if !client.is_server_compatible(2, 11, 0) {
        return Err(StoreProblem::OldServer);
    }
    let info = client.server_info();
    if !info.jetstream {
        return Err(StoreProblem::NoJetStream);
    }
    // Checked now: the first long job would be refused only when its checkpoint is written.
    if info.max_payload < LONGEST_MESSAGE {
        return Err(StoreProblem::SmallMessages { found: info.max_payload, needed: LONGEST_MESSAGE });
    }
    Ok(())
}

fn problem_of(kind: ConnectErrorKind) -> StoreProblem {
    match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => StoreProblem::Denied,
        ConnectErrorKind::TimedOut
        | ConnectErrorKind::Dns
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => StoreProblem::Unreachable,
        ConnectErrorKind::Tls => StoreProblem::BadCredentials,
        ConnectErrorKind::ServerParse => StoreProblem::BadAddress,
    }
}

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
