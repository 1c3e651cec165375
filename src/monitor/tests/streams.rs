//! The stream of events.

use std::io::Read;

use serde_json::json;

use super::client::{EventReader, connect, get, send};
use super::*;

#[test]
fn a_viewer_receives_the_state_and_then_its_changes() {
    let run = FakeRun::new(view_with("a"));
    let monitor = start("127.0.0.1:0", quick(), run.clone());
    let mut events = EventReader::open(monitor.addr(), &[]);
    assert_eq!(events.line().as_deref(), Some("retry: 2000"));
    let first = events.event().unwrap();
    assert_eq!((&*first.name, &first.data["jobs"]["done"]), ("snapshot", &json!(1)));
    assert_eq!(first.data, get(monitor.addr(), "/api/snapshot", &[]).json());
    run.change(|view| view.client.bytes.sent = 1550);
    let delta = events.event().unwrap();
    assert_eq!((&*delta.name, delta.id), ("delta", first.id + 1));
    let fields: Vec<_> = delta.data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((fields, &delta.data["bytes"]["sent"]), (vec!["bytes", "run"], &json!(1550)));
    // A viewer that comes back receives everything, whatever it has seen.
    for last in ["1", "99999999", "x"] {
        let event = EventReader::open(monitor.addr(), &[&format!("Last-Event-ID: {last}")]).event().unwrap();
        assert_eq!((&*event.name, event.id), ("snapshot", delta.id));
    }
}

#[test]
fn a_run_without_changes_sends_comments_only() {
    let limits = MonitorLimits { ping: Duration::from_millis(30), ..quick() };
    let monitor = start("127.0.0.1:0", limits, FakeRun::new(view_with("a")));
    let mut events = EventReader::open(monitor.addr(), &[]);
    events.event().unwrap();
    let lines: Vec<_> = (0..6).map(|_| events.line().unwrap()).filter(|line| !line.is_empty()).collect();
    assert!(lines.iter().all(|line| line == ": ping"), "{lines:?}");
}

#[test]
fn the_end_sends_the_last_state_and_closes() {
    let run = FakeRun::new(view_with("a"));
    let monitor =
        start("127.0.0.1:0", MonitorLimits { tick: Duration::from_secs(60), ..quick() }, run.clone());
    let mut events = EventReader::open(monitor.addr(), &[]);
    events.event().unwrap();
    run.change(|view| view.exit_code = Some(5));
    let addr = monitor.addr();
    monitor.stop();
    assert_eq!(events.event().unwrap().data["run"]["exit_code"], 5);
    assert!(events.event().is_none());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

#[test]
fn a_slow_viewer_receives_a_snapshot_for_the_events_that_were_dropped() {
    let run = FakeRun::new(view_with("a"));
    let long = vec![run.view().running[0].clone(); 100];
    let limits = MonitorLimits { tick: Duration::from_millis(1), ..quick() };
    let monitor = start("127.0.0.1:0", limits, run.clone());
    let mut slow = connect(monitor.addr());
    send(&mut slow, "GET", "/api/events", &[]);
    let mut quick = EventReader::open(monitor.addr(), &[]);
    let mut last = quick.event().unwrap().id;
    // The quick viewer reads while the slow one does not. The queue and the sockets' buffers hold far less than this.
    for i in 0..600 {
        run.change(|view| {
            view.running = long.clone();
            view.running.iter_mut().for_each(|job| job.sent_bytes = 600 + i);
        });
        let event = quick.event().unwrap();
        assert_eq!((&*event.name, event.id), ("delta", last + 1));
        last = event.id;
    }
    let mut slow = EventReader::of(slow);
    let mut seen = slow.event().unwrap().id;
    let snapshot = loop {
        let event = slow.event().unwrap();
        if event.name == "snapshot" {
            break event;
        }
        assert_eq!(event.id, seen + 1, "nothing is missing between snapshots");
        seen = event.id;
    };
    assert!(snapshot.id > seen + 1, "events were dropped");
    assert_eq!(snapshot.data["running"].as_array().unwrap().len(), 100);
}

#[test]
fn a_viewer_that_takes_nothing_is_closed() {
    let run = FakeRun::new(view_with("a"));
    let limits = MonitorLimits {
        write: Duration::from_millis(200),
        tick: Duration::from_millis(1),
        viewers: 1,
        ..quick()
    };
    let monitor = start("127.0.0.1:0", limits, run.clone());
    let mut slow = connect(monitor.addr());
    send(&mut slow, "GET", "/api/events", &[]);
    // The answer has begun: the only place is taken.
    slow.read_exact(&mut [0; 20]).unwrap();
    assert_eq!(get(monitor.addr(), "/api/events", &[]).status, 503);
    let long = vec![run.view().running[0].clone(); 100];
    let deadline = Instant::now() + Duration::from_secs(30);
    for i in 0.. {
        run.change(|view| {
            view.running = long.clone();
            view.running.iter_mut().for_each(|job| job.sent_bytes = i);
        });
        // The place becomes free when the slow viewer's connection ends.
        let mut tcp = connect(monitor.addr());
        send(&mut tcp, "HEAD", "/healthz", &[]);
        tcp.read_to_end(&mut Vec::new()).unwrap();
        let mut tcp = connect(monitor.addr());
        send(&mut tcp, "GET", "/api/events", &[]);
        let mut status = [0; 12];
        tcp.read_exact(&mut status).unwrap();
        if status.ends_with(b"200") {
            return;
        }
        assert!(Instant::now() < deadline, "the slow viewer keeps its place");
    }
}

#[test]
fn viewers_that_leave_free_their_places() {
    let run = FakeRun::new(view_with("a"));
    let monitor = start("127.0.0.1:0", MonitorLimits { viewers: 1, ..quick() }, run.clone());
    for _ in 0..20 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut tcp = connect(monitor.addr());
            send(&mut tcp, "GET", "/api/events", &[]);
            let mut status = [0; 12];
            tcp.read_exact(&mut status).unwrap();
            if status.ends_with(b"200") {
                break;
            }
            assert!(Instant::now() < deadline, "the place of a viewer that left is not free");
        }
    }
}
