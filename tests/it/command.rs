//! The built command: its sources, its output and its exit codes.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ringlift::server::{Fault, FaultAction, FaultPlan, RouteClass};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{
    CommandOutput, Restriction, Watched, end, ready_url, ringlift, run, run_with_stdin, start,
};
use crate::support::{MIB, Sample, Scheme, TestServer, digest};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the video id of a run with one file.
fn video_id(ran: &CommandOutput) -> String {
    ran.summary()["video_id"].as_str().unwrap().to_owned()
}

#[test]
fn every_mode_fills_a_video_over_http_and_https() {
    let sample = Sample::new(11 * MIB);
    for scheme in [Scheme::Http, Scheme::Https] {
        let test_server = TestServer::new(scheme);
        for (asked, used, chunks) in
            [("single", "single", 1), ("bytes", "bytes", 3), ("parts", "parts", 3), ("auto", "bytes", 3)]
        {
            let mut command = ringlift();
            test_server.configure(&mut command).env("RINGLIFT_CHUNK_SIZE", "5MiB");
            let ran = run(command.args(["upload", "--json", "--mode", asked, sample.arg()])).done();
            assert_eq!(ran.event("planned")["chunks"], chunks);
            let done = ran.event("file_done");
            assert_eq!((&done["mode"], &done["chunks"]), (&used.into(), &chunks.into()));
            let summary = ran.summary();
            assert_eq!(summary["bytes"], sample.len);
            assert_eq!((&summary["exit_code"], &summary["files_done"]), (&0.into(), &1.into()));
            test_server.assert_holds(&video_id(&ran), &sample.path());
        }
    }
}

#[test]
fn every_reader_fills_a_video_and_is_reported() {
    let sample = Sample::new(11 * MIB);
    let test_server = TestServer::new(Scheme::Http);
    for reader in ["mmap", "pread"] {
        let ran = test_server.run(["upload", "--json", "--reader", reader, sample.arg()]).done();
        assert_eq!(ran.event("file_done")["reader"], reader);
        test_server.assert_holds(&video_id(&ran), &sample.path());
    }
    for reader in ["uring", "direct", "auto"] {
        let ran = test_server.run(["upload", "--json", "--reader", reader, sample.arg()]).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
    }
}

#[test]
fn standard_input_is_sent_in_parts_with_the_given_name() {
    let test_server = TestServer::new(Scheme::Http);
    for len in [1, 5 * MIB, 11 * MIB + 1] {
        let sample = Sample::new(len);
        let mut command = ringlift();
        test_server.configure(&mut command).args([
            "upload",
            "--json",
            "--name",
            "live.mp4",
            "--chunk-size",
            "5MiB",
            "-",
        ]);
        let ran = run_with_stdin(&mut command, fs::read(sample.path()).unwrap()).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
        let shown = test_server.run(["video", "get", "--json", &video_id(&ran)]).done();
        assert_eq!(shown.event("video")["video"]["title"], "live.mp4");
    }
}

#[test]
fn an_upload_token_is_enough() {
    let test_server = TestServer::new(Scheme::Http);
    let created = test_server.run(["token", "create", "--json", "--ttl", "10m"]).done();
    let token = created.event("token")["token"]["token"].as_str().unwrap().to_owned();
    let token_file = test_server.folder.path().join("token");
    fs::write(&token_file, format!("{token}\n")).unwrap();
    let sample = Sample::new(16 * MIB);
    for mode in ["single", "bytes", "parts"] {
        let before = test_server.server.stats().videos_created;
        let mut command = ringlift();
        test_server.configure_without_key(&mut command).env("RINGLIFT_CHUNK_SIZE", "5MiB");
        command
            .args(["upload", "--json", "--mode", mode])
            .arg("--upload-token-file")
            .arg(&token_file)
            .arg(sample.path());
        let ran = run(&mut command).done();
        test_server.assert_holds(&video_id(&ran), &sample.path());
        assert_eq!(test_server.server.stats().videos_created, before + 1, "{mode}");
        assert!(!ran.stdout.contains(&token) && !ran.stderr.contains(&token), "the token was shown");
    }
}

#[test]
fn a_container_is_filled_and_keeps_its_title() {
    let test_server = TestServer::new(Scheme::Http);
    let client = test_server.client().build().unwrap();
    let video = ringlift::NewVideo::new("made before");
    let container = pollster::block_on(client.create_video(video)).unwrap().video_id;
    let sample = Sample::new(MIB);
    let ran = test_server.run(["upload", "--json", "--video-id", &container, sample.arg()]).done();
    assert_eq!(video_id(&ran), container);
    test_server.assert_holds(&container, &sample.path());
    let shown = test_server.run(["video", "get", "--json", &container]).done();
    assert_eq!(shown.event("video")["video"]["title"], "made before");
}

#[test]
fn a_dry_run_prints_the_plan_and_sends_nothing() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(12 * MIB);
    let args = ["upload", "--json", "--dry-run", "--mode", "parts", "--chunk-size", "5M", sample.arg()];
    let ran = test_server.run(args).done();
    let plan = ran.event("planned");
    assert_eq!((&plan["chunks"], &plan["chunk_bytes"]), (&3.into(), &(5 * MIB).into()));
    assert_eq!((&plan["mode"], &plan["dry_run"]), (&"parts".into(), &true.into()));
    assert!(test_server.server.requests().is_empty());
}

#[test]
fn a_file_of_30_gib_is_planned_without_being_read() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::sparse(30 << 30);
    let args = ["upload", "--json", "--dry-run", "--mode", "bytes", "--chunk-size", "200M", sample.arg()];
    let plan = test_server.run(args).done().event("planned");
    assert_eq!((&plan["bytes"], &plan["chunks"]), (&(30u64 << 30).into(), &154.into()));
}

#[test]
fn piped_output_is_only_the_video_id() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(6 * MIB);
    let ran = test_server.run(["upload", sample.arg()]).done();
    test_server.assert_holds(ran.stdout.trim(), &sample.path());
    assert!(!ran.stderr.contains(['\r', '\u{1b}']), "{:?}", ran.stderr);
    let ran = test_server.run(["upload", "--quiet", sample.arg()]).done();
    assert_eq!(ran.stderr, "");
}

#[test]
fn several_files_end_with_a_summary() {
    let test_server = TestServer::new(Scheme::Http);
    let (one, two) = (Sample::new(MIB), Sample::new(7 * MIB));
    let args = ["upload", "--json", "--transfers", "2", one.arg(), two.arg(), "/nowhere/movie.mp4"];
    let ran = test_server.run(args).failed(4, &["/nowhere/movie.mp4"]);
    let summary = ran.summary();
    assert_eq!((&summary["files_done"], &summary["files_failed"]), (&2.into(), &1.into()));
    assert_eq!(summary["bytes"], 8 * MIB);
}

#[test]
fn the_reported_sha256_equals_the_sha256_of_the_file() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(6 * MIB);
    let ran = test_server.run(["upload", "--json", "--sha256", sample.arg()]).done();
    assert_eq!(ran.summary()["sha256"], digest(&sample.path()));
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_file() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(40 * MIB);
    let config = test_server.folder.path().join("ringlift.toml");
    fs::write(&config, "chunk-size = \"20MiB\"\n[upload]\nmode = \"parts\"\n").unwrap();
    let planned = |environment: &[(&str, &str)], args: &[&str]| {
        let mut command = ringlift();
        test_server
            .configure(&mut command)
            .args(["upload", "--json", "--dry-run", "--config", text(&config)])
            .args(args);
        run(command.envs(environment.iter().copied()).arg(sample.path())).done().event("planned")
    };
    let plan = planned(&[], &[]);
    assert_eq!((&plan["chunk_bytes"], &plan["mode"]), (&(20 * MIB).into(), &"parts".into()));
    let environment = [("RINGLIFT_CHUNK_SIZE", "10MiB"), ("RINGLIFT_MODE", "bytes")];
    let plan = planned(&environment, &["--chunk-size", "5MiB"]);
    assert_eq!((&plan["chunk_bytes"], &plan["mode"]), (&(5 * MIB).into(), &"bytes".into()));
}

#[test]
fn an_uploaded_video_can_be_shown_listed_and_deleted() {
    let test_server = TestServer::new(Scheme::Http);
    let sample = Sample::new(MIB);
    let described =
        ["--title", "Summer", "--tag", "travel", "--metadata", "camera=7", "--private", "--wait", "playable"];
    let upload = [&["upload", "--json"], described.as_slice(), &[sample.arg()]].concat();
    let id = video_id(&test_server.run(upload).done());
    let status = test_server.run(["status", "--json", &id]).done().event("status");
    assert_eq!(status["status"]["encoding"]["playable"], true);
    let listed =
        test_server.run(["video", "list", "--json", "--tag", "travel", "--metadata", "camera=7"]).done();
    assert_eq!(listed.event("video")["video"]["videoId"], *id);
    assert_eq!(listed.event("video")["video"]["public"], false);
    test_server.run(["video", "delete", "--yes", &id]).done();
    test_server.run(["video", "get", &id]).failed(3, &[&id]);
}

#[test]
fn upload_tokens_can_be_listed_and_deleted() {
    let test_server = TestServer::new(Scheme::Http);
    let created = test_server.run(["token", "create", "--json"]).done().event("token");
    let token = created["token"]["token"].as_str().unwrap();
    let listed = test_server.run(["token", "list", "--json"]).done();
    assert_eq!(listed.event("token")["token"]["token"], token);
    assert_eq!(listed.event("list_end")["more"], false);
    test_server.run(["token", "delete", token]).done();
    assert!(
        test_server
            .run(["token", "list", "--json"])
            .done()
            .events()
            .iter()
            .all(|event| event["event"] != "token")
    );
}

#[test]
fn an_interrupt_ends_the_command_and_names_the_container() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let test_server = TestServer::with(Scheme::Http, |settings| settings.faults = pauses());
        let sample = Sample::new(30 * MIB);
        let mut command = ringlift();
        test_server.configure(&mut command).args([
            "upload",
            "--json",
            "--chunk-size",
            "5MiB",
            "--grace",
            "0s",
        ]);
        let mut running = Watched::of(command.arg(sample.path()));
        running.event("created");
        running.signal(signal);
        let ran = running.end();
        assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.summary()["exit_code"], code);
        let container = ran.event("created")["video_id"].as_str().unwrap().to_owned();
        assert!(ran.stderr.contains(&container), "{}", ran.stderr);
    }
}

#[test]
fn the_same_command_continues_after_a_crash() {
    let stall = Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).nth(3);
    let test_server = TestServer::with(Scheme::Http, |settings| settings.faults = vec![stall].into());
    let sample = Sample::new(30 * MIB);
    let journal = test_server.folder.path().join("journal.db");
    let mut command = ringlift();
    test_server.configure(&mut command).args([
        "upload",
        "--json",
        "--concurrency",
        "1",
        "--chunk-size",
        "5MiB",
        "--journal",
    ]);
    command.arg(&journal).arg(sample.path());
    let child = start(&mut command);
    while test_server.server.stats().chunks_accepted < 3 {
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    let crashed = end(child);
    let ran = run(&mut command).done();
    assert_eq!(video_id(&ran), crashed.event("created")["video_id"]);
    test_server.assert_holds(&video_id(&ran), &sample.path());
    let tally = test_server.server.stats();
    assert_eq!((tally.videos_created, tally.chunks_accepted, tally.refused.len()), (1, 6, 0));
}

#[test]
fn demo_uploads_with_every_method_and_compares() {
    let mut command = ringlift();
    let ran = run(command.args(["demo", "--json", "--size", "24MiB"])).done();
    let ways: Vec<_> = ran.events().into_iter().filter(|event| event["event"] == "way").collect();
    assert_eq!(ways.len(), 6, "{ways:?}");
    let sample = Sample::new(7 * MIB);
    let ran = run(ringlift().arg("demo").arg(sample.path())).done();
    assert!(ran.stdout.contains("parts") && ran.stdout.contains("HTTPS"), "{}", ran.stdout);
}

#[test]
fn a_new_server_keeps_the_videos_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let sample = Sample::new(6 * MIB);
    let mut id = String::new();
    for round in 0..2 {
        let mut serve = ringlift();
        serve.env("APIVIDEO_API_KEY", "key").args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"]);
        let mut server = start(serve.arg(folder.path().join("data")));
        let url = ready_url(&mut server);
        let at_home = |args: &[&str]| {
            run(ringlift().env("APIVIDEO_API_KEY", "key").args(["--json", "--endpoint-url", &url]).args(args))
                .done()
        };
        match round {
            0 => id = video_id(&at_home(&["upload", sample.arg()])),
            _ => drop(at_home(&["status", &id]).event("status")),
        }
        kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
        end(server).done();
    }
}

#[test]
fn a_server_without_a_key_listens_only_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ringlift();
    command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(folder.path());
    run(&mut command).failed(2, &["0.0.0.0", "APIVIDEO_API_KEY"]);
}

#[test]
fn help_completions_and_the_manual_are_printed() {
    assert!(run(ringlift().arg("--help")).done().stdout.contains("Exit codes"));
    assert!(run(ringlift().arg("--version")).done().stdout.starts_with("ringlift "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(ringlift().args(["completion", shell])).done().stdout.contains("chunk-size"));
    }
    let folder = tempfile::tempdir().unwrap();
    run(ringlift().arg("man").arg(folder.path())).done();
    assert!(folder.path().join("ringlift-upload.1").exists());
}

#[test]
fn a_refused_ring_is_replaced_and_the_reason_logged_once() {
    let test_server = TestServer::new(Scheme::Https);
    let sample = Sample::new(11 * MIB);
    let args = ["upload", "--json", "-v", "--reader", "uring", "--chunk-size", "5MiB", sample.arg()];
    let run = |want: Restriction| {
        want.run(|command| {
            test_server.configure(command).args(args);
        })
        .done()
    };
    for (want, reason) in [(Restriction::Ring, "seccomp"), (Restriction::LockedKib(0), "locked memory")] {
        let ran = run(want);
        assert_eq!(ran.event("file_done")["reader"], "pread");
        assert_eq!(ran.stderr.matches(reason).count(), 1, "{}", ran.stderr);
        test_server.assert_holds(&video_id(&ran), &sample.path());
    }
}

/// Faults of a server that takes seconds to answer each chunk.
fn pauses() -> FaultPlan {
    FaultPlan::from(vec![
        Fault::new(RouteClass::Chunk, FaultAction::StallAnswering { for_ms: 5000 }).times(0),
    ])
}
