//! Tolerant deserialization of answers.
//!
//! Services and their gateways write JSON in different ways: numbers as strings or with a fraction of zero,
//! 0 and 1 for booleans, `[]` for an object without keys, a byte order mark. An optional value of an unexpected
//! type is left out. A required one is an error that names it.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::Value;

use crate::error::is_unprintable;

/// Reads JSON, with or without a byte order mark (RFC 8259, section 8.1). The last value of a repeated key is used.
///
/// Invalid UTF-8 and unpaired surrogates become U+FFFD.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    read_value(body).and_then(serde_json::from_value)
}

/// Reads JSON like [`read`], for a body that is read as several types.
pub(super) fn read_value(body: &[u8]) -> Result<Value, serde_json::Error> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    // The error is that of the body as sent: the repaired text has other positions.
    serde_json::from_slice(body).or_else(|cause| serde_json::from_str(&repaired(body)).map_err(|_| cause))
}

/// Returns `body` as text with each escaped unpaired surrogate replaced by U+FFFD.
fn repaired(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let (mut text, mut rest) = (String::with_capacity(body.len()), &*body);
    while let Some(at) = rest.find('\\') {
        text += &rest[..at];
        rest = &rest[at..];
        // A high and a low surrogate in this order are one character (RFC 8259, section 7); either one alone is
        // none.
        let (escape, shown) = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (&rest[..12], &rest[..12]),
            (Some(0xd800..0xe000), _) => (&rest[..6], "\\ufffd"),
            _ => {
                // The escaped character is skipped with its backslash, or the second half of `\\` would begin an
                // escape.
                let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
                (&rest[..end], &rest[..end])
            }
        };
        text += shown;
        rest = &rest[escape.len()..];
    }
    text + rest
}

/// Returns the UTF-16 code unit of the escape at the start of `text`.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Deserializes to the default if the value has an unexpected type.
pub(super) fn default_on_error<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// Deserializes a whole number, also from a string or with a fraction of zero; `None` from anything else.
pub(super) fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    Ok(integer(&Value::deserialize(deserializer)?))
}

/// Deserializes a number, also from a string; `None` from anything else.
pub(super) fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    })
}

/// Deserializes a boolean, also from 0, 1 or a string; `None` from anything else.
pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(match &value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        other => integer::<u8>(other).filter(|number| *number < 2).map(|number| number == 1),
    })
}

/// Deserializes as [`boolean`] does, with `false` for `None`.
pub(super) fn boolean_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    boolean(deserializer).map(Option::unwrap_or_default)
}

/// Deserializes a string, also from a number; `None` from anything else.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(to_text(Value::deserialize(deserializer)?))
}

/// Deserializes as [`text`] does, with the empty string for `None`.
pub(super) fn text_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer).map(Option::unwrap_or_default)
}

/// Deserializes a list of strings. A single string is a list of one.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = match Value::deserialize(deserializer)? {
        Value::String(text) if text.is_empty() => Vec::new(),
        text @ Value::String(_) => vec![text],
        other => items(other).unwrap_or_default(),
    };
    Ok(values.into_iter().filter_map(to_text).collect())
}

/// Deserializes a list without the items that cannot be read.
pub(super) fn skip_unreadable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = items(Value::deserialize(deserializer)?).unwrap_or_default();
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// Deserializes an object; `None` from anything else. PHP writes an object without keys as `[]`.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(if value.is_object() { serde_json::from_value(value).ok() } else { None })
}

/// Deserializes an id: not empty, at most [`MAX_ID_CHARS`] characters, and none that breaks a line or controls a
/// terminal.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let Value::String(id) = value else {
        return Err(D::Error::custom(format!("the id is {}, where a text belongs", shown(&value))));
    };
    match id.as_str() {
        "" => Err(D::Error::custom("the id is empty")),
        // These segments of a path are steps.
        "." | ".." => Err(D::Error::custom("the id is a step in a path")),
        id if id.chars().any(is_unprintable) => Err(D::Error::custom("the id has control characters")),
        id if id.chars().nth(MAX_ID_CHARS).is_some() => {
            Err(D::Error::custom(format!("the id has more than {MAX_ID_CHARS} characters")))
        }
        _ => Ok(id),
    }
}

/// Returns the items of a list; none of `null`; and those of an object with numeric keys, which is how PHP writes a
/// list with gaps.
///
/// # Errors
/// The value itself, if it is none of these.
pub(super) fn items(value: Value) -> Result<Vec<Value>, Value> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items),
        Value::Object(map) if map.keys().all(|key| key.parse::<u64>().is_ok()) => {
            Ok(map.into_iter().map(|(_, item)| item).collect())
        }
        other => Err(other),
    }
}

/// Returns a whole number from a JSON number or string.
pub(super) fn integer<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    let whole =
        |number: f64| (number.fract() == 0.0 && (0.0..MAX_EXACT).contains(&number)).then_some(number as u64);
    let integer = match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| whole(text.parse().ok()?))
        }
        _ => None,
    };
    T::try_from(integer?).ok()
}

/// Returns the start of a value, for an error.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn to_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The longest id. The service's ids have 24 characters.
pub(super) const MAX_ID_CHARS: usize = 256;

/// 2^53: each smaller whole number has an exact `f64`.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

const MAX_SHOWN_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id_of(id: &str) -> Result<String, serde_json::Error> {
        super::id(json!(id))
    }

    #[test]
    fn json_with_odd_bytes_is_read() {
        let odd: &[&[u8]] =
            &[b"\xef\xbb\xbf{\"a\":\"b\"}", b"\r\n {\"a\":\"b\"}\n", b"{\"a\":\"c\",\"a\":\"b\"}"];
        for body in odd {
            assert_eq!(read::<Value>(body).unwrap(), json!({"a": "b"}));
        }
        for (body, text) in [
            (&br#""\ud83d""#[..], "\u{fffd}"),
            (br#""\ude00 \ud83d\ude00 \\ud83d""#, "\u{fffd} \u{1f600} \\ud83d"),
            (br#""\ud83d\ud83d\ude00\n""#, "\u{fffd}\u{1f600}\n"),
            (b"\"\xe9t\xe9\"", "\u{fffd}t\u{fffd}"),
        ] {
            assert_eq!(read::<String>(body).unwrap(), text);
        }
        for body in [&b""[..], b"\xef\xbb\xbf", b"{", b"\"\\", b"\"\\u12", b"\\ud83d", b"<html>"] {
            assert!(read::<Value>(body).is_err());
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_notation() {
        for value in [json!(5), json!(5.0), json!("5"), json!(" 5 "), json!("5.0")] {
            assert_eq!(integer::<u64>(&value), Some(5), "{value}");
        }
        let others = [json!(-5), json!(5.5), json!("5 GB"), json!(""), json!(null), json!(1e300), json!([5])];
        for value in others {
            assert_eq!(integer::<u64>(&value), None, "{value}");
        }
        assert_eq!(integer::<u64>(&json!(u64::MAX.to_string())), Some(u64::MAX));
        assert_eq!(integer::<u8>(&json!(256)), None);
    }

    #[test]
    fn an_id_is_a_string_that_is_safe_in_a_line_and_in_a_path() {
        assert_eq!(id_of("vi4blUQJFrYWbaG44NChkH27").unwrap(), "vi4blUQJFrYWbaG44NChkH27");
        assert!(id_of(&"v".repeat(256)).is_ok());
        for bad in ["", ".", "..", "vi\u{1b}[2J", "vi\n1", "vi\u{9b}1", "vi\u{202e}1", &"v".repeat(257)] {
            assert!(id_of(bad).is_err(), "{bad:?}");
        }
    }
}
