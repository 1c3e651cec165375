use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::glob::{Glob, units};
use super::*;

fn is_match(pattern: &str, path: &str) -> bool {
    Glob::new(pattern.as_bytes()).unwrap().matches(&units(path.as_bytes()))
}

#[test]
fn patterns_match_as_in_the_documentation_of_rclone() {
    for (pattern, matching, others) in [
        ("file.jpg", &["file.jpg", "directory/file.jpg"][..], &["afile.jpg", "directory/afile.jpg"][..]),
        ("/file.jpg", &["file.jpg"], &["afile.jpg", "directory/file.jpg"]),
        ("*.jpg", &["file.jpg", "dir/file.jpg"], &["file.png", "dir/file.png"]),
        ("/*.jpg", &["file.jpg", "file2.jpg"], &["file.png", "dir/file.jpg"]),
        ("*.{jpg,png}", &["file.jpg", "dir/file.png"], &["file.gif", "dir/file.gif"]),
        ("dir/**", &["dir/anyfile", "subdir/dir/subsubdir/anyfile"], &["file.png", "subdir/file.png"]),
        ("*.t?t", &["file.txt", "dir/file.tzt"], &["file.qxt", "dir/file.png"]),
        ("*.[a-z]", &["file.a", "dir/file.b"], &["file.0", "dir/file.1"]),
        (r"*.\?\?\?", &["file.???", "dir/file.???"], &["file.abc", "dir/file.def"]),
        (r"*.\d\d\d", &["file.012", "dir/file.345"], &["file.abc", "dir/file.def"]),
        (
            "potato**sausage",
            &["potatosausage", "potato/a/b/sausage", "a/potatoxsausage"],
            &["potato/sausages"],
        ),
        ("{dir1/**,dir2/**}", &["dir1/a", "x/dir2/b/c"], &["dir3/a"]),
        ("a{b,c{d,e}}f", &["abf", "acdf", "acef"], &["acf", "af"]),
        ("potat[[:alpha:]]or", &["potatxor"], &["potat1or"]),
        ("[!ab]x", &["cx"], &["ax", "bx", "/x"]),
        ("*", &["a", "a/b"], &[]),
        ("/a/**/b", &["a/x/b", "a/x/y/b"], &["a/b"]),
        ("?.mp4", &["é.mp4", "日.mp4"], &["ab.mp4"]),
        ("[à-ï].mp4", &["é.mp4"], &["z.mp4"]),
        ("/!a", &["!a"], &["a", "b"]),
        ("a,b", &["a,b"], &["a"]),
        ("//a///b", &["a/b"], &["x/a/b"]),
    ] {
        for path in matching {
            assert!(is_match(pattern, path), "{pattern} {path}");
        }
        for path in others {
            assert!(!is_match(pattern, path), "{pattern} {path}");
        }
    }
}

#[test]
fn a_flaw_of_a_pattern_is_named_with_the_way_out() {
    for (pattern, text) in [
        ("", "is empty"),
        ("/", "is empty"),
        ("***a", "three stars"),
        ("ab]c", "`]` without"),
        ("ab[c", "`[` without"),
        ("ab}c", "`}` without"),
        ("ab{c", "`{` without"),
        ("*.{{jpe?g}}", "regular expression"),
        ("[z-a]", "empty range"),
        ("[]", "empty range"),
        (r"dir\file", r"use / between"),
        ("a\\", "backslash"),
        ("[[:digits:]]", "[:digits:]"),
        (&"{a,b}".repeat(11), "1024 alternatives"),
        (&"{a".repeat(40), "alternatives"),
    ] {
        let error = Filter::default().include(pattern).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn the_first_matching_rule_decides() {
    let text = "# films\n\n; more\n- /dir1/\r\n- dir2/\n+ *.pdf\n- **\n";
    let filter = Filter::default().lines("rules.txt", text.as_bytes()).unwrap();
    for (path, is_admitted) in [
        ("a.pdf", true),
        ("x/a.pdf", true),
        ("dir1/a.pdf", false),
        ("x/dir1/a.pdf", true),
        ("x/dir2/y/a.pdf", false),
        ("a.txt", false),
    ] {
        assert_eq!(filter.admits_name(path.as_bytes()), is_admitted, "{path}");
    }
    let cleared = filter.line("!").unwrap();
    assert!(cleared.admits_name(b"dir1/a.txt"));
}

#[test]
fn an_include_rule_excludes_everything_else() {
    let filter = Filter::default().exclude("b*").unwrap().include("*.mp4").unwrap();
    // Include rules come first, as in rclone.
    assert!(filter.admits_name(b"b.mp4") && !filter.admits_name(b"a.mov"));
    let lines = Filter::default().line("+ *.mp4").unwrap();
    assert!(lines.admits_name(b"a.mov"));
    assert!(!Filter::default().include("dir/").unwrap().admits_name(b"dir/a.mp4"));
}

#[test]
fn names_that_are_not_utf8_are_matched_byte_by_byte() {
    let filter = Filter::default().lines("rules", &b"+ caf\xe9?.mp4\n- *"[..]).unwrap();
    assert!(filter.admits_name(b"x/caf\xe9\xff.mp4"));
    assert!(!filter.admits_name(b"caf\xe8\xff.mp4"));
}

#[test]
fn a_bad_line_of_a_file_is_named_by_its_number() {
    let error = Filter::default().lines("rules.txt", &b"- a\n\n*.mp4\n"[..]).unwrap_err().to_string();
    assert_eq!(error, "rules.txt:3: `*.mp4` is no rule; begin it with `+ ` or `- `, or with # for a comment");
}

#[test]
fn sizes_and_ages_are_inclusive_limits() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let mut filter = Filter::default();
    (filter.min_bytes, filter.max_bytes) = (Some(10), Some(20));
    (filter.min_age, filter.max_age) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(50)));
    let judge = |bytes, at| {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        filter.judge(&Candidate { path: Path::new("a"), bytes, modified }, now)
    };
    for (bytes, at) in [(10, 995), (20, 950)] {
        assert_eq!(judge(bytes, at), Verdict::Admitted { rule: None });
    }
    assert_eq!((judge(9, 990), judge(21, 990)), (Verdict::ExcludedBySize, Verdict::ExcludedBySize));
    // The last one was written in the future, by another clock.
    for at in [996, 949, 2000] {
        assert_eq!(judge(15, at), Verdict::ExcludedByAge, "{at}");
    }
}

#[test]
fn rules_that_decided_nothing_are_counted_out() {
    let filter =
        Filter::default().exclude("*.tmp").unwrap().exclude("drafts/").unwrap().exclude("*.mvo").unwrap();
    let mut tally = FilterTally::default();
    for path in ["a.tmp", "b.mp4"] {
        let file = Candidate { path: Path::new(path), bytes: 1, modified: SystemTime::UNIX_EPOCH };
        tally.count(filter.judge(&file, SystemTime::UNIX_EPOCH));
    }
    tally.count_folder(filter.excludes_folder(b"x/drafts").unwrap());
    assert_eq!(tally.unused(&filter).collect::<Vec<_>>(), ["- *.mvo"]);
    assert_eq!((tally.admitted, tally.excluded_by_name, tally.excluded_folders), (1, 1, 1));
}

#[test]
fn many_stars_take_no_time() {
    let pattern = format!("{}b", "a**".repeat(200));
    assert!(!is_match(&pattern, &"a".repeat(4000)));
}

/// Matches by trying everything: slow, and simple enough to be right.
fn naive(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', rest @ ..] => (0..=path.len()).any(|n| naive(rest, &path[n..])),
        ['*', rest @ ..] => {
            let most = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=most).any(|n| naive(rest, &path[n..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|c| *c != '/') && naive(rest, &path[1..]),
        [c, rest @ ..] => path.first() == Some(c) && naive(rest, &path[1..]),
    }
}

fn naive_unanchored(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.chars().collect(), path.chars().collect());
    let starts = (0..path.len()).filter(|i| *i == 0 || path[i - 1] == '/');
    match &pattern[..] {
        ['/', rest @ ..] => naive(rest, &path),
        all => starts.into_iter().any(|i| naive(all, &path[i..])),
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_trying_everything(
        pattern in "/?[ab](\\*|\\*\\*|\\?|[ab]|/[ab]){0,6}", path in "[ab]{1,3}(/[ab]{1,3}){0,3}",
    ) {
        prop_assume!(!pattern.contains("***"));
        prop_assert_eq!(is_match(&pattern, &path), naive_unanchored(&pattern, &path));
    }

    #[test]
    fn no_file_below_an_excluded_folder_is_admitted(
        rules in prop::collection::vec("[+-] /?(\\*|\\*\\*|[ab])(\\*\\*|\\?|[ab]|/[ab]){0,4}/?", 0..5),
        includes in prop::collection::vec("/?[ab](\\*|/[ab*]){0,2}", 0..2),
        folder in "[ab]{1,2}(/[ab]{1,2}){0,2}", file in "[ab]{1,2}(/[ab]{1,2}){0,2}",
    ) {
        prop_assume!(rules.iter().all(|rule| !rule.contains("***")));
        let filter = rules.iter().try_fold(Filter::default(), |filter, rule| filter.line(rule)).unwrap();
        let filter = includes.iter().try_fold(filter, |filter, rule| filter.include(rule)).unwrap();
        if filter.excludes_folder(folder.as_bytes()).is_some() {
            let path = format!("{folder}/{file}");
            prop_assert!(!filter.admits_name(path.as_bytes()), "{} is admitted", path);
        }
    }

    #[test]
    fn no_pattern_and_no_path_panic(pattern in ".*|[\\[\\]{}*?,\\\\a/:!^-]{0,20}", path in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(filter) = Filter::default().include(&pattern) {
            let _ = filter.admits_name(&path);
            let _ = filter.excludes_folder(&path);
        }
        let _ = Filter::default().lines("rules", std::io::Cursor::new(path));
    }
}
