//! Paths and query strings.

use std::fmt::{Display, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Builds a path with a query string.
#[derive(Debug)]
pub(super) struct PathBuilder {
    path: String,
    separator: char,
}

impl PathBuilder {
    /// Starts without a parameter.
    pub(super) fn new(path: &str) -> PathBuilder {
        PathBuilder { path: path.to_owned(), separator: '?' }
    }

    /// Adds `key=value`.
    pub(super) fn add(mut self, key: &str, value: impl Display) -> PathBuilder {
        let (key, value) = (escape(key), escape(&value.to_string()));
        // Writing to a string cannot fail.
        let _ = write!(self.path, "{}{key}={value}", self.separator);
        self.separator = '&';
        self
    }

    /// Adds `key=value` for every value.
    pub(super) fn add_all<V: Display>(self, key: &str, values: impl IntoIterator<Item = V>) -> PathBuilder {
        values.into_iter().fold(self, |query, value| query.add(key, value))
    }

    /// Returns the path with its query string.
    pub(super) fn into_path(self) -> String {
        self.path
    }
}

/// Escapes `text` to be one segment of a path, or one key or value of a query string.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// All but the unreserved characters (RFC 3986, section 2.3). The dot is escaped too, because `..` is a step up.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_stay_what_they_are() {
        let query =
            PathBuilder::new("/videos").add_all("tags[]", ["a b", "c&d=é"]).add("currentPage", 2).into_path();
        assert_eq!(query, "/videos?tags%5B%5D=a%20b&tags%5B%5D=c%26d%3D%C3%A9&currentPage=2");
        assert_eq!(PathBuilder::new("/videos").into_path(), "/videos");
        assert_eq!(escape("../a?b#c"), "%2E%2E%2Fa%3Fb%23c");
    }
}
