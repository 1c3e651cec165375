//! The URL of a proxy, with its credentials.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::transport::endpoint::{Endpoint, default_port, host_and_port};
use crate::transport::error::EndpointFlaw;

/// The HTTP proxy of new connections, or none.
///
/// An endpoint on this machine is always reached without the proxy. `Debug` and `Display` show no credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxy(Option<Arc<ProxyUrl>>);

impl Proxy {
    /// Returns the setting for direct connections.
    pub fn none() -> Proxy {
        Proxy::default()
    }

    /// Reads `[http://][USER:PASSWORD@]HOST[:PORT]` or the same with `https://`, which encrypts the connection to the
    /// proxy. The default port is 80 or 443. User name and password are percent-decoded and sent as `Basic`.
    ///
    /// # Errors
    ///
    /// [`ProxyFlaw`], which repeats no part of the text.
    pub fn parse(text: &str) -> Result<Proxy, ProxyFlaw> {
        Ok(Proxy(Some(Arc::new(ProxyUrl::parse(text)?))))
    }

    /// Returns `true` for direct connections.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the proxy for connections to `endpoint`; `None` if they are direct.
    pub(in crate::transport) fn url_for(&self, endpoint: &Endpoint) -> Option<&Arc<ProxyUrl>> {
        // A proxy on another machine would connect to itself.
        self.0.as_ref().filter(|_| !endpoint.is_local())
    }

    /// Returns the URL as it was written, so that its secrets can be removed from texts.
    pub(crate) fn url_with_secrets(&self) -> Option<&str> {
        self.0.as_ref().map(|url| url.written.as_str())
    }
}

/// Writes host and port, or `none`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("none", |url| &url.authority))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(url) => write!(f, "Proxy({})", url.uri),
            None => f.write_str("Proxy(none)"),
        }
    }
}

/// A flaw of a proxy's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyFlaw {
    /// A SOCKS proxy.
    #[error("SOCKS proxies are not supported; use an HTTP proxy")]
    Socks,
    /// Another scheme.
    #[error("the scheme of a proxy must be http or https")]
    Scheme,
    /// A path, query or fragment, as in the URL of a PAC file.
    #[error(
        "the URL of a proxy has no path and no query; configuration files (PAC) are not supported, and a `/` in a \
         password is written %2F"
    )]
    Path,
    /// Credentials that `Basic` cannot carry (RFC 7617, section 2).
    #[error(
        "the user name must not contain a colon, and neither the user name nor the password a control character"
    )]
    Credentials,
    /// A flaw of host or port.
    #[error("{0}")]
    Host(EndpointFlaw),
}

/// The parsed URL of a proxy.
#[derive(PartialEq, Eq)]
pub(in crate::transport) struct ProxyUrl {
    /// The text with its secrets.
    written: Zeroizing<String>,
    uri: Uri,
    is_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Host and port, to be shown.
    authority: String,
    authorization: Option<HeaderValue>,
}

impl ProxyUrl {
    fn parse(text: &str) -> Result<ProxyUrl, ProxyFlaw> {
        let text = text.trim_ascii();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (scheme, is_tls) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", false),
            "https" => ("https", true),
            socks if socks.starts_with("socks") => return Err(ProxyFlaw::Socks),
            _ => return Err(ProxyFlaw::Scheme),
        };
        // A password may contain an unescaped `@`: like curl, split at the last one.
        let (userinfo, authority) =
            rest.rsplit_once('@').map_or((None, rest), |(userinfo, authority)| (Some(userinfo), authority));
        // An empty path may be written as a slash (RFC 3986, section 6.2.3).
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return Err(ProxyFlaw::Path);
        }
        let (name, port) = host_and_port(authority).map_err(ProxyFlaw::Host)?;
        let port = port.unwrap_or(default_port(is_tls));
        let authority = format!("{name}:{port}");
        let uri = format!("{scheme}://{authority}").parse();
        Ok(ProxyUrl {
            written: Zeroizing::new(text.to_owned()),
            uri: uri.map_err(|_| ProxyFlaw::Host(EndpointFlaw::Host))?,
            is_tls,
            host: name.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority,
            authorization: userinfo.map(basic).transpose()?,
        })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns host and port, to be shown.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the value of `Proxy-Authorization`.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Replaces the credentials in a text of the proxy, which may repeat the request.
    pub(super) fn hide_secrets(&self, text: &str) -> String {
        let Some((userinfo, _)) =
            self.written.split_once("://").map_or(&**self.written, |(_, rest)| rest).rsplit_once('@')
        else {
            return text.to_owned();
        };
        let password = userinfo.split_once(':').map_or(userinfo, |(_, password)| password);
        let decoded = percent_decode_str(password).decode_utf8_lossy();
        let basic = self.authorization.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
        // The longest first: once a part of it is replaced, a longer secret is no longer found.
        let secrets = [basic.unwrap_or_default(), userinfo, password, &decoded];
        let hidden = secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET_LEN);
        hidden.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyUrl").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Returns the `Basic` credentials of a URL's user information (RFC 7617).
fn basic(userinfo: &str) -> Result<HeaderValue, ProxyFlaw> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decoded = |text: &str| Zeroizing::new(percent_decode_str(text).collect::<Vec<u8>>());
    let (user, password) = (decoded(user), decoded(password));
    if user.contains(&b':') || user.iter().chain(&*password).any(u8::is_ascii_control) {
        return Err(ProxyFlaw::Credentials);
    }
    let pair = Zeroizing::new([&user, &b":"[..], &password].concat());
    let header = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(&*pair)));
    let mut header = header.map_err(|_| ProxyFlaw::Credentials)?;
    header.set_sensitive(true);
    Ok(header)
}

/// Ordinary words contain shorter texts.
const MIN_SECRET_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ProxyUrl {
        ProxyUrl::parse(text).unwrap_or_else(|flaw| panic!("{text}: {flaw}"))
    }

    #[test]
    fn scheme_and_port_have_the_usual_defaults() {
        for (text, uri) in [
            ("proxy", "http://proxy:80"),
            ("Proxy.Corp:3128", "http://proxy.corp:3128"),
            (" http://proxy/ ", "http://proxy:80"),
            ("HTTPS://proxy", "https://proxy:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("me:pass@proxy:3128", "http://proxy:3128"),
        ] {
            let url = parsed(text);
            assert_eq!(url.uri.to_string().trim_end_matches('/'), uri, "{text}");
            assert_eq!(url.is_tls(), uri.starts_with("https"));
        }
        assert_eq!(parsed("http://[::1]:8080").host(), "::1");
    }

    #[test]
    fn credentials_are_percent_decoded_and_sent_as_basic() {
        for (userinfo, pair) in [
            ("me:secret", "me:secret"),
            ("me", "me:"),
            ("m%40e:p%3Aa%2Fss%25", "m@e:p:a/ss%"),
            ("me:p@ss:word", "me:p@ss:word"),
            ("me:p%C3%A9", "me:pé"),
        ] {
            let url = parsed(&format!("http://{userinfo}@proxy:1"));
            let expected = format!("Basic {}", BASE64_STANDARD.encode(pair));
            assert_eq!(url.authorization().unwrap().to_str().unwrap(), expected, "{userinfo}");
            assert_eq!(url.host(), "proxy");
        }
        assert_eq!(parsed("http://proxy").authorization(), None);
    }

    #[test]
    fn an_invalid_url_is_refused_without_its_secrets() {
        for (text, expected) in [
            ("socks5://me:hunter2@proxy:1080", ProxyFlaw::Socks),
            ("SOCKS4a://proxy", ProxyFlaw::Socks),
            ("ftp://me:hunter2@proxy", ProxyFlaw::Scheme),
            ("http://wpad.corp/hunter2.pac", ProxyFlaw::Path),
            ("http://proxy?hunter2", ProxyFlaw::Path),
            ("http://hunter%0A2:x@proxy", ProxyFlaw::Credentials),
            ("http://me:hunter%0d2@proxy", ProxyFlaw::Credentials),
            ("http://m%3Ae:hunter2@proxy", ProxyFlaw::Credentials),
            ("", ProxyFlaw::Host(EndpointFlaw::NoHost)),
            ("http://me:hunter2@", ProxyFlaw::Host(EndpointFlaw::NoHost)),
            ("http://me:hunter2@proxy:99999", ProxyFlaw::Host(EndpointFlaw::Port)),
            ("http://me:hunter2@pro xy", ProxyFlaw::Host(EndpointFlaw::Host)),
        ] {
            let flaw = Proxy::parse(text).unwrap_err();
            assert_eq!(flaw, expected, "{text}");
            assert!(!format!("{flaw} {flaw:?}").contains("hunter"), "{flaw}");
        }
    }

    #[test]
    fn no_credential_is_shown() {
        let proxy = Proxy::parse("http://me:hunter2@proxy:3128").unwrap();
        assert_eq!((proxy.to_string(), Proxy::none().to_string()), ("proxy:3128".into(), "none".into()));
        let shown = format!("{proxy:?} {:?} {:?}", parsed("http://me:hunter2@proxy"), proxy.0);
        assert!(!shown.contains("hunter2") && !shown.contains("me:"), "{shown}");
    }

    #[test]
    fn a_proxy_that_repeats_the_credentials_does_not_show_them() {
        let url = parsed("http://me:p%40ss-word@proxy");
        let encoded = BASE64_STANDARD.encode("me:p@ss-word");
        let shown = url.hide_secrets(&format!("<Basic {encoded}> me:p%40ss-word, p@ss-word, me"));
        assert_eq!(shown, "<Basic ***> ***, ***, me");
        assert_eq!(parsed("http://proxy").hide_secrets("text"), "text");
    }

    #[test]
    fn this_machine_is_reached_without_the_proxy() {
        let proxy = Proxy::parse("proxy").unwrap();
        for (url, is_used) in
            [("http://localhost:1", false), ("https://127.0.0.2", false), ("http://10.0.0.1", true)]
        {
            assert_eq!(proxy.url_for(&Endpoint::parse(url).unwrap()).is_some(), is_used, "{url}");
        }
        assert!(Proxy::none().url_for(&Endpoint::parse("http://10.0.0.1").unwrap()).is_none());
    }
}
