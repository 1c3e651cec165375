//! Proxies of other projects, started for one test: tinyproxy and squid.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProgram {
    Tinyproxy,
    Squid,
}

/// The ports that a proxy opens tunnels to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelPorts {
    All,
    /// Port 443 only, as in the default settings of both programs.
    Https,
}

/// A running proxy. Dropping it ends the process.
pub struct RealProxy {
    child: Child,
    addr: SocketAddr,
    _folder: TempDir,
}

impl ProxyProgram {
    pub const ALL: [ProxyProgram; 2] = [ProxyProgram::Tinyproxy, ProxyProgram::Squid];

    /// Starts the proxy, or returns `None` with a line on standard error if the program is not installed. Panics
    /// instead if `RINGLIFT_REQUIRE_PROXIES` is set.
    ///
    /// `login` is `user password`; squid is started without one, because it needs a helper program for it.
    pub fn start(self, ports: TunnelPorts, login: Option<&str>) -> Option<RealProxy> {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        // squid, started by root, becomes a user of its own.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let config = folder.path().join("proxy.conf");
        let log = folder.path().join("proxy.log");
        fs::write(&config, self.config(addr.port(), ports, login, folder.path().to_str().unwrap())).unwrap();
        let mut command = Command::new(self.name());
        // Debian has squid in a folder that users other than root do not search.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.env("PATH", path).stdin(Stdio::null());
        match self {
            ProxyProgram::Tinyproxy => command.arg("-d").arg("-c").arg(&config),
            ProxyProgram::Squid => command.arg("-N").arg("-f").arg(&config),
        };
        let output = fs::File::create(&log).unwrap();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return skipped(&format!("{} cannot be started: {error}", self.name())),
        };
        let mut proxy = RealProxy { child, addr, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            let ended = proxy.child.try_wait().unwrap();
            let is_late = begun.elapsed() > Duration::from_secs(60);
            if is_late || ended.is_some() {
                panic!("{self:?} does not listen: {ended:?} {}", fs::read_to_string(&log).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(proxy)
    }

    fn name(self) -> &'static str {
        match self {
            ProxyProgram::Tinyproxy => "tinyproxy",
            ProxyProgram::Squid => "squid",
        }
    }

    fn config(self, port: u16, ports: TunnelPorts, login: Option<&str>, folder: &str) -> String {
        match self {
            ProxyProgram::Tinyproxy => {
                let ports = if ports == TunnelPorts::Https { "ConnectPort 443\n" } else { "" };
                let login = login.map(|login| format!("BasicAuth {login}\n")).unwrap_or_default();
                format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\n{ports}{login}")
            }
            ProxyProgram::Squid => {
                let ports =
                    if ports == TunnelPorts::Https { "http_access deny CONNECT !https\n" } else { "" };
                format!(
                    "http_port 127.0.0.1:{port}\nvisible_hostname proxy.test\nacl https port 443\n{ports}\
                     http_access allow all\ncache deny all\naccess_log none\ncache_log {folder}/cache.log\n\
                     pid_filename {folder}/squid.pid\ncoredump_dir {folder}\npinger_enable off\n\
                     netdb_filename none\nshutdown_lifetime 0 seconds\nmax_filedescriptors 1024\n"
                )
            }
        }
    }
}

impl RealProxy {
    /// Returns the URL of the proxy with these credentials: empty, or `user:password@`.
    pub fn url(&self, userinfo: &str) -> String {
        format!("http://{userinfo}{}", self.addr)
    }
}

impl Drop for RealProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address of this machine other than loopback, which is never reached through a proxy. Returns `None` with
/// a line on standard error if there is none.
pub fn address_of_this_machine() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing: it chooses the address that would be used (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr());
    match routed {
        Ok(address) if !address.ip().is_loopback() && !address.ip().is_unspecified() => Some(address.ip()),
        other => skipped(&format!("this machine has no address beside loopback: {other:?}")),
    }
}

fn skipped<T>(reason: &str) -> Option<T> {
    assert!(std::env::var_os("RINGLIFT_REQUIRE_PROXIES").is_none(), "{reason}");
    eprintln!("skipped: {reason}");
    None
}
