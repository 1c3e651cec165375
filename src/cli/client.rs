//! From the flags that every command takes to a client of the library.

use std::fs;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ringlift::transport::MinSpeed;
use ringlift::upload::pace::Preset;
use ringlift::{Client, Credentials, PRODUCTION_URL, SANDBOX_URL, Secret, Settings, Sigbus};

use super::args::Global;
use super::exit::Failure;

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
        PRODUCTION_URL => Some(Preset::Production),
        SANDBOX_URL => Some(Preset::Sandbox),
        _ => None,
    };
    settings
}

/// Says that a proxy is not used, for where that is why nothing can be reached.
pub(super) fn mention_proxy(global: &Global) {
    if let Some(variable) = global.proxy_variable {
        tracing::warn!("{variable} names a proxy, which is not used: connections are made without one");
    }
}

/// The variable that names a proxy for the service, unless another exempts it (curl(1), "ENVIRONMENT").
pub(super) fn proxy_variable(
    global: &Global,
    environment: impl Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    let uri: http::Uri = global.endpoint_url.as_deref().unwrap_or(PRODUCTION_URL).parse().ok()?;
    let host = uri.host()?;
    let exempts = |name: &str| name == "*" || !name.is_empty() && host.ends_with(name);
    let exempt = ["no_proxy", "NO_PROXY"].into_iter().find_map(&environment).unwrap_or_default();
    if exempt.split(',').any(|name| exempts(name.trim())) {
        return None;
    }
    let own = if uri.scheme_str() == Some("http") {
        ["http_proxy", "HTTP_PROXY"]
    } else {
        ["https_proxy", "HTTPS_PROXY"]
    };
    let is_set = |name: &&str| environment(name).is_some_and(|proxy| !proxy.is_empty());
    own.into_iter().chain(["all_proxy", "ALL_PROXY"]).find(is_set)
}

/// A client that holds the API key.
pub(super) fn connect(global: &Global) -> Result<Client, Failure> {
    mention_proxy(global);
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
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    uri.scheme_str() == Some("http") && !is_here
}

/// The API key; an error that says how to give it where there is none.
pub(super) fn needed_key(global: &Global) -> Result<Secret, Failure> {
    key(global)?.ok_or_else(|| {
        Failure::usage("no API key: set APIVIDEO_API_KEY or name its file with --api-key-file")
    })
}

/// The API key, if one was given.
pub(super) fn key(global: &Global) -> Result<Option<Secret>, Failure> {
    match &global.api_key_file {
        Some(path) => secret_file(path).map(Some),
        None => Ok(global.api_key.clone()),
    }
}

/// A secret that stands alone in a file.
pub(super) fn secret_file(path: &Path) -> Result<Secret, Failure> {
    let text =
        fs::read_to_string(path).map_err(|error| Failure::io(format!("read {}", path.display()), error))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("{}: the file is empty", path.display()))),
        secret => Ok(Secret::new(secret)),
    }
}

/// Runs a future to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the runtime", error))?;
    runtime.block_on(future)
}

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
    }
}
