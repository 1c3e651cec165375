//! The architecture as a test: the imports between modules, the homes of `unsafe`, the words of the library.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate, bottom first, with the modules it may import.
#[rustfmt::skip]
const MODULES: &[(&str, &[&str])] = &[
    ("extent", &[]),
    ("usage", &[]),
    ("wire", &["extent"]),
    ("source", &["extent"]),
    ("transport", &[]),
    ("error", &["source", "transport", "wire"]),
    ("body", &["extent", "source", "wire"]),
    ("server", &["extent", "wire"]),
    ("api", &["error", "transport", "wire"]),
    ("pacing", &["wire"]),
    ("journal", &["source", "transport", "wire"]),
    ("session", &["error", "extent", "pacing", "source", "wire"]),
    ("engine", &["api", "body", "error", "extent", "journal", "pacing", "session", "source", "transport", "wire"]),
    ("upload", &["api", "engine", "error", "extent", "journal", "session", "source", "wire"]),
    ("bulk", &["api", "error", "journal", "pacing", "session", "source", "upload", "usage", "wire"]),
    ("fleet", &["api", "bulk", "pacing", "source", "transport", "upload"]),
    ("monitor", &["bulk", "pacing", "upload", "usage"]),
    ("tune", &["api", "body", "error", "extent", "server", "session", "source", "upload", "usage", "wire"]),
    ("cli", &[]), // Belongs to the binary: sees the library by its public name only.
];

/// The only files that may contain `unsafe`: one idea each.
const UNSAFE_HOMES: &[&str] = &[
    "bulk/watch/writer_lease.rs",
    "source/aligned.rs",
    "source/mmap.rs",
    "source/page_cache.rs",
    "source/prefetch.rs",
    "source/sigbus.rs",
    "source/uring/registered.rs",
    "transport/socket_meter.rs",
];

/// The only files that ask which features a build has, one place each. Elsewhere a missing part is a value: a reader that
/// is unavailable, a journal that does not open.
const FEATURE_HOMES: &[&str] = &[
    "engine/creation.rs",
    "lib.rs",
    "monitor/metrics.rs",
    "source/mod.rs",
    "source/pool.rs",
    "upload/api_calls.rs",
    "upload/builder.rs",
    "upload/client.rs",
];

/// The only files that ask what time of day it is, and what for. Of what they learn only the first sets a wait, which
/// is bounded.
const WALL_CLOCK_HOMES: &[(&str, &str)] = &[
    (
        "transport/retry_after.rs",
        "how far away the date of a `Retry-After` or a cookie is when its answer has no date of its own",
    ),
    ("engine/journal_entry.rs", "when an upload began, to be shown by `ringlift resume --list`"),
    ("transport/tls/clock.rs", "whether a certificate is valid now"),
    ("cli/events.rs", "when an event of the output happened, and the records of jobs"),
    ("cli/bandwidth.rs", "which line of a bandwidth's timetable holds"),
    ("server/clock.rs", "the dates of the local server's videos"),
];

/// The files and folders of unit tests. The last one starts a server for the tests of the fleet.
const OF_TESTS: &[&str] = &["tests.rs", "tests", "nats_server.rs"];

#[test]
fn the_table_has_no_cycles() {
    for (i, (module, imports)) in MODULES.iter().enumerate() {
        for import in *imports {
            let below = MODULES[..i].iter().any(|(name, _)| name == import);
            assert!(below, "{module} may not import {import}: it is not listed above it");
        }
    }
}

#[test]
fn modules_import_only_what_the_table_allows() {
    for (path, code) in sources() {
        let module = module_of(&path);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            panic!("{module} is not in the table: give it a place in the architecture");
        };
        let escapes = if path.iter().count() == 1 { "super::" } else { "super::super::" };
        assert!(!code.contains(escapes), "{}: spell it crate::", path.display());
        for import in crate_imports(&code) {
            let known = MODULES.iter().any(|(name, _)| *name == import);
            assert!(known, "{}: import {import} from its module, not the root", path.display());
            assert!(
                import == module || allowed.contains(&import),
                "{}: {module} may not import {import}",
                path.display(),
            );
        }
    }
}

#[test]
fn unsafe_stays_home() {
    for (path, code) in sources() {
        let home = UNSAFE_HOMES.iter().any(|home| path == Path::new(home));
        let found = code.contains("unsafe {") || code.contains("unsafe impl");
        assert!(home || !found, "{}: unsafe code outside its homes", path.display());
    }
}

#[test]
fn features_stay_at_the_walls() {
    for (path, code) in library_files() {
        let home = FEATURE_HOMES.iter().any(|home| path == Path::new(home));
        let is_asked = code.lines().any(|line| line.contains("cfg") && line.contains("feature = "));
        let found = is_asked && !code.contains("doc(cfg(feature");
        assert!(home || !found, "{}: a feature outside its homes: see lib.rs", path.display());
    }
}

#[test]
fn timers_go_by_the_clock_that_never_jumps() {
    for (path, code) in sources() {
        let is_home = WALL_CLOCK_HOMES.iter().any(|(home, _)| path == Path::new(home));
        for reading in
            ["SystemTime::now", "Timestamp::now", "Zoned::now", "ClockId::Realtime", "EPOCH.elapsed"]
        {
            let found = code.contains(reading);
            assert!(is_home || !found, "{}: {reading} outside its homes: wait by Instant", path.display());
        }
    }
}

/// A program that uses the library has flags and variables of its own, or none: `ringlift::Hint` names the setting
/// instead, and an error without a hint has a variant that the command puts into its own words.
#[test]
fn the_library_names_no_flag_no_variable_and_no_subcommand() {
    for (path, code) in library_files() {
        for literal in string_literals(&code) {
            assert!(!names_command(literal), "{}: names a part of the command: {literal}", path.display());
        }
    }
}

#[test]
fn literals_are_found_between_comments_and_characters() {
    let code = r##"f('"', "a \" --b", 'x'); // "c"
        /* "d" */ g(r#"--"e""#, &'a str, b"\\", "");"##;
    let found: Vec<_> = string_literals(code).collect();
    assert_eq!(found, [r#"a \" --b"#, "--\"e\"", r"\\", ""]);
    for ours in
        ["use --mode", "(--api-key-file)", "run `ringlift clean`", "set APIVIDEO_API_KEY", "RINGLIFT_X=1"]
    {
        assert!(names_command(ours), "{ours}");
    }
    for plain in ["--{boundary}--\r\n", "a -- b", "ringlift-upload", "api.video"] {
        assert!(!names_command(plain), "{plain}");
    }
}

/// Every source file of the library that is not a test, whole but for its unit tests.
fn library_files() -> impl Iterator<Item = (PathBuf, String)> {
    let is_library = |path: &Path| !matches!(module_of(path).as_str(), "cli" | "main");
    let is_test = |path: &Path| path.iter().any(|part| OF_TESTS.iter().any(|name| part == *name));
    files().into_iter().filter(move |(path, _)| is_library(path) && !is_test(path))
}

/// A flag (two hyphens and a lower-case letter, as in `--mode`), a subcommand, or a variable of the command.
fn names_command(literal: &str) -> bool {
    let is_flag = |bytes: &[u8]| bytes.starts_with(b"--") && bytes[2].is_ascii_lowercase();
    literal.as_bytes().windows(3).any(is_flag)
        || ["`ringlift ", "RINGLIFT_", "APIVIDEO_"].iter().any(|name| literal.contains(name))
}

/// The contents of the string literals of `code`, escapes as they are written.
fn string_literals(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(['"', '\'', '/', 'r'])?;
            let after_word =
                rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && !rest[..at].ends_with('b');
            rest = &rest[at..];
            let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
            if rest.starts_with("//") {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            } else if rest.starts_with("/*") {
                rest = &rest[rest.find("*/").map_or(rest.len(), |end| end + 2)..];
            } else if rest.starts_with("'\\") {
                // An escaped character, which may be a quotation mark.
                rest = &rest[3 + rest[3..].find('\'').map_or(0, |end| end + 1)..];
            } else if rest.starts_with("'\"'") {
                rest = &rest[3..];
            } else if rest.starts_with('r') && !after_word && rest[1 + hashes..].starts_with('"') {
                let (body, end) = (&rest[2 + hashes..], format!("\"{}", "#".repeat(hashes)));
                let len = body.find(&end)?;
                rest = &body[len + end.len()..];
                return Some(&body[..len]);
            } else if rest.starts_with('"') {
                let body = &rest[1..];
                let len = literal_len(body)?;
                rest = &body[len + 1..];
                return Some(&body[..len]);
            } else {
                rest = &rest[1..];
            }
        }
    })
}

/// The length of a literal up to its closing quotation mark.
fn literal_len(body: &str) -> Option<usize> {
    let mut is_escaped = false;
    body.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

/// The module named right after each `crate::`.
fn crate_imports(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("crate::")
        .filter(|(i, _)| !code[..*i].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .flat_map(|(i, found)| first_segments(&code[i + found.len()..]))
}

/// `a::b` gives `a`; `{a::b, c}` gives `a` and `c`.
fn first_segments(tail: &str) -> Vec<&str> {
    let word = |s: &'_ str| s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len());
    let Some(group) = tail.strip_prefix('{') else {
        return vec![&tail[..word(tail)]];
    };
    let mut depth = 0;
    let mut segments = Vec::new();
    let mut at_item = true;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_item = true,
            c if at_item && !c.is_whitespace() => {
                segments.push(&group[i..i + word(&group[i..])]);
                at_item = false;
            }
            _ => {}
        }
    }
    segments
}

/// Every source file, relative to `src/`, without comments and unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    let without_comments =
        |code: String| code.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    files().into_iter().map(|(path, code)| (path, without_comments(code))).collect()
}

/// Every source file, relative to `src/`, without unit tests.
fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    files
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}
