//! The progress display on a terminal, and lines of progress without one.

use std::fs;
use std::path::Path;
use std::process::Command;

use ringlift::server::{Fault, FaultAction, RefusalTiming, RouteClass};
use tempfile::TempDir;

use crate::support::command::{ringlift, run};
use crate::support::terminal::Terminal;
use crate::support::{MIB, Scheme, TestServer, each_in_parallel};

/// Creates small files. Together they take two seconds at [`SPEED`].
fn clips(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..count {
        fs::write(folder.path().join(format!("clip{number:02}.mp4")), vec![7; 6 * MIB as usize / count])
            .unwrap();
    }
    folder
}

const SPEED: &str = "3M";

fn upload(test_server: &TestServer, folder: &Path, flags: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).current_dir(folder).arg("upload").args(flags);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    command.args(files);
    command
}

/// Asserts that nothing but results and messages has stayed on the terminal.
fn assert_no_remnants(terminal: &mut Terminal, files: usize) {
    let rows = terminal.rows();
    for row in &rows {
        let is_frame =
            ["ETA ", "%", " more", "/12 files", "/1 files", "waiting"].iter().any(|text| row.contains(text));
        assert!(!is_frame, "`{row}` has stayed: {rows:#?}");
    }
    // The only file's id stands alone, several ids stand after the names of their files. The emulator cuts the lines
    // of a terminal that becomes narrower.
    let has_id = |row: &&String| row.split_whitespace().last().is_some_and(|word| word.starts_with("vi"));
    let ids = rows.iter().filter(has_id).count();
    assert_eq!(ids, files, "{rows:#?}");
}

#[test]
fn the_display_fits_the_terminal_and_leaves_nothing_behind() {
    each_in_parallel([(24, 80, 12), (12, 40, 12), (24, 80, 1), (12, 40, 1)], |(rows, columns, files)| {
        let (test_server, folder) = (TestServer::new(Scheme::Http), clips(files));
        let mut command = upload(&test_server, folder.path(), &["--bwlimit", SPEED]);
        let mut terminal = Terminal::start(&mut command, rows, columns);
        assert_eq!(terminal.end(), Some(0), "{}", String::from_utf8_lossy(&terminal.raw));
        assert!(terminal.frames.len() >= 3, "{} frames", terminal.frames.len());
        let first = if files == 1 { "clip00.mp4  " } else { "/12 files  " };
        for frame in &terminal.frames {
            assert!(frame.len() <= usize::from(rows) / 2, "{frame:#?}");
            for line in frame {
                assert!(line.chars().count() < columns.into(), "`{line}` is wider than {columns}");
            }
        }
        assert!(terminal.frames.iter().any(|frame| frame[0].contains(first)), "{:#?}", terminal.frames);
        assert!(files == 1 || terminal.frames.iter().any(|frame| frame.len() > 1), "no file was shown");
        assert_no_remnants(&mut terminal, files);
    });
}

#[test]
fn a_resized_terminal_keeps_no_old_lines() {
    let (test_server, folder) = (TestServer::new(Scheme::Http), clips(12));
    let mut command = upload(&test_server, folder.path(), &["--bwlimit", "2M"]);
    let mut terminal = Terminal::start(&mut command, 24, 80);
    for (rows, columns) in [(12, 40), (30, 100), (8, 30), (24, 80)] {
        assert!(terminal.show_frames(2), "{}", String::from_utf8_lossy(&terminal.raw));
        terminal.resize(rows, columns);
    }
    assert_eq!(terminal.end(), Some(0));
    assert_no_remnants(&mut terminal, 12);
}

#[test]
fn a_pause_is_shown_with_its_end_and_announced_once() {
    let action = FaultAction::TooManyRequests { retry_after_s: Some(3), timing: RefusalTiming::AfterBody };
    let fault = Fault::new(RouteClass::Chunk, action);
    let (test_server, folder) = (TestServer::faulty(Scheme::Http, vec![fault]), clips(12));
    let mut terminal = Terminal::start(&mut upload(&test_server, folder.path(), &[]), 24, 80);
    assert_eq!(terminal.end(), Some(0));
    let is_shown = |line: &String| line.starts_with("waiting as the service asks (429), continues in ");
    assert!(terminal.frames.iter().flatten().any(is_shown), "{:#?}", terminal.frames);
    let rows = terminal.rows();
    let announced = rows.iter().filter(|row| row.starts_with("rate limit reached (upload requests")).count();
    assert_eq!(announced, 1, "{rows:#?}");
}

#[test]
fn failures_of_many_files_are_coalesced() {
    let fault = Fault::new(RouteClass::Chunk, FaultAction::unavailable()).times(8);
    let (test_server, folder) = (TestServer::faulty(Scheme::Http, vec![fault]), clips(12));
    let ran = run(&mut upload(&test_server, folder.path(), &["--bwlimit", SPEED])).done();
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.contains("503")).collect();
    assert!((1..8).contains(&lines.len()), "{}", ran.stderr);
    assert!(lines[0].contains(": the upload failed (the service answered 503"), "{}", ran.stderr);
}

#[test]
fn lines_of_progress_appear_without_a_terminal_only_if_requested() {
    let (test_server, folder) = (TestServer::new(Scheme::Http), clips(12));
    let is_progress = |line: &&str| line.contains(" of 6.0 MiB, ");
    let ran = run(&mut upload(&test_server, folder.path(), &["--bwlimit", SPEED, "--stats", "500ms"])).done();
    let lines: Vec<_> = ran.stderr.lines().filter(is_progress).collect();
    assert!(!lines.is_empty(), "{}", ran.stderr);
    let last = lines.last().unwrap();
    assert!(last.contains("%, ") && last.contains("/s, ") && last.contains("/12 files"), "{last}");
    for flags in [&["--stats", "0", "--progress=always"][..], &["-P"], &["--stats", "1h"], &[]] {
        let ran = run(&mut upload(
            &test_server,
            folder.path(),
            &[flags, &["--force", "--bwlimit", SPEED]].concat(),
        ));
        assert_eq!(ran.done().stderr.lines().filter(is_progress).count(), 0, "{flags:?}");
    }
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_no_display() {
    let (test_server, folder) = (TestServer::new(Scheme::Http), clips(1));
    let mut command = Command::new("env");
    let inner = upload(&test_server, folder.path(), &["--bwlimit", SPEED]);
    command
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(folder.path());
    command.arg("TERM=dumb").arg(inner.get_program()).args(inner.get_args());
    let mut terminal = Terminal::start(&mut command, 24, 80);
    assert_eq!(terminal.end(), Some(0), "{}", String::from_utf8_lossy(&terminal.raw));
    assert!(!terminal.raw.contains(&0x1b), "{}", String::from_utf8_lossy(&terminal.raw));
}
