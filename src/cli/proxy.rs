//! The choice of the proxy: flag, else environment.

use ringlift::{Endpoint, NoProxy, Proxy};

use super::args::{CliCommand, GlobalArgs};
use super::client;
use super::exit::CommandError;

/// Returns the proxy of the command: that of the flag (or of `RINGLIFT_PROXY` or the config file, which are merged into
/// the flag), else that of the environment for the endpoint's scheme, unless `NO_PROXY` exempts the endpoint.
///
/// The lower-case variable precedes the other, as in curl. `HTTP_PROXY` in upper case is ignored: in a CGI script the
/// client of the web server sets it, by a header `Proxy` ("httpoxy").
pub(super) fn choose(
    command: &CliCommand,
    global: &GlobalArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Proxy, CommandError> {
    if let Some(proxy) = &global.service.proxy {
        return Ok(proxy.clone());
    }
    let url = client::client_settings(global).endpoint_url;
    // The flag's parser has checked the URL already.
    let Ok(endpoint) = Endpoint::parse(&url) else { return Ok(Proxy::none()) };
    let exempt = NO_PROXY.into_iter().find_map(&environment).map(NoProxy::new).unwrap_or_default();
    // A variable that is not needed may be invalid.
    if !calls_service(command) || endpoint.is_local() || exempt.matches(&endpoint) {
        return Ok(Proxy::none());
    }
    let own: &[&str] = if endpoint.is_tls() { &HTTPS_PROXY } else { &HTTP_PROXY };
    let mut names = own.iter().chain(&ALL_PROXY);
    let Some((name, text)) = names.find_map(|name| Some((name, environment(name)?))) else {
        return Ok(Proxy::none());
    };
    Proxy::parse(&text).map_err(|flaw| {
        CommandError::usage(format!("{name}: {flaw}; `--proxy none` connects without a proxy"))
    })
}

/// Returns `true` if the command connects to the service. The server of `demo` is on this machine.
fn calls_service(command: &CliCommand) -> bool {
    match command {
        CliCommand::Demo(_)
        | CliCommand::Jobs(_)
        | CliCommand::Submit(_)
        | CliCommand::Serve(_)
        | CliCommand::Completion(_)
        | CliCommand::Man(_) => false,
        CliCommand::Upload(_)
        | CliCommand::Ingest(_)
        | CliCommand::Work(_)
        | CliCommand::Resume(_)
        | CliCommand::Clean(_)
        | CliCommand::Status(_)
        | CliCommand::Tune(_)
        | CliCommand::Video(_)
        | CliCommand::Token(_) => true,
    }
}

/// Variables, in the order of precedence.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
const HTTPS_PROXY: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
const HTTP_PROXY: [&str; 1] = ["http_proxy"];
const ALL_PROXY: [&str; 2] = ["all_proxy", "ALL_PROXY"];

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::cli::config;

    /// Returns host and port of the proxy that is chosen, or the error.
    fn chosen(argv: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let argv: Vec<OsString> = argv.split_whitespace().map(OsString::from).collect();
        let find = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let cli = config::parse(&argv, find).map_err(|error| error.to_string())?;
        Ok(cli.global.service.proxy.unwrap().to_string())
    }

    const HTTPS: &str = "ringlift status v";
    const HTTP: &str = "ringlift status v --endpoint-url http://films.test:8080";

    #[test]
    fn the_first_source_in_the_order_of_precedence_decides() {
        let every = [
            ("RINGLIFT_PROXY", "own:1"),
            ("https_proxy", "https-lower:1"),
            ("HTTPS_PROXY", "https-upper:1"),
            ("http_proxy", "http-lower:1"),
            ("HTTP_PROXY", "http-upper:1"),
            ("all_proxy", "all-lower:1"),
            ("ALL_PROXY", "all-upper:1"),
        ];
        let of = |argv: &str, from: usize| chosen(argv, &every[from..]).unwrap();
        assert_eq!(of(&format!("{HTTPS} --proxy flag:1"), 0), "flag:1");
        assert_eq!(of(&format!("{HTTPS} --proxy none"), 0), "none");
        assert_eq!(of(HTTPS, 0), "own:1");
        for (from, https, http) in [
            (1, "https-lower:1", "http-lower:1"),
            (2, "https-upper:1", "http-lower:1"),
            (3, "all-lower:1", "http-lower:1"),
            (4, "all-lower:1", "all-lower:1"),
            (6, "all-upper:1", "all-upper:1"),
            (7, "none", "none"),
        ] {
            assert_eq!((&*of(HTTPS, from), &*of(HTTP, from)), (https, http), "from {from}");
        }
        assert_eq!(chosen(HTTP, &[("HTTP_PROXY", "attacker:1")]).unwrap(), "none");
        assert_eq!(chosen(HTTPS, &[("HTTPS_PROXY", "")]).unwrap(), "none");
        assert_eq!(chosen(HTTPS, &[("RINGLIFT_PROXY", "None"), ("HTTPS_PROXY", "p:1")]).unwrap(), "none");
    }

    #[test]
    fn a_host_in_no_proxy_and_this_machine_are_reached_directly() {
        let with = |argv: &str, list| chosen(argv, &[("NO_PROXY", list), ("ALL_PROXY", "p:1")]).unwrap();
        for (argv, list, expected) in [
            (HTTPS, "api.video", "none"),
            (HTTPS, "ws.api.video:8443", "p:1"),
            (HTTPS, "*", "none"),
            ("ringlift status v --sandbox", "ws.api.video", "p:1"),
            ("ringlift status v --sandbox", "sandbox.api.video:443", "none"),
            (HTTP, "films.test:8080", "none"),
            ("ringlift status v --endpoint-url http://10.1.2.3", "10.0.0.0/8", "none"),
            ("ringlift status v --endpoint-url http://localhost:8080", "", "none"),
            ("ringlift status v --endpoint-url https://[::1]:8080", "", "none"),
        ] {
            assert_eq!(with(argv, list), expected, "{argv} {list}");
        }
        let both = [("no_proxy", "x.test"), ("NO_PROXY", "api.video"), ("ALL_PROXY", "p:1")];
        assert_eq!(chosen(HTTPS, &both).unwrap(), "p:1");
        // A proxy that is set for ringlift alone is meant for its only endpoint.
        assert_eq!(chosen(HTTPS, &[("NO_PROXY", "*"), ("RINGLIFT_PROXY", "p:1")]).unwrap(), "p:1");
    }

    #[test]
    fn an_invalid_value_is_refused_by_the_name_of_its_origin_without_its_secrets() {
        for (argv, name, value) in [
            (HTTPS, "HTTPS_PROXY", "socks5h://me:hunter2@proxy:1080"),
            (HTTP, "http_proxy", "http://me:hunter2@proxy:99999"),
            (HTTPS, "ALL_PROXY", "hunter2://proxy"),
            (HTTPS, "RINGLIFT_PROXY", "http://me:hunter2@pro xy"),
        ] {
            let error = chosen(argv, &[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")) && !error.contains("hunter2"), "{error}");
        }
        let error = chosen(&format!("{HTTPS} --proxy socks5://me:hunter2@proxy"), &[]).unwrap_err();
        assert!(
            error.contains("--proxy") && error.contains("SOCKS") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn an_invalid_value_that_is_not_needed_is_ignored() {
        for (argv, name) in [
            (HTTP, "HTTPS_PROXY"),
            (HTTPS, "http_proxy"),
            ("ringlift man", "HTTPS_PROXY"),
            ("ringlift serve --data /tmp/x", "ALL_PROXY"),
            ("ringlift status v --endpoint-url http://127.0.0.1:1", "ALL_PROXY"),
            ("ringlift status v --proxy none", "HTTPS_PROXY"),
        ] {
            assert_eq!(chosen(argv, &[(name, "socks5://proxy")]).unwrap(), "none", "{argv}");
        }
    }
}
