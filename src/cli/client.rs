//! Creation of the library's client from the global flags.

use std::fmt::Display;
use std::fs;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ringlift::{
    Client, Credentials, Endpoint, MinSpeed, PRODUCTION_URL, QuotaPreset, SANDBOX_URL, Secret, Settings,
    SigbusHandler,
};

use futures_util::future::LocalBoxFuture;
use zeroize::Zeroizing;

use super::args::GlobalArgs;
use super::exit::CommandError;
use super::service_args::ServiceArgs;

/// Returns the library's settings from the global flags, without credentials.
pub(super) fn client_settings(global: &GlobalArgs) -> Settings {
    let service = &global.service;
    let mut settings = Settings::default();
    // The command owns its process, so it may install a handler.
    settings.sigbus = SigbusHandler::Install;
    settings.redactor = global.redactor.clone();
    match &service.endpoint_url {
        Some(url) => settings.endpoint_url = url.clone(),
        None if service.sandbox => settings.endpoint_url = SANDBOX_URL.to_owned(),
        None => {}
    }
    settings.trust.ca_certs = service.ca_cert.clone();
    settings.dial.proxy = service.proxy.clone().unwrap_or_default();
    set_time_limits(&mut settings, service);
    settings.caps.requests_a_second = service.tpslimit;
    // The documented rate limits apply to the two public services only.
    settings.caps.preset = match settings.endpoint_url.as_str() {
        PRODUCTION_URL => Some(QuotaPreset::Production),
        SANDBOX_URL => Some(QuotaPreset::Sandbox),
        _ => None,
    };
    settings
}

/// Sets the retries, the timeouts and the lowest speed.
fn set_time_limits(settings: &mut Settings, service: &ServiceArgs) {
    if let Some(retries) = service.retries {
        settings.retry.retries = retries;
    }
    if let Some(time) = service.retry_max_time {
        settings.retry.max_time = time;
    }
    if let Some(timeout) = service.timeout {
        // A single flag sets three limits, whose defaults differ.
        settings.patience.stall = timeout;
        settings.patience.body = timeout;
        settings.patience.answer = timeout;
    }
    if let Some(timeout) = service.connect_timeout {
        settings.dial.resolve_timeout = timeout;
        settings.dial.connect_timeout = timeout;
        settings.dial.tls_timeout = timeout;
    }
    settings.patience.min_speed =
        service.min_speed.map(|speed| MinSpeed { bytes_per_s: speed.0, window: MIN_SPEED_WINDOW });
}

/// Returns a client that uses the API key.
pub(super) fn connect(global: &GlobalArgs) -> Result<Client, CommandError> {
    let mut settings = client_settings(global);
    settings.credentials = Credentials::ApiKey(required_key(global)?);
    open(settings)
}

/// Returns a client with these settings. Sends nothing.
pub(super) fn open(settings: Settings) -> Result<Client, CommandError> {
    log(&settings);
    let has_secret = !matches!(settings.credentials, Credentials::None);
    let is_exposed = has_secret && is_plain_and_remote(&settings.endpoint_url);
    let client = Client::new(settings)?;
    if is_exposed {
        tracing::warn!("the API key is sent over plain HTTP to another machine and can be intercepted");
    }
    Ok(client)
}

/// Logs the settings that explain what a run does. The rest are defaults or appear where they matter.
fn log(settings: &Settings) {
    tracing::debug!(
        "service {}, {} retries within {}, {} files at a time, journal {}",
        settings.endpoint_url,
        settings.retry.retries,
        humantime::format_duration(settings.retry.max_time),
        settings.transfers,
        settings.journal.as_deref().map_or("none".into(), Path::to_string_lossy),
    );
}

fn is_plain_and_remote(url: &str) -> bool {
    Endpoint::parse(url).is_ok_and(|endpoint| !endpoint.is_tls() && !endpoint.is_local())
}

/// Returns the API key, or an error that explains how to provide it.
pub(super) fn required_key(global: &GlobalArgs) -> Result<Secret, CommandError> {
    key(global)?.ok_or_else(|| CommandError::usage("no API key: set APIVIDEO_API_KEY or use --api-key-file"))
}

/// Returns the API key, or `None` if none was given.
pub(super) fn key(global: &GlobalArgs) -> Result<Option<Secret>, CommandError> {
    key_of(global.service.api_key_file.as_deref(), global)
}

/// Returns the API key in a file, else the one in the environment, else `None`.
pub(super) fn key_of(file: Option<&Path>, global: &GlobalArgs) -> Result<Option<Secret>, CommandError> {
    match (file, &global.api_key) {
        (Some(path), _) => secret_file(path, "API key").map(Some),
        (None, Some(key)) => secret(key.reveal(), API_KEY, "API key").map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads a secret from a file that contains nothing else.
pub(super) fn secret_file(path: &Path, name: &str) -> Result<Secret, CommandError> {
    let failed = |error| CommandError::io(format!("read {}", path.display()), error);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        let why = format!("{}: the {name} is not UTF-8; save the file as UTF-8 or ASCII", path.display());
        return Err(CommandError::usage(why));
    };
    secret(text, path.display(), name)
}

/// Parses a secret. `place` names its origin in errors.
fn secret(text: &str, place: impl Display, name: &str) -> Result<Secret, CommandError> {
    Secret::parse(text).map_err(|flaw| CommandError::usage(format!("{place}: the {name} {flaw}")))
}

/// Runs a future to completion on the current thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::io("start the runtime", error))?;
    // Boxed, so that the scheduler is compiled once and not for each command.
    let future: LocalBoxFuture<'_, Result<T, CommandError>> = Box::pin(future);
    let ended = runtime.block_on(future);
    // Do not wait for a blocking thread: a file system that does not respond may hold it forever.
    runtime.shutdown_background();
    ended
}

/// Environment variable of the API key; the service's own tools use the same name.
pub(super) const API_KEY: &str = "APIVIDEO_API_KEY";

/// Exceeds the length of every secret. A device file given by mistake has no end.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Window for `--min-speed`: long enough that one slow moment is not a slow connection.
pub(super) const MIN_SPEED_WINDOW: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_exposed_over_http_to_another_machine() {
        for url in ["http://example.com", "http://10.0.0.1:8080/base", "http://[2001:db8::1]"] {
            assert!(is_plain_and_remote(url), "{url}");
        }
        for url in ["https://example.com", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            assert!(!is_plain_and_remote(url), "{url}");
        }
        for url in ["http://LOCALHOST", "http://[::ffff:127.0.0.1]"] {
            assert!(!is_plain_and_remote(url), "{url}");
        }
    }
}
