//! How answers are read with tolerance.
//!
//! Services and the gateways before them differ in how they write JSON: numbers as texts or with a point,
//! 0 and 1 for booleans, `[]` for an object without keys, a byte order mark. What nothing depends on is left out
//! when it is misshapen; what is needed is an error that names it.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::Value;

use crate::error::is_unprintable;

/// Reads JSON, after a byte order mark too (RFC 8259, section 8.1). Of a repeated key the last value counts.
///
/// Bytes that are not UTF-8 and halves of a surrogate pair become U+FFFD.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let value: Value = serde_json::from_slice(body)
        .or_else(|cause| serde_json::from_str(&repaired(body)).map_err(|_| cause))?;
    serde_json::from_value(value)
}

/// `body` as text, in which each escaped half of a surrogate pair is U+FFFD.
fn repaired(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let (mut text, mut rest) = (String::with_capacity(body.len()), &*body);
    while let Some(at) = rest.find('\\') {
        text += &rest[..at];
        rest = &rest[at..];
        let (escape, shown) = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (&rest[..12], &rest[..12]),
            (Some(0xd800..0xe000), _) => (&rest[..6], "\\ufffd"),
            _ => {
                let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
                (&rest[..end], &rest[..end])
            }
        };
        text += shown;
        rest = &rest[escape.len()..];
    }
    text + rest
}

/// The UTF-16 code unit of an escape that `text` begins with.
fn unit(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// What has another shape is as good as nothing.
pub(super) fn default_on_error<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// A whole number, also as a text or with a zero after its point; anything else is as good as nothing.
pub(super) fn number<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    Ok(integer(&Value::deserialize(deserializer)?))
}

/// A number, also as a text; anything else is as good as nothing.
pub(super) fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    })
}

/// A truth, also as 0 or 1 or a text; anything else is as good as nothing.
pub(super) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(match &value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        other => integer::<u8>(other).filter(|number| *number < 2).map(|number| number == 1),
    })
}

/// The same, where nothing means no.
pub(super) fn boolean_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    boolean(deserializer).map(Option::unwrap_or_default)
}

/// A text, also as a number; anything else is as good as nothing.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(to_text(Value::deserialize(deserializer)?))
}

/// The same, where nothing means the empty text.
pub(super) fn text_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer).map(Option::unwrap_or_default)
}

/// A list of texts; one text alone is a list of one.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let values = match Value::deserialize(deserializer)? {
        Value::String(text) if text.is_empty() => Vec::new(),
        text @ Value::String(_) => vec![text],
        other => items(other).unwrap_or_default(),
    };
    Ok(values.into_iter().filter_map(to_text).collect())
}

/// A list, of which the items that cannot be read are left out.
pub(super) fn skip_unreadable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = items(Value::deserialize(deserializer)?).unwrap_or_default();
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// An object; anything else, `[]` for one without keys among it, is as good as nothing.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(if value.is_object() { serde_json::from_value(value).ok() } else { None })
}

/// An id: not empty, of at most [`MAX_ID_CHARS`] characters, and none that breaks a line or is_unprintable a terminal.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let Value::String(id) = value else {
        return Err(D::Error::custom(format!("the id is {}, where a text belongs", shown(&value))));
    };
    match id.as_str() {
        "" => Err(D::Error::custom("the id is empty")),
        // As a segment of a path they are steps.
        "." | ".." => Err(D::Error::custom("the id is a step in a path")),
        id if id.chars().any(is_unprintable) => Err(D::Error::custom("the id has control characters")),
        id if id.chars().nth(MAX_ID_CHARS).is_some() => {
            Err(D::Error::custom(format!("the id has more than {MAX_ID_CHARS} characters")))
        }
        _ => Ok(id),
    }
}

/// The items of a list; those of an object whose keys number them, as PHP writes lists with gaps; none of `null`.
pub(super) fn items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => Some(items),
        Value::Object(map) if map.keys().all(|key| key.parse::<u64>().is_ok()) => {
            Some(map.into_iter().map(|(_, item)| item).collect())
        }
        _ => None,
    }
}

/// A whole number, however it is written.
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

/// A value as an error names it.
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

/// The service's ids have 24.
pub(super) const MAX_ID_CHARS: usize = 256;

/// Below it each whole number is a `f64` of its own.
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
    fn odd_bytes_around_and_inside_of_json_are_no_reason_to_refuse_it() {
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
    fn whole_numbers_are_read_however_they_are_written() {
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
    fn an_id_is_a_text_that_can_stand_in_a_line_and_in_a_path() {
        assert_eq!(id_of("vi4blUQJFrYWbaG44NChkH27").unwrap(), "vi4blUQJFrYWbaG44NChkH27");
        assert!(id_of(&"v".repeat(256)).is_ok());
        for bad in ["", ".", "..", "vi\u{1b}[2J", "vi\n1", "vi\u{9b}1", "vi\u{202e}1", &"v".repeat(257)] {
            assert!(id_of(bad).is_err(), "{bad:?}");
        }
    }
}
