//! The cookies of an endpoint, sent back to it (RFC 6265): load balancers keep a client at one server by them.

use std::sync::{Mutex, PoisonError};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use super::endpoint::Endpoint;

/// The cookies that one endpoint has set. They are sent to that endpoint only and are not stored.
#[derive(Debug, Default)]
pub(super) struct Cookies(Mutex<Vec<Cookie>>);

#[derive(Clone, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: String,
    path: String,
}

impl Cookies {
    /// Stores the cookies of an answer to a request for `target`.
    pub(super) fn take(&self, headers: &HeaderMap, endpoint: &Endpoint, target: &str) {
        for header in headers.get_all(SET_COOKIE) {
            let Some((cookie, is_dropped)) =
                header.to_str().ok().and_then(|text| read(text, endpoint, target))
            else {
                continue;
            };
            let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // RFC 6265, section 5.3: a cookie with the same name and path replaces the older one.
            cookies.retain(|other| (&other.name, &other.path) != (&cookie.name, &cookie.path));
            // The bound keeps a server from filling memory and every request's head.
            if !is_dropped && cookies.len() < MOST_COOKIES {
                cookies.push(cookie);
            }
        }
    }

    /// Returns the `Cookie` header of a request for `target`; `None` if no cookie applies.
    pub(super) fn header(&self, target: &str) -> Option<HeaderValue> {
        let cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = cookies.iter().filter(|cookie| is_below(target, &cookie.path));
        let pairs: Vec<_> = pairs.map(|Cookie { name, value, .. }| format!("{name}={value}")).collect();
        let mut header = HeaderValue::try_from(pairs.join("; ")).ok().filter(|_| !pairs.is_empty())?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// A cookie may stand for a session, so that its value is a secret.
impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookie").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

/// Parses `Set-Cookie` into the cookie and `true` if it is deleted. `None` for a cookie of another endpoint.
fn read(text: &str, endpoint: &Endpoint, target: &str) -> Option<(Cookie, bool)> {
    let mut parts = text.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let mut path = default_path(target);
    let mut is_dropped = value.is_empty();
    for attribute in parts {
        // An attribute such as `Secure` has no value.
        let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match key.trim_end().to_ascii_lowercase().as_str() {
            "domain" if !is_domain_of(value.trim(), endpoint.host()) => return None,
            // A `Secure` cookie is for connections with TLS only (RFC 6265, section 5.4).
            "secure" if !endpoint.is_tls() => return None,
            "path" if value.trim().starts_with('/') => path = value.trim().to_owned(),
            "max-age" => is_dropped |= value.trim().parse::<i64>().is_ok_and(|seconds| seconds <= 0),
            // Servers delete a cookie by a date in the past, in practice the first one of 1970. Dates are not
            // parsed otherwise.
            "expires" => is_dropped |= value.contains("1970"),
            _ => {}
        }
    }
    let is_sensible = !name.is_empty() && name.len() + value.len() <= MOST_BYTES;
    is_sensible.then(|| (Cookie { name: name.to_owned(), value: value.to_owned(), path }, is_dropped))
}

/// Returns `true` if the host is `domain` or a subdomain of it (RFC 6265, section 5.1.3).
fn is_domain_of(domain: &str, host: &str) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    let is_below = || host.strip_suffix(&*domain).is_some_and(|below| below.ends_with('.'));
    host == domain || is_below()
}

/// Returns the directory of the request's path (RFC 6265, section 5.1.4).
fn default_path(target: &str) -> String {
    let directory = path_of(target).rsplit_once('/').map_or("", |(directory, _)| directory);
    if directory.is_empty() { "/".to_owned() } else { directory.to_owned() }
}

fn is_below(target: &str, path: &str) -> bool {
    let rest = path_of(target).strip_prefix(path);
    // `/a` matches `/a` and `/a/b`, and not `/ab` (RFC 6265, section 5.1.4).
    rest.is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
}

fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// More than a load balancer and its firewall set.
const MOST_COOKIES: usize = 16;

/// The length that browsers accept at least (RFC 6265, section 6.1).
const MOST_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// The header for `target` after an answer to `/a/b` with these cookies.
    fn header(url: &str, set: &[&str], target: &str) -> Option<String> {
        let cookies = Cookies::default();
        let endpoint = Endpoint::parse(url).unwrap();
        for text in set {
            let headers = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_str(text).unwrap())]);
            cookies.take(&headers, &endpoint, "/a/b?c");
        }
        cookies.header(target).map(|header| header.to_str().unwrap().to_owned())
    }

    const URL: &str = "https://ws.api.test";

    #[test]
    fn cookies_go_back_to_the_paths_that_they_are_for() {
        let set = ["one=1; Path=/; HttpOnly", "two=2=2", "three=3;path=/a/b", "four=4; Path=/a/bc"];
        assert_eq!(header(URL, &set, "/a/b?x").as_deref(), Some("one=1; two=2=2; three=3"));
        assert_eq!(header(URL, &set, "/").as_deref(), Some("one=1"));
        assert_eq!(header(URL, &set[1..], "/ab"), None);
        assert_eq!(header(URL, &[], "/"), None);
    }

    #[test]
    fn the_latest_value_counts_and_deleted_cookies_are_gone() {
        assert_eq!(header(URL, &["a=1; path=/", "a=2; path=/"], "/").as_deref(), Some("a=2"));
        for dropped in
            ["a=; path=/", "a=2; path=/; Max-Age=0", "a=2; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]
        {
            assert_eq!(header(URL, &["a=1; path=/", dropped], "/"), None, "{dropped}");
        }
    }

    #[test]
    fn cookies_of_others_are_not_taken() {
        for set in ["a=1; Domain=other.test", "a=1; domain=xapi.test", "a=1; domain=x.ws.api.test", "=1", "a"]
        {
            assert_eq!(header(URL, &[set], "/a/b"), None, "{set}");
        }
        assert!(header(URL, &["a=1; Domain=.API.test"], "/a/b").is_some());
        assert_eq!(header("http://ws.api.test", &["a=1; Secure"], "/a/b"), None);
        let long = format!("a={}", "x".repeat(MOST_BYTES));
        assert_eq!(header(URL, &[&long], "/a/b"), None);
    }

    #[test]
    fn their_number_is_bounded_and_no_value_is_shown() {
        let set: Vec<_> = (0..100).map(|i| format!("n{i}=hunter2")).collect();
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        assert_eq!(header(URL, &set, "/a/b").unwrap().split("; ").count(), MOST_COOKIES);
        let (cookie, _) = read("a=hunter2", &Endpoint::parse(URL).unwrap(), "/").unwrap();
        assert!(!format!("{cookie:?}").contains("hunter2"));
    }
}
