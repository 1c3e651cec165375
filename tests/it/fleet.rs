//! Workers on several hosts, whose files, state folders and journals differ, with one queue in NATS.

mod chaos;
mod chaos_plan;
mod chaos_totals;
mod cuttable_link;
mod host;
mod request_meter;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fleet_hosts::NatsServer;
use crate::support::command::{end, ringlift, run};
use crate::support::queue::{folder, wait_until};
use crate::support::{MIB, Scheme, TestServer};
use host::{Host, assert_has_only};

/// Asserts that the queue has these files as done, and that each is one complete video.
fn assert_each_file_is_one_video(host: &Host<'_>, films: &Path, files: usize) {
    let jobs = host.jobs();
    assert_eq!(jobs.len(), files, "{jobs:?}");
    let mut videos = HashSet::new();
    for job in &jobs {
        assert_eq!(job["state"], "done", "{job}");
        let path = Path::new(job["path"].as_str().unwrap());
        assert!(path.starts_with(films), "{job}");
        let video_id = job["video_id"].as_str().unwrap();
        host.server.assert_holds(video_id, path);
        videos.insert(video_id.to_owned());
    }
    assert_eq!(videos.len(), files);
    assert_has_only(host.server, &videos);
}

#[test]
fn files_are_uploaded_once_by_hosts_that_are_killed_and_a_queue_that_restarts() {
    let Some(mut nats) = NatsServer::start() else { return };
    let rounds: usize =
        std::env::var("RINGLIFT_FLEET_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let (server, films) = (TestServer::new(Scheme::Http), folder(40));
    fs::write(films.path().join("long.mp4"), vec![7; 60 * MIB as usize]).unwrap();
    let hosts: Vec<_> = (0..4).map(|_| Host::new(&server, &nats)).collect();
    hosts[0].submit(films.path()).done();
    // The same files from another host are the same jobs.
    hosts[1].submit(films.path()).done();
    let mut workers: Vec<_> = hosts.iter().map(|host| host.work(&[])).collect();
    for round in 0..rounds {
        // The moment of the kill is what varies; nothing depends on it.
        thread::sleep(Duration::from_millis(fastrand::u64(100..1200)));
        let index = round % hosts.len();
        workers[index].kill().unwrap();
        workers[index].wait().unwrap();
        if round % 3 == 1 {
            nats.kill();
            nats.restart();
        }
        workers[index] = hosts[index].work(&[]);
    }
    end(hosts[0].work(&["--drain"])).done();
    for worker in workers {
        kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
        end(worker).done();
    }
    assert_each_file_is_one_video(&hosts[0], films.path(), 41);
}

#[test]
fn the_workers_of_a_fleet_share_the_limit_of_the_service() {
    let Some(nats) = NatsServer::start() else { return };
    let limits = ringlift::server::Limits::Production;
    let (server, films) = (TestServer::with(Scheme::Http, |settings| settings.limits = limits), folder(30));
    let hosts: Vec<_> = (0..3).map(|_| Host::new(&server, &nats)).collect();
    hosts[0].submit(films.path()).done();
    let begun = Instant::now();
    let workers: Vec<_> = hosts.iter().map(|host| host.work(&["--drain"])).collect();
    for worker in workers {
        end(worker).done();
    }
    assert_each_file_is_one_video(&hosts[0], films.path(), 30);
    let refused = server.server.requests().iter().filter(|request| request.status == Some(429)).count();
    assert_eq!(refused, 0, "in {:?}", begun.elapsed());
}

#[test]
fn a_fleet_keeps_no_secrets_and_says_what_is_wrong_with_an_address() {
    let Some(nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), folder(1));
    let host = Host::new(&server, &nats);
    let path = films.path().to_str().unwrap();
    let token = films.path().join("token");
    fs::write(&token, server.upload_token()).unwrap();
    let token = token.to_str().unwrap();
    run(&mut host.command(&["submit", path, "--upload-token-file", token])).failed(2, &["upload token"]);
    let manifest = films.path().join("urls.jsonl");
    let url = "https://store.example/a.mp4?X-Amz-Signature=secret";
    fs::write(&manifest, format!("{{\"source_url\":\"{url}\"}}\n")).unwrap();
    let manifest = manifest.to_str().unwrap();
    run(&mut host.command(&["submit", "--manifest", manifest])).failed(1, &["source_url", "public URL"]);
    let mut command = ringlift();
    server.configure(&mut command).args(["submit", path, "--queue", "nats://kim:hunter2@"]);
    let output = run(&mut command).failed(2, &["--queue", "nats://HOST:4222"]);
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    let mut command = ringlift();
    server.configure(&mut command).args(["submit", path, "--queue", "nats://127.0.0.1:1"]);
    run(&mut command).failed(5, &["nats://127.0.0.1:1", "could not be reached"]);
    assert_eq!(server.server.stats().videos_created, 0);
}

#[test]
fn a_file_for_an_existing_video_is_finished_by_another_host() {
    let Some(nats) = NatsServer::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), tempfile::tempdir().unwrap());
    let film = films.path().join("long.mp4");
    fs::write(&film, vec![7; 40 * MIB as usize]).unwrap();
    let client = server.client().build().unwrap();
    let video = pollster::block_on(client.create_video(ringlift::NewVideo::new("long"))).unwrap().video_id;
    let hosts = [(); 2].map(|()| Host::new(&server, &nats));
    let manifest = films.path().join("films.jsonl");
    fs::write(&manifest, format!("{{\"path\":\"long.mp4\",\"video_id\":\"{video}\"}}\n")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let submit =
        ["submit", "--manifest", manifest, "--pool", host::POOL, "--chunk-size", "5M", "--lease", "3s"];
    run(&mut hosts[0].command(&submit)).done();
    let mut worker = hosts[0].work(&["--bwlimit", "4M"]);
    wait_until(|| hosts[1].jobs()[0]["acknowledged_bytes"].as_u64() > Some(0));
    worker.kill().unwrap();
    worker.wait().unwrap();
    end(hosts[1].work(&["--drain"])).done();
    let job = hosts[1].jobs().remove(0);
    assert_eq!((job["state"].as_str(), job["video_id"].as_str()), (Some("done"), Some(&*video)), "{job}");
    server.assert_created(1);
    server.assert_holds(&video, &film);
}
