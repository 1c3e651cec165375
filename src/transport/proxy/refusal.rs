//! A proxy's refusal: its status and its words.

use std::fmt;
use std::time::Duration;

use http::header::{PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use crate::transport::retry_after::requested_wait;

/// A proxy's refusal to open a connection or to pass on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyRefusal {
    /// The HTTP status.
    pub status: u16,
    /// The reason in the proxy's own words, on one line and cut to 300 characters.
    pub words: Option<String>,
    /// The login that the proxy requests.
    pub login: ProxyLogin,
    /// The wait before another attempt that the proxy requests, at most a day.
    pub retry_after: Option<Duration>,
}

/// The login that a proxy requests with status 407 or 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyLogin {
    /// None.
    NotRequested,
    /// User name and password (`Basic`, or no scheme that is named).
    Password,
    /// Only schemes that are not supported, such as NTLM and Negotiate.
    Unsupported,
}

impl ProxyRefusal {
    /// Returns the refusal in an answer's head and the beginning of its body.
    pub(in crate::transport) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProxyRefusal {
        let header = |name: &str| headers.get(name).and_then(|value| line(value.as_bytes()));
        // RFC 9209 defines a header for the reason. squid names its error page in a header of its own.
        let words =
            header("proxy-status").or_else(|| header("x-squid-error")).or_else(|| line(&text_of(body)));
        ProxyRefusal {
            status: status.as_u16(),
            words,
            login: login(status, headers),
            retry_after: requested_wait(headers, &RETRY_AFTER),
        }
    }

    /// Returns `true` if the same request may succeed later without any change.
    pub fn is_temporary(&self) -> bool {
        // 501 and 505 state what the proxy cannot do, which no wait changes.
        matches!(self.status, 408 | 425 | 429 | 500 | 502..=504 | 506..)
    }

    /// Returns `true` if the proxy may take the same request in absolute form, because it allows CONNECT to some ports
    /// only, or not at all.
    pub(super) fn is_of_connect(&self) -> bool {
        matches!(self.status, 400 | 403 | 404 | 405 | 501)
    }
}

/// Writes `403 Forbidden: the words`.
impl fmt::Display for ProxyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        self.words.iter().try_for_each(|words| write!(f, ": {words}"))
    }
}

fn login(status: StatusCode, headers: &HeaderMap) -> ProxyLogin {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {}
        // tinyproxy answers 401 to wrong credentials, and 407 only to missing ones.
        StatusCode::UNAUTHORIZED => return ProxyLogin::Password,
        _ => return ProxyLogin::NotRequested,
    }
    let offered = headers.get_all(PROXY_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let offered = offered.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let knows_basic = offered.split([',', ' ']).any(|word| word == "basic");
    if knows_basic || offered.is_empty() { ProxyLogin::Password } else { ProxyLogin::Unsupported }
}

/// Returns the text of a page without its tags, styles and scripts. Other text stays unchanged.
fn text_of(body: &[u8]) -> Vec<u8> {
    let page = String::from_utf8_lossy(body);
    if !page.trim_start().starts_with('<') {
        return body.to_vec();
    }
    let mut text = String::new();
    let mut hidden = None;
    for (index, piece) in page.split('<').enumerate() {
        // The page was cut at a limit, which may lie within a tag.
        let (tag, after) =
            if index == 0 { ("", piece) } else { piece.split_once('>').unwrap_or((piece, "")) };
        let tag = tag.to_ascii_lowercase();
        match hidden {
            Some(end) if tag.starts_with(end) => hidden = None,
            Some(_) => continue,
            None => hidden = HIDDEN.iter().find(|(start, _)| tag.starts_with(start)).map(|(_, end)| *end),
        }
        if hidden.is_none() {
            text.push(' ');
            text.push_str(after);
        }
    }
    text.into_bytes()
}

/// Returns the text on one line without control characters; `None` if nothing is left.
fn line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line: String = words.join(" ").chars().take(MAX_WORDS_CHARS).collect();
    (!line.is_empty()).then_some(line)
}

/// The elements of a page whose content is not text.
const HIDDEN: [(&str, &str); 3] = [("style", "/style"), ("script", "/script"), ("title", "/title")];

const MAX_WORDS_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)], body: &str) -> ProxyRefusal {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        ProxyRefusal::new(StatusCode::from_u16(status).unwrap(), &headers.collect(), body.as_bytes())
    }

    #[test]
    fn the_words_come_from_the_most_exact_place() {
        let page = "<html><head><title>ERROR</title><style>a {b}</style></head>\n<body><h1>Access denied</h1>\
                    <p>by\tpolicy\u{1b}[31m 7</p></body></html>";
        let status = ("proxy-status", "corp; error=dns_error");
        let squid = ("x-squid-error", "ERR_DNS_FAIL 0");
        assert_eq!(refusal(502, &[status, squid], page).words.as_deref(), Some("corp; error=dns_error"));
        assert_eq!(refusal(503, &[squid], page).words.as_deref(), Some("ERR_DNS_FAIL 0"));
        assert_eq!(refusal(403, &[], page).words.as_deref(), Some("Access denied by policy [31m 7"));
        assert_eq!(refusal(403, &[], "no <b> here").to_string(), "403 Forbidden: no <b> here");
        assert_eq!(refusal(499, &[], " \r\n").to_string(), "499");
        assert_eq!(refusal(403, &[], &"ü".repeat(4000)).words.unwrap().chars().count(), MAX_WORDS_CHARS);
        for odd in ["<", "<style", "<style>", "<a<b>c", "<script>a</script"] {
            refusal(403, &[], odd);
        }
    }

    #[test]
    fn a_login_without_basic_is_not_supported() {
        let offered = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("proxy-authenticate", *value)).collect();
            refusal(407, &headers, "").login
        };
        assert_eq!(offered(&["NTLM", "Negotiate"]), ProxyLogin::Unsupported);
        assert_eq!(offered(&["Negotiate, Basic realm=\"x\""]), ProxyLogin::Password);
        assert_eq!(offered(&["NTLM", "BASIC realm=\"x\""]), ProxyLogin::Password);
        assert_eq!(offered(&[]), ProxyLogin::Password);
        assert_eq!(refusal(401, &[], "").login, ProxyLogin::Password);
        assert_eq!(refusal(403, &[("proxy-authenticate", "NTLM")], "").login, ProxyLogin::NotRequested);
    }

    #[test]
    fn only_failures_of_the_moment_are_temporary() {
        for status in [408, 429, 500, 502, 503, 504, 511] {
            assert!(refusal(status, &[], "").is_temporary(), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 407, 501, 505] {
            assert!(!refusal(status, &[], "").is_temporary(), "{status}");
        }
    }

    #[test]
    fn the_wait_is_a_number_of_seconds_or_a_date_and_bounded() {
        let wait = |value: &str| {
            let headers = [("date", "Sun, 06 Nov 1994 08:49:07 GMT"), ("retry-after", value)];
            refusal(503, &headers, "").retry_after.map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        for later in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(wait(later), Some(30), "{later}");
        }
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:07 GMT"), Some(0), "a date that has passed");
        let (day, longest) = (24 * 3600, u64::MAX.to_string());
        assert_eq!((wait("Mon, 06 Nov 1995 08:49:07 GMT"), wait(&longest)), (Some(day), Some(day)));
        assert_eq!((wait("soon"), wait("-1"), wait("")), (None, None, None));
    }
}
