//! The command on a terminal of 80 columns: confirmations, tables and log lines.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::ptr;

use ringlift::server::{Fault, FaultAction, RouteClass};

use crate::support::command::ringlift;
use crate::support::{MIB, Sample, Scheme, TestServer};

const COLUMNS: u16 = 80;

/// Runs the command on a new terminal, after `typed` was typed. Returns its exit code and all output.
fn on_terminal(mut command: Command, typed: &str) -> (Option<i32>, String) {
    let size = libc::winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: all pointers are to live values, or null where openpty(3) permits it.
    let opened = unsafe { libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null(), &size) };
    assert_eq!(opened, 0);
    // SAFETY: `openpty` has just returned the descriptor, and nothing else owns it.
    let mut ours = File::from(unsafe { OwnedFd::from_raw_fd(ours) });
    // SAFETY: the same.
    let theirs = unsafe { OwnedFd::from_raw_fd(theirs) };
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    ours.write_all(typed.as_bytes()).unwrap();
    let mut child = command.spawn().unwrap();
    // Its copies of the terminal must be closed, because the end of the output is the last one.
    drop(command);
    let (mut output, mut block) = (Vec::new(), [0; 4096]);
    // Linux reports the end as EIO.
    while let Ok(len @ 1..) = ours.read(&mut block) {
        output.extend_from_slice(&block[..len]);
    }
    (child.wait().unwrap().code(), String::from_utf8_lossy(&output).into_owned())
}

fn command(test_server: &TestServer, args: &[&str]) -> Command {
    let mut command = ringlift();
    test_server.configure(&mut command).env("TERM", "xterm").args(args);
    command
}

#[test]
fn a_deletion_is_confirmed_on_a_terminal() {
    let test_server = TestServer::new(Scheme::Http);
    let id = test_server.run(["video", "create", "--title", "T"]).done().stdout.trim().to_owned();
    let (code, output) = on_terminal(command(&test_server, &["video", "delete", &id]), "n\n");
    assert!(
        code == Some(0) && output.contains("[y/N]") && output.contains("nothing was deleted"),
        "{output}"
    );
    test_server.run(["video", "get", &id]).done();
    let (code, output) = on_terminal(command(&test_server, &["video", "delete", &id]), "y\n");
    assert!(code == Some(0) && output.contains(&format!("delete video {id}")), "{output}");
    test_server.run(["video", "get", &id]).failed(3, &[]);
}

#[test]
fn the_list_of_uploads_fits_80_columns() {
    let refused = Fault::new(RouteClass::Chunk, FaultAction::unavailable()).times(0);
    let test_server = TestServer::faulty(Scheme::Http, vec![refused]);
    let sample = Sample::new(MIB);
    let deep = sample.path().parent().unwrap().join("a-directory-with-a-long-name/and-another-one-below-it");
    std::fs::create_dir_all(&deep).unwrap();
    let file = deep.join("holiday-by-the-sea.mp4");
    std::fs::copy(sample.path(), &file).unwrap();
    let ran = test_server.run(["upload", "--retries", "0", file.to_str().unwrap()]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let (code, output) = on_terminal(command(&test_server, &["resume", "--list"]), "");
    assert_eq!(code, Some(0), "{output}");
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{output}");
    assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS.into()), "{output}");
    assert!(lines[1].contains("sea.mp4"), "{output}");
    // A pipe gets the whole path.
    let piped = test_server.run(["resume", "--list"]).done();
    assert!(piped.stdout.contains(file.to_str().unwrap()), "{piped:?}");
}

#[test]
fn log_lines_on_a_terminal_have_no_time_and_read_like_the_other_messages() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let (code, output) =
        on_terminal(command(&test_server, &["upload", "-v", "--progress=never", sample.arg()]), "");
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.lines().any(|line| line.starts_with(&format!("{}: mode single", sample.arg()))),
        "{output}"
    );
    assert!(!output.contains("INFO") && !output.contains("Z "), "{output}");
}

#[test]
fn a_list_of_jobs_is_a_table_that_fits_and_its_ids_can_be_given_again() {
    let test_server = TestServer::new(Scheme::Http);
    let films = tempfile::tempdir().unwrap();
    let long = format!("{}.mp4", "a long name ".repeat(12));
    for name in ["short.mp4", &long] {
        std::fs::write(films.path().join(name), name).unwrap();
    }
    test_server.run(["submit", films.path().to_str().unwrap()]).done();
    let (code, output) = on_terminal(command(&test_server, &["jobs", "list"]), "");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{output}");
    assert!(lines[0].starts_with("JOB ") && lines[0].contains("VIDEO OR REASON"), "{output}");
    assert!(lines.iter().all(|line| line.chars().count() <= usize::from(COLUMNS)), "{output}");
    let id = lines[1].split(' ').next().unwrap();
    test_server.run(["jobs", "show", id]).done();
}
