//! The rules that decide who may see the monitor: the name in `Host`, the `Origin`, the token.
//!
//! A page on the internet can make a browser send requests to loopback, and can give its own domain the address
//! 127.0.0.1 (DNS rebinding). The browser then sends that domain in `Host`, or the page's address in `Origin`.

use std::fs;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::Authority;
use http::{HeaderMap, Uri, header};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use super::error::MonitorError;
use super::options::MonitorOptions;
use super::parameters::Parameters;

/// The rules of access to one monitor.
#[derive(Debug)]
pub(super) struct AccessRules {
    /// Accepted names in `Host`, in lower case.
    names: Vec<String>,
    is_loopback: bool,
    secrets: Option<Secrets>,
}

/// The token, and the value of the cookie that stands for it.
struct Secrets {
    token: String,
    cookie_name: String,
    cookie: String,
}

/// The reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no `Host`, or more than one, or it is not a name.
    NoHost,
    /// The name in `Host` does not belong to the monitor.
    ForeignHost,
    /// The request comes from another site.
    ForeignOrigin,
    /// The token is missing or wrong.
    Token,
}

/// The answer of the token rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Granted {
    /// The request is to be answered.
    Answer,
    /// The token was in the URL: the answer is a redirect to the same URL without it, with this cookie.
    Redirect {
        /// The value of `Set-Cookie`.
        cookie: String,
    },
}

impl AccessRules {
    /// Creates the rules of a monitor that listens on `port`. Generates a token beyond loopback if there is none.
    ///
    /// # Errors
    /// The token has other characters or another length, or the system returned no random bytes.
    pub(super) fn new(options: &MonitorOptions, port: u16) -> Result<AccessRules, MonitorError> {
        let is_loopback = options.listen.ip().is_loopback();
        let token = match &options.token {
            Some(token) if !is_token(token) => return Err(MonitorError::Token),
            Some(token) => Some(token.clone()),
            None if is_loopback => None,
            None => Some(random_token()?),
        };
        let mut names = vec!["localhost".to_owned()];
        names.extend(options.hosts.iter().map(|name| name.to_ascii_lowercase()));
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let machine = machine.trim().to_ascii_lowercase();
        // On loopback the machine's name leads elsewhere, unless a resolver or an attacker says otherwise.
        names.extend((!is_loopback && !machine.is_empty()).then_some(machine));
        Ok(AccessRules { names, is_loopback, secrets: token.map(|token| Secrets::new(token, port)) })
    }

    /// Returns the token; `None` if none is needed.
    pub(super) fn token(&self) -> Option<&str> {
        self.secrets.as_ref().map(|secrets| &*secrets.token)
    }

    /// Checks that a request is for this monitor, and comes from its own page or from no page.
    pub(super) fn check_origin(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refused> {
        let mut hosts = headers.get_all(header::HOST).iter();
        // RFC 9112, 3.2: more than one `Host` is a bad request.
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refused::NoHost) };
        let host: Authority = host.to_str().ok().and_then(|host| host.parse().ok()).ok_or(Refused::NoHost)?;
        // RFC 9112, 3.2.2: in the absolute form the URL overrides `Host`. Both must be right here.
        if !self.is_own(&host) || uri.authority().is_some_and(|authority| !self.is_own(authority)) {
            return Err(Refused::ForeignHost);
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        // The scheme may differ: a reverse proxy may add TLS.
        match origin {
            Some(("http" | "https", site)) if site.eq_ignore_ascii_case(host.as_str()) => Ok(()),
            _ => Err(Refused::ForeignOrigin),
        }
    }

    /// Checks the token of a request.
    pub(super) fn check_token(
        &self,
        headers: &HeaderMap,
        parameters: Parameters<'_>,
    ) -> Result<Granted, Refused> {
        let Some(secrets) = &self.secrets else { return Ok(Granted::Answer) };
        // A token in the URL goes first, so that a wrong one is never accepted because of an old cookie.
        if let Some(token) = parameters.get("token") {
            return if is_equal(&token, &secrets.token) {
                Ok(Granted::Redirect { cookie: secrets.set_cookie() })
            } else {
                Err(Refused::Token)
            };
        }
        let bearer =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
        let has_bearer = bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && is_equal(token.trim(), &secrets.token)
        });
        if has_bearer || secrets.is_in_cookies(headers) { Ok(Granted::Answer) } else { Err(Refused::Token) }
    }

    fn is_own(&self, host: &Authority) -> bool {
        // User information in a host is the trick of a deceptive link.
        if host.as_str().contains('@') {
            return false;
        }
        let name = host.host();
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An attacker cannot rebind an address, only a name.
            Ok(ip) => !self.is_loopback || ip.is_loopback(),
            Err(_) => {
                // A dot at the end makes the name absolute and leads to the same host.
                let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                self.names.contains(&name)
            }
        }
    }
}

impl Secrets {
    fn new(token: String, port: u16) -> Secrets {
        // The browser keeps a digest, so that the token itself is in no profile.
        let hash = digest(&SHA256, format!("ringlift monitor cookie {token}").as_bytes());
        // Cookies are shared by all ports of a host: two monitors would overwrite each other's.
        let cookie_name = format!("ringlift-monitor-{port}");
        Secrets { token, cookie_name, cookie: URL_SAFE_NO_PAD.encode(hash) }
    }

    /// Returns a cookie that ends with the browser's session. Not `Secure`: the monitor speaks plain HTTP.
    fn set_cookie(&self) -> String {
        format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name, self.cookie)
    }

    fn is_in_cookies(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|value| value.split(';')).any(|cookie| {
            let cookie = cookie.trim().split_once('=');
            cookie.is_some_and(|(name, value)| name == self.cookie_name && is_equal(value, &self.cookie))
        })
    }
}

/// Omits the secrets.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

fn is_token(token: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (16..=256).contains(&token.len()) && token.bytes().all(is_plain)
}

// 192 bits, which make 32 characters without padding.
fn random_token() -> Result<String, MonitorError> {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MonitorError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Compares in a time that does not depend on the first difference.
fn is_equal(given: &str, expected: &str) -> bool {
    given.as_bytes().ct_eq(expected.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn rules(listen: &str) -> AccessRules {
        let mut options = MonitorOptions::new(listen.parse().unwrap());
        options.hosts = vec!["Films.Example".to_owned()];
        AccessRules::new(&options, 9000).unwrap()
    }

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[track_caller]
    fn check(rules: &AccessRules, host: &str, origin: Option<&str>, expected: Result<(), Refused>) {
        let mut headers = headers(&[(header::HOST, host)]);
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        assert_eq!(rules.check_origin(&headers, &Uri::from_static("/")), expected, "{host} {origin:?}");
    }

    #[test]
    fn loopback_is_reached_by_its_own_names_only() {
        let rules = rules("127.0.0.1:9000");
        for host in
            ["localhost:9000", "LOCALHOST", "127.0.0.1:9000", "[::1]:1", "localhost.", "films.example"]
        {
            check(&rules, host, None, Ok(()));
        }
        for host in [
            "evil.example",
            "10.0.0.1:9000",
            "localhost.evil.example",
            "a@localhost",
            "127.0.0.1.evil.example",
        ] {
            check(&rules, host, None, Err(Refused::ForeignHost));
        }
        check(&rules, "", None, Err(Refused::NoHost));
        assert_eq!(rules.check_origin(&HeaderMap::new(), &Uri::from_static("/")), Err(Refused::NoHost));
        let own = headers(&[(header::HOST, "localhost")]);
        let absolute = Uri::from_static("http://evil.example/");
        assert_eq!(rules.check_origin(&own, &absolute), Err(Refused::ForeignHost));
    }

    #[test]
    fn another_page_is_refused() {
        let rules = rules("127.0.0.1:9000");
        check(&rules, "localhost:9000", Some("http://localhost:9000"), Ok(()));
        for origin in ["http://localhost:9001", "http://evil.example", "null", "file://localhost:9000", "x"] {
            check(&rules, "localhost:9000", Some(origin), Err(Refused::ForeignOrigin));
        }
    }

    #[test]
    fn beyond_loopback_any_address_is_accepted_and_a_token_is_generated() {
        let rules = rules("0.0.0.0:9000");
        check(&rules, "10.0.0.1:9000", None, Ok(()));
        check(&rules, "evil.example", None, Err(Refused::ForeignHost));
        assert!(is_token(rules.token().unwrap()));
        assert_ne!(rules.token(), self::rules("0.0.0.0:9000").token());
    }

    #[test]
    fn a_cookie_stands_for_the_token_and_is_not_the_token() {
        let rules = rules("0.0.0.0:9000");
        let token = rules.token().unwrap();
        let query = format!("token={token}");
        let granted = rules.check_token(&HeaderMap::new(), Parameters::new(Some(&query)));
        let Ok(Granted::Redirect { cookie }) = granted else { panic!("{granted:?}") };
        assert!(!cookie.contains(token) && cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
        let cookie = format!("other=1; {}", cookie.split(';').next().unwrap());
        let with_cookie = headers(&[(header::COOKIE, &cookie)]);
        assert_eq!(rules.check_token(&with_cookie, Parameters::new(None)), Ok(Granted::Answer));
        let wrong = Parameters::new(Some("token=no"));
        assert_eq!(rules.check_token(&with_cookie, wrong), Err(Refused::Token));
        let as_cookie = headers(&[(header::COOKIE, &format!("ringlift-monitor-9000={token}"))]);
        assert_eq!(rules.check_token(&as_cookie, Parameters::new(None)), Err(Refused::Token));
    }

    #[test]
    fn tokens_fit_into_urls_and_headers() {
        let mut options = MonitorOptions::new("127.0.0.1:0".parse().unwrap());
        for token in ["", "short", "0123456789abcde;", "0123456789 abcdef"] {
            options.token = Some(token.to_owned());
            assert!(matches!(AccessRules::new(&options, 1), Err(MonitorError::Token)), "{token}");
        }
    }
}
