//! A queue on a cluster of three NATS servers, of which one after another is killed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet_hosts::{FleetHost, JETSTREAM, NatsServer, POOL};
use crate::support::command::{end, run, start};
use crate::support::queue::{folder, wait_until};
use crate::support::{MIB, Scheme, TestServer};

/// Three servers that know each other.
struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// Starts the servers; `None` if there is no program for them.
    fn start() -> Option<NatsCluster> {
        // Each server names the ports of the others before they run. A free port could be lost to another process until
        // then; a network of loopback that is drawn at random has the same port free for all.
        let network = format!("127.{}.{}", fastrand::u8(1..), fastrand::u8(..));
        let address = |number| format!("{network}.{number}:6222");
        let routes: Vec<_> = (1..=3).map(|number| format!("nats://{}", address(number))).collect();
        let start = |number| {
            let (listen, routes) = (address(number), routes.join(", "));
            let cluster = format!("cluster {{ name: films, listen: {listen:?}, routes: [{routes}] }}");
            NatsServer::start_with(&format!("server_name: node{number}\n{JETSTREAM}\n{cluster}"), "")
        };
        Some(NatsCluster { servers: (1..=3).map(start).collect::<Option<_>>()? })
    }

    /// Returns the URL with all servers.
    fn url(&self) -> String {
        let hosts: Vec<_> = self.servers.iter().map(|server| server.url().replace("nats://", "")).collect();
        format!("nats://{}", hosts.join(","))
    }
}

/// Waits until the service has this many chunks more.
fn wait_for_chunks(server: &TestServer, more: u64) {
    let before = server.server.stats().chunks_accepted;
    wait_until(|| server.server.stats().chunks_accepted >= before + more);
}

/// Submits a folder with three copies of each job. The servers may still elect their leader.
fn submit(host: &FleetHost<'_>, films: &Path) {
    let begun = Instant::now();
    let films = films.to_str().unwrap();
    let args =
        ["submit", films, "--json", "--pool", POOL, "--lease", "3s", "--chunk-size", "5M", "--replicas", "3"];
    loop {
        let output = run(&mut host.command(args));
        if output.code == Some(0) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{output:?}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn jobs_go_on_while_one_server_of_a_cluster_after_another_is_killed() {
    let Some(mut cluster) = NatsCluster::start() else { return };
    let (server, films) = (TestServer::new(Scheme::Http), folder(30));
    for index in 0..2 {
        fs::write(films.path().join(format!("long{index}.mp4")), vec![index; 80 * MIB as usize]).unwrap();
    }
    let hosts = [(); 2].map(|()| FleetHost::new(&server, cluster.url()));
    submit(&hosts[0], films.path());
    // A rate at which the files outlast the three kills.
    let workers = hosts.each_ref().map(|host| start(&mut host.worker(&["--drain", "--bwlimit", "3M"])));
    for index in 0..3 {
        wait_for_chunks(&server, 1);
        cluster.servers[index].kill();
        // Without the copies, the jobs would stand still while the server that has them is away.
        wait_for_chunks(&server, 3);
        cluster.servers[index].restart();
    }
    for worker in workers {
        end(worker).done();
    }
    let events = run(&mut hosts[0].command(["jobs", "list", "--json"])).done().events();
    let jobs: Vec<_> = events.into_iter().filter(|event| event["event"] == "job").collect();
    assert_eq!(jobs.len(), 32, "{jobs:?}");
    let mut videos = HashSet::new();
    for job in &jobs {
        assert_eq!((job["state"].as_str(), &job["orphans"]), (Some("done"), &Value::Null), "{job}");
        let video_id = job["video_id"].as_str().unwrap();
        server.assert_holds(video_id, Path::new(job["path"].as_str().unwrap()));
        videos.insert(video_id.to_owned());
    }
    assert_eq!(HashSet::from_iter(server.video_ids()), videos);
}
