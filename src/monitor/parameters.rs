//! The parameters in the query of a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The parameters of a query, encoded as they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters<'a>(&'a str);

impl<'a> Parameters<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Parameters<'a> {
        Parameters(query.unwrap_or_default())
    }

    /// Returns the decoded value of the first parameter with this name; `None` if there is none. Bytes that are not
    /// UTF-8 are replaced.
    pub(super) fn get(self, name: &str) -> Option<String> {
        let (_, value) = self.pairs().find(|(found, _)| *found == name)?;
        // A form writes a space as `+`.
        Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
    }

    /// Returns the query without the parameters of this name.
    pub(super) fn without(self, name: &str) -> String {
        let kept = self.0.split('&').filter(|pair| pair.split('=').next() != Some(name));
        kept.collect::<Vec<_>>().join("&")
    }

    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }
}

/// Encodes a text as the value of a parameter.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parameter_is_removed_wherever_it_stands() {
        for (query, rest) in [("token=a", ""), ("a=1&token=x&b=2", "a=1&b=2"), ("tokens=1&token", "tokens=1")]
        {
            assert_eq!(Parameters::new(Some(query)).without("token"), rest);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_in_a_query(text in ".*", other in "[a-z]*") {
            let query = format!("a={other}&search={}&b", encoded(&text));
            prop_assert_eq!(Parameters::new(Some(&query)).get("search"), Some(text));
            prop_assert_eq!(Parameters::new(Some(&query)).get("b"), Some(String::new()));
            prop_assert_eq!(Parameters::new(Some(&query)).get("c"), None);
        }
    }
}
