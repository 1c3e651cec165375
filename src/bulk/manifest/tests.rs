use std::fmt::Write;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::bulk::entry::ManifestSource;

fn manifest(format: ManifestFormat, text: impl Into<Vec<u8>>) -> Manifest {
    Manifest::from_reader("jobs", Cursor::new(text.into()), &ManifestOptions::default().format(format))
}

fn json(text: impl Into<Vec<u8>>) -> Manifest {
    manifest(ManifestFormat::JsonLines, text)
}

fn csv(text: impl Into<Vec<u8>>) -> Manifest {
    manifest(ManifestFormat::Csv, text)
}

/// Each line's path, or its error.
fn lines(manifest: Manifest) -> Vec<String> {
    let line = |line: Result<ManifestLine, LineError>| match line {
        Ok(line) => match line.entry.source {
            ManifestSource::Path(path) => format!("{}:{}", line.number, path.display()),
            ManifestSource::Url(url) => format!("{}:{url}", line.number),
        },
        Err(error) => error.to_string(),
    };
    manifest.map(line).collect()
}

fn one(mut manifest: Manifest) -> ManifestLine {
    let line = manifest.next().unwrap().unwrap();
    assert!(manifest.next().is_none());
    line
}

#[test]
fn a_bad_line_names_file_and_line_and_stops_nothing() {
    let found = lines(json("{\"path\":\"a.mp4\",\"language\":\"x\"}\n\n{\"path\":\"b.mp4\"}\n[]\n"));
    assert_eq!(found[0], "jobs:1: language: `x` is no two-letter code such as `en`");
    assert_eq!(found[1], "3:b.mp4");
    assert!(found[2].starts_with("jobs:4: is no JSON object"));
}

#[test]
fn csv_cells_become_the_same_keys() {
    let text = "\u{feff}Path,title,tags,metadata.Key,private,priority,x-note\r\n\
                a.mp4,\"He said \"\"hi\"\"\nand left\",x; y;,v,YES,7,\r\n\
                b.mp4,,,,,,\r\n";
    let found: Vec<_> = csv(text).map(|line| line.unwrap()).collect();
    let keys = &found[0].entry.keys;
    assert_eq!(keys.title.as_deref(), Some("He said \"hi\"\nand left"));
    assert_eq!(keys.tags, Some(vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!((keys.metadata["Key"].as_str(), keys.private, keys.priority), ("v", Some(true), Some(7)));
    assert_eq!((found[0].number, found[1].number, found.len()), (2, 4, 2));
    assert_eq!(found[1].entry.keys, Default::default());
}

#[test]
fn csv_rows_with_flaws_are_named_and_the_others_are_read() {
    let text = "path,title,private\n\
                a.mp4,A\n\
                b.mp4,B,,\n\
                c.mp4,C,,extra\n\
                d.mp4,5\" screen,maybe\n\
                \n\
                path,title,private\n\
                e.mp4,5\" screen,no\n";
    assert_eq!(
        lines(csv(text)),
        [
            "jobs:2: has 2 fields, the header has 3; put fields with separators into quotation marks",
            "3:b.mp4",
            "jobs:4: has 4 fields, the header has 3; put fields with separators into quotation marks",
            "jobs:5: private: is a text; write true or false",
            "8:e.mp4",
        ]
    );
}

#[test]
fn a_quotation_mark_that_is_not_closed_is_named_with_the_lines_that_it_took() {
    let found = lines(csv("path,title\na.mp4,A\nb.mp4,\"B\nc.mp4,C\n"));
    assert_eq!(found[0], "2:a.mp4");
    assert!(
        found[1].starts_with("jobs:3: a quotation mark is not closed") && found[1].contains("line 4"),
        "{}",
        found[1]
    );
    // In the middle of a file it costs no more than the limit of a row.
    let mut text = "path,title\nb.mp4,\"B\n".to_owned();
    let title = "C".repeat(1000);
    for number in 0..2000 {
        let _ = writeln!(text, "c{number}.mp4,{title}");
    }
    let found = lines(csv(text));
    assert!(
        found[0].contains("not closed") && found[1].ends_with(".mp4") && found.len() > 900,
        "{}",
        found.len()
    );
}

#[test]
fn other_separators_of_spreadsheets_are_recognized() {
    for text in ["path;tags;title\na.mp4;\"x;y\";1,5\n", "path\ttags\ttitle\na.mp4\tx;y\t1,5\n"] {
        let keys = one(csv(text)).entry.keys;
        assert_eq!((keys.tags.map(|tags| tags.len()), keys.title.as_deref()), (Some(2), Some("1,5")));
    }
    assert_eq!(lines(csv("path\na.mp4\n")), ["2:a.mp4"]);
}

#[test]
fn a_header_that_cannot_be_used_ends_the_manifest() {
    for (text, part) in [
        ("a.mp4,b\nc.mp4,d\n", "unknown key `a.mp4`"),
        ("title,private\nA,yes\n", "no column `path`"),
        ("path,Title,title\na,b,c\n", "`title` is given twice"),
        ("path,\"title\n", "not closed"),
    ] {
        let found = lines(csv(text));
        assert!(found.len() == 1 && found[0].starts_with("jobs:1: ") && found[0].contains(part), "{found:?}");
    }
}

#[test]
fn files_in_other_encodings_are_refused_at_once() {
    for (bytes, part) in [
        (&b"\xff\xfep\0a\0"[..], "UTF-16"),
        (b"\x1f\x8b\x08\n{}\n", "gzip"),
        (b"PK\x03\x04\n{}\n", "spreadsheet"),
    ] {
        for format in [ManifestFormat::JsonLines, ManifestFormat::Csv, ManifestFormat::Paths] {
            let found = lines(manifest(format, bytes));
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        }
    }
    let found = lines(json(b"{\"path\":\"caf\xe9\"}\n{\"path\":\"b\"}\n"));
    assert_eq!(
        found,
        [
            "jobs:1: is not UTF-8 from byte 13 on; save the file as UTF-8, and give such a path in `path_bytes`",
            "2:b"
        ]
    );
}

#[test]
fn nothing_gives_nothing() {
    for text in ["", "\n", "\r\n\n", "\u{feff}"] {
        for format in [ManifestFormat::JsonLines, ManifestFormat::Csv, ManifestFormat::Paths] {
            assert!(lines(manifest(format, text)).is_empty(), "{text:?}");
        }
    }
    assert!(lines(manifest(ManifestFormat::NulPaths, "\0\0")).is_empty());
}

#[test]
fn the_last_line_needs_no_line_end_but_has_to_be_whole() {
    let found = lines(json("{\"path\":\"a\"}\n{\"path\":\"b\"}"));
    assert_eq!(found, ["1:a", "2:b"]);
    let found = lines(json("{\"path\":\"a\"}\n{\"path\":\"b"));
    assert!(found[1].starts_with("jobs:2: column 10: EOF while parsing a string"), "{found:?}");
    // In a report it is the row that a crash cut off.
    let report = "{\"id\":\"1\",\"path\":\"/a\",\"state\":\"failed\"}\n{\"id\":\"2\",\"pa";
    assert_eq!(lines(json(report)), ["1:/a"]);
    let report = "id,path,state\n1,/a,failed\n2,/b,\"fai";
    assert_eq!(lines(csv(report)), ["2:/a"]);
}

#[test]
fn lists_of_paths_are_read_as_bytes() {
    assert_eq!(lines(manifest(ManifestFormat::Paths, "a b.mp4\r\n\n#c.mp4")), ["1:a b.mp4", "3:#c.mp4"]);
    assert_eq!(lines(manifest(ManifestFormat::NulPaths, "a\nb.mp4\0c.mp4\0")), ["1:a\nb.mp4", "2:c.mp4"]);
    let found = lines(manifest(ManifestFormat::Paths, "a\0b\0"));
    assert!(found[0].contains("NULs separate"), "{found:?}");
}

#[test]
fn paths_are_relative_to_the_manifest_and_those_of_lists_to_the_working_directory() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let open = |path: &Path, options: ManifestOptions| lines(Manifest::open(path, &options).unwrap());
    let jobs = write("jobs.JSONL", "{\"path\":\"a.mp4\"}\n{\"path\":\"/b.mp4\"}\n");
    let expected = [format!("1:{}/a.mp4", folder.path().display()), "2:/b.mp4".to_owned()];
    assert_eq!(open(&jobs, ManifestOptions::default()), expected);
    assert_eq!(open(&jobs, ManifestOptions::default().base("/x")), ["1:/x/a.mp4", "2:/b.mp4"]);
    let list = write("list.txt", "a.mp4\n");
    assert_eq!(open(&list, ManifestOptions::default().format(ManifestFormat::Paths)), ["1:a.mp4"]);
}

#[test]
fn a_manifest_that_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |name: &str| Manifest::open(&folder.path().join(name), &ManifestOptions::default()).unwrap_err();
    assert!(matches!(open("gone.csv"), ManifestError::Missing { .. }));
    fs::create_dir(folder.path().join("folder.csv")).unwrap();
    assert!(matches!(open("folder.csv"), ManifestError::Folder { .. }));
    fs::write(folder.path().join("jobs.txt"), "").unwrap();
    assert!(matches!(open("jobs.txt"), ManifestError::UnknownFormat { .. }));
}

/// A reader of `len` bytes without a line end, then of `rest`.
fn endless(len: u64, rest: &'static str) -> impl Read + Send {
    io::repeat(b'x').take(len).chain(rest.as_bytes())
}

#[test]
fn a_line_of_a_gigabyte_is_passed_over_without_being_kept() {
    let before = resident_kib();
    for (format, len) in [
        (ManifestFormat::JsonLines, 1 << 30),
        (ManifestFormat::Csv, 4 << 20),
        (ManifestFormat::Paths, 4 << 20),
    ] {
        let header = if format == ManifestFormat::Csv { "path\n" } else { "" };
        let rest = if format == ManifestFormat::JsonLines { "\n{\"path\":\"b\"}\n" } else { "\nb\n" };
        let input = header.as_bytes().chain(endless(len, rest));
        let options = ManifestOptions::default().format(format);
        let found = lines(Manifest::from_reader("jobs", input, &options));
        let long = 1 + header.len() / 5;
        let error = format!("jobs:{long}: is longer than 1048576 bytes; end each job's line with a line end");
        assert_eq!(found, [error, format!("{}:b", long + 1)]);
    }
    let grown = resident_kib().saturating_sub(before);
    // Other tests run beside this one.
    assert!(grown < 512 << 10, "{grown} KiB");
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_reader_that_fails_ends_the_manifest_with_its_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let input = Cursor::new(b"{\"path\":\"a\"}\n").chain(Broken);
    let found = lines(Manifest::from_reader("jobs", input, &ManifestOptions::default()));
    assert_eq!(found, ["1:a", "jobs:2: cannot be read: the disk is gone"]);
}

/// Prints the lines per second: `cargo test --release --lib manifest::tests::speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let count = 500_000;
    let mut jsonl = String::new();
    let mut table = "path,id,title,tags,metadata.camera,private\n".to_owned();
    for number in 0..count {
        let _ = writeln!(
            jsonl,
            "{{\"path\":\"films/2024/film-{number}.mp4\",\"id\":\"film-{number}\",\"title\":\"Film {number}\",\
             \"tags\":[\"summer\",\"beach\"],\"metadata\":{{\"camera\":\"A7\"}},\"private\":true}}"
        );
        let _ =
            writeln!(table, "films/2024/film-{number}.mp4,film-{number},Film {number},summer;beach,A7,true");
    }
    for (format, text) in [(ManifestFormat::JsonLines, jsonl), (ManifestFormat::Csv, table)] {
        let start = Instant::now();
        let found = manifest(format, text).filter(Result::is_ok).count();
        assert_eq!(found, count);
        println!("{format:?}: {:.0} lines a second", count as f64 / start.elapsed().as_secs_f64());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_error_names_a_line(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(b','), Just(b'{')], 0..200),
        header in prop_oneof![Just(""), Just("path,title\n"), Just("id,path,state\n")],
    ) {
        let text = [header.as_bytes(), &bytes].concat();
        let most = text.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        for format in [ManifestFormat::JsonLines, ManifestFormat::Csv, ManifestFormat::Paths] {
            for line in manifest(format, text.clone()) {
                let number = match &line { Ok(line) => line.number, Err(error) => error.line };
                prop_assert!((1..=most).contains(&number));
            }
        }
        manifest(ManifestFormat::NulPaths, text).for_each(drop);
    }

    #[test]
    fn csv_cells_of_any_text_come_back(titles in prop::collection::vec("[^\0]{0,20}", 1..5)) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["path", "title"]).unwrap();
        for title in &titles {
            writer.write_record(["a.mp4", title]).unwrap();
        }
        let text = writer.into_inner().unwrap();
        let found: Vec<_> = csv(text).map(|line| line.unwrap().entry.keys.title.unwrap_or_default()).collect();
        prop_assert_eq!(found, titles);
    }
}
