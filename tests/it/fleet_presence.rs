//! The workers of a fleet in the monitor of each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fleet_hosts::{FleetHost, NatsServer};
use crate::support::command::end;
use crate::support::{Scheme, TestServer};

/// Starts a worker with a monitor. Returns the worker and the address of the monitor.
fn monitored(host: &FleetHost<'_>) -> (Child, String) {
    let mut command = host.worker(&["--monitor", "127.0.0.1:0"]);
    let mut worker = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // One byte at a time, so that the rest of the output stays for the end of the test.
    let stdout = worker.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, stdout).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).expect(&line);
    let url = event["url"].as_str().expect(&line);
    (worker, url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").expect(&answer).1.to_owned()
}

#[test]
fn the_workers_of_a_fleet_are_in_the_snapshot_the_metrics_and_the_page_of_each() {
    let Some(nats) = NatsServer::start() else { return };
    let server = TestServer::new(Scheme::Http);
    let hosts = [0, 1].map(|_| FleetHost::new(&server, nats.url()));
    let workers = hosts.each_ref().map(monitored);
    let addr = &workers[0].1;
    let started = Instant::now();
    let snapshot: Value = loop {
        let snapshot: Value = serde_json::from_str(&get(addr, "/api/snapshot")).unwrap();
        if snapshot["workers_total"] == 2 {
            break snapshot;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{snapshot}");
        thread::sleep(Duration::from_millis(100));
    };
    let shown = snapshot["workers"].as_array().unwrap();
    assert_eq!(shown.len(), 2, "{snapshot}");
    assert_eq!(shown.iter().filter(|worker| worker["is_self"] == true).count(), 1, "{snapshot}");
    let elapsed = snapshot["run"]["elapsed_seconds"].as_f64().unwrap();
    for worker in shown {
        let heartbeat = worker["heartbeat_at_seconds"].as_f64().unwrap();
        assert!(heartbeat <= elapsed + 0.1 && elapsed - heartbeat < 45.0, "{snapshot}");
    }
    // Both run on this machine: one value of the label.
    let host = shown[0]["host"].as_str().unwrap();
    let metrics = get(addr, "/metrics");
    assert!(metrics.contains("ringlift_fleet_workers 2.0\n"), "{metrics}");
    assert!(metrics.contains(&format!("ringlift_fleet_host_workers{{host=\"{host}\"}} 2.0\n")), "{metrics}");
    assert!(
        metrics.contains(&format!("ringlift_fleet_host_heartbeat_age_seconds{{host=\"{host}\"}} ")),
        "{metrics}"
    );
    let page = get(addr, "/");
    assert!(page.contains("<h2>Workers: 2</h2>") && page.contains("(this one)"), "{page}");
    for (worker, _) in workers {
        kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
        end(worker).done();
    }
}

#[test]
fn a_queue_of_one_host_has_no_workers_to_show() {
    let server = TestServer::new(Scheme::Http);
    let mut command = crate::support::command::ringlift();
    command
        .args(["work", "--json", "--monitor", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut worker = server.configure(&mut command).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, worker.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).expect(&line);
    let addr = event["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let snapshot: Value = serde_json::from_str(&get(&addr, "/api/snapshot")).unwrap();
    assert_eq!((&snapshot["workers"], &snapshot["workers_total"]), (&Value::Null, &Value::Null));
    assert!(!get(&addr, "/metrics").contains("ringlift_fleet"));
    kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
    end(worker).done();
}
