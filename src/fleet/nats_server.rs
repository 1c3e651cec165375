//! A NATS server for tests.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A NATS server on a free port of loopback. It is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct NatsServer {
    folder: tempfile::TempDir,
    binary: PathBuf,
    extra: String,
    login: String,
    port: u16,
    child: Child,
}

/// Returns the server's program: `NATS_SERVER`, or `nats-server` in `PATH`.
///
/// Without one the test is skipped with a line, or fails if `RINGLIFT_REQUIRE_NATS` is set.
pub(crate) fn binary() -> Option<PathBuf> {
    let in_path = || {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|file| file.is_file())
    };
    let found = env::var_os("NATS_SERVER").map(PathBuf::from).or_else(in_path);
    if found.is_none() {
        assert!(env::var_os("RINGLIFT_REQUIRE_NATS").is_none(), "nats-server is not installed");
        eprintln!("skipped: nats-server is not installed");
    }
    found
}

impl NatsServer {
    /// Starts a server; `None` if there is no program for it.
    pub(crate) fn start() -> Option<NatsServer> {
        NatsServer::start_with(JETSTREAM, "")
    }

    /// Starts a server with other lines in its configuration, of which [`JETSTREAM`] is one. `login` goes into the
    /// address: `user:password@`.
    pub(crate) fn start_with(extra: &str, login: &str) -> Option<NatsServer> {
        let binary = binary()?;
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = spawn(&binary, folder.path(), extra, None);
        let (extra, login) = (extra.to_owned(), login.to_owned());
        Some(NatsServer { folder, binary, extra, login, port, child })
    }

    /// Returns the URL, with the login.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}127.0.0.1:{}", self.login, self.port)
    }

    /// Returns the folder of the stored messages.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Kills the server without notice.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the killed server again, on the same port.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&self.extra.clone());
    }

    /// Starts the killed server again, once with other lines in its configuration.
    pub(crate) fn restart_with(&mut self, extra: &str) {
        (self.child, _) = spawn(&self.binary, self.folder.path(), extra, Some(self.port));
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The line of the configuration that enables JetStream.
pub(crate) const JETSTREAM: &str = "jetstream { store_dir: STORE }";

fn spawn(binary: &Path, folder: &Path, extra: &str, port: Option<u16>) -> (Child, u16) {
    let ports = folder.join("ports");
    let _ = fs::remove_dir_all(&ports);
    fs::create_dir_all(&ports).unwrap();
    let config = folder.join("nats.conf");
    let (port, store) = (port.map_or(-1, i32::from), folder.join("store"));
    let extra = extra.replace("STORE", &format!("{store:?}"));
    let text = format!("host: 127.0.0.1\nport: {port}\nports_file_dir: {ports:?}\n{extra}\n");
    fs::write(&config, text).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut child = Command::new(binary)
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        if let Some(port) = port_in(&ports) {
            return (child, port);
        }
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "the server ended: {}", log());
        assert!(begun.elapsed() < Duration::from_secs(30), "the server does not start: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the port in the file that the server writes once it listens.
fn port_in(folder: &Path) -> Option<u16> {
    let file = fs::read_dir(folder).ok()?.next()?.ok()?.path();
    let ports: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let url = ports.get("nats")?.get(0)?.as_str()?;
    url.rsplit_once(':')?.1.parse().ok()
}
