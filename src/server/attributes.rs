//! What may be said about a video: the fields of the creation and update payloads, and their types.

use serde_json::{Map, Value};

use super::problem::Problem;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Texts,
    Pairs,
    Record,
    Language,
}

/// When a field may be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    AtCreation,
}

/// The attributes of a new video: everything that was sent, checked.
pub(super) fn created(body: Value) -> Result<Map<String, Value>, Problem> {
    let attributes = object(body)?;
    if !attributes.contains_key("title") {
        let title = "This attribute is required.";
        return Err(Problem::bad_request("attribute-required", title).named("title"));
    }
    for (name, value) in &attributes {
        check(name, value)?;
    }
    Ok(attributes)
}

/// The attributes after an update: lists are replaced whole, `null` clears, what can only be set at the
/// creation stays.
pub(super) fn updated(
    mut attributes: Map<String, Value>,
    body: Value,
) -> Result<Map<String, Value>, Problem> {
    for (name, value) in object(body)? {
        check(&name, &value)?;
        let fixed = FIELDS.iter().any(|(field, _, when)| *field == name && *when == When::AtCreation);
        if fixed {
            continue;
        }
        match value {
            Value::Null => attributes.remove(&name),
            value => attributes.insert(name, value),
        };
    }
    Ok(attributes)
}

fn object(body: Value) -> Result<Map<String, Value>, Problem> {
    match body {
        Value::Object(attributes) => Ok(attributes),
        _ => Err(Problem::bad_request("invalid-payload", "The body of the request is not an object.")),
    }
}

fn check(name: &str, value: &Value) -> Result<(), Problem> {
    let Some((name, kind, _)) = FIELDS.iter().find(|(field, ..)| *field == name) else { return Ok(()) };
    if value.is_null() && *name != "title" {
        return Ok(());
    }
    let wrong = match kind {
        Kind::Text if !value.is_string() => "must be a string",
        Kind::Flag if !value.is_boolean() => "must be a boolean",
        Kind::Texts if !is_list_of(value, Value::is_string) => "must be an array of strings",
        Kind::Pairs if !is_list_of(value, is_pair) => "must be an array of objects with a key and a value",
        Kind::Record if !value.is_object() => "must be an object",
        Kind::Language if !value.as_str().is_some_and(|code| LANGUAGES.contains(&code)) => {
            "must be one of the supported languages"
        }
        _ => return Ok(()),
    };
    let problem = Problem::bad_request("invalid-attribute", "This attribute is invalid.");
    Err(problem.named(name).detail(format!("The attribute {name} {wrong}.")))
}

fn is_list_of(value: &Value, is_item: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(is_item))
}

fn is_pair(value: &Value) -> bool {
    value["key"].is_string() && value["value"].is_string()
}

/// Other fields are kept as they come.
const FIELDS: &[(&str, Kind, When)] = &[
    ("title", Kind::Text, When::Always),
    ("description", Kind::Text, When::Always),
    ("source", Kind::Text, When::AtCreation),
    ("public", Kind::Flag, When::Always),
    ("panoramic", Kind::Flag, When::Always),
    ("mp4Support", Kind::Flag, When::Always),
    ("playerId", Kind::Text, When::Always),
    ("tags", Kind::Texts, When::Always),
    ("metadata", Kind::Pairs, When::Always),
    ("clip", Kind::Record, When::AtCreation),
    ("watermark", Kind::Record, When::AtCreation),
    ("language", Kind::Language, When::Always),
    ("transcript", Kind::Flag, When::Always),
    ("transcriptSummary", Kind::Flag, When::Always),
    ("transcriptSummaryAttributes", Kind::Texts, When::Always),
];

const LANGUAGES: &[&str] = &[
    "ar", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hr", "hu", "it", "ja",
    "ko", "ml", "nl", "nn", "no", "pl", "pt", "ru", "sk", "sl", "te", "tr", "uk", "ur", "vi", "zh",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_video_needs_a_title_and_the_right_types() {
        let problem = created(json!({})).unwrap_err().json();
        assert_eq!(problem["type"], "https://docs.api.video/reference/attribute-required");
        assert_eq!(problem["name"], "title");
        for (body, name) in [
            (json!({"title": null}), "title"),
            (json!({"title": "a", "tags": "x"}), "tags"),
            (json!({"title": "a", "metadata": [{"key": "k"}]}), "metadata"),
            (json!({"title": "a", "public": "yes"}), "public"),
            (json!({"title": "a", "language": "xx"}), "language"),
        ] {
            assert_eq!(created(body).unwrap_err().json()["name"], name);
        }
    }

    #[test]
    fn an_update_replaces_lists_and_leaves_what_is_fixed() {
        let attributes =
            created(json!({"title": "a", "tags": ["x"], "clip": {}, "playerId": "pl1"})).unwrap();
        let update = json!({"tags": [], "clip": {"startTimecode": "1"}, "playerId": null, "title": "b"});
        let expected = json!({"title": "b", "tags": [], "clip": {}});
        assert_eq!(Value::Object(updated(attributes, update).unwrap()), expected);
    }
}
