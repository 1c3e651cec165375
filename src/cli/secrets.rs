//! Removal of secrets and terminal control characters from output.

use std::borrow::Cow;
use std::ffi::OsString;
use std::iter;

use memchr::{memchr, memchr2};
use ringlift::Redactor;

use super::escape::visible_lines;

/// Returns a redactor with the secrets of the environment and the command line. It is created before parsing,
/// because parse errors may repeat a secret. The client adds secrets from other places.
pub(super) fn known(argv: &[OsString], environment: impl Fn(&str) -> Option<String>) -> Redactor {
    let redactor = Redactor::new();
    if let Some(key) = environment("APIVIDEO_API_KEY") {
        // Trimmed, as the client does.
        redactor.add(&key.trim().into());
    }
    let argv: Vec<_> = argv.iter().map(|arg| arg.to_string_lossy()).collect();
    // The URL of a proxy needs no scheme.
    let follows = argv.windows(2).filter(|pair| pair[0] == "--proxy").map(|pair| &*pair[1]);
    let proxies = follows.chain(argv.iter().filter_map(|arg| arg.strip_prefix("--proxy=")));
    proxies.for_each(|url| redactor.add_userinfo_of(url));
    let typed = argv.iter();
    // `--endpoint-url=http://user:password@host`
    let urls = typed.filter(|arg| arg.contains("://") && arg.contains('@')).map(|arg| {
        arg.strip_prefix("--")
            .and_then(|flag| flag.split_once('='))
            .map_or(arg.to_string(), |(_, url)| url.into())
    });
    let proxies = URL_VARIABLES.iter().filter_map(|name| environment(name));
    urls.chain(proxies).for_each(|url| redactor.add_userinfo_of(&url));
    redactor
}

/// Returns `text` without secrets and terminal control characters. Line feeds and tabs stay.
pub(super) fn for_people(redactor: &Redactor, text: &str) -> String {
    visible_lines(&redactor.redact(text)).into_owned()
}

/// Returns a line of JSON with secrets removed from its strings. Keys and the event name are this program's
/// own and stay.
pub(super) fn for_machines<'l>(redactor: &Redactor, line: &'l str) -> Cow<'l, str> {
    let mut clean = String::new();
    let mut kept_from = 0;
    let mut key = "";
    for (start, end) in texts(line) {
        let text = &line[start..end];
        if line[end..].starts_with(':') {
            key = text;
            continue;
        }
        if key == "\"event\"" {
            continue;
        }
        let Some(read) = unescaped(text) else { continue };
        if let Cow::Owned(redacted) = redactor.redact(&read)
            && let Ok(written) = serde_json::to_string(&redacted)
        {
            clean += &line[kept_from..start];
            clean += &written;
            kept_from = end;
        }
    }
    let line = if kept_from == 0 { Cow::Borrowed(line) } else { Cow::Owned(clean + &line[kept_from..]) };
    escaped(line)
}

/// Returns the value of a string of JSON with its quotes; `None` if the string is malformed.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    // Most strings have no escape, and are their own value.
    if text.contains('\\') {
        return serde_json::from_str(text).ok().map(Cow::Owned);
    }
    text.get(1..text.len() - 1).map(Cow::Borrowed)
}

/// Returns the positions of the strings in a line of JSON, including their quotes. A string without an end is left out.
fn texts(line: &str) -> impl Iterator<Item = (usize, usize)> {
    let (bytes, mut at) = (line.as_bytes(), 0);
    iter::from_fn(move || {
        let start = at + memchr(b'"', &bytes[at..])?;
        let mut end = start + 1;
        loop {
            end += memchr2(b'"', b'\\', bytes.get(end..)?)?;
            if bytes[end] == b'"' {
                break;
            }
            // The escaped character is skipped with its backslash: it may be a quote.
            end += 2;
        }
        at = end + 1;
        Some((start, at))
    })
}

/// Escapes DEL and C1 controls, which JSON permits and terminals obey.
fn escaped(line: Cow<'_, str>) -> Cow<'_, str> {
    // In UTF-8 a C1 control begins with C2. A search for bytes takes a fraction of the time of one for characters.
    let may_be_control = |byte: &u8| byte.is_ascii_control() || *byte == 0xc2;
    if !line.as_bytes().iter().any(may_be_control) || !line.contains(char::is_control) {
        return line;
    }
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    line.chars().map(escape).collect::<String>().into()
}

/// Variables whose value may be a URL with a password.
const URL_VARIABLES: [&str; 8] = [
    "RINGLIFT_ENDPOINT_URL",
    "RINGLIFT_PROXY",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::new();
        redactor.add(&secret.into());
        redactor
    }

    #[test]
    fn redacted_json_stays_valid_for_every_secret() {
        for secret in ["sk/+\"\\é&", "\",\"", "\\\\\\\\u0041", "event", "title", "null", "{}[]", "\":\""] {
            let value = json!({"event": "event", "title": format!("a {secret} b"), "list": ["x", secret, 5]});
            let line = value.to_string();
            let clean = for_machines(&knowing(secret), &line).into_owned();
            let read: Value = serde_json::from_str(&clean).unwrap_or_else(|error| panic!("{error}: {clean}"));
            assert_eq!(read["event"], "event");
            if secret.chars().count() >= 4 {
                assert_eq!(
                    (&read["title"], &read["list"][1]),
                    (&json!("a *** b"), &json!("***")),
                    "{secret}"
                );
            }
        }
        let line = r#"{"event":"x","title":"nothing"}"#;
        assert!(matches!(for_machines(&knowing("hunter2"), line), Cow::Borrowed(_)));
    }

    #[test]
    fn control_characters_are_escaped_for_terminals_and_in_json() {
        let text = "a\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\rb\nc\td";
        assert_eq!(for_people(&Redactor::new(), text), "a\\u{1b}[31m\\u{7f}\\u{9b}2J\\u{202e}\\rb\nc\td");
        let line = json!({ "title": text }).to_string();
        let clean = for_machines(&Redactor::new(), &line);
        assert!(!clean.contains(char::is_control), "{clean:?}");
        assert_eq!(serde_json::from_str::<Value>(&clean).unwrap()["title"], text);
    }

    #[test]
    fn keys_and_passwords_are_redacted_before_parsing() {
        let environment = |name: &str| match name {
            "APIVIDEO_API_KEY" => Some("sk-live-1\n".to_owned()),
            "https_proxy" => Some("http://me:proxy-pass@proxy:3128".to_owned()),
            _ => None,
        };
        let argv = ["ringlift", "--endpoint-url=http://me:url-pass@host", "http://me:other-pass@host"];
        let redactor = known(&argv.map(OsString::from), environment);
        let text = "sk-live-1 proxy-pass url-pass other-pass";
        assert_eq!(for_people(&redactor, text), "*** *** *** ***");
        for argv in [&["--proxy", "me:typed-pass@proxy:3128"][..], &["--proxy=me:typed-pass@proxy"]] {
            let argv: Vec<_> = argv.iter().map(OsString::from).collect();
            assert_eq!(for_people(&known(&argv, |_| None), "typed-pass"), "***");
        }
    }
}
