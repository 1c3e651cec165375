//! From the flags that every command takes to a client of the library.

use std::fmt::Display;
use std::fs;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use ringlift::pacing::QuotaPreset;
use ringlift::transport::{Endpoint, MinSpeed};
use ringlift::{Client, Credentials, PRODUCTION_URL, SANDBOX_URL, Secret, Settings, Sigbus};

use zeroize::Zeroizing;

use super::args::Global;
use super::exit::Failure;
use super::proxy;

/// The library's settings as the flags say them, without credentials.
pub(super) fn settings(global: &Global) -> Settings {
    let mut settings = Settings::default();
    settings.sigbus = Sigbus::Ours;
    settings.redactor = global.redactor.clone();
    match &global.endpoint_url {
        Some(url) => settings.endpoint_url = url.clone(),
        None if global.sandbox => settings.endpoint_url = SANDBOX_URL.to_owned(),
        None => {}
    }
    settings.trust.ca_certs = global.ca_cert.clone();
    if let Some(retries) = global.retries {
        settings.retry.retries = retries;
    }
    if let Some(time) = global.retry_max_time {
        settings.retry.max_time = time;
    }
    if let Some(timeout) = global.timeout {
        settings.patience.stall = timeout;
        settings.patience.body = timeout;
        settings.patience.answer = timeout;
    }
    if let Some(timeout) = global.connect_timeout {
        settings.dial.resolve_timeout = timeout;
        settings.dial.connect_timeout = timeout;
        settings.dial.tls_timeout = timeout;
    }
    settings.patience.min_speed =
        global.min_speed.map(|speed| MinSpeed { bytes_per_s: speed.0, window: MIN_SPEED_WINDOW });
    settings.caps.requests_a_second = global.tpslimit;
    settings.caps.preset = match settings.endpoint_url.as_str() {
        PRODUCTION_URL => Some(QuotaPreset::Production),
        SANDBOX_URL => Some(QuotaPreset::Sandbox),
        _ => None,
    };
    settings
}

/// A client that holds the API key.
pub(super) fn connect(global: &Global) -> Result<Client, Failure> {
    proxy::mention(global);
    let mut settings = settings(global);
    settings.credentials = Credentials::ApiKey(needed_key(global)?);
    open(settings)
}

/// A client with these settings. Nothing is sent yet.
pub(super) fn open(settings: Settings) -> Result<Client, Failure> {
    tracing::debug!(?settings, "settings");
    let has_secret = !matches!(settings.credentials, Credentials::None);
    let is_exposed = has_secret && is_plain_and_remote(&settings.endpoint_url);
    let client = Client::new(settings)?;
    if is_exposed {
        tracing::warn!("the API key goes over plain HTTP to another machine: anybody on the way can read it");
    }
    Ok(client)
}

fn is_plain_and_remote(url: &str) -> bool {
    Endpoint::parse(url).is_ok_and(|endpoint| !endpoint.is_tls() && !endpoint.is_local())
}

/// The API key; an error that says how to give it where there is none.
pub(super) fn needed_key(global: &Global) -> Result<Secret, Failure> {
    key(global)?.ok_or_else(|| {
        Failure::usage("no API key: set APIVIDEO_API_KEY or name its file with --api-key-file")
    })
}

/// The API key, if one was given.
pub(super) fn key(global: &Global) -> Result<Option<Secret>, Failure> {
    match (&global.api_key_file, &global.api_key) {
        (Some(path), _) => secret_file(path, "API key").map(Some),
        (None, Some(key)) => secret(key.reveal(), API_KEY, "API key").map(Some),
        (None, None) => Ok(None),
    }
}

/// A secret that stands alone in a file.
pub(super) fn secret_file(path: &Path, name: &str) -> Result<Secret, Failure> {
    let failed = |error| Failure::io(format!("read {}", path.display()), error);
    let mut bytes = Zeroizing::new(Vec::new());
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MOST_SECRET_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let Ok(text) = std::str::from_utf8(&bytes) else {
        let why =
            format!("{}: the {name} in it is not UTF-8; save the file as UTF-8 or ASCII", path.display());
        return Err(Failure::usage(why));
    };
    secret(text, path.display(), name)
}

/// A secret out of `place`.
fn secret(text: &str, place: impl Display, name: &str) -> Result<Secret, Failure> {
    Secret::parse(text).map_err(|flaw| Failure::usage(format!("{place}: the {name} {flaw}")))
}

/// Runs a future to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the runtime", error))?;
    let ended = runtime.block_on(future);
    // A file system that does not answer may hold a thread that was asked for a file: not waited for.
    runtime.shutdown_background();
    ended
}

/// The one setting that is a secret, under the name that the service's own tools use.
pub(super) const API_KEY: &str = "APIVIDEO_API_KEY";

/// More than any secret has; a device file given by mistake has no end.
const MOST_SECRET_BYTES: u64 = 64 * 1024;

/// Long enough that one slow moment is not yet a slow connection.
pub(super) const MIN_SPEED_WINDOW: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_exposed_on_the_way_to_another_machine_without_tls() {
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
