//! The endpoint's URL: its strict parse and its canonical form.
//!
//! `http::Uri` checks no ports, so that a mistyped one would become the scheme's default, and the API key and
//! the file would go to another service.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderValue, Uri};

use super::error::{EndpointFlaw, TransportError};

/// The base URL of a service: scheme, host, port and path.
///
/// Holds the canonical form: scheme and host in lower case, no port where it is the scheme's default, no
/// slash at the end. Two ways to write one endpoint give equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    canonical: String,
    uri: Uri,
    is_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    header: HeaderValue,
    /// The path before the service's own, without a slash at its end.
    base: String,
}

impl Endpoint {
    /// Reads `http://HOST[:PORT][/PATH]` or the same with `https`. White space around the URL is ignored.
    ///
    /// # Errors
    ///
    /// `BadEndpoint`, which repeats no user name, password, query or fragment.
    pub fn parse(url: &str) -> Result<Endpoint, TransportError> {
        let url = url.trim_ascii();
        Endpoint::parse_strictly(url)
            .map_err(|flaw| TransportError::BadEndpoint { endpoint: without_secrets(url), flaw })
    }

    /// Returns the canonical form of `url`, or `url` itself if it is not a valid endpoint.
    pub fn canonical_of(url: &str) -> String {
        Endpoint::parse(url).map_or_else(|_| url.to_owned(), |endpoint| endpoint.canonical)
    }

    /// Returns the canonical form of the URL, by which endpoints are compared and stored.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns `true` if connections to the endpoint are encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the host name or address, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, 80 or 443 if the URL has none (RFC 9110, section 4.2).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `true` if the endpoint is on this machine: a loopback address, or `localhost` and its
    /// subdomains (RFC 6761).
    pub fn is_local(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        let is_localhost = name == "localhost" || name.ends_with(".localhost");
        // `::ffff:127.0.0.1` is a loopback address, too.
        is_localhost || self.host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
    }

    /// Returns the canonical URL as hyper's type.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the host and, unless it is the scheme's default, the port.
    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// Returns the value of the `Host` header.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Returns the path before the service's own: empty, or with a slash at its start and none at its end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    fn parse_strictly(url: &str) -> Result<Endpoint, EndpointFlaw> {
        let (scheme, rest) = url.split_once("://").ok_or(EndpointFlaw::NotAUrl)?;
        let (scheme, is_tls) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", false),
            "https" => ("https", true),
            _ => return Err(EndpointFlaw::Scheme),
        };
        // RFC 3986, section 3.2: the authority ends at the first of these.
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(EndpointFlaw::Credentials);
        }
        if path.contains('#') {
            return Err(EndpointFlaw::Fragment);
        }
        if path.contains('?') {
            return Err(EndpointFlaw::Query);
        }
        let (host, port) = host_and_port(authority)?;
        let default = default_port(is_tls);
        let port = port.unwrap_or(default);
        let shown_port = if port == default { String::new() } else { format!(":{port}") };
        // The paths that follow it begin with a slash.
        let base = path.trim_end_matches('/').to_owned();
        let canonical = format!("{scheme}://{host}{shown_port}{base}");
        let uri = canonical.parse().map_err(|_| EndpointFlaw::NotAUrl)?;
        let header =
            HeaderValue::try_from(format!("{host}{shown_port}")).map_err(|_| EndpointFlaw::NotAUrl)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Endpoint { canonical, uri, is_tls, host, port, header, base })
    }
}

/// Writes the canonical form.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

/// Splits an authority without user information. The host keeps its brackets.
pub(super) fn host_and_port(authority: &str) -> Result<(String, Option<u16>), EndpointFlaw> {
    // Without brackets its first colon would be taken for that of a port.
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(EndpointFlaw::Host);
    }
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']').ok_or(EndpointFlaw::Host)?;
            (ipv6(address)?, rest)
        }
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (name(host)?, rest)
        }
    };
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(EndpointFlaw::Port)?;
    Ok((host, Some(port(digits)?)))
}

fn ipv6(address: &str) -> Result<String, EndpointFlaw> {
    // RFC 6874 zones: neither the resolver nor a certificate's name has them.
    if address.contains('%') {
        return Err(EndpointFlaw::Zone);
    }
    let address: Ipv6Addr = address.parse().map_err(|_| EndpointFlaw::Host)?;
    Ok(format!("[{address}]"))
}

/// Returns a name or an IPv4 address in lower case (RFC 952, with the underscore that container names have).
fn name(host: &str) -> Result<String, EndpointFlaw> {
    if host.is_empty() {
        return Err(EndpointFlaw::NoHost);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_allowed);
    // One dot at the end makes a name absolute (RFC 1034, section 3.1).
    let labels = host.strip_suffix('.').unwrap_or(host);
    if host.len() > MAX_NAME_LEN || !labels.split('.').all(is_label) {
        return Err(EndpointFlaw::Host);
    }
    Ok(host.to_ascii_lowercase())
}

/// Parses a port of digits only: `u16::from_str` would accept `+8080`.
fn port(digits: &str) -> Result<u16, EndpointFlaw> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|&port| is_number && port > 0);
    port.ok_or(EndpointFlaw::Port)
}

/// Returns the port of a URL without one (RFC 9110, section 4.2).
pub(super) fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

/// Returns the URL without user information, query and fragment, each of which may contain a secret.
fn without_secrets(url: &str) -> String {
    // At the last `@`, since a password may contain one.
    let (user, rest) = url.rsplit_once('@').map_or(("", url), |(_, rest)| ("...@", rest));
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let tail = if end < rest.len() { format!("{}...", &rest[end..=end]) } else { String::new() };
    format!("{user}{}{tail}", &rest[..end])
}

/// Longest name of the DNS (RFC 1035, section 2.3.4), with the dot at its end.
const MAX_NAME_LEN: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(url: &str) -> Option<EndpointFlaw> {
        match Endpoint::parse(url) {
            Err(TransportError::BadEndpoint { flaw, .. }) => Some(flaw),
            Err(other) => panic!("{other:?}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn one_endpoint_has_one_canonical_form_however_it_is_written() {
        for url in
            ["http://localhost", "HTTP://LocalHost/", "http://localhost:80//", " http://localhost:080\r\n"]
        {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!((endpoint.canonical(), endpoint.port()), ("http://localhost", 80), "{url}");
        }
        for url in ["https://[::1]:443/v1/", "Https://[0:0::1]/v1"] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(endpoint.to_string(), "https://[::1]/v1", "{url}");
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.base()), ("::1", 443, "/v1"), "{url}");
        }
        assert_eq!(Endpoint::canonical_of("http://h:8080/Base/"), "http://h:8080/Base");
        assert_eq!(Endpoint::canonical_of("no url/"), "no url/");
    }

    #[test]
    fn other_endpoints_stay_others() {
        let canonical = Endpoint::canonical_of;
        assert_ne!(canonical("http://h"), canonical("https://h"));
        assert_ne!(canonical("http://h:443"), canonical("https://h"));
        assert_ne!(canonical("http://h/a"), canonical("http://h/A"));
        assert_eq!(canonical("http://h:443"), "http://h:443");
    }

    #[test]
    fn a_port_that_cannot_be_one_is_refused_and_never_a_default() {
        let tails = [
            ":99999",
            ":65536",
            ":8080x",
            ":8o80",
            ":-1",
            ":+8080",
            ":",
            ":0",
            ":00",
            ":8080:9090",
            ": 80",
            ":٣",
        ];
        for tail in tails {
            for host in ["127.0.0.1", "localhost", "[::1]"] {
                for path in ["", "/", "/base"] {
                    let url = format!("http://{host}{tail}{path}");
                    assert_eq!(flaw(&url), Some(EndpointFlaw::Port), "{url}");
                }
            }
        }
        assert_eq!(flaw("http://[::1]8080"), Some(EndpointFlaw::Port));
        assert_eq!(flaw("http://h:65535"), None);
    }

    #[test]
    fn a_host_that_cannot_be_one_is_refused_in_words() {
        for url in [
            "http://a b",
            "http://a..b",
            "http://.a",
            "http://ü.example",
            "http://a%2eb",
            "http://::1",
            "http://[::1",
            "http://[1.2.3.4]",
            "http://a\\b",
            "http://a]",
        ] {
            assert_eq!(flaw(url), Some(EndpointFlaw::Host), "{url}");
        }
        assert_eq!(flaw(&format!("http://{}", "a".repeat(255))), Some(EndpointFlaw::Host));
        assert_eq!(flaw("http://[fe80::1%25eth0]"), Some(EndpointFlaw::Zone));
        assert_eq!(flaw("http://[fe80::1%eth0]:80"), Some(EndpointFlaw::Zone));
        for url in ["http:///videos", "http://", "http://:80"] {
            assert_eq!(flaw(url), Some(EndpointFlaw::NoHost), "{url}");
        }
        for url in ["http://a_b.c", "https://ws.api.video.", "http://127.0.0.1:1", "http://1-2"] {
            assert_eq!(flaw(url), None, "{url}");
        }
        assert_eq!(flaw("http://h/a b"), Some(EndpointFlaw::NotAUrl));
    }

    #[test]
    fn parts_that_may_hold_a_secret_are_not_repeated() {
        for (url, expected) in [
            ("http://secret@h", EndpointFlaw::Credentials),
            ("http://secret:@h", EndpointFlaw::Credentials),
            ("http://me:secret@h:99999/x", EndpointFlaw::Credentials),
            ("http://me:secret@", EndpointFlaw::Credentials),
            ("secret@h", EndpointFlaw::NotAUrl),
            ("http://h/?secret", EndpointFlaw::Query),
            ("http://h?secret", EndpointFlaw::Query),
            ("http://h#secret", EndpointFlaw::Fragment),
            ("http://h:0?secret", EndpointFlaw::Query),
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(flaw(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn this_machine_is_known_by_all_its_names() {
        let is_local = |url: &str| Endpoint::parse(url).unwrap().is_local();
        for url in ["http://LOCALHOST", "http://localhost.:1", "http://a.localhost", "http://127.9.9.9"] {
            assert!(is_local(url), "{url}");
        }
        for url in ["http://[::1]:1", "http://[::ffff:127.0.0.1]"] {
            assert!(is_local(url), "{url}");
        }
        for url in ["http://10.0.0.1", "http://notlocalhost", "http://[::ffff:10.0.0.1]", "http://[::2]"] {
            assert!(!is_local(url), "{url}");
        }
    }
}
