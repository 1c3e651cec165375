//! The query of a URL, decoded.

use percent_encoding::percent_decode_str;

use super::problem::ProblemDetails;

/// The decoded names and values in their order.
pub(super) struct QueryString(Vec<(String, String)>);

impl QueryString {
    pub(super) fn parse(query: Option<&str>) -> QueryString {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        QueryString(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(decode_pair).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// Returns the values of `name[]`, repeated or numbered.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.keyed(name).map(|(_, value)| value)
    }

    /// Returns the keys and values of `name[key]=value`.
    pub(super) fn keyed(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(move |(found, value)| {
            let key = found.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((key, &**value))
        })
    }

    /// Returns a number from `min` to `max`, both inclusive.
    pub(super) fn number(
        &self,
        name: &'static str,
        default: u64,
        min: u64,
        max: u64,
    ) -> Result<u64, ProblemDetails> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| {
            let title = "This parameter is out of the allowed range of values.";
            ProblemDetails::bad_request("invalid-query-parameter", title).named(name).range(min, max)
        })
    }

    /// Returns one of the given words; the first is the default.
    pub(super) fn word(
        &self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str, ProblemDetails> {
        let asked = self.get(name).unwrap_or(words[0]);
        words.iter().find(|word| **word == asked).copied().ok_or_else(|| {
            let title = "This parameter has a value that is not allowed.";
            ProblemDetails::bad_request("invalid-query-parameter", title)
                .named(name)
                .detail(format!("One of: {}.", words.join(", ")))
        })
    }
}

fn decode_pair((name, value): (&str, &str)) -> (String, String) {
    (decode(name), decode(value))
}

fn decode(text: &str) -> String {
    // A form writes a space as `+`.
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_keys_are_parsed_encoded_or_not() {
        let query =
            QueryString::parse(Some("title=a+b%2Fc&tags[]=x&tags%5B%5D=y&metadata[k]=v&pageSize=7&broken"));
        assert_eq!(query.get("title"), Some("a b/c"));
        assert_eq!(query.list("tags").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(query.keyed("metadata").collect::<Vec<_>>(), [("k", "v")]);
        assert_eq!(query.number("pageSize", 25, 1, 100).unwrap(), 7);
        assert_eq!(query.get("broken"), Some(""));
    }

    #[test]
    fn the_error_of_a_number_out_of_range_contains_the_range() {
        let problem = QueryString::parse(Some("pageSize=101")).number("pageSize", 25, 1, 100).unwrap_err();
        assert_eq!(problem.json()["range"], serde_json::json!({"min": 1, "max": 100}));
    }
}
