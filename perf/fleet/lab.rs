//! The servers, the files and the commands of the measurements of a fleet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringlift::server::{Limits, RequestBudget, Server, ServerSettings, TlsMode};
use ringlift_baseline::Scheme;
use rustix::process::{Pid, Signal, kill_process};

use super::nats_server::NatsServer;
use crate::Result;
use crate::files::Files;

/// A NATS server, a folder for files, and the binary to measure.
pub(crate) struct FleetLab {
    pub(crate) files: Files,
    ringlift: PathBuf,
    nats: NatsServer,
}

/// A host: its state folder, and the endpoint and the key of its service.
pub(crate) struct LabHost {
    ringlift: PathBuf,
    queue: String,
    state: PathBuf,
    endpoint: String,
    key: String,
    ca_cert: Option<PathBuf>,
}

/// A worker in the background, killed on drop.
pub(crate) struct LabWorker(Child);

impl FleetLab {
    pub(crate) fn open(dir: &Path, ringlift: &Path) -> Result<FleetLab> {
        let nats = NatsServer::start().ok_or("nats-server is not installed")?;
        Ok(FleetLab { files: Files::new(dir)?, ringlift: fs::canonicalize(ringlift)?, nats })
    }

    /// Starts a local service in this process that allows so many uploads a minute. The other limits are those of the
    /// paid service, or as high.
    pub(crate) fn service(&self, name: &str, uploads: u32, scheme: Scheme) -> Result<Server> {
        let mut settings = ServerSettings::new(self.files.path(name));
        let (window, writes, reads) = (Duration::from_secs(60), uploads.max(200), uploads.max(500));
        settings.tls = match scheme {
            Scheme::Http => TlsMode::Off,
            Scheme::Https => TlsMode::OwnAuthority,
        };
        settings.limits = Limits::Custom(RequestBudget { uploads, writes, reads, window });
        Ok(Server::start(settings)?)
    }

    /// Creates a host with an empty state folder.
    pub(crate) fn host(&self, name: &str, endpoint: &str, key: &str) -> Result<LabHost> {
        let state = self.files.path(&format!("state-{name}"));
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        fs::create_dir_all(&state)?;
        let (endpoint, key) = (endpoint.to_owned(), key.to_owned());
        let (ringlift, queue) = (self.ringlift.clone(), self.nats.url());
        Ok(LabHost { ringlift, queue, state, endpoint, key, ca_cert: None })
    }
}

impl LabHost {
    /// Trusts the authority of a service with TLS.
    pub(crate) fn trusting(mut self, service: &Server) -> LabHost {
        self.ca_cert = service.ca_path().map(Path::to_owned);
        self
    }

    /// Returns a command on the queue in NATS, with the jobs of this account.
    pub(crate) fn on_nats(&self, args: &[&str], account: &str) -> Command {
        let mut command = self.on_sqlite(args);
        command.args(["--queue", &self.queue, "--account", account]);
        command
    }

    /// Returns a command on the queue in this host's state folder.
    pub(crate) fn on_sqlite(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.ringlift);
        command.env("XDG_STATE_HOME", &self.state).env("XDG_CONFIG_HOME", &self.state);
        command.env("APIVIDEO_API_KEY", &self.key).env("RINGLIFT_ENDPOINT_URL", &self.endpoint);
        if let Some(ca_cert) = &self.ca_cert {
            command.env("RINGLIFT_CA_CERT", ca_cert);
        }
        command.args(args).arg("--quiet");
        command
    }

    /// Starts a worker of the pool.
    pub(crate) fn work(&self, account: &str, lease: &str) -> Result<LabWorker> {
        let mut command = self.on_nats(&["work", "--pool", POOL, "--lease", lease], account);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(LabWorker(command.spawn()?))
    }

    /// Submits what these arguments name.
    pub(crate) fn submit(&self, account: &str, lease: &str, args: &[&str]) -> Result<()> {
        let mut command = self.on_nats(&["submit", "--pool", POOL, "--lease", lease], account);
        let output = command.args(args).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("submit ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
            .into())
    }
}

impl LabWorker {
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Ends the worker as a service manager does.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a worker ended with {status}").into()) }
    }
}

impl Drop for LabWorker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) const POOL: &str = "share:perf";
