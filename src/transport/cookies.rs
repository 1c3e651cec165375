//! The cookies of an endpoint, sent back to it (RFC 6265): load balancers keep a client at one server by them.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::retry_after::sent_at;

/// The cookies that one endpoint has set. They are sent to that endpoint only and are not stored.
#[derive(Debug, Default)]
pub(super) struct Cookies(Mutex<Vec<Cookie>>);

#[derive(Clone, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: String,
    path: String,
    /// The time from which the cookie is not sent; `None` for as long as the process runs.
    expires: Option<Instant>,
}

impl Cookies {
    /// Stores the cookies of an answer, received at `now`, to a request for `target`.
    pub(super) fn take(&self, headers: &HeaderMap, endpoint: &Endpoint, target: &str, now: Instant) {
        for header in headers.get_all(SET_COOKIE) {
            let text = header.to_str().ok();
            let read = text.and_then(|text| read(text, endpoint, target, || sent_at(headers)));
            let Some((mut cookie, lifetime)) = read else { continue };
            // A time beyond the clock's range is never reached.
            cookie.expires = lifetime.and_then(|lifetime| now.checked_add(lifetime));
            let mut cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // RFC 6265, section 5.3: a cookie with the same name and path replaces the older one. Expired ones must not
            // take up room.
            cookies.retain(|other| {
                other.is_valid(now) && (&other.name, &other.path) != (&cookie.name, &cookie.path)
            });
            // The bound keeps a server from filling memory and every request's head.
            if cookie.is_valid(now) && cookies.len() < MOST_COOKIES {
                cookies.push(cookie);
            }
        }
    }

    /// Returns the `Cookie` header of a request for `target` at `now`; `None` if no cookie applies.
    pub(super) fn header(&self, target: &str, now: Instant) -> Option<HeaderValue> {
        let cookies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = cookies.iter().filter(|cookie| cookie.is_valid(now) && is_below(target, &cookie.path));
        let pairs: Vec<_> = pairs.map(|Cookie { name, value, .. }| format!("{name}={value}")).collect();
        let mut header = HeaderValue::try_from(pairs.join("; ")).ok().filter(|_| !pairs.is_empty())?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl Cookie {
    fn is_valid(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// A cookie may stand for a session, so that its value is a secret.
impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookie").field("name", &self.name).field("path", &self.path).finish_non_exhaustive()
    }
}

/// Parses `Set-Cookie` into the cookie and its lifetime: zero for a cookie that is deleted, `None` for one that lasts as
/// long as the process. Returns `None` for a cookie of another endpoint.
///
/// The last of repeated attributes counts (RFC 6265, section 5.3).
fn read(
    text: &str,
    endpoint: &Endpoint,
    target: &str,
    sent_at: impl Fn() -> SystemTime,
) -> Option<(Cookie, Option<Duration>)> {
    let mut parts = text.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let (mut domain, mut path, mut max_age, mut until_date) = ("", "", None, None);
    for attribute in parts {
        // An attribute such as `Secure` has no value.
        let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim();
        match key.trim_end().to_ascii_lowercase().as_str() {
            // Section 5.2.3: an empty domain is ignored, and so is a dot in front.
            "domain" if !value.is_empty() => domain = value.strip_prefix('.').unwrap_or(value),
            // A `Secure` cookie is for connections with TLS only (section 5.4).
            "secure" if !endpoint.is_tls() => return None,
            "path" => path = value,
            "max-age" => max_age = age(value).or(max_age),
            "expires" => {
                until_date =
                    date(value).map(|date| date.duration_since(sent_at()).unwrap_or_default()).or(until_date);
            }
            _ => {}
        }
    }
    let is_ours = domain.is_empty() || is_domain_of(domain, endpoint.host());
    if !is_ours || name.is_empty() || name.len() + value.len() > MOST_BYTES {
        return None;
    }
    // Section 5.2.4: a path that is not absolute counts as absent.
    let path = if path.starts_with('/') { path.to_owned() } else { default_path(target) };
    // Section 5.3: `Max-Age` has precedence over `Expires`. An empty value is how some servers delete a cookie.
    let lifetime = if value.is_empty() { Some(Duration::ZERO) } else { max_age.or(until_date) };
    Some((Cookie { name: name.to_owned(), value: value.to_owned(), path, expires: None }, lifetime))
}

/// Parses a date of HTTP, also with the hyphens that servers write into those of cookies: `Thu, 01-Jan-1970 00:00:00 GMT`.
fn date(value: &str) -> Option<SystemTime> {
    let date = httpdate::parse_http_date(value);
    date.or_else(|_| httpdate::parse_http_date(&value.replace('-', " "))).ok()
}

/// Parses `Max-Age`: seconds, which are zero or negative for a cookie that is deleted. `None` for any other text (RFC
/// 6265, section 5.2.2).
fn age(value: &str) -> Option<Duration> {
    let (digits, is_negative) = value.strip_prefix('-').map_or((value, false), |digits| (digits, true));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // A number with too many digits is still one, and is longer than any process runs.
    let seconds = if is_negative { 0 } else { digits.parse().unwrap_or(u64::MAX) };
    is_number.then_some(Duration::from_secs(seconds))
}

/// Returns `true` if the host is `domain` or a subdomain of it (RFC 6265, section 5.1.3). An address has no subdomains.
fn is_domain_of(domain: &str, host: &str) -> bool {
    let (domain, host) = (domain.to_ascii_lowercase(), host.trim_end_matches('.'));
    let is_below = || host.strip_suffix(&*domain).is_some_and(|below| below.ends_with('.'));
    host == domain || host.parse::<IpAddr>().is_err() && is_below()
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
    use http::header::DATE;

    use super::*;

    /// Returns the header for `target` after answers to `/a/b` with these cookies.
    fn header(url: &str, set: &[&str], target: &str) -> Option<String> {
        header_after(Duration::ZERO, url, set, target)
    }

    /// Returns the same `later` than the answers.
    fn header_after(later: Duration, url: &str, set: &[&str], target: &str) -> Option<String> {
        let cookies = Cookies::default();
        let (endpoint, now) = (Endpoint::parse(url).unwrap(), Instant::now());
        for text in set {
            let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:07 GMT");
            let set = [(DATE, date), (SET_COOKIE, HeaderValue::from_str(text).unwrap())];
            cookies.take(&set.into_iter().collect(), &endpoint, "/a/b?c", now);
        }
        cookies.header(target, now + later).map(|header| header.to_str().unwrap().to_owned())
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
    fn a_lifetime_ends_by_max_age_or_else_by_the_date_and_the_clock_of_the_server() {
        let hour = Duration::from_secs(3600);
        for (attributes, lasts) in [
            ("Max-Age=3600", Some(hour)),
            ("Expires=Sun, 06 Nov 1994 09:49:07 GMT", Some(hour)),
            ("Expires=Sunday, 06-Nov-94 09:49:07 GMT", Some(hour)),
            ("Expires=Sun, 06-Nov-1994 09:49:07 GMT", Some(hour)),
            ("Max-Age=3600; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some(hour)),
            ("Expires=Thu, 01 Jan 1970 00:00:00 GMT; max-age=3600", Some(hour)),
            ("Max-Age=0; Expires=Sun, 06 Nov 2094 08:49:07 GMT", Some(Duration::ZERO)),
            ("Max-Age=60; Max-Age=3600; Max-Age=soon", Some(hour)),
            ("Max-Age=-1", Some(Duration::ZERO)),
            ("Expires=Sat, 05 Nov 1994 08:49:07 GMT", Some(Duration::ZERO)),
            ("Max-Age=99999999999999999999999", None),
            ("Max-Age=", None),
            ("Max-Age=-", None),
            ("Max-Age=+0", None),
            ("Expires=later", None),
            ("Expires=0", None),
        ] {
            let set = format!("a=1; path=/; {attributes}");
            let is_sent = |later| header_after(later, URL, &[&set], "/").is_some();
            let second = Duration::from_secs(1);
            match lasts {
                Some(end) => {
                    assert!(end.is_zero() || is_sent(end - second), "{attributes}");
                    assert!(!is_sent(end), "{attributes}");
                }
                None => assert!(is_sent(10_000 * hour), "{attributes}"),
            }
        }
    }

    #[test]
    fn an_empty_domain_or_path_counts_as_absent() {
        for set in ["a=1; Domain=", "a=1; Domain", "a=1; Domain=.", "a=1; Path=", "a=1; Path=/x; path=b"] {
            assert_eq!(header(URL, &[set], "/a/b").as_deref(), Some("a=1"), "{set}");
            assert_eq!(header(URL, &[set], "/"), None, "{set}");
        }
        let set = "a=1; Domain=other.test; Domain=api.test";
        assert!(header(URL, &[set], "/a/b").is_some(), "the last domain counts");
        assert!(header("https://ws.api.test.", &["a=1; Domain=api.test"], "/a/b").is_some());
    }

    #[test]
    fn expired_cookies_make_room_for_new_ones() {
        let cookies = Cookies::default();
        let (endpoint, now) = (Endpoint::parse(URL).unwrap(), Instant::now());
        let take = |text: String, now| {
            let set = (SET_COOKIE, HeaderValue::from_str(&text).unwrap());
            cookies.take(&HeaderMap::from_iter([set]), &endpoint, "/", now);
        };
        (0..MOST_COOKIES).for_each(|i| take(format!("n{i}=1; Max-Age=60"), now));
        let later = now + Duration::from_secs(60);
        take("a=1".to_owned(), later);
        assert_eq!(cookies.header("/", later).unwrap(), "a=1");
    }

    #[test]
    fn cookies_of_others_are_not_taken() {
        for set in ["a=1; Domain=other.test", "a=1; domain=xapi.test", "a=1; domain=x.ws.api.test", "=1", "a"]
        {
            assert_eq!(header(URL, &[set], "/a/b"), None, "{set}");
        }
        assert!(header(URL, &["a=1; Domain=.API.test"], "/a/b").is_some());
        assert_eq!(header("http://ws.api.test", &["a=1; Secure"], "/a/b"), None);
        assert_eq!(header("https://10.1.2.3", &["a=1; Domain=2.3"], "/a/b"), None);
        assert!(header("https://10.1.2.3", &["a=1; Domain=10.1.2.3"], "/a/b").is_some());
        let long = format!("a={}", "x".repeat(MOST_BYTES));
        assert_eq!(header(URL, &[&long], "/a/b"), None);
    }

    #[test]
    fn their_number_is_bounded_and_no_value_is_shown() {
        let set: Vec<_> = (0..100).map(|i| format!("n{i}=hunter2")).collect();
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        assert_eq!(header(URL, &set, "/a/b").unwrap().split("; ").count(), MOST_COOKIES);
        let endpoint = Endpoint::parse(URL).unwrap();
        let (cookie, _) = read("a=hunter2", &endpoint, "/", || SystemTime::UNIX_EPOCH).unwrap();
        assert!(!format!("{cookie:?}").contains("hunter2"));
    }
}
