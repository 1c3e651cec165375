use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::bulk::entry::ManifestSource;
use crate::bulk::manifest::{Manifest, ManifestOptions, RetryRows};

fn row(id: &str, state: RowState) -> ReportRow {
    ReportRow::new(id, Some(ManifestSource::Path(format!("/films/{id}.mp4").into())), state)
}

fn full_row() -> ReportRow {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
    ReportRow {
        size: Some(7),
        video_id: Some("vi1".to_owned()),
        bytes: 7,
        chunks: 1,
        started_at: Some(at),
        finished_at: Some(at + Duration::from_millis(1500)),
        elapsed: Some(Duration::from_millis(1500)),
        error_kind: Some("refused".to_owned()),
        http_status: Some(400),
        message: Some("=1+1\nof \"it\", all".to_owned()),
        host: "h1".to_owned(),
        ..row("a", RowState::Failed)
    }
}

fn report(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn appended(path: &Path, rows: &[ReportRow]) {
    Report::open(path).unwrap().append(rows).unwrap();
}

/// The ids of the report's rows, read as a manifest. No line may be bad.
fn ids(path: &Path) -> Vec<String> {
    let options = ManifestOptions::default().retry(RetryRows::All);
    Manifest::open(path, &options).unwrap().map(|line| line.unwrap().entry.keys.id.unwrap()).collect()
}

#[test]
fn a_csv_row_has_the_columns_in_their_order() {
    let (_folder, path) = report("r.csv");
    appended(&path, &[full_row()]);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "id,path,size,state,video_id,bytes,resent_bytes,chunks,retries,started_at,finished_at,seconds,error_kind,\
         error_slug,http_status,message,advice,host\n\
         a,/films/a.mp4,7,failed,vi1,7,0,1,0,2026-09-21T14:13:20.123Z,2026-09-21T14:13:21.623Z,1.5,refused,,400,\
         \"'=1+1 of \"\"it\"\", all\",,h1\n"
    );
}

#[test]
fn a_json_row_has_the_same_keys() {
    let (_folder, path) = report("r.jsonl");
    appended(&path, &[full_row()]);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\"id\":\"a\",\"path\":\"/films/a.mp4\",\"size\":7,\"state\":\"failed\",\"video_id\":\"vi1\",\"bytes\":7,\
         \"resent_bytes\":0,\"chunks\":1,\"retries\":0,\"started_at\":\"2026-09-21T14:13:20.123Z\",\
         \"finished_at\":\"2026-09-21T14:13:21.623Z\",\"seconds\":1.5,\"error_kind\":\"refused\",\
         \"error_slug\":null,\"http_status\":400,\"message\":\"'=1+1 of \\\"it\\\", all\",\"advice\":null,\
         \"host\":\"h1\"}\n"
    );
}

#[test]
fn a_report_is_continued() {
    for name in ["r.csv", "r.jsonl"] {
        let (_folder, path) = report(name);
        appended(&path, &[row("a", RowState::Done), row("b", RowState::Done)]);
        appended(&path, &[row("c", RowState::Done)]);
        assert_eq!(ids(&path), ["a", "b", "c"]);
    }
}

#[test]
fn a_torn_row_is_removed_wherever_it_was_cut() {
    for name in ["r.csv", "r.jsonl"] {
        let (_folder, path) = report(name);
        appended(&path, &[row("a", RowState::Done)]);
        let before = fs::read(&path).unwrap();
        appended(&path, &[full_row()]);
        let whole = fs::read(&path).unwrap();
        for len in before.len()..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(ids(&path).len() <= 2, "a torn row is no error of a report");
            appended(&path, &[row("c", RowState::Done)]);
            let found = ids(&path);
            assert!(found == ["a", "c"] || found == ["a", "a", "c"], "{name} {len}: {found:?}");
            assert!(found.len() == 2 || len >= whole.len() - 4, "only a row that lacks its end is completed");
        }
    }
}

#[test]
fn a_torn_header_is_written_again() {
    let (_folder, path) = report("r.csv");
    let header = ReportRow::header(ReportFormat::Csv);
    for len in 0..header.len() {
        fs::write(&path, &header[..len]).unwrap();
        appended(&path, &[row("a", RowState::Done)]);
        assert_eq!(ids(&path), ["a"], "{len}");
    }
}

#[test]
fn another_file_is_never_changed() {
    for (name, content) in [
        ("r.csv", "path,title\na.mp4,A"),
        ("r.csv", "id\n1\n"),
        ("r.jsonl", "{\"path\":\"a.mp4\"}"),
        ("r.jsonl", "{\"id\":\"1\",\"path\":\"a.mp4\"}"),
        ("r.jsonl", "{\"id\":\"1\",\"path\":\"a.mp4\"}\n{\"id"),
        (
            "r.csv",
            "id,path,size,state,video_id,bytes,resent_bytes,chunks,retries,started_at,finished_at,seconds,error_kind,error_slug,http_status,message,advice,host,note\n",
        ),
        ("r.jsonl", "{\"id\""),
        ("r.jsonl", "films"),
        ("r.csv", "\n"),
    ] {
        let (_folder, path) = report(name);
        fs::write(&path, content).unwrap();
        let opened = Report::open(&path);
        let is_torn = content == "{\"id\"";
        assert_eq!(matches!(opened, Err(ReportError::NotAReport { .. })), !is_torn, "{content}");
        assert!(is_torn || fs::read_to_string(&path).unwrap() == content);
    }
    let (folder, path) = report("r.txt");
    assert!(matches!(Report::open(&path), Err(ReportError::UnknownFormat { .. })));
    assert!(matches!(Report::open_as(folder.path(), ReportFormat::Csv), Err(ReportError::NotRegular { .. })));
}

#[test]
fn a_torn_row_of_another_process_does_not_spoil_the_next_one() {
    let (_folder, path) = report("r.csv");
    let mut report = Report::open(&path).unwrap();
    report.append(&[row("a", RowState::Done)]).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"b,/films/b.m").unwrap();
    report.append(&[row("c", RowState::Done)]).unwrap();
    assert_eq!(ids(&path), ["a", "c"]);
}

#[test]
fn several_writers_leave_whole_rows_only() {
    let (_folder, path) = report("r.jsonl");
    thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut report = Report::open(path).unwrap();
                for number in 0..20 {
                    report.append(&[row(&format!("{writer}-{number}"), RowState::Done)]).unwrap();
                }
            });
        }
    });
    let mut found = ids(&path);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 80);
}

#[test]
fn a_report_that_was_moved_away_is_continued_in_a_new_file() {
    let (folder, path) = report("r.csv");
    let mut report = Report::open(&path).unwrap();
    report.append(&[row("a", RowState::Done)]).unwrap();
    fs::rename(&path, folder.path().join("old.csv")).unwrap();
    report.append(&[row("b", RowState::Done)]).unwrap();
    assert_eq!(ids(&path), ["b"]);
    assert_eq!(ids(&folder.path().join("old.csv")), ["a"]);
}

#[test]
fn failed_rows_are_jobs_again_and_the_others_are_passed_over() {
    for name in ["r.csv", "r.jsonl"] {
        let (_folder, path) = report(name);
        let mut earlier_failure = row("e", RowState::Skipped);
        earlier_failure.error_kind = Some("refused".to_owned());
        let mut failed = row("b", RowState::Failed);
        failed.video_id = Some("vi-partly-filled".to_owned());
        let rows = [
            row("a", RowState::Done),
            failed,
            row("c", RowState::Skipped),
            row("d", RowState::Cancelled),
            earlier_failure,
        ];
        appended(&path, &rows);
        let mut manifest = Manifest::open(&path, &ManifestOptions::default()).unwrap();
        let lines: Vec<_> = manifest.by_ref().map(|line| line.unwrap()).collect();
        let found: Vec<_> = lines.iter().map(|line| line.entry.keys.id.as_deref().unwrap()).collect();
        assert_eq!((found, manifest.passed_over()), (vec!["b", "d", "e"], 2));
        assert!(lines.iter().all(|line| line.is_reported && line.entry.keys.video_id.is_none()));
        assert_eq!(lines[0].entry.source, ManifestSource::Path("/films/b.mp4".into()));
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_no_part_of_a_row() {
    let (_folder, path) = report("r.csv");
    let mut report = Report::open(&path).unwrap();
    report.append(&[row("a", RowState::Done)]).unwrap();
    let before = fs::read(&path).unwrap();
    // A limit on the size of files fails a write in the middle, as a full disk does. It concerns the whole process,
    // so that a child process tries it.
    let test = "bulk::report::tests::a_full_disk_child";
    let status = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("RINGLIFT_TEST_REPORT", &path)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert_eq!(fs::read(&path).unwrap(), before);
    report.append(&[row("b", RowState::Done)]).unwrap();
    assert_eq!(ids(&path), ["a", "b"]);
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn a_full_disk_child() {
    let Some(path) = std::env::var_os("RINGLIFT_TEST_REPORT") else { return };
    let limit = fs::metadata(&path).unwrap().len() + 10;
    let mut report = Report::open(PathBuf::from(path)).unwrap();
    let limits = rustix::process::Rlimit { current: Some(limit), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limits).unwrap();
    let error = report.append(&[full_row(), full_row()]).unwrap_err();
    assert!(matches!(error, ReportError::Full { .. }), "{error}");
}

/// Paths of any bytes but NUL.
fn any_path() -> impl Strategy<Value = PathBuf> {
    prop_oneof![
        prop::collection::vec(1u8.., 1..40).prop_map(|bytes| [&b"/"[..], &bytes].concat()),
        "/[a-z ,;\"'\n\r\t=é]{1,20}".prop_map(String::into_bytes),
    ]
    .prop_map(|bytes| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_report_read_as_a_manifest_gives_the_same_jobs(
        jobs in prop::collection::vec((any_path(), "[a-z=+@\"', ;é{}-]{0,12}[a-z]", any::<String>()), 1..6),
        is_csv in any::<bool>(),
    ) {
        let (_folder, path) = report(if is_csv { "r.csv" } else { "r.jsonl" });
        let rows: Vec<_> = jobs.iter().map(|(path, id, message)| {
            let source = Some(ManifestSource::Path(path.clone()));
            let message = Some(message.clone());
            ReportRow { message, ..ReportRow::new(id.clone(), source, RowState::Failed) }
        }).collect();
        appended(&path, &rows);
        let lines = fs::read(&path).unwrap().iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lines, rows.len() + usize::from(is_csv), "a row is a line");
        let found: Vec<_> = Manifest::open(&path, &ManifestOptions::default()).unwrap()
            .map(|line| line.unwrap().entry)
            .map(|entry| (entry.source.path().unwrap().to_owned(), entry.keys.id.unwrap()))
            .collect();
        let expected: Vec<_> = jobs.iter().map(|(path, id, _)| (path.clone(), id.clone())).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_path_that_is_no_text_is_readable_again() {
    let odd = PathBuf::from(OsStr::from_bytes(b"/caf\xe9\n.mp4"));
    let odd_row = ReportRow::new("a", Some(ManifestSource::Path(odd)), RowState::Failed);
    let csv = String::from_utf8(odd_row.line(ReportFormat::Csv)).unwrap();
    assert!(csv.starts_with("a,file:///caf%E9%0A.mp4,"), "{csv}");
    let json = String::from_utf8(odd_row.line(ReportFormat::JsonLines)).unwrap();
    assert!(json.contains("\"path_bytes\":\"L2NhZukKLm1wNA==\""), "{json}");
}

#[test]
fn a_url_is_read_back_and_a_row_without_a_file_is_passed_over() {
    for name in ["r.csv", "r.jsonl"] {
        let (_folder, path) = report(name);
        let url = ManifestSource::Url("https://example.com/a.mp4?x=1,2".to_owned());
        let rows = [
            ReportRow::new("u", Some(url.clone()), RowState::Failed),
            ReportRow::new("", None, RowState::Failed),
        ];
        appended(&path, &rows);
        let mut manifest = Manifest::open(&path, &ManifestOptions::default()).unwrap();
        assert_eq!(manifest.next().unwrap().unwrap().entry.source, url);
        assert!(manifest.next().is_none());
        assert_eq!(manifest.passed_over(), 1);
    }
}
