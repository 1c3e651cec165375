//! Checks of the values of keys.

use std::collections::BTreeMap;

use serde_json::Value;

use super::flaw::{EntryFlaw, shown};
use crate::upload::{ChunkSize, MARK_KEY, Mode};
use crate::wire::limits::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};

type Checked<T> = Result<T, EntryFlaw>;

/// Returns the text of `value`.
pub(super) fn text(key: &str, value: Value) -> Checked<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(key, "a text in quotation marks", &other)),
    }
}

/// Returns the text of `value`, which may be neither empty nor longer than `most` bytes, and has no control
/// characters.
pub(super) fn name(key: &str, value: Value, most: usize) -> Checked<String> {
    let text = text(key, value)?;
    if text.trim().is_empty() {
        Err(EntryFlaw::bad(key, "is empty; give a value or remove the key"))
    } else if text.len() > most {
        Err(EntryFlaw::bad(key, format!("has {} bytes; use {most} or fewer", text.len())))
    } else if text.chars().any(char::is_control) {
        // A line end in an id would break the rows of the report.
        Err(EntryFlaw::bad(key, "has a control character in it"))
    } else {
        Ok(text)
    }
}

/// Returns the bool of `value`.
pub(super) fn switch(key: &str, value: Value) -> Checked<bool> {
    value.as_bool().ok_or_else(|| wrong_type(key, "true or false", &value))
}

/// Returns the whole number of `value`.
pub(super) fn number(key: &str, value: Value) -> Checked<i32> {
    let Some(number) = value.as_i64() else {
        return Err(wrong_type(key, "a whole number", &value));
    };
    i32::try_from(number)
        .map_err(|_| EntryFlaw::bad(key, format!("is {number}; use {} to {}", i32::MIN, i32::MAX)))
}

/// Returns the tags of `value`.
pub(super) fn tags(key: &str, value: Value) -> Checked<Vec<String>> {
    let Value::Array(items) = value else {
        return Err(wrong_type(key, "a list of texts", &value));
    };
    items.into_iter().map(|item| name(key, item, MAX_ID_BYTES)).collect()
}

/// Returns the metadata of `value`. Numbers and bools count as their texts.
pub(super) fn metadata(key: &str, value: Value) -> Checked<BTreeMap<String, String>> {
    let Value::Object(pairs) = value else {
        return Err(wrong_type(key, "an object of texts", &value));
    };
    let pair = |(name, value): (String, Value)| {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            other => return Err(wrong_type(&format!("{key}.{name}"), "a text", &other)),
        };
        Ok((metadata_key(&name)?.to_owned(), value))
    };
    pairs.into_iter().map(pair).collect()
}

/// Checks a key of the video's metadata.
pub(super) fn metadata_key(name: &str) -> Checked<&str> {
    let flaw = |reason: String| Err(EntryFlaw::bad(&format!("metadata.{name}"), reason));
    if name.trim().is_empty() {
        flaw("the key is empty".to_owned())
    } else if name == MARK_KEY {
        // A look-up after a lost answer finds the created video by this key.
        flaw("this key is reserved for finding the created video again; use another".to_owned())
    } else {
        Ok(name)
    }
}

/// Returns the language code of `value` in lower case.
pub(super) fn language(key: &str, value: Value) -> Checked<String> {
    let code = text(key, value)?.to_ascii_lowercase();
    if code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_lowercase()) {
        Ok(code)
    } else {
        Err(EntryFlaw::bad(key, format!("`{}` is no two-letter code such as `en`", shown(&code))))
    }
}

/// Returns the SHA-256 digest of `value` in lower case.
pub(super) fn sha256(key: &str, value: Value) -> Checked<String> {
    let digest = text(key, value)?.to_ascii_lowercase();
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digest)
    } else {
        let count = digest.chars().count();
        Err(EntryFlaw::bad(
            key,
            format!("has {count} characters or others than 0-9 and a-f; write 64 such digits"),
        ))
    }
}

/// Returns the addressing of the chunks.
pub(super) fn mode(key: &str, value: Value) -> Checked<Mode> {
    let text = text(key, value)?;
    text.parse().map_err(|error| EntryFlaw::bad(key, format!("`{}`: {error}", shown(&text))))
}

/// Returns the chunk size: a number of bytes, a size such as `64MiB`, or `auto`.
pub(super) fn chunk_size(key: &str, value: Value) -> Checked<ChunkSize> {
    let size = match &value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_u64().map(ChunkSize::Bytes),
        other => return Err(wrong_type(key, "a size", other)),
    };
    let is_within = |size: &ChunkSize| match size {
        ChunkSize::Bytes(bytes) => (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(bytes),
        ChunkSize::Auto => true,
    };
    size.filter(is_within).ok_or_else(|| {
        let given = shown(&value.to_string());
        EntryFlaw::bad(key, format!("{given} is not in the limits; use 5MiB to 200MiB, or auto"))
    })
}

/// Creates the flaw of a value of another type, without the value.
pub(super) fn wrong_type(key: &str, expected: &'static str, value: &Value) -> EntryFlaw {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    EntryFlaw::WrongType { key: shown(key), expected, found }
}

/// The longest id and tag in bytes.
pub(super) const MAX_ID_BYTES: usize = 1024;
