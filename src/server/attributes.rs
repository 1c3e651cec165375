//! The attributes of a video: the fields of the creation and update payloads, and their types.

use serde_json::{Map, Value};

use super::problem::ProblemDetails;

/// The type of a field.
#[derive(Clone, Copy)]
enum FieldType {
    Text,
    Bool,
    TextList,
    PairList,
    Object,
    Language,
}

/// The time at which a field can be set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutability {
    Mutable,
    CreationOnly,
}

/// Checks and returns the attributes of a new video.
pub(super) fn for_new_video(body: Value) -> Result<Map<String, Value>, ProblemDetails> {
    let attributes = object(body)?;
    if !attributes.contains_key("title") {
        let title = "This attribute is required.";
        return Err(ProblemDetails::bad_request("attribute-required", title).named("title"));
    }
    for (name, value) in &attributes {
        check(name, value)?;
    }
    Ok(attributes)
}

/// Returns the attributes after an update. A list replaces the old list, `null` removes a field, and fields
/// that can only be set at the creation are ignored.
pub(super) fn apply_update(
    mut attributes: Map<String, Value>,
    body: Value,
) -> Result<Map<String, Value>, ProblemDetails> {
    for (name, value) in object(body)? {
        check(&name, &value)?;
        let fixed = FIELDS
            .iter()
            .any(|(field, _, mutability)| *field == name && *mutability == Mutability::CreationOnly);
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

fn object(body: Value) -> Result<Map<String, Value>, ProblemDetails> {
    match body {
        Value::Object(attributes) => Ok(attributes),
        _ => Err(ProblemDetails::bad_request("invalid-payload", "The body of the request is not an object.")),
    }
}

fn check(name: &str, value: &Value) -> Result<(), ProblemDetails> {
    let Some((name, field_type, _)) = FIELDS.iter().find(|(field, ..)| *field == name) else { return Ok(()) };
    // `title` is the only attribute that a video must have (`POST /videos`).
    if value.is_null() && *name != "title" {
        return Ok(());
    }
    let wrong = match field_type {
        FieldType::Text if !value.is_string() => "must be a string",
        FieldType::Bool if !value.is_boolean() => "must be a boolean",
        FieldType::TextList if !is_list_of(value, Value::is_string) => "must be an array of strings",
        FieldType::PairList if !is_list_of(value, is_pair) => {
            "must be an array of objects with a key and a value"
        }
        FieldType::Object if !value.is_object() => "must be an object",
        FieldType::Language if !value.as_str().is_some_and(|code| LANGUAGES.contains(&code)) => {
            "must be one of the supported languages"
        }
        _ => return Ok(()),
    };
    let problem = ProblemDetails::bad_request("invalid-attribute", "This attribute is invalid.");
    Err(problem.named(name).detail(format!("The attribute {name} {wrong}.")))
}

fn is_list_of(value: &Value, is_item: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(is_item))
}

fn is_pair(value: &Value) -> bool {
    value["key"].is_string() && value["value"].is_string()
}

/// The known fields. Other fields are stored unchecked.
const FIELDS: &[(&str, FieldType, Mutability)] = &[
    ("title", FieldType::Text, Mutability::Mutable),
    ("description", FieldType::Text, Mutability::Mutable),
    ("source", FieldType::Text, Mutability::CreationOnly),
    ("public", FieldType::Bool, Mutability::Mutable),
    ("panoramic", FieldType::Bool, Mutability::Mutable),
    ("mp4Support", FieldType::Bool, Mutability::Mutable),
    ("playerId", FieldType::Text, Mutability::Mutable),
    ("tags", FieldType::TextList, Mutability::Mutable),
    ("metadata", FieldType::PairList, Mutability::Mutable),
    ("clip", FieldType::Object, Mutability::CreationOnly),
    ("watermark", FieldType::Object, Mutability::CreationOnly),
    ("language", FieldType::Language, Mutability::Mutable),
    ("transcript", FieldType::Bool, Mutability::Mutable),
    ("transcriptSummary", FieldType::Bool, Mutability::Mutable),
    ("transcriptSummaryAttributes", FieldType::TextList, Mutability::Mutable),
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
        let problem = for_new_video(json!({})).unwrap_err().json();
        assert_eq!(problem["type"], "https://docs.api.video/reference/attribute-required");
        assert_eq!(problem["name"], "title");
        for (body, name) in [
            (json!({"title": null}), "title"),
            (json!({"title": "a", "tags": "x"}), "tags"),
            (json!({"title": "a", "metadata": [{"key": "k"}]}), "metadata"),
            (json!({"title": "a", "public": "yes"}), "public"),
            (json!({"title": "a", "language": "xx"}), "language"),
        ] {
            assert_eq!(for_new_video(body).unwrap_err().json()["name"], name);
        }
    }

    #[test]
    fn an_update_replaces_lists_and_ignores_fixed_fields() {
        let attributes =
            for_new_video(json!({"title": "a", "tags": ["x"], "clip": {}, "playerId": "pl1"})).unwrap();
        let update = json!({"tags": [], "clip": {"startTimecode": "1"}, "playerId": null, "title": "b"});
        let expected = json!({"title": "b", "tags": [], "clip": {}});
        assert_eq!(Value::Object(apply_update(attributes, update).unwrap()), expected);
    }
}
