//! Hosts of a fleet, of which each has files, a state folder and a journal of its own.

use std::collections::HashSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::cuttable_link::CuttableLink;
use crate::fleet_hosts::NatsServer;
use crate::support::TestServer;
use crate::support::command::{CommandOutput, ringlift, run, start};

pub const POOL: &str = "share:films";
/// The hosts reach the service by different addresses, from which the default account would be made.
const ACCOUNT: &str = "films";

/// A host: a state folder of its own.
pub struct Host<'a> {
    pub server: &'a TestServer,
    nats: String,
    endpoint: String,
    state: TempDir,
}

impl<'a> Host<'a> {
    pub fn new(server: &'a TestServer, nats: &NatsServer) -> Host<'a> {
        let endpoint = server.server.url().to_string();
        Host { server, nats: nats.url(), endpoint, state: tempfile::tempdir().unwrap() }
    }

    /// Creates a host that reaches the engine and the service by these links.
    pub fn behind(server: &'a TestServer, engine: &CuttableLink, service: &CuttableLink) -> Host<'a> {
        let (nats, endpoint) = (format!("nats://{}", engine.addr()), format!("http://{}", service.addr()));
        Host { server, nats, endpoint, state: tempfile::tempdir().unwrap() }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = ringlift();
        self.server.configure(&mut command);
        command.args(args).args(["--queue", &self.nats, "--account", ACCOUNT]);
        command.env("XDG_STATE_HOME", self.state.path()).env("RINGLIFT_ENDPOINT_URL", &self.endpoint);
        command
    }

    fn work_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["work", "--json", "--pool", POOL, "--lease", "3s"]);
        command.args(args);
        command
    }

    pub fn work(&self, args: &[&str]) -> Child {
        start(&mut self.work_command(args))
    }

    /// Starts a worker whose output goes to files: a long run would fill a pipe.
    pub fn work_unattended(&self, args: &[&str]) -> Child {
        let file = |name: &str| {
            File::options().create(true).append(true).open(self.state.path().join(name)).unwrap()
        };
        let mut command = self.work_command(args);
        command.stdout(Stdio::from(file("events"))).stderr(Stdio::from(file("messages")));
        command.spawn().unwrap()
    }

    /// Returns the events and the messages of the unattended workers.
    pub fn output(&self) -> [String; 2] {
        ["events", "messages"].map(|name| {
            let bytes = std::fs::read(self.state.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    fn submit_command(&self, films: &Path) -> Command {
        let films = films.to_str().unwrap();
        self.command(&["submit", films, "--json", "--pool", POOL, "--chunk-size", "5M", "--lease", "3s"])
    }

    pub fn submit(&self, films: &Path) -> CommandOutput {
        run(&mut self.submit_command(films))
    }

    pub fn start_submit(&self, films: &Path) -> Child {
        start(&mut self.submit_command(films))
    }

    /// Returns the events of the jobs in the queue.
    pub fn jobs(&self) -> Vec<Value> {
        let output = run(&mut self.command(&["jobs", "list", "--json"])).done();
        output.events().into_iter().filter(|event| event["event"] == "job").collect()
    }
}

/// Returns the address of the engine.
pub fn address_of(nats: &NatsServer) -> SocketAddr {
    nats.url().strip_prefix("nats://").unwrap().parse().unwrap()
}

/// Asserts that the service has these videos and no other. A lost race creates a second one, which is deleted.
pub(super) fn assert_has_only(server: &TestServer, videos: &HashSet<String>) {
    let found = HashSet::from_iter(server.video_ids());
    assert_eq!(&found, videos);
}
