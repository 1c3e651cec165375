use std::collections::BTreeSet;
use std::io::Write;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{NewVideo, Secret};
use crate::source::ChunkDigester;
use crate::wire::limits::MIN_CHUNK_BYTES;

fn file_of(len: u64) -> (tempfile::NamedTempFile, SourceFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    let source = SourceFile::open(file.path()).unwrap();
    (file, source)
}

fn digest_of(bytes: &[u8]) -> ChunkDigest {
    let mut digester = ChunkDigester::new();
    digester.update(bytes);
    digester.finish()
}

const LEN: u64 = 3 * MIN_CHUNK_BYTES;
const ENDPOINT: &str = "http://127.0.0.1:1";

fn checkpoint(file: &SourceFile) -> Checkpoint {
    let plan = Plan::new(file.len(), MIN_CHUNK_BYTES, Addressing::ByteRange).unwrap();
    let options = UploadOptions { video: NewVideo::new("Summer"), ..Default::default() };
    let mut checkpoint = Checkpoint::begin(ENDPOINT, options, file, plan);
    checkpoint.set_container(ContainerState::Known { video_id: "vi1".into(), made: CreatedBy::ByUs });
    checkpoint.insert_acknowledged(1);
    checkpoint
}

#[test]
fn the_json_form_is_read_back_and_holds_no_token() {
    let (_file, source) = file_of(LEN);
    let mut checkpoint = checkpoint(&source);
    checkpoint.insert_acknowledged(0);
    checkpoint.insert_digest(0, Some(digest_of(b"a")));
    checkpoint.insert_digest(1, Some(digest_of(b"a")));
    checkpoint.insert_digest(1, Some(digest_of(b"b")));
    let json = serde_json::to_value(&checkpoint).unwrap();
    assert_eq!(json["version"], 1);
    assert_eq!(json["container"], json!({"known": {"video_id": "vi1", "made": "by_us"}}));
    assert_eq!(json["acknowledged"], json!([{"start": 0, "end": 1}]));
    assert_eq!(
        (json["addressing"].as_str(), json["digests"][1].clone()),
        (Some("byte_range"), json!([1, null]))
    );
    assert_eq!(serde_json::from_value::<Checkpoint>(json).unwrap(), checkpoint);
    let options = UploadOptions { upload_token: Some(Secret::new("to-secret")), ..Default::default() };
    let plan = Plan::new(LEN, MIN_CHUNK_BYTES, Addressing::Part).unwrap();
    let delegated = Checkpoint::begin(ENDPOINT, options, &source, plan);
    assert!(delegated.is_delegated && delegated.options.upload_token.is_none());
    assert!(!format!("{delegated:?}{}", serde_json::to_string(&delegated).unwrap()).contains("to-secret"));
}

#[test]
fn another_file_is_refused_by_the_difference() {
    let (_file, source) = file_of(LEN);
    let checkpoint = checkpoint(&source);
    assert!(matches!(
        checkpoint.recover(ENDPOINT, &source).unwrap(),
        Recovered::Container { doubt: None, .. }
    ));
    let longer = checkpoint.recover(ENDPOINT, &file_of(LEN + 1).1).unwrap_err();
    assert_eq!(longer.kind(), ErrorKind::SourceChanged);
    assert!(
        longer.to_string().contains("it has 15728641 bytes, and the file that was sent has 15728640"),
        "{longer}"
    );
    let (mut written, _) = file_of(LEN);
    written.write_all(b"x").unwrap();
    written.as_file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let written = SourceFile::open(written.path()).unwrap();
    let later = checkpoint.recover(ENDPOINT, &written).unwrap_err();
    assert!(later.to_string().contains("mtime") && later.advice().is_some(), "{later}");
    let mut proved = checkpoint.clone();
    proved.insert_digest(1, Some(digest_of(b"b")));
    let Recovered::Container { doubt, .. } = proved.recover(ENDPOINT, &written).unwrap() else { panic!() };
    assert_eq!(doubt, Some(Unproved::Prove(vec![(1, Some(digest_of(b"b")))])));
}

#[test]
fn another_service_another_version_and_damage_are_refused() {
    let (_file, source) = file_of(LEN);
    let checkpoint = checkpoint(&source);
    let refusal = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    let elsewhere = checkpoint.recover("http://127.0.0.1:2", &source).unwrap_err();
    assert!(refusal(elsewhere).contains("127.0.0.1:1"));
    for damage in [
        |checkpoint: &mut Checkpoint| checkpoint.acknowledged = vec![0..=u32::MAX],
        |checkpoint: &mut Checkpoint| checkpoint.chunk_bytes = 0,
    ] {
        let mut damaged = checkpoint.clone();
        damage(&mut damaged);
        assert!(refusal(damaged.recover(ENDPOINT, &source).unwrap_err()).contains("damaged"));
    }
    let newer = Checkpoint { version: 2, ..checkpoint.clone() };
    assert!(refusal(newer.complete(&mut UploadOptions::default()).unwrap_err()).contains("version 2"));
    let other_video = &mut UploadOptions { video_id: Some("vi2".into()), ..Default::default() };
    assert!(refusal(checkpoint.complete(other_video).unwrap_err()).contains("vi2"));
    let token = &mut UploadOptions { upload_token: Some(Secret::new("to1")), ..Default::default() };
    assert!(refusal(checkpoint.complete(token).unwrap_err()).contains("API key"));
}

proptest! {
    #[test]
    fn acknowledged_chunks_are_kept_as_the_fewest_ranges(indexes in proptest::collection::vec(0u32..40, 0..60)) {
        let (_file, source) = file_of(LEN);
        let mut checkpoint = checkpoint(&source);
        checkpoint.acknowledged.clear();
        indexes.iter().for_each(|&index| checkpoint.insert_acknowledged(index));
        let all: BTreeSet<u32> = indexes.into_iter().collect();
        prop_assert!(checkpoint.stored().eq(all.iter().copied()));
        prop_assert_eq!(checkpoint.acknowledged_chunks() as usize, all.len());
        prop_assert!(checkpoint.acknowledged.is_sorted_by(|a, b| a.end() + 1 < *b.start()));
    }
}
