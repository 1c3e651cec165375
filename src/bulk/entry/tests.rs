use std::fmt::Debug;
use std::path::PathBuf;

use proptest::prelude::*;

use super::builder::EntryBuilder;
use super::*;
use crate::upload::{ChunkSize, Mode, UploadOptions};

fn entry(json: &str) -> ManifestEntry {
    let (source, keys) = EntryBuilder::from_json(json.as_bytes()).unwrap().finish().unwrap();
    ManifestEntry::new(source).with_keys(keys)
}

fn flaw(json: &str) -> EntryFlaw {
    EntryBuilder::from_json(json.as_bytes()).and_then(EntryBuilder::finish).unwrap_err()
}

fn assert_hidden(shown: &impl Debug) {
    let shown = format!("{shown:?}");
    assert!(!shown.contains("secret"), "{shown}");
}

const EVERY_KEY: &str = r#"{"path":"a.mp4","id":"1","title":"T","description":"D","tags":["x","y; z"],
"metadata":{"a":"1","b":2},"private":true,"panoramic":false,"mp4":false,"language":"EN","player_id":"pl1",
"video_id":"vi1","upload_token":"to1","mode":"parts","chunk_size":"64MiB","priority":-3,"x-note":{"any":[]},
"sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;

#[test]
fn every_key_of_a_json_line_is_read() {
    let line = entry(EVERY_KEY);
    let keys = &line.keys;
    assert_eq!(line.source, ManifestSource::Path("a.mp4".into()));
    assert_eq!(
        (keys.id.as_deref(), keys.title.as_deref(), keys.description.as_deref()),
        (Some("1"), Some("T"), Some("D"))
    );
    assert_eq!(keys.tags, Some(vec!["x".to_owned(), "y; z".to_owned()]));
    assert_eq!(
        keys.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert_eq!((keys.private, keys.panoramic, keys.mp4), (Some(true), Some(false), Some(false)));
    assert_eq!((keys.language.as_deref(), keys.priority), (Some("en"), Some(-3)));
    assert_eq!((keys.mode, keys.chunk_size), (Some(Mode::Parts), Some(ChunkSize::Bytes(64 << 20))));
    assert_eq!(keys.sha256, Some("a".repeat(64)));
}

#[test]
fn keys_have_precedence_over_defaults_and_metadata_is_merged() {
    let line = entry(EVERY_KEY);
    let mut defaults = UploadOptions::default();
    defaults.video.title = "default".to_owned();
    defaults.video.metadata = vec![
        crate::api::Metadata { key: "b".to_owned(), value: "old".to_owned() },
        crate::api::Metadata { key: "c".to_owned(), value: "3".to_owned() },
    ];
    let options = line.over(&defaults);
    let pairs: Vec<_> = options.video.metadata.iter().map(|pair| (&*pair.key, &*pair.value)).collect();
    assert_eq!(pairs, [("b", "2"), ("c", "3"), ("a", "1")]);
    assert_eq!((options.video.title.as_str(), options.video.public), ("T", Some(false)));
    assert_eq!(options.upload_token.unwrap().reveal(), "to1");
    let unchanged = entry(r#"{"path":"a.mp4"}"#).over(&defaults);
    assert_eq!(unchanged, defaults);
    let by_url = entry(r#"{"source_url":"https://example.com/a.mp4"}"#).over(&defaults);
    assert_eq!(by_url.video.source.as_deref(), Some("https://example.com/a.mp4"));
}

#[test]
fn a_sidecar_gives_the_keys_that_the_manifest_lacks() {
    let line = entry(r#"{"path":"a.mp4","title":"M","metadata":{"a":"1"}}"#);
    let sidecar = entry(r#"{"path":"a.mp4","title":"S","private":true,"metadata":{"a":"2","b":"2"}}"#);
    let keys = line.keys.or(sidecar.keys);
    assert_eq!((keys.title.as_deref(), keys.private), (Some("M"), Some(true)));
    assert_eq!(keys.metadata.values().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn the_upload_token_is_never_shown() {
    let line = entry(r#"{"path":"a.mp4","upload_token":"to-secret"}"#);
    assert_hidden(&line);
    assert_hidden(&serde_json::to_string(&line).unwrap());
    for text in [
        r#"{"path":"a.mp4","upload_token":"to secret"}"#,
        r#"{"path":"a.mp4","upload_token":["to-secret"]}"#,
        r#"{"path":"a.mp4","upload_token":"to-secret""#,
        r#"{"upload_token":"to-secret","upload_token":"to-secret"}"#,
        "\"to-secret\"",
    ] {
        assert_hidden(&(flaw(text), flaw(text).to_string()));
    }
}

#[test]
fn a_flaw_names_key_limit_and_way_out() {
    let chunk_size = flaw(r#"{"path":"a.mp4","chunk_size":"3MiB"}"#).to_string();
    assert_eq!(chunk_size, "chunk_size: \"3MiB\" is not in the limits; use 5MiB to 200MiB, or auto");
    for (line, part) in [
        (r#"{"path":"a","titel":"x"}"#, "unknown key `titel`; keys are path,"),
        (r#"{"path":"a","path":"b"}"#, "`path` is given twice"),
        (r#"{"title":"x"}"#, "give `path` or `source_url`"),
        (r#"{"path":"a","source_url":"https://h/a"}"#, "either `path` or `source_url`"),
        (r#"{"path":""}"#, "path: is empty"),
        (r#"{"path":"a\u0000b"}"#, "NUL"),
        (r#"{"path":"https://h/a"}"#, "give a URL as `source_url`"),
        (r#"{"source_url":"ftp://h/a"}"#, "neither http:// nor https://"),
        (r#"{"source_url":"https://"}"#, "source_url"),
        (r#"{"source_url":"https://h/a","sha256":"00"}"#, "write 64 such digits"),
        (r#"{"source_url":"https://h/a","video_id":"vi1"}"#, "`video_id` has no effect with `source_url`"),
        (r#"{"path":"a","language":"english"}"#, "two-letter code"),
        (r#"{"path":"a","tags":"x;y"}"#, "tags: is a text; write a list"),
        (r#"{"path":"a","tags":[1]}"#, "tags: is a number"),
        (r#"{"path":"a","private":"yes"}"#, "write true or false"),
        (r#"{"path":"a","mode":"fast"}"#, "mode: `fast`: expected one of `auto`, `single`"),
        (r#"{"path":"a","priority":1e30}"#, "whole number"),
        (r#"{"path":"a","priority":3000000000}"#, "2147483647"),
        (r#"{"path":"a","metadata":{"":"x"}}"#, "the key is empty"),
        (r#"{"path":"a","metadata":{"a":[]}}"#, "metadata.a: is a list"),
        (r#"{"path":"a","id":"a\nb"}"#, "control character"),
        (r#"{"path":"a","state":"Bavaria"}"#, "begins with `x-`"),
        (r#"{"path":"a" "title":"x"}"#, "column 13: expected `,` or `}`"),
        (r#"["a"]"#, "no JSON object"),
        (r#"{"path":"b","path_bytes":"YQ=="}"#, "names another file than `path`: a"),
        (r#"{"path":"b","path_bytes":"?"}"#, "base64"),
    ] {
        let found = flaw(line).to_string();
        assert!(found.contains(part), "{line}: {found}");
    }
}

#[test]
fn columns_of_a_report_are_known_and_ignored() {
    let line = entry(r#"{"path":"a.mp4","bytes":1,"seconds":1.5,"host":null,"message":{}}"#);
    assert!(line.keys == Default::default());
}

#[test]
fn a_path_that_is_not_utf8_is_given_by_its_bytes() {
    let line = entry(r#"{"path":"caf\ufffd","path_bytes":"Y2Fm6Q=="}"#);
    let again = serde_json::to_string(&line).unwrap();
    assert_eq!(again, "{\"path\":\"caf\u{fffd}\",\"path_bytes\":\"Y2Fm6Q==\"}");
    assert_eq!(serde_json::from_str::<ManifestEntry>(&again).unwrap(), line);
}

#[test]
fn a_flaw_keeps_its_kind_for_programs() {
    assert_eq!(flaw("{\"a\":1}"), EntryFlaw::UnknownKey { key: "a".to_owned() });
    let error = flaw(&format!("{{\"{}\\u001b[2J\":1}}", "k".repeat(500))).to_string();
    assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
    let error = flaw("{\"\\u001b[2J\":1}").to_string();
    assert!(!error.contains('\u{1b}'), "{error}");
}

proptest! {
    #[test]
    fn an_entry_survives_being_written_and_read(
        path in "[^\0]{1,30}", title in any::<Option<String>>(), tags in prop::option::of(prop::collection::vec("[a-z;, ]{0,5}[a-z]", 0..3)),
        metadata in prop::collection::btree_map("[a-z.é]{1,5}", any::<String>(), 0..3), priority in any::<Option<i32>>(),
        chunk in prop::option::of((5u64 << 20)..=(200 << 20)), private in any::<Option<bool>>(),
    ) {
        prop_assume!(!path.contains("://"));
        let mut entry = ManifestEntry::new(ManifestSource::Path(PathBuf::from(path)));
        let keys = &mut entry.keys;
        (keys.title, keys.tags, keys.metadata, keys.priority) = (title, tags, metadata, priority);
        (keys.chunk_size, keys.private) = (chunk.map(ChunkSize::Bytes), private);
        let text = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(&serde_json::from_str::<ManifestEntry>(&text).unwrap(), &entry);
    }
}
